"""Completes the table of docs/atlas.md and draws it as docs/atlas.png: `python -m docs.make_atlas`.

A row has its gain, its 95 % interval and its number of seeds. From these come its p, with Holm's
correction over every gain with an interval on the page, and the gain that could have been seen.
"""

import math
import re
from pathlib import Path

from scipy import stats

from findings.atlas import Entry, plot_atlas
from report import figures
from report.statistics import HARMS, HELPS, LEVEL, UNCLEAR, Summary, detectable, holm
from report.tables import format_p

FOLDER = Path(__file__).parent
GAIN = re.compile(r"([+-]?[\d.]+) ± ([\d.]+) (dB|points)")
INTERVAL = re.compile(r"[+-]?\d[\d.]* ± \d")
DIGITS = {"dB": 2, "points": 1}  # of the gain that could have been seen


def table_lines(text: str) -> list[str]:
    """The lines of the page's first table."""
    lines = text.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("|"))
    last = next(k for k in range(first, len(lines)) if not lines[k].startswith("|"))
    return lines[first:last]


def rows_of_table(text: str) -> list[dict[str, str]]:
    """The rows of the page's first table, by the names of its columns."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table_lines(text)]
    head, _, *rows = cells
    return [dict(zip(head, row, strict=True)) for row in rows]


def gain_of(row: dict[str, str]) -> tuple[Summary, str]:
    """The gain of a row and its unit; the deviation over the seeds is that of its interval."""
    found = GAIN.search(row["gain"])
    assert found, f"a gain with its interval, not {row['gain']}"
    mean, half, n = float(found[1]), float(found[2]), int(row["n"])
    std = half * math.sqrt(n) / float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return Summary(mean, std, n, mean - half, mean + half), found[3]


def p_of(gain: Summary) -> float:
    """Student's two-sided p of a gain."""
    t = abs(gain.mean) / (gain.std / math.sqrt(gain.n))
    return float(2 * stats.t.sf(t, gain.n - 1))


def number_of_gains(text: str) -> int:
    """How many gains with an interval the page has, in its table and elsewhere."""
    return len(INTERVAL.findall(text))


def complete(text: str) -> str:
    """The page with the columns of its table that follow from gain, interval and seeds.

    Gains outside the table count among the tests, as if their p were 1.
    """
    rows, tests = rows_of_table(text), number_of_gains(text)
    gains = [gain_of(row) for row in rows]
    corrected = holm([p_of(gain) for gain, _ in gains] + [1.0] * (tests - len(rows)))
    lines = table_lines(text)
    for line, row, (gain, unit), p in zip(
        lines[2:], rows, gains, corrected[: len(rows)], strict=True
    ):
        shown, words = p < 1 - LEVEL, row["gain"].strip("*")
        seen = f"{detectable(gain.std, gain.n, tests):.{DIGITS[unit]}f}"
        row |= {
            "gain": f"**{words}**" if shown else words,
            "p": format_p(p),
            "could have seen": "" if shown else seen,
        }
        text = text.replace(line, f"| {' | '.join(row.values())} |")
    return re.sub(r"\d+ gains", f"{tests} gains", text, count=1)


def entry_of(row: dict[str, str]) -> tuple[Entry, str]:
    """A row as the atlas of a study has it, and its verdict."""
    gain, unit = gain_of(row)
    verdict = UNCLEAR
    if row["gain"].startswith("**"):  # clear of zero after Holm's correction
        verdict = HELPS if gain.mean > 0 else HARMS
    name = row["who learns, from whom"].replace("`", "")
    return Entry(row["missing"], name, row["study"], "", unit, [], [], gain, None), verdict


def main() -> None:
    page = FOLDER / "atlas.md"
    text = complete(page.read_text())
    page.write_text(text)
    pairs = [entry_of(row) for row in rows_of_table(text)]
    figure = plot_atlas([entry for entry, _ in pairs], [verdict for _, verdict in pairs])
    figures.save_figure(figure, FOLDER / "atlas.png")
    print("the table of atlas.md, and atlas.png, written")


if __name__ == "__main__":
    main()
