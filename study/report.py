"""The report of a study: its answer, tables with intervals, pictures, costs and the commands that repeat it, in one file."""

import json
import math
import shlex
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from core.errors import UserError
from core.files import write_csv, write_text
from data.batches import build_loader
from models.base import FirstImage
from report import figures, page
from report.statistics import Said
from report.tables import latex, markdown
from study import results
from study.costs import estimate
from study.planning import Plan, Planned, Study, label, without
from study.results import Findings
from study.scoring import NOISE_SEED, held_out
from study.workers import DONE, complain, failures, in_words, run_folder, states
from training.cache import Views
from training.checkpoint import restore_with_physics
from training.loop import outputs

LINES = 6  # in a panel
ONE_ORDER = (
    "The seeds draw first weights and dropout alone: all runs get the same images in the same order, "
    "so intervals over the seeds say nothing of other orders."
)
METHOD = (
    "A gain is a score on the test images minus that of the same student, seed and budget without a teacher. Intervals are Student's, 95 %. "
    "By seed: a paired t test over the seeds, corrected after Holm for all settings of this table; the verdict is this one. "
    "By image: Wilcoxon's signed ranks over the test images, each the mean over the seeds: it says whether the networks at hand differ, "
    "not whether others would; its probabilities are not corrected. The share of the gap is that between the student alone and its teacher, "
    "which is taken as known. One teacher teaches all seeds."
)
SHUFFLED = "A shuffled teacher tells each image what it makes of another one of the batch: a gain that survives this is regularisation."
PARTS = (
    "e = A†A e + (I - A†A) e: the mean squared error within what the student's camera measures, and in its null space, which only what was learnt "
    "of images can fill. Changes are of the student alone's whole error, paired by seed, with 95 % intervals: negative is better."
)


# ---------------------------------------------------------------- figures


def tested(found: Findings) -> list[tuple[list[Planned], Said]]:
    """Settings whose gain has an interval."""
    groups = ((runs, found.gain(runs)) for runs in found.groups("distilled").values())
    return [(runs, gain) for runs, gain in groups if gain and gain.n > 1]


def heat_maps(found: Findings) -> plt.Figure | None:
    """Gain over selection and loss, a map for each of the other settings; none where they do not both vary."""
    groups = [
        (runs, gain)
        for runs, gain in tested(found)
        if {"type_dist", "loss_distill"} <= runs[0].setting.keys()
    ]
    if not groups:
        return None
    rest = {
        tuple(
            (k, label(v))
            for k, v in runs[0].setting.items()
            if k not in ("type_dist", "loss_distill")
        )
        for runs, _ in groups
    }
    rows, columns = (
        list(dict.fromkeys(label(runs[0].setting[name]) for runs, _ in groups))
        for name in ("type_dist", "loss_distill")
    )
    figure, axes = figures.panels(len(rest), 1, 2.6 + 0.6 * len(columns), 1.1 + 0.36 * len(rows))
    top = max(abs(gain.mean) for _, gain in groups) or 1.0
    for axis, others in zip(axes, sorted(rest), strict=True):
        grid = np.full((len(rows), len(columns)), np.nan)
        for runs, gain in groups:
            if (
                tuple(
                    (k, label(v))
                    for k, v in runs[0].setting.items()
                    if k not in ("type_dist", "loss_distill")
                )
                == others
            ):
                grid[
                    rows.index(label(runs[0].setting["type_dist"])),
                    columns.index(label(runs[0].setting["loss_distill"])),
                ] = gain.mean
        picture = axis.imshow(grid, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        for i, j in zip(*np.nonzero(~np.isnan(grid)), strict=True):
            axis.text(
                j,
                i,
                f"{grid[i, j]:+.2f}",
                ha="center",
                va="center",
                fontsize=figures.SMALLEST,
                color="white" if abs(grid[i, j]) > 0.6 * top else "black",
            )
        axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axis.set_yticks(range(len(rows)), rows)
        axis.set_title(", ".join(f"{k} {v}" for k, v in others))
    figure.colorbar(picture, ax=axes, label=f"gain ({found.unit})")
    return figure


def number(value) -> float | None:
    """A setting as a place on an axis; none of a word, a switch, a list or nothing."""
    try:
        return None if isinstance(value, bool | list | None) else float(value)
    except ValueError:
        return None


def named(setting: dict) -> str:
    """A setting in words."""
    return ", ".join(f"{name} {label(value)}" for name, value in setting.items())


def parted(found: Findings, runs: list[Planned]) -> tuple[dict, dict]:
    """What a setting says of the student, which it has alone too, and the rest of it."""
    setting, own = runs[0].setting, found.study.runs[runs[0].alone].setting
    return own, {name: value for name, value in setting.items() if name not in own}


Panels = dict[
    str, dict[str, list]
]  # of students, their lines, and the points (value, gain) of these


def gain_lines(found: Findings) -> dict[str, plt.Figure]:
    """Gain with its interval over every number that varies, a panel for each student and a line for each of the other settings."""
    drawn, groups = {}, tested(found)
    for name in dict.fromkeys(name for runs, _ in groups for name in runs[0].setting):
        students: Panels = {}
        for runs, gain in groups:
            value = number(runs[0].setting.get(name))
            if value is not None:
                student, line = (named(without(part, name)) for part in parted(found, runs))
                students.setdefault(student, {}).setdefault(line, []).append((value, gain))
        points = [point for lines in students.values() for line in lines.values() for point in line]
        if len({value for value, _ in points}) > 1:
            drawn[name] = draw_gains(found, name, few_lines(students))
    return drawn


def few_lines(students: Panels) -> Panels:
    """The lines of a student in panels of their own where one panel cannot hold them."""
    panels: Panels = {}
    for student, lines in students.items():
        if len(lines) <= LINES:
            panels[student] = lines
        else:
            for line, points in lines.items():
                panels[", ".join(filter(None, (student, line)))] = {"": points}
    return panels


def draw_gains(found: Findings, name: str, students: Panels) -> plt.Figure:
    """Panels with one scale of gains; the bars of lines stand beside each other."""
    figure, axes = figures.panels(len(students), 2, figures.NARROW, 2.7)
    every = [line for lines in students.values() for line in lines.values()]
    values = sorted({value for line in every for value, _ in line})
    low = min(gain.low for line in every for _, gain in line)
    high = max(gain.high for line in every for _, gain in line)
    for axis, (student, lines) in zip(axes, students.items(), strict=True):
        for k, (line, points) in enumerate(lines.items()):
            points = sorted(points, key=lambda point: point[0])
            shift = (k - (len(lines) - 1) / 2) * 0.6 / len(lines)
            x = [values.index(value) + shift for value, _ in points]
            half = [gain.high - gain.mean for _, gain in points]
            y = [gain.mean for _, gain in points]
            axis.errorbar(x, y, half, marker="osD^v<"[k % 6], capsize=3, label=line or None)
        axis.axhline(0, color="black", lw=0.8, ls="-")
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.set(xlabel=name, ylabel=f"gain over the student alone ({found.unit})")
        axis.set(title=f"student: {student}" if student else "", xlim=(-0.5, len(values) - 0.5))
        room = (high - low) * (0.4 if any(lines) else 0.05)  # of the legend above the bars
        axis.set_ylim(low - 0.05 * (high - low), high + room)
        if any(lines):
            axis.legend(loc="upper right")
        axis.grid()
    return figure


def chosen(found: Findings) -> dict[str, list[list[Planned]]]:
    """The settings of every student from the worst to the best on validation, which is not what is reported."""
    students: dict[str, list[list[Planned]]] = {}
    for runs in sorted(found.groups("distilled").values(), key=found.validation):
        students.setdefault(named(parted(found, runs)[0]), []).append(runs)
    return dict(sorted(students.items()))


def alone_of(found: Findings, runs: list[Planned]) -> list[Planned]:
    """The same students without a teacher, as far as they are done."""
    return [found.done[run.alone] for run in runs if run.alone in found.done]


def curves(found: Findings) -> plt.Figure:
    """Validation scores over the training, a panel for each student: mean over the seeds, and from the least to the most of them."""
    students = chosen(found)
    figure, axes = figures.panels(len(students), 2, figures.NARROW, 2.9)
    for axis, (student, groups) in zip(axes, students.items(), strict=True):
        shown = {"student alone": alone_of(found, groups[-1])}
        for word, runs in {"worst": groups[0], "best": groups[-1]}.items():
            setting = named(parted(found, runs)[1])
            shown[f"{word}: {setting}" if len(groups) > 1 else setting or "distilled"] = runs
        for k, (name, runs) in enumerate(shown.items()):
            if runs:
                draw_runs(axis, found, runs, name, k)
        axis.set_ylabel(f"validation {found.name} ({found.unit})")
        axis.set_title(f"student: {student}" if student else "")
        axis.legend()
        axis.grid()
    return figure


def draw_runs(axis: plt.Axes, found: Findings, runs: list[Planned], name: str, k: int) -> None:
    """The validation scores of runs that differ in their seeds."""
    read = [
        json.loads((run_folder(found.study, run.key) / "metrics.json").read_text()) for run in runs
    ]
    epochs = [row["epoch"] for row in read[0]]
    scores = np.array([[row[f"val_{found.metric}"] for row in rows] for rows in read])
    how = {"color": figures.COLORS[k], "ls": figures.DASHES[k]}
    axis.plot(epochs, scores.mean(0), marker=".", label=name, **how)
    figures.set_epoch_ticks(axis, epochs)
    axis.fill_between(epochs, scores.min(0), scores.max(0), color=how["color"], alpha=0.15, lw=0)


def shown_run(found: Findings) -> Planned:
    """The run whose setting gains most over the student alone on validation."""

    def lead(runs: list[Planned]) -> float:
        alone = alone_of(found, runs)
        return found.validation(runs) - found.validation(alone) if alone else -math.inf

    return max((groups[-1] for groups in chosen(found).values()), key=lead)[0]


@torch.no_grad()
def pictures(found: Findings, plan: Plan, count: int = 3) -> plt.Figure | None:
    """Some test images, estimates of them, and their errors on one scale."""
    run = shown_run(found)
    if found.metric != "psnr" or not {run.alone, run.teacher} <= found.done.keys():
        return None
    args = plan.script_of(run.script).parse(plan.words(run))
    keys = {"student alone": run.alone, "distilled": run.key, "teacher": run.teacher}
    restored = {
        name: restore_with_physics(run_folder(found.study, key) / "best.pth", {})
        for name, key in keys.items()
    }
    images = held_out(restored["student alone"], args, found.study.limit_test)
    seen = {
        "first image": (
            FirstImage(images[0]["image"].shape[0]),
            restored["student alone"].physics.parts[0],
        )
    }
    seen |= {name: (one.network, one.physics.parts[0]) for name, one in restored.items()}
    truth, estimates = None, {}
    for name, (network, camera) in seen.items():
        batch, _, output = next(
            iter(
                outputs(
                    network,
                    Views(camera, build_loader(images, 200), torch.device("cpu"), NOISE_SEED),
                )
            )
        )
        truth, estimates[name] = batch["image"], output
    places = figures.select_detailed(truth, count)
    columns = {name: output[places] for name, output in estimates.items()}
    return figures.plot_grid(columns, truth[places], figures.psnr_notes(columns, truth[places]))


# ---------------------------------------------------------------- the report


def tell(study: Study, plan: Plan) -> dict:
    """Writes the report and its tables, prints what is found, and complains of what failed."""
    found, bad = Findings(study), failures(study)
    if not found.done:
        raise UserError(
            "; ".join(
                [
                    f"study {study.name}: no run is done yet",
                    *(f"{key}: {why}" for key, why in list(bad.items())[:3]),
                ]
            )
        )
    tables = {
        "settings": results.settings(found),
        "controls": results.controls(found),
        "references": results.references(found),
        "ledger": results.ledger(found),
        "numbers": results.numbers(found),
    }
    tables = {name: filled(rows) for name, rows in tables.items() if rows}
    costs, text = filled(results.costs(found)), results.answer(found)
    for name in ("references", "settings", "controls"):
        if name in tables:
            print(f"\n{markdown(tables[name])}")
    print(f"\n{text.replace('**', '')}")
    for name, rows in tables.items():
        write_csv(study.folder / "tables" / f"{name}.csv", rows)
        if name != "numbers":
            write_text(study.folder / "tables" / f"{name}.md", markdown(rows) + "\n")
            write_text(study.folder / "tables" / f"{name}.tex", latex(rows) + "\n")
    write_csv(study.folder / "costs.csv", costs)
    write_text(study.folder / "report.html", html(found, plan, tables, costs, text, bad))
    print(f"{study.folder}/report.html, tables/*.csv, *.md, *.tex, costs.csv written")
    complain(study, study.runs)
    return {
        "rows": tables.get("settings", []),
        "text": text,
        "report": str(study.folder / "report.html"),
    }


def filled(rows: list[dict]) -> list[dict]:
    """Rows without the columns in which nothing stands."""
    empty = {name for row in rows for name in row} - {
        name for row in rows for name, value in row.items() if value is not None
    }
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def html(
    found: Findings,
    plan: Plan,
    tables: dict[str, list[dict]],
    costs: list[dict],
    text: str,
    bad: dict[str, str],
) -> str:
    """The report as one file."""
    study, counts = found.study, Counter(states(found.study).values())
    question = str(study.text.get("question") or f"What does {plan.script}.py give?")
    parts = [page.paragraph(text)]
    if set(counts) != {DONE}:
        parts.append(
            page.paragraph(
                f"Not all runs are done: {', '.join(f'{count} {state}' for state, count in counts.items())}."
            )
        )
    parts += gained(found, plan, tables["settings"]) if "settings" in tables else []
    for name, heading, more in (
        ("controls", "Is it knowledge?", SHUFFLED),
        ("references", "References", ""),
        ("ledger", "Where the error lies", PARTS),
    ):
        if name in tables:
            parts.append(
                page.section(
                    heading,
                    page.table(found.first(tables[name])),
                    *([page.paragraph(more)] if more else []),
                )
            )
    parts += seen(found, plan) if "settings" in tables else []
    if bad:
        parts.append(
            page.section(
                "What failed", page.table([{"run": key, "why": why} for key, why in bad.items()])
            )
        )
    minutes = f"{sum(row['all'] for row in costs) / 60:.1f} minutes of training in all, by one process or several."
    parts.append(page.section("Costs", page.table(found.first(costs)), page.paragraph(minutes)))
    parts.append(
        page.section(
            "To repeat it",
            page.facts(told(found, plan)),
            page.commands([said_again(study), *lines(study, plan)]),
        )
    )
    return page.page(question, parts)


def gained(found: Findings, plan: Plan, rows: list[dict]) -> list[str]:
    """The settings, and their gains drawn."""
    marked = [k for k, row in enumerate(rows) if row.get("said") in ("helps", "harms")]
    notes = [
        page.paragraph(METHOD),
        *([page.paragraph(ONE_ORDER)] if "data_seed" in plan.fixed else []),
    ]
    same = results.twins(found)
    notes += [page.paragraph(f"The same to the last digit: {'; '.join(same)}.")] if same else []
    parts, drawn = (
        [page.section("Settings", page.table(found.first(rows), marked=marked), *notes)],
        heat_maps(found),
    )
    if drawn is not None:
        caption = f"Mean gain over the student alone ({found.unit}); its interval is in the table. Empty: not asked."
        parts.append(
            page.section(
                "Selection and loss", page.figure(drawn, caption, "gains over selection and loss")
            )
        )
    for name, figure in gain_lines(found).items():
        parts.append(
            page.section(
                f"Gain against {name}",
                page.figure(
                    figure, "Gain with its 95 % interval over the seeds.", f"gain against {name}"
                ),
            )
        )
    return parts


def seen(found: Findings, plan: Plan) -> list[str]:
    """Curves and pictures of a few settings, which are chosen on validation."""
    caption = "Mean over the seeds, and the range of these; best and worst are those of validation."
    parts, drawn = (
        [
            page.section(
                "Curves", page.figure(curves(found), caption, "validation scores over epochs")
            )
        ],
        pictures(found, plan),
    )
    if drawn is not None:
        run = shown_run(found)
        caption = "Test images, and absolute errors on one scale. "
        caption += f"Distilled: {in_words(run)}, seed {run.seed}, which gains most on validation."
        parts.append(
            page.section("Pictures", page.figure(drawn, caption, "test images and errors"))
        )
    return parts


def told(found: Findings, plan: Plan) -> dict[str, str]:
    """What all runs share, and with what they were made."""
    record = json.loads((run_folder(found.study, next(iter(found.done))) / "run.json").read_text())
    first = next(iter(found.scores.values()))
    shared = {name: label(value) for name, value in plan.fixed.items()}
    about = {
        "script": f"{plan.script}.py",
        "seeds": label(plan.seeds),
        "test images": str(len(first)),
        "runs": f"{len(found.done)} of {len(found.study.runs)}",
    }
    return (
        about
        | shared
        | {name: str(value) for name, value in record.get("versions", {}).items()}
        | commit()
    )


def commit() -> dict[str, str]:
    """The commit of this checkout, where git can tell it."""
    words = ["git", "-C", str(Path(__file__).parents[1]), "describe", "--always", "--dirty"]
    with suppress(OSError):
        told = subprocess.run(words, capture_output=True, text=True)
        return {"code": told.stdout.strip()} if told.returncode == 0 else {}
    return {}


def said_again(study: Study) -> str:
    words = [
        str(study.folder / "study.yml"),
        "--name",
        study.name,
        "--results",
        str(study.folder.parents[1]),
    ]
    return f"python sweep.py {shlex.join(words)}"


def lines(study: Study, plan: Plan) -> list[str]:
    """The command of every run."""
    return [f"python {run.script}.py {shlex.join(plan.words(run))}" for run in study.runs.values()]


def tell_costs(study: Study, plan: Plan, jobs: int) -> dict:
    """Prints the runs and what they may cost."""
    found = states(study)
    costs = {
        key: seconds for key, seconds in estimate(study, plan).items() if not math.isnan(seconds)
    }
    rows: dict[str, dict] = {}
    for number, keys in enumerate(study.jobs):
        run = study.runs[keys[0]]
        row = {
            "job": number,
            "": in_words(run),
            "seeds": " ".join(str(study.runs[key].seed) for key in keys),
        }
        rows[keys[0]] = row | {
            "about (s)": round(sum(map(costs.get, keys)), 1) if costs.keys() >= set(keys) else None,
            "state": ", ".join(dict.fromkeys(found[key] for key in keys)),
        }
    print(markdown(list(rows.values())))
    left = [key for key in study.runs if found[key] != DONE]
    minutes, unknown = (
        sum(costs.get(key, 0) for key in left) / 60,
        sum(key not in costs for key in left),
    )
    beside = f", and {unknown} runs that cannot be timed beforehand" if unknown else ""
    print(
        f"{len(study.runs)} runs in {len(study.jobs)} jobs, {len(left)} not done; about {minutes:.1f} minutes of work, "
        f"{minutes / min(jobs, len(study.jobs)):.1f} with {jobs} jobs at a time{beside}; to be written to {study.folder}"
    )
    return {"runs": len(study.runs), "minutes": minutes}
