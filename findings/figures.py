"""The figures of a study's report: gains, validation curves, test images."""

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from checkpoints.checkpoint import restore
from data.batches import build_loader, present
from findings.results import WITH_GAIN, Results
from models.base import FirstImage, Network
from physics.base import Physics
from report import figures
from report.statistics import Summary
from study.planning import ADAPTED, TEACHER_THERE, Plan, PlannedRun
from study.question import format_setting, format_value, without
from study.scoring import BATCH, NOISE_SEED, load_run_images
from study.status import run_folder
from training.cache import Views
from training.validation import outputs

LINES = 6  # in a panel
LONGEST = 30  # letters of a line's name in a panel
TITLE = 46  # letters of a line of a panel's title
MARKERS = "osD^v<"
ROWS, COLUMNS = "type_dist", "loss_distill"  # of the maps of gains


def tested_settings(results: Results) -> list[tuple[list[PlannedRun], Summary]]:
    """Settings whose gain has an interval."""
    groups = ((runs, results.gain(runs)) for runs in results.groups(*WITH_GAIN))
    return [(runs, gain) for runs, gain in groups if gain and gain.n > 1]


def shorten(names: Iterable[str]) -> dict[str, str]:
    """Each name of a line as it fits into a panel: a long one becomes a number."""
    names = list(dict.fromkeys(names))
    long = [name for name in names if len(name) > LONGEST]
    return {name: f"line {long.index(name) + 1}" if name in long else name for name in names}


def explain(figure: Figure, short: dict[str, str]) -> None:
    """Below a figure, what the numbers of its lines stand for."""
    lines = [f"{number}: {name}" for name, number in short.items() if number != name]
    figures.write_below(figure, lines)


def title_of(student: str) -> str:
    """The title of a student's panel, on as many lines as it needs."""
    return textwrap.fill(f"student: {student}", TITLE) if student else ""


# ---------------------------------------------------------------- gains over selection and loss


@dataclass(frozen=True)
class GainCell:
    """A gain in a map of gains."""

    row: str
    column: str
    others: str  # the rest of the setting, of which each value has a map
    gain: float


def plot_heat_maps(results: Results) -> Figure | None:
    """Gain over selection and loss, a map for each of the other settings, if both vary."""
    cells = []
    for runs, gain in tested_settings(results):
        setting = runs[0].setting
        if ROWS in setting and COLUMNS in setting:
            row, column = (format_value(setting[name]) for name in (ROWS, COLUMNS))
            others = format_setting(without(without(setting, ROWS), COLUMNS))
            cells.append(GainCell(row, column, others, gain.mean))
    if not cells:
        return None
    rows = list(dict.fromkeys(cell.row for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    maps = sorted({cell.others for cell in cells})
    top = max(abs(cell.gain) for cell in cells) or 1.0
    decimals = min(max(2, 1 - math.floor(math.log10(top))), 4)  # two digits of the largest gain
    size = (2.6 + 0.6 * len(columns), 1.1 + 0.36 * len(rows))
    figure, axes = figures.panels(len(maps), 1, *size)
    image = None
    for axis, others in zip(axes, maps, strict=True):
        grid = np.full((len(rows), len(columns)), np.nan)
        for cell in cells:
            if cell.others == others:
                grid[rows.index(cell.row), columns.index(cell.column)] = cell.gain
        image = axis.imshow(grid, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        for (i, j), gain in np.ndenumerate(grid):
            if not np.isnan(gain):
                color = "white" if abs(gain) > 0.6 * top else "black"
                style = {"ha": "center", "va": "center", "fontsize": figures.SMALLEST}
                axis.text(j, i, f"{gain:+.{decimals}f}", color=color, **style)
        axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axis.set_yticks(range(len(rows)), rows)
        axis.set_title(others)
    if image is not None:
        figure.colorbar(image, ax=axes, label=f"gain ({results.unit})")
    return figure


# ---------------------------------------------------------------- gains over numbers

Points = list[tuple[float, Summary]]  # values of a flag, and gains
Panels = dict[str, dict[str, Points]]  # the lines of every student


def as_number(value) -> float | None:
    """A value as a position on an axis; none for a word, a switch, a list or nothing."""
    try:
        return None if isinstance(value, bool | list | None) else float(value)
    except ValueError:
        return None


def plot_gain_lines(results: Results) -> dict[str, Figure]:
    """A figure of the gain for every numeric flag that varies.

    A student has a panel, each of the other settings a line.
    """
    plotted, groups = {}, tested_settings(results)
    for name in dict.fromkeys(name for runs, _ in groups for name in runs[0].setting):
        students: Panels = {}
        values = set()
        for runs, gain in groups:
            value = as_number(runs[0].setting.get(name))
            if value is not None:
                parts = results.split_setting(runs)
                student, line = (format_setting(without(part, name)) for part in parts)
                students.setdefault(student, {}).setdefault(line, []).append((value, gain))
                values.add(value)
        if len(values) > 1:
            plotted[name] = plot_gains(results, name, split_panels(students))
    return plotted


def split_panels(students: Panels) -> Panels:
    """A panel for each line of a student that has more lines than a panel can hold."""
    panels: Panels = {}
    for student, lines in students.items():
        if len(lines) <= LINES:
            panels[student] = lines
        else:
            for line, points in lines.items():
                panels[", ".join(filter(None, (student, line)))] = {"": points}
    return panels


def plot_gains(results: Results, name: str, students: Panels) -> Figure:
    """Panels with one scale of gains; the bars of lines stand beside each other."""
    short = shorten(line for lines in students.values() for line in lines)
    most = max(len(lines) if any(lines) else 0 for lines in students.values())
    figure, axes = figures.panels(len(students), 2, figures.NARROW, 2.7)
    points = [point for lines in students.values() for line in lines.values() for point in line]
    values = sorted({value for value, _ in points})
    low, high = min(gain.low for _, gain in points), max(gain.high for _, gain in points)
    for axis, (student, lines) in zip(axes, students.items(), strict=True):
        for k, (label, line) in enumerate(lines.items()):
            line = sorted(line, key=lambda point: point[0])
            shift = (k - (len(lines) - 1) / 2) * 0.6 / len(lines)
            x = [values.index(value) + shift for value, _ in line]
            y = [gain.mean for _, gain in line]
            half = [gain.high - gain.mean for _, gain in line]
            marker = MARKERS[k % len(MARKERS)]
            axis.errorbar(x, y, half, marker=marker, capsize=3, label=short[label] or None)
        axis.axhline(0, color="black", lw=0.8, ls="-")
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.set(xlabel=name, ylabel=f"gain over the student alone ({results.unit})")
        axis.set(title=title_of(student), xlim=(-0.5, len(values) - 0.5))
        share = 0.08 + 0.08 * most if most else 0.05  # of the legends above the bars
        room = (high - low) * share / (1 - share)
        axis.set_ylim(low - 0.05 * (high - low), high + room)
        if any(lines):
            axis.legend(loc="upper right")
        axis.grid()
    explain(figure, short)
    return figure


# ---------------------------------------------------------------- validation curves


def rank_settings(results: Results) -> dict[str, list[list[PlannedRun]]]:
    """The settings of every student from the worst to the best on validation, not on test."""
    students: dict[str, list[list[PlannedRun]]] = {}
    for runs in sorted(results.groups("distilled"), key=results.validation):
        student = format_setting(results.split_setting(runs)[0])
        students.setdefault(student, []).append(runs)
    return dict(sorted(students.items()))


def runs_alone(results: Results, runs: list[PlannedRun]) -> list[PlannedRun]:
    """The same students without a teacher that are done."""
    return [results.done[alone] for _, alone in results.pairs(runs)]


def plot_curves(results: Results) -> Figure:
    """Validation scores over the epochs of the best and the worst setting of each student."""
    students = rank_settings(results)
    short = shorten(
        name_beside_alone(results, runs)
        for groups in students.values()
        for runs in (groups[0], groups[-1])
    )
    figure, axes = figures.panels(len(students), 2, figures.NARROW, 2.9)
    for axis, (student, groups) in zip(axes, students.items(), strict=True):
        lines = {"student alone": runs_alone(results, groups[-1])}
        for word, runs in {"worst": groups[0], "best": groups[-1]}.items():
            setting = short[name_beside_alone(results, runs)]
            lines[f"{word}: {setting}" if len(groups) > 1 else setting or "distilled"] = runs
        for k, (label, runs) in enumerate(lines.items()):
            if runs:
                plot_runs(axis, results, runs, label, k)
        axis.set_ylabel(f"validation {results.name} ({results.unit})")
        axis.set_title(title_of(student))
        axis.legend()
        axis.grid()
    explain(figure, short)
    return figure


def name_beside_alone(results: Results, runs: list[PlannedRun]) -> str:
    """What a setting has that the student alone has not, in words."""
    return format_setting(results.split_setting(runs)[1])


def plot_runs(axis: Axes, results: Results, runs: list[PlannedRun], label: str, k: int) -> None:
    """The mean and the range of the validation scores over the seeds."""
    every = [results.metrics(run) for run in runs]
    epochs = [row["epoch"] for row in every[0]]
    scores = np.array([[row[f"val_{results.metric}"] for row in rows] for rows in every])
    color, dash = figures.COLORS[k], figures.DASHES[k]
    axis.plot(epochs, scores.mean(0), marker=".", label=label, color=color, ls=dash)
    figures.set_epoch_ticks(axis, epochs)
    axis.fill_between(epochs, scores.min(0), scores.max(0), color=color, alpha=0.15, lw=0)


# ---------------------------------------------------------------- test images


def best_run(results: Results) -> PlannedRun:
    """The first seed of the setting with the largest gain on validation."""

    def validation_gain(runs: list[PlannedRun]) -> float:
        alone = runs_alone(results, runs)
        return results.validation(runs) - results.validation(alone) if alone else -math.inf

    return max((groups[-1] for groups in rank_settings(results).values()), key=validation_gain)[0]


def example_keys(results: Results) -> tuple[PlannedRun, dict[str, str | None]]:
    """A run, and the runs whose estimates stand beside each other, by what they are."""
    adapted = results.groups(ADAPTED)
    if not adapted:
        run = best_run(results)
        teacher = {"teacher": run.teachers[0]} if run.teachers else {}
        return run, {"student alone": run.alone, "distilled": run.key} | teacher
    taught = [runs for runs in adapted if runs[0].flags.get("labels", "both") == "both"]
    run = max(taught or adapted, key=lambda runs: gain_of(results, runs))[0]
    keys: dict[str, str | None] = {"not adapted": run.alone, "adapted": run.key}
    for other in results.done.values():
        of_it = other.role == TEACHER_THERE and other.teachers == run.teachers
        if other.recording == run.recording and of_it:
            keys["teacher"] = other.key
        if other.recording == run.recording and other.flags.get("labels") == "oracle":
            keys["oracle"] = other.key
    return run, keys


def gain_of(results: Results, runs: list[PlannedRun]) -> float:
    gain = results.gain(runs)
    return -math.inf if gain is None else gain.mean


def plot_examples(results: Results, plan: Plan, count: int = 3) -> Figure | None:
    """Some test images, estimates of them, and their errors on one scale."""
    run, keys = example_keys(results)
    if results.metric != "psnr" or not set(keys.values()) <= results.done.keys():
        return None
    args = plan.arguments(run.key)
    checkpoints = {
        name: restore(run_folder(results.study, key) / "best.pth", {})
        for name, key in keys.items()
        if key
    }
    student = next(iter(checkpoints.values()))
    tested = results.study.test_arguments(args)
    images = load_run_images(student, tested, results.study.limit_test)
    first_image = FirstImage(images[0]["image"].shape[0])
    estimators: dict[str, tuple[Network, Physics]] = {}
    estimators["first image"] = (first_image, student.physics.parts[0])
    for name, one in checkpoints.items():
        estimators[name] = (one.network, one.physics.parts[0])
    truth, columns = torch.empty(0), {}
    for name, (network, physics) in estimators.items():
        loader = build_loader(images, BATCH)
        views = Views(physics, loader, torch.device("cpu"), NOISE_SEED)
        batch, _, output = next(outputs(network, views))
        truth, columns[name] = present(batch.image), output
    selected = figures.select_detailed(truth, count)
    columns = {name: output[selected] for name, output in columns.items()}
    notes = figures.psnr_notes(columns, truth[selected])
    return figures.plot_grid(columns, truth[selected], notes)
