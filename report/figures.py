"""Figures: curves, contact sheets, comparisons; always files, never windows."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from PIL import Image
from torch import Tensor

from algo_functions import score
from core.files import durable

DPI = 110  # dots of a file's inch: a letter of 8 points is 12 dots high
SMALLEST = 8  # points of a letter
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (9, 3)), (0, (1, 3)))
WIDE, NARROW = 8.2, 3.7  # inches of a figure of several panels, and of one that fits a phone
LABELS = {  # of columns of metrics.csv
    "task_loss": "task",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "recorded_psnr": "PSNR of recorded values (dB)",
    "recorded": "distance to recorded values",
    "top1": "top-1 (%)",
    "top3": "top-3 (%)",
}
TASK = ("train_task_loss", "val_task_loss")
WEIGHTED = ("train_loss", "train_task")  # sums with weights, which validation does not have
STYLE: dict[
    Any, Any
] = {  # Okabe and Ito's colours, which the colour-blind can distinguish, each with a dash
    "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=DASHES),
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": SMALLEST,
    "ytick.labelsize": SMALLEST,
    "legend.fontsize": SMALLEST,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
}
plt.rcParams.update(STYLE)


def save_figure(figure: Figure, path: Path) -> None:
    durable(path, lambda temporary: figure.savefig(temporary, dpi=DPI, bbox_inches="tight"))
    plt.close(figure)


def panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A number of axes, in lines of at most `columns`."""
    columns = min(count, columns)
    lines = -(-count // columns)
    size = (width * columns, height * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, [*axes.flat[:count]]


def write_below(figure: Figure, lines: Iterable[str]) -> None:
    """Lines of text below a figure, wrapped to its width."""
    letters = int(figure.get_figwidth() * 14)  # of 8 points that an inch holds
    text = "\n".join(
        part
        for line in lines
        for part in textwrap.wrap(line, letters, subsequent_indent="    ", break_on_hyphens=False)
    )
    figure.text(0.01, -0.01, text, fontsize=SMALLEST, va="top", parse_math=False)


# ---------------------------------------------------------------- curves


def readable_name(name: str) -> str:
    """The label of a term or a score: distill/mse/latent is "mse of latent"."""
    loss, _, layer = name.removeprefix("distill/").rpartition("/")
    return LABELS.get(name) or (f"{loss} of {layer}" if loss else name.replace("_", " "))


def column_values(rows: list[dict], column: str) -> list[float]:
    """A column, with gaps where earlier versions wrote none."""
    return [row.get(column, math.nan) for row in rows]


def plot(axis: Axes, rows: list[dict], column: str, over: str = "epoch", **how) -> None:
    axis.plot(column_values(rows, over), column_values(rows, column), marker=".", **how)


def draw_curves(
    rows: list[dict], scores: Sequence[str], path: Path, first_image: dict[str, float] | None = None
) -> None:
    """Losses, scores in training and validation, and shares of the gradient over the epochs.

    `first_image` has the validation scores of the network's input.
    """
    shares = [name for name in rows[-1] if name.startswith("share_")]
    figure, axes = panels(4 if len(shares) > 1 else 3, 2, WIDE / 2, 2.8)
    draw_scores(axes[0], rows, scores, "train", {})
    draw_scores(axes[1], rows, scores, "val", first_image or {})
    axes[0].set_title("training images")
    axes[1].set_title("validation images")
    if all("%" in readable_name(name) for name in scores):
        axes[1].sharey(axes[0])
    draw_losses(axes[2], rows)
    if len(shares) > 1:
        for name in shares:
            plot(axes[3], rows, name, label=readable_name(name.removeprefix("share_")))
        axes[3].set(title="gradient of each term", ylabel="share of the sum of norms")
        axes[3].set_ylim(-0.03, 1.03)
    for axis in axes:
        set_epoch_ticks(axis, [row["epoch"] for row in rows])
        axis.legend()
        axis.grid()
    save_figure(figure, path)


def set_epoch_ticks(axis: Axes, epochs: list[float]) -> None:
    """Labels the axis of epochs, with ticks at whole ones."""
    axis.set_xlabel("epoch")
    whole = all(float(epoch).is_integer() for epoch in epochs)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if len(epochs) == 1:
        axis.set_xticks(epochs)


def loss_columns(row: dict) -> list[str]:
    """The losses in an epoch's row: the task's on both splits, and the terms of training alone.

    Of recordings, whose task has no truth, there are only the terms of training.
    """
    terms = [
        name
        for name in row
        if name.startswith("train_") and f"val_{name.removeprefix('train_')}" not in row
    ]
    if TASK[0] not in row:
        return [name for name in terms if name != WEIGHTED[0]]
    return [*TASK, *(name for name in terms if name not in WEIGHTED)]


def draw_losses(axis: Axes, rows: list[dict]) -> None:
    """A colour for each loss, solid in training; the task's is dashed in validation."""
    terms = loss_columns(rows[-1])
    if TASK[1] in terms:
        terms.remove(TASK[1])
        label = f"{readable_name('task_loss')}, validation"
        plot(axis, rows, TASK[1], color=COLORS[0], ls="--", label=label)
    for k, name in enumerate(terms):
        label = readable_name(name.removeprefix("train_"))
        plot(axis, rows, name, color=COLORS[k % len(COLORS)], ls="-", label=label)
    axis.set(title="losses", ylabel="loss", yscale="log")
    use_decimal_labels(axis.yaxis)


class DecimalLabels(LogFormatter):
    """0.02 instead of 2 x 10^-2 on a logarithmic axis."""

    def __call__(self, x, pos=None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def use_decimal_labels(axis: Axis) -> None:
    for choose in (axis.set_major_formatter, axis.set_minor_formatter):
        choose(DecimalLabels(labelOnlyBase=False, minor_thresholds=(1.5, 0.6)))


def draw_scores(
    axis: Axes,
    rows: list[dict],
    scores: Sequence[str],
    split: str,
    constants: dict[str, float],
) -> None:
    """Scores of a split over the epochs, and constant ones as dotted lines."""
    for name in scores:
        label = readable_name(name) if len(scores) > 1 else "network"
        plot(axis, rows, f"{split}_{name}", label=label)
        if name in constants:
            label = f"first image, {constants[name]:.2f}"
            axis.axhline(constants[name], color="0.35", ls=":", label=label)
    axis.set_ylabel(readable_name(scores[0]) if len(scores) == 1 else "accuracy (%)")


def draw_splits(rows: list[dict], scores: Sequence[str], label: str, path: Path) -> None:
    """Scores over the epochs: a colour for each split, a dash for each score."""
    figure, (axis,) = panels(1, 1, WIDE / 2, 2.8)
    for column, dash in zip(scores, DASHES, strict=False):
        splits = {"training": "train", "validation": "val"}
        for (title, split), color in zip(splits.items(), COLORS, strict=False):
            name = title if len(scores) == 1 else f"{title}, {column.replace('top', 'top-')}"
            plot(axis, rows, f"{split}_{column}", color=color, ls=dash, label=name)
    axis.set_ylabel(label)
    set_epoch_ticks(axis, column_values(rows, "epoch"))
    axis.legend()
    axis.grid()
    save_figure(figure, path)


def draw_lines(rows: list[dict], over: str, path: Path) -> None:
    """Every other column over one of them, on a logarithmic scale."""
    figure, (axis,) = panels(1, 1, 5, 3.2)
    for name in rows[0]:
        if name != over:
            x, y = ([row[column] for row in rows] for column in (over, name))
            axis.plot(x, y, marker=".", label=readable_name(name))
    set_epoch_ticks(axis, [row[over] for row in rows])
    axis.set(xlabel=over, ylabel="loss", yscale="log")
    use_decimal_labels(axis.yaxis)
    axis.legend()
    axis.grid()
    save_figure(figure, path)


# ---------------------------------------------------------------- images

Images = Tensor | Sequence[Tensor]  # (N, C, H, W), or images of their own sizes


def to_bytes(image: Tensor) -> np.ndarray:
    """(C, H, W) on the fixed scale [0, 1] as bytes (H, W) or (H, W, 3)."""
    array = (image.detach().cpu().clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def stretch_contrast(image: Tensor) -> Tensor:
    """From the smallest to the largest value, for feature maps, which have no common scale."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp_min(1e-12)


def save_image(image: Tensor, path: Path) -> None:
    durable(path, Image.fromarray(to_bytes(image)).save)


def select_detailed(images: Iterable[Tensor], count: int) -> list[int]:
    """The indices of a few images, evenly spaced among the more detailed half."""
    detail = torch.tensor([image.std(correction=0).item() for image in images])
    half = max(count, len(detail) // 2)
    places = detail.argsort(descending=True, stable=True)[:half]
    return places[torch.linspace(0, len(places) - 1, min(count, len(places))).long()].tolist()


def psnr_notes(
    columns: Mapping[str, Images],
    truth: Images,
    border: int = 0,
    luma: bool = False,
) -> dict[str, list[str]]:
    """The PSNR of each image, to be written below it."""

    def note(image: Tensor, clean: Tensor) -> str:
        return f"{score(image[None], clean[None], border, luma)['psnr'].item():.2f} dB"

    return {
        name: [note(image, clean) for image, clean in zip(images, truth, strict=True)]
        for name, images in columns.items()
    }


def error_map(estimate: Tensor, truth: Tensor) -> np.ndarray:
    """|estimate - truth| (H, W), the mean over the channels."""
    return (estimate.detach().cpu().float() - truth.cpu().float()).abs().mean(0).numpy()


def draw_grid(
    columns: Mapping[str, Images],
    truth: Images | None,
    path: Path,
    notes: dict[str, list[str]] | None = None,
) -> None:
    """The contact sheet as a file."""
    save_figure(plot_grid(columns, truth, notes), path)


@dataclass(frozen=True)
class GridLayout:
    """Where estimates and their errors are in a contact sheet."""

    count: int  # images
    columns: int  # of images: the truth and the estimates
    errors: int  # estimates with a map of errors
    beside: bool  # whether these maps stand beside the images, not below them

    @property
    def lines(self) -> int:
        """Lines of axes for each image."""
        return 2 if self.errors and not self.beside else 1

    @property
    def across(self) -> int:
        return self.columns + (self.errors if self.beside else 0)

    def size(self, height: int, width: int) -> tuple[float, float]:
        """Inches of the figure for images of so many pixels."""
        side = min(max(1.3, width / DPI), 16 / self.across)
        line = self.lines * side * height / width + 0.25
        return side * self.across, self.count * line + (1.1 if self.errors else 0.2)


def plot_grid(
    columns: Mapping[str, Images],
    truth: Images | None,
    notes: dict[str, list[str]] | None = None,
) -> Figure:
    """A line an image, a column an estimate, with notes, and errors if there is a truth.

    The errors of up to three estimates stand beside them, those of more below them.
    """
    images = columns if truth is None else {"truth": truth, **columns}
    estimates = next(iter(columns.values()))
    errors = 0 if truth is None else len(columns)
    layout = GridLayout(len(estimates), len(images), errors, len(columns) <= 3)
    figure, axes = plt.subplots(
        layout.count * layout.lines,
        layout.across,
        figsize=layout.size(*max(image.shape[-2:] for image in estimates)),
        squeeze=False,
        layout="constrained",
    )
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for j, (name, column) in enumerate(images.items()):
        axes[0, j].set_title(name)
        for k, (axis, image) in enumerate(zip(axes[:: layout.lines, j], column, strict=True)):
            axis.imshow(to_bytes(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xlabel(notes[name][k] if notes and name in notes else "", fontsize=SMALLEST)
    if truth is not None:
        draw_errors(figure, error_axes(axes, layout, columns), columns, truth)
    return figure


def error_axes(axes: np.ndarray, layout: GridLayout, names: Iterable[str]) -> np.ndarray:
    """The labelled axes for maps of errors: a line an image, a column an estimate."""
    if not layout.beside:
        for axis in axes[1::2, 0]:
            axis.set_axis_off()
            axis.text(1, 0.5, "absolute\nerror", ha="right", va="center", fontsize=SMALLEST)
        return axes[1::2, 1:]
    beside = axes[:, layout.columns :]
    for axis, name in zip(beside[0], names, strict=True):
        axis.set_title(f"error,\n{name}")
    return beside


def draw_errors(
    figure: Figure,
    axes: np.ndarray,
    columns: Mapping[str, Images],
    truth: Images,
) -> None:
    """Absolute errors of estimates (columns) of images (lines), all on one scale with its bar.

    The scale ends at the 99th percentile of all errors.
    """
    maps = [
        [error_map(image, clean) for image, clean in zip(images, truth, strict=True)]
        for images in columns.values()
    ]
    top = np.quantile(np.concatenate([error.ravel() for column in maps for error in column]), 0.99)
    scale = Normalize(0, top or 1.0)
    for column_axes, column in zip(axes.T, maps, strict=True):
        for axis, error in zip(column_axes, column, strict=True):
            axis.imshow(error, cmap="magma", norm=scale, interpolation="nearest")
    bar = figure.colorbar(
        ScalarMappable(scale, "magma"),
        ax=[*figure.axes],
        location="bottom",
        extend="max",
        aspect=40,
        shrink=0.6,
        pad=0.01,
    )
    bar.set_label("absolute error; images lie between 0 and 1")
