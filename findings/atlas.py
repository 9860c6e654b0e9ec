"""The report of an atlas: one table and one picture of settings from several studies."""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from core.errors import UserError, in_a_line
from core.files import write_csv, write_text
from findings.report import code_of
from findings.results import UNITS, WITH_GAIN, Results
from findings.tables import count_tested, format_detectable, format_spread
from report import figures
from report.page import (
    Section,
    render_facts,
    render_figure,
    render_page,
    render_paragraph,
    render_table,
)
from report.statistics import HARMS, HELPS, UNCLEAR, UNTESTED, Summary, holm, verdict
from report.tables import format_p, latex, markdown
from study.parts import Part, Row
from study.planning import PlannedRun, Study
from study.question import format_setting

COMPARED = (*WITH_GAIN, "trained")  # roles of runs that a row may name
COLORS = {HELPS: figures.COLORS[2], HARMS: figures.COLORS[1]}
LINE = 52  # letters of a line of a row's name in the picture
DIGITS = {"dB": 2, "points": 1}  # behind the point of a gain in the picture
METHOD = """\
A gain is the mean score on the test images minus that of the same student with the same seed that \
had no teacher (of recordings: that was not adapted). In a row with "over" it is that minus the \
score of the setting that is named there. Intervals are Student's 95 % intervals over the seeds. p \
is that of a paired t test over the seeds, with Holm's correction for all rows of this table; the \
verdict rests on it. Where no difference is shown, "could have seen" is the true gain that this \
test finds in four of five such studies, if the deviation over the seeds is as measured. \
"Shuffled" is the gain with a teacher that answers for other images."""


@dataclass(frozen=True)
class Entry:
    """A row of the atlas: a setting that is done, and what it gained."""

    missing: str
    name: str
    study: str
    over: str  # what it is compared with, where that is not the student alone
    unit: str
    before: list[float]  # the scores that it is compared with
    after: list[float]
    gain: Summary
    shuffled: Summary | None


def check_rows(parts: list[tuple[Part, Study]]) -> None:
    """Refuses rows that do not name one setting of their study."""
    for part, study in parts:
        for row in part.rows:
            runs = chosen_runs(study, row.where, COMPARED, row)
            if row.over:
                chosen_runs(study, row.over, COMPARED, row)
            elif runs[0].role == "trained":
                raise UserError(
                    f"atlas: row '{in_a_line(row.name)}': study {study.name} has no student alone: "
                    "say by 'over' what the setting is compared with"
                )


def write_atlas(question: str, parts: list[tuple[Part, Study]], folder: Path) -> dict:
    """Writes table, picture and page of all rows that are done, and prints the table."""
    entries = [entry for part, study in parts for entry in entries_of(part, study)]
    if not entries:
        raise UserError(f"atlas {folder.name}: none of its rows is done yet")
    verdicts, rows = atlas_table(entries)
    print(f"\n{markdown(rows)}")
    wanted = sum(len(part.rows) for part, _ in parts)
    answer = describe_verdicts(entries, verdicts, wanted)
    print(f"\n{answer.replace('**', '')}")
    write_csv(folder / "atlas.csv", rows)
    write_text(folder / "atlas.md", markdown(rows) + "\n")
    write_text(folder / "atlas.tex", latex(rows) + "\n")
    figure = plot_atlas(entries, verdicts)
    figures.save_figure(figure, folder / "atlas.png")
    caption = "Gain with its 95 % interval over the seeds, by what was missing."
    studies = {study.name: describe_study(study) for _, study in parts}
    marked = [k for k, one in enumerate(verdicts) if one in (HELPS, HARMS)]
    page = render_page(
        question,
        [
            render_paragraph(answer),
            render_figure(plot_atlas(entries, verdicts), caption, "gains of all rows"),
            Section("Gains", render_table(rows, marked=marked), render_paragraph(METHOD)),
            Section("Studies", render_facts(studies)),
        ],
    )
    write_text(folder / "report.html", page)
    print(f"{folder}/report.html, atlas.csv, atlas.md, atlas.tex, atlas.png written")
    return {"rows": rows, "text": answer, "report": str(folder / "report.html")}


def describe_study(study: Study) -> str:
    """Where the report of a study is, and the commits that trained its runs."""
    path, code = str(study.folder / "report.html"), code_of(Results(study)).get("code")
    return f"{path}, commit {code}" if code else path


def entries_of(part: Part, study: Study) -> list[Entry]:
    """The rows of a study that are done."""
    results = Results(study)
    entries = []
    for row in part.rows:
        runs = done_runs(results, row.where, COMPARED, row)
        over = done_runs(results, row.over, COMPARED, row) if row.over else []
        pairs = paired_keys(runs, over) if row.over else results.pairs(runs)
        gain = results.difference(pairs)
        if gain is None:
            continue
        shuffled = [] if row.over else done_runs(results, row.where, ("shuffled",), row)
        first, second = ([results.mean(pair[k]) for pair in pairs] for k in (0, 1))
        unit = UNITS[results.metric]
        control = results.gain(shuffled) if shuffled else None
        over_what = format_setting(row.over)
        entries.append(
            Entry(part.missing, row.name, study.name, over_what, unit, second, first, gain, control)
        )
    return entries


def done_runs(results: Results, where: dict, roles: tuple[str, ...], row: Row) -> list[PlannedRun]:
    runs = chosen_runs(results.study, where, roles, row)
    return [run for run in runs if run.key in results.done]


def chosen_runs(study: Study, where: dict, roles: tuple[str, ...], row: Row) -> list[PlannedRun]:
    """The runs of the one setting with these values; of controls there may be none."""
    settings: dict[str, list[PlannedRun]] = {}
    for run in study.with_role(*roles):
        settings.setdefault(format_setting(run.setting), []).append(run)
    named = {
        setting: runs
        for setting, runs in settings.items()
        if all(runs[0].setting.get(name) == value for name, value in where.items())
    }
    if len(named) > 1 or (not named and "shuffled" not in roles):
        by = f" by {in_a_line(format_setting(where))}" if where else ""
        raise UserError(
            f"atlas: row '{in_a_line(row.name)}' names {len(named)} settings of study "
            f"{study.name}{by}; it has: {'; '.join(named or settings)}"
        )
    runs = [run for runs in named.values() for run in runs]
    assert len({run.seed for run in runs}) == len(runs), "a setting has a run of each seed"
    return runs


def paired_keys(runs: list[PlannedRun], others: list[PlannedRun]) -> list[tuple[str, str]]:
    """The keys of runs with the same seed."""
    by_seed = {run.seed: run.key for run in others}
    return [(run.key, by_seed[run.seed]) for run in runs if run.seed in by_seed]


def atlas_table(entries: list[Entry]) -> tuple[list[str], list[dict]]:
    """The verdicts, and the cells, of all rows."""
    corrected = holm([entry.gain.p for entry in entries])
    verdicts = [verdict(entry.gain, p) for entry, p in zip(entries, corrected, strict=True)]
    rows = []
    for entry, p, found in zip(entries, corrected, verdicts, strict=True):
        rows.append(
            {
                "missing": entry.missing,
                "setting": entry.name,
                "over": entry.over,
                "without": format_spread(entry.before),
                "with": format_spread(entry.after),
                "unit": entry.unit,
                "gain": str(entry.gain),
                "p (Holm)": format_p(p),
                "verdict": found,
                "could have seen": format_detectable(entry.gain, p, count_tested(corrected)),
                "shuffled": "" if entry.shuffled is None else str(entry.shuffled),
                "study": entry.study,
            }
        )
    return verdicts, rows


def describe_verdicts(entries: list[Entry], verdicts: list[str], wanted: int) -> str:
    """How many rows help, and where."""
    helping: dict[str, None] = {
        entry.missing: None
        for entry, found in zip(entries, verdicts, strict=True)
        if found == HELPS
    }
    helps, harms, unclear, untested = map(verdicts.count, (HELPS, HARMS, UNCLEAR, UNTESTED))
    answer = (
        f"Of {len(entries)} rows, **{helps} help, {harms} harm, and {unclear} show no difference** "
        "(paired t test over the seeds, Holm's correction over all rows, level 5 %)."
    )
    if untested:
        answer += f" {untested} could not be tested: a test needs the gains of two seeds."
    if helping:
        answer += f" Help was found where this was missing: {', '.join(helping)}."
    if len(entries) < wanted:
        answer += f" {wanted - len(entries)} rows are not done yet."
    return answer


def plot_atlas(entries: list[Entry], verdicts: list[str]) -> Figure:
    """Every gain with its interval, in numbers too; a panel for each unit."""
    units = list(dict.fromkeys(entry.unit for entry in entries))
    counts = [sum(entry.unit == unit for entry in entries) for unit in units]
    height = 0.9 * len(units) + 0.4 * len(entries)
    figure, axes = plt.subplots(
        len(units),
        1,
        figsize=(figures.WIDE, height),
        height_ratios=counts,
        squeeze=False,
        layout="constrained",
    )
    for axis, unit in zip(axes.flat, units, strict=True):
        chosen = [
            (entry, found)
            for entry, found in zip(entries, verdicts, strict=True)
            if entry.unit == unit
        ]
        numbers = axis.secondary_yaxis("right")
        texts = []
        for k, (entry, found) in enumerate(chosen):
            gain, color = entry.gain, COLORS.get(found, "#666666")
            half = 0 if math.isnan(gain.high) else gain.high - gain.mean
            filled = color if found in COLORS else "white"
            axis.errorbar(
                gain.mean, k, xerr=half, marker="o", mfc=filled, capsize=3, color=color, ls="none"
            )
            digits = DIGITS[unit]
            spread = f" ± {half:.{digits}f}" if half else ""
            texts.append(f"{gain.mean:+.{digits}f}{spread}")
        names = [textwrap.fill(f"{entry.missing}: {entry.name}", LINE) for entry, _ in chosen]
        axis.set_yticks(range(len(chosen)), names)
        numbers.set_yticks(range(len(chosen)), texts)
        axis.set_ylim(len(chosen) - 0.5, -0.5)
        axis.axvline(0, color="black", lw=0.8, ls="-")
        axis.set_xlabel(f"gain ({unit}); a ring: no difference shown")
        axis.grid(axis="x")
    return figure
