"""Draws docs/atlas.png from the table of docs/atlas.md: `python -m docs.make_atlas`."""

import re
from pathlib import Path

from findings.atlas import Entry, plot_atlas
from report import figures
from report.statistics import HARMS, HELPS, UNCLEAR, Summary

FOLDER = Path(__file__).parent
GAIN = re.compile(r"([+-]?[\d.]+) ± ([\d.]+) (dB|points)")


def rows_of_table(text: str) -> list[dict[str, str]]:
    """The rows of the page's first table, by the names of its columns."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head, _, *rows = cells
    return [dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)]


def entry_of(row: dict[str, str]) -> tuple[Entry, str]:
    """A row as the atlas of a study has it, and its verdict."""
    found = GAIN.search(row["gain"])
    assert found, f"a gain with its interval, not {row['gain']}"
    mean, half, unit = float(found[1]), float(found[2]), found[3]
    gain = Summary(mean, float("nan"), int(row["n"]), mean - half, mean + half)
    verdict = UNCLEAR
    if row["gain"].startswith("**"):  # clear of zero after Holm's correction
        verdict = HELPS if mean > 0 else HARMS
    name = row["who learns, from whom"].replace("`", "")
    return Entry(row["missing"], name, row["study"], "", unit, [], [], gain, None), verdict


def main() -> None:
    pairs = [entry_of(row) for row in rows_of_table((FOLDER / "atlas.md").read_text())]
    entries, verdicts = ([pair[k] for pair in pairs] for k in (0, 1))
    figures.save_figure(plot_atlas(entries, verdicts), FOLDER / "atlas.png")
    print("atlas.png written")


if __name__ == "__main__":
    main()
