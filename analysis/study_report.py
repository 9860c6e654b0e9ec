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

from algo_functions import psnr
from analysis import findings, page
from analysis.costs import estimate
from analysis.findings import Findings
from analysis.report import latex, markdown
from analysis.scoring import NOISE_SEED, held_out
from analysis.statistics import Said
from batches import build_loader
from files import write_csv, write_text
from models.base import AsSeen
from tables import UserError
from training.checkpoint import restore_with_physics
from training.loop import outputs
from training.memory import Views
from training.study import Plan, Planned, Study, label
from training.workers import DONE, complain, failures, in_words, run_folder, states

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
    figure, axes = plt.subplots(
        len(rest),
        1,
        figsize=(1.8 + 0.75 * len(columns), (1 + 0.36 * len(rows)) * len(rest)),
        squeeze=False,
    )
    top = max(abs(gain.mean) for _, gain in groups) or 1.0
    for axis, others in zip(axes[:, 0], sorted(rest), strict=True):
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
        axis.imshow(grid, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        for i, j in zip(*np.nonzero(~np.isnan(grid)), strict=True):
            axis.text(
                j,
                i,
                f"{grid[i, j]:+.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if abs(grid[i, j]) > 0.6 * top else "black",
            )
        axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right", fontsize=8)
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
        axis.set_title(", ".join(f"{k} {v}" for k, v in others), fontsize=9)
    return figure


def number(value) -> float | None:
    """A setting as a place on an axis; none of a word, a switch, a list or nothing."""
    try:
        return None if isinstance(value, bool | list | None) else float(value)
    except ValueError:
        return None


def gain_lines(found: Findings) -> dict[str, plt.Figure]:
    """Gain with its interval over every number that varies, a line for each of the other settings."""
    drawn, groups = {}, tested(found)
    for name in dict.fromkeys(name for runs, _ in groups for name in runs[0].setting):
        curves: dict[str, list] = {}
        for runs, gain in groups:
            value = number(runs[0].setting.get(name))
            if value is not None:
                others = ", ".join(
                    f"{k} {label(v)}" for k, v in runs[0].setting.items() if k != name
                )
                curves.setdefault(others, []).append((value, gain))
        if len({value for points in curves.values() for value, _ in points}) < 2:
            continue
        figure, axis = plt.subplots(figsize=(5.2, 3.4))
        for k, (others, points) in enumerate(curves.items()):
            x, gains = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            half = [gain.high - gain.mean for gain in gains]
            axis.errorbar(
                x,
                [gain.mean for gain in gains],
                half,
                marker="o",
                ms=4,
                capsize=3,
                lw=1,
                label=others if k < 8 else None,
                alpha=0.8,
            )
        axis.axhline(0, color="black", lw=0.8)
        axis.set(xlabel=name, ylabel=f"gain over the student alone ({found.unit})")
        axis.grid(alpha=0.3)
        if any(curves) and len(curves) <= 8:
            axis.legend(fontsize=7)
        drawn[name] = figure
    return drawn


def chosen(found: Findings) -> tuple[list[Planned], list[Planned]]:
    """The settings that are best and worst on validation, which is not what is reported."""
    groups = sorted(found.groups("distilled").values(), key=found.validation)
    return groups[-1], groups[0]


def curves(found: Findings) -> plt.Figure:
    """Validation scores over the training: mean over the seeds."""
    best, worst = chosen(found)
    shown = (
        {"best setting": best}
        | ({"worst setting": worst} if worst != best else {})
        | {"student alone": [found.done[run.alone] for run in best if run.alone in found.done]}
    )
    figure, axis = plt.subplots(figsize=(5.2, 3.4))
    for name, runs in shown.items():
        rows = [
            json.loads((run_folder(found.study, run.key) / "metrics.json").read_text())
            for run in runs
        ]
        if rows:
            axis.plot(
                [row["epoch"] for row in rows[0]],
                np.mean([[row[f"val_{found.metric}"] for row in some] for some in rows], axis=0),
                marker=".",
                ls="--" if "alone" in name else "-",
                label=f"{name}: {', '.join(label(v) for v in runs[0].setting.values())}"
                if runs[0].setting
                else name,
            )
    axis.set(xlabel="epoch", ylabel=f"validation {found.name} ({found.unit})")
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    return figure


@torch.no_grad()
def pictures(found: Findings, plan: Plan, count: int = 3) -> plt.Figure | None:
    """Some test images, estimates of them, and under each its error on one scale."""
    run = chosen(found)[0][0]
    if found.metric != "psnr" or not {run.alone, run.teacher} <= found.done.keys():
        return None
    args = plan.script_of(run.script).parse(plan.words(run))
    keys = {"alone": run.alone, "distilled": run.key, "teacher": run.teacher}
    restored = {
        name: restore_with_physics(run_folder(found.study, key) / "best.pth", {})
        for name, key in keys.items()
    }
    images = held_out(restored["alone"], args, found.study.limit_test)
    seen = {
        "first image": (AsSeen(images[0]["image"].shape[0]), restored["alone"].physics.parts[0])
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
    detail = truth.std(dim=(1, 2, 3)).argsort(descending=True)[: max(count, len(truth) // 2)]
    places = detail[torch.linspace(0, len(detail) - 1, count).long()]
    figure, axes = plt.subplots(
        2 * count,
        1 + len(estimates),
        figsize=(1.35 * (1 + len(estimates)), 2.7 * count),
        squeeze=False,
    )
    top = (estimates["alone"][places] - truth[places]).abs().quantile(0.999).item()
    for axis in axes.flat:
        axis.set_axis_off()
    for i, place in enumerate(places.tolist()):
        axes[2 * i, 0].imshow(as_picture(truth[place]), cmap="gray", vmin=0, vmax=1)
        for j, (name, output) in enumerate(estimates.items(), 1):
            error = (output[place] - truth[place]).abs().mean(0)
            axes[2 * i, j].imshow(as_picture(output[place]), cmap="gray", vmin=0, vmax=1)
            axes[2 * i + 1, j].imshow(error, cmap="magma", vmin=0, vmax=top)
            decibels = psnr((output[place] - truth[place]).square().mean()).item()
            axes[2 * i + 1, j].set_title(f"{decibels:.2f} dB", fontsize=7, pad=2)
            if not i:
                axes[0, j].set_title(name, fontsize=8)
    axes[0, 0].set_title("truth", fontsize=8)
    figure.tight_layout(pad=0.3)
    return figure


def as_picture(image: torch.Tensor) -> torch.Tensor:
    """(C, H, W) in [0, 1] as matplotlib draws it."""
    image = image.clamp(0, 1).movedim(0, -1)
    return image[..., 0] if image.shape[-1] == 1 else image


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
        "settings": findings.settings(found),
        "controls": findings.controls(found),
        "references": findings.references(found),
        "ledger": findings.ledger(found),
        "numbers": findings.numbers(found),
    }
    tables = {name: filled(rows) for name, rows in tables.items() if rows}
    for name, rows in tables.items():
        write_csv(study.folder / "tables" / f"{name}.csv", rows)
        if name != "numbers":
            write_text(study.folder / "tables" / f"{name}.md", markdown(rows) + "\n")
            write_text(study.folder / "tables" / f"{name}.tex", latex(rows) + "\n")
    costs = filled(findings.costs(found))
    write_csv(study.folder / "costs.csv", costs)
    text = findings.answer(found)
    write_text(study.folder / "report.html", html(found, plan, tables, costs, text, bad))
    for name in ("references", "settings", "controls"):
        if name in tables:
            print(f"\n{markdown(tables[name])}")
    print(
        f"\n{text.replace('**', '')}\n{study.folder}/report.html, tables/*.csv, *.md, *.tex, costs.csv written"
    )
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
                    heading, page.table(tables[name]), *([page.paragraph(more)] if more else [])
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
    parts.append(page.section("Costs", page.table(costs), page.paragraph(minutes)))
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
    same = findings.twins(found)
    notes += [page.paragraph(f"The same to the last digit: {'; '.join(same)}.")] if same else []
    parts, drawn = (
        [page.section("Settings", page.table(rows, marked=marked), *notes)],
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
    caption = "Mean over the seeds; best and worst are those of validation."
    parts, drawn = (
        [
            page.section(
                "Curves", page.figure(curves(found), caption, "validation scores over epochs")
            )
        ],
        pictures(found, plan),
    )
    if drawn is not None:
        run = chosen(found)[0][0]
        caption = "Test images, and absolute errors on one scale, which the first image exceeds. "
        caption += f"Distilled: {in_words(run)}, seed {run.seed}, the best setting on validation."
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


def tell_states(study: Study) -> dict:
    """Prints how far the runs are."""
    found = states(study)
    rows: dict[str, dict] = {}
    for key, state in found.items():
        row = rows.setdefault(in_words(study.runs[key]), {"": in_words(study.runs[key])})
        row[state] = row.get(state, 0) + 1
    print(markdown(list(rows.values())))
    for key, why in failures(study).items():
        print(f"{key}: {why}")
    counts = {state: list(found.values()).count(state) for state in dict.fromkeys(found.values())}
    print(
        ", ".join(f"{count} {state}" for state, count in counts.items())
        + f" of {len(found)} runs in {len(study.jobs)} jobs"
    )
    return counts


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
