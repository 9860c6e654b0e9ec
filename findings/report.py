"""The report of a study in one file: answer, tables, figures, costs, commands to repeat it."""

import json
import shlex
from collections import Counter

from markupsafe import Markup

from core.errors import UserError
from core.files import write_csv, write_text
from findings import figures, tables
from findings.answer import write_answer
from findings.results import Results, drop_empty_columns
from laboratory import comparison, comparison_figures
from report.page import (
    Section,
    render_commands,
    render_facts,
    render_figure,
    render_page,
    render_paragraph,
    render_table,
)
from report.tables import latex, markdown
from study.planning import Plan, Study
from study.question import format_setting, format_value
from study.status import failures, raise_failures, run_folder, states

METHOD = """\
A gain is a score on the test images minus the score of the same student with the same seed and \
training budget, but without a teacher. Intervals are Student's 95 % intervals. By seed: a paired \
t test over the seeds, with Holm's correction for all settings of this table; the verdict rests on \
this test. By image: Wilcoxon's signed-rank test over the test images, each the mean over the \
seeds. It tests whether these trained networks differ, not whether newly trained ones would; its \
p-values are not corrected. Where no difference is shown, "could have seen" is the true gain that \
this test, corrected for all settings, finds in four of five such studies, if the deviation over \
the seeds is as measured, which few seeds tell roughly. The closed gap is the \
share of the difference between teacher and student alone, which counts as exact; of several \
teachers it is that with the best validation."""
SAME_TEACHERS = """\
The same teachers are used with all seeds, so the intervals do not include the effect of others."""
SOME_TEACHERS = """\
Where a teacher is not of the student's seed, the same one is used with all seeds, and the \
intervals do not include the effect of others."""
ONE_ORDER = """\
The seeds change the initial weights and dropout only: all runs get the same images in the same \
order, so the intervals over the seeds do not include the effect of other orders."""
SHUFFLED = """\
A shuffled teacher gives each image the output for another image of the batch: a gain that \
survives this is regularisation, not the teacher's knowledge."""
DECOMPOSITION = """\
e = A†A e + (I - A†A) e: the mean squared error within what the student's physics measures, and in \
its null space, which only learned knowledge of images can fill. Changes are relative to the whole \
error of the student alone, paired by seed, with 95 % intervals: negative is better."""
ADAPTATION = """\
A gain is the PSNR of an adapted student on the recorded test frames, against their truth, minus \
that of the same student as it came from the simulation. No training opened the truth, but those \
with labels oracle. A seed is a campaign of its own: other recorded scenes, other noise, another \
order of training. Of the test, the noise alone differs. Teacher and student of the simulation are \
the same for all seeds, so the intervals (Student's, 95 %) do not hold the effect of other ones."""
GAP = """\
The share of (oracle - not adapted) that is closed, in per cent, the mean over the seeds with half \
of its interval. It is empty where the oracle is less than 0.05 dB better."""
RIVALS = """\
A setting with a teacher minus the best of those without one (raw, measurements, r2r, splitting, \
sure) in the same cell, which is selected by the test itself: the hardest rival. Paired by seed; p \
by Student's t, and with Holm's correction over this table."""
CHOICES = """\
What --labels best would choose by held-out frames, among the settings with these labels and the \
student as it was, against the choice by the truth."""
CURVES = "Mean and range over the seeds; best and worst are those on validation."
EXAMPLES = "Test images, and absolute errors on one scale. "


def write_report(study: Study, plan: Plan) -> dict:
    """Writes the report and its tables, prints the results, and ends with the runs that failed."""
    results, failed = Results(study), failures(study)
    if not results.scores:
        reasons = [f"{key}: {reason}" for key, reason in list(failed.items())[:3]]
        raise UserError("; ".join([f"study {study.name}: no run is done yet", *reasons]))
    every = {
        "settings": tables.settings_table(results),
        "controls": tables.controls_table(results),
        "references": tables.references_table(results),
        "error_decomposition": tables.error_decomposition_table(results),
        "numbers": tables.numbers_table(results),
    }
    every |= adaptation_tables(results)
    folder, empty = study.folder, [name for name, rows in every.items() if not rows]
    every = {name: drop_empty_columns(rows) for name, rows in every.items() if rows}
    costs, answer = drop_empty_columns(tables.costs_table(results)), write_answer(results)
    printed = ("gains", "rivals") if "gains" in every else ("settings", "controls")
    for name in ("references", *printed):
        if name in every:
            print(f"\n{markdown(every[name])}")
    print(f"\n{answer.replace('**', '')}")
    for name in empty:  # an earlier question of this name may have had such a table
        for suffix in ("csv", "md", "tex"):
            (folder / "tables" / f"{name}.{suffix}").unlink(missing_ok=True)
    for name, rows in every.items():
        write_csv(folder / "tables" / f"{name}.csv", rows)
        if name != "numbers":
            write_text(folder / "tables" / f"{name}.md", markdown(rows) + "\n")
            write_text(folder / "tables" / f"{name}.tex", latex(rows) + "\n")
    write_csv(folder / "costs.csv", costs)
    page = build_page(results, plan, every | {"costs": costs}, answer, failed)
    write_text(folder / "report.html", page)
    print(f"{folder}/report.html, tables/*.csv, *.md, *.tex, costs.csv written")
    raise_failures(study, study.runs)
    return {
        "rows": every.get("settings", []),
        "text": answer,
        "report": str(folder / "report.html"),
    }


def build_page(
    results: Results,
    plan: Plan,
    every: dict[str, list[dict]],
    answer: str,
    failed: dict[str, str],
) -> str:
    """The page of the report."""
    study = results.study
    question = str(study.text.get("question") or f"Study {study.name}")
    parts: list[Markup | Section] = [render_paragraph(answer)]
    if len(results.done) < len(study.runs):
        counts = Counter(states(study).values())
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        parts.append(render_paragraph(f"Not all runs are done: {summary}."))
    if "gains" in every:
        parts += adaptation_sections(results, plan, every)
    elif "settings" in every:
        parts += gain_sections(results, plan, every["settings"])
    for name, heading, note in (
        ("controls", "Is it knowledge?", SHUFFLED),
        ("references", "References", ""),
        ("error_decomposition", "Error decomposition", DECOMPOSITION),
    ):
        if name in every:
            table = render_table(results.join_settings(every[name]))
            parts.append(Section(heading, table, *([render_paragraph(note)] if note else [])))
    if "gains" in every:
        parts.append(settings_section(results, plan, every["settings"], ADAPTATION))
    elif "settings" in every:
        parts += validation_sections(results, plan)
    if failed:
        rows = [{"run": key, "error": reason} for key, reason in failed.items()]
        parts.append(Section("Failed runs", render_table(rows)))
    minutes = sum(row["seconds in all"] for row in every["costs"]) / 60
    total = render_paragraph(f"Training took {minutes:.1f} minutes, summed over all runs.")
    parts.append(Section("Costs", render_table(results.join_settings(every["costs"])), total))
    commands = [repeat_command(study), *run_commands(study, plan)]
    facts = render_facts(collect_facts(results, plan))
    parts.append(Section("Reproduction", facts, render_commands(commands)))
    return render_page(question, parts)


def adaptation_tables(results: Results) -> dict[str, list[dict]]:
    """Tables of students that were adapted to recordings; none in other studies."""
    table = results.adaptations()
    return {
        "gains": comparison.gains_table(table),
        "gap_closed": comparison.gap_table(table),
        "rivals": comparison.rivals_table(comparison.compare_with_rivals(table)),
        "choices": comparison.choices_table(comparison.choices_of(table)),
    }


def adaptation_sections(
    results: Results, plan: Plan, every: dict[str, list[dict]]
) -> list[Section]:
    """Gains over the student that is not adapted, rivals, and validation without truth."""
    table, sections = results.adaptations(), []
    gains = render_table(every["gains"])
    sections.append(Section("Gain over the student that is not adapted (dB)", gains))
    for heading, figure in (
        ("How much light", comparison_figures.plot_over_light(table)),
        ("How many frames", comparison_figures.plot_over_frames(table)),
    ):
        if figure is not None:
            caption = (
                "Gain over the student that is not adapted, with 95 % intervals over the seeds. "
                "A line that leaves its panel at the bottom does much more harm than the best does "
                "good."
            )
            sections.append(Section(heading, render_figure(figure, caption, heading.lower())))
    for name, heading, note in (
        ("gap_closed", "Gap to the oracle closed (%)", GAP),
        ("rivals", "Against the best rival without a teacher", RIVALS),
        ("choices", "Validation without truth", CHOICES),
    ):
        if name in every:
            sections.append(Section(heading, render_table(every[name]), render_paragraph(note)))
    return sections + example_sections(results, plan, "where the gain on the test is largest")


def settings_section(results: Results, plan: Plan, rows: list[dict], method: str) -> Section:
    """The table of all settings."""
    marked = [k for k, row in enumerate(rows) if row.get("verdict") in tables.BETTER_OR_WORSE]
    notes = [method]
    if "data_seed" in plan.fixed:
        notes.append(ONE_ORDER)
    if identical := results.identical_settings():
        notes.append(f"Identical to the last digit: {'; '.join(identical)}.")
    table = render_table(results.join_settings(rows), marked=marked)
    return Section("Settings", table, *map(render_paragraph, notes))


def gain_sections(results: Results, plan: Plan, rows: list[dict]) -> list[Section]:
    """The table of settings, and figures of their gains."""
    shared = SOME_TEACHERS if plan.own_teachers else SAME_TEACHERS
    method = f"{METHOD} {shared}" if plan.shares_teachers else METHOD
    sections = [settings_section(results, plan, rows, method)]
    heat_maps = figures.plot_heat_maps(results)
    if heat_maps is not None:
        caption = (
            f"Mean gain over the student alone ({results.unit}); the intervals are in the table. "
            "Empty cells are not part of the study."
        )
        element = render_figure(heat_maps, caption, "gains over selection and loss")
        sections.append(Section("Selection and loss", element))
    for name, figure in figures.plot_gain_lines(results).items():
        caption = "Gain with its 95 % interval over the seeds."
        element = render_figure(figure, caption, f"gain against {name}")
        sections.append(Section(f"Gain against {name}", element))
    return sections


def validation_sections(results: Results, plan: Plan) -> list[Section]:
    """Curves and test images of a few settings, which are selected on validation."""
    curves = render_figure(figures.plot_curves(results), CURVES, "validation scores over epochs")
    sections = [Section("Curves", curves)]
    return sections + example_sections(results, plan, "which has the largest gain on validation")


def example_sections(results: Results, plan: Plan, why: str) -> list[Section]:
    """Test images and their estimates, of one run."""
    examples = figures.plot_examples(results, plan)
    if examples is None:
        return []
    run, keys = figures.example_keys(results)
    setting = ", ".join(filter(None, [format_setting(run.setting), f"seed {run.seed}"]))
    name = next(name for name, key in keys.items() if key == run.key)
    caption = f"{EXAMPLES}{name.capitalize()}: {setting}, {why}."
    return [Section("Test images", render_figure(examples, caption, "test images and errors"))]


# ---------------------------------------------------------------- reproduction


def collect_facts(results: Results, plan: Plan) -> dict[str, str]:
    """The flags that all runs share, and the versions of what they were made with."""
    study = results.study
    record = record_of(study, next(iter(results.scores)))
    facts = {
        "script": f"{plan.script}.py",
        "seeds": format_value(plan.seeds),
        "test images": str(len(next(iter(results.scores.values())))),
        "runs": f"{len(results.done)} of {len(study.runs)}",
    }
    facts |= {name: format_value(value) for name, value in plan.fixed.items()}
    facts |= {name: str(value) for name, value in record.get("versions", {}).items()}
    return facts | code_of(results)


def code_of(results: Results) -> dict[str, str]:
    """The commits that trained the runs, where their folders say so."""
    records = [record_of(results.study, key) for key in results.scores]
    codes = dict.fromkeys(record.get("versions", {}).get("code") for record in records)
    known = [code for code in codes if code is not None]
    return {"code": ", ".join(known)} if known else {}


def record_of(study: Study, key: str) -> dict:
    """What the folder of a run says of it."""
    return json.loads((run_folder(study, key) / "run.json").read_text())


def repeat_command(study: Study) -> str:
    """The command that does the whole study again."""
    words = [str(study.folder / "study.yml"), "--name", study.name]
    words += ["--results", str(study.folder.parents[1])]
    return f"python sweep.py {shlex.join(words)}"


def run_commands(study: Study, plan: Plan) -> list[str]:
    """The command of every run."""
    return [
        f"python {run.script}.py {shlex.join(plan.command_line(run))}"
        for run in study.runs.values()
    ]
