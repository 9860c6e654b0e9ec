"""Pictures: curves, contact sheets, comparisons; always files, never windows."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axis import Axis
from matplotlib.ticker import LogFormatter, MaxNLocator
from PIL import Image
from torch import Tensor

from algo_functions import score
from core.files import durable

DPI = 110  # dots of a file's inch: a letter of 8 points is 12 dots high
SMALLEST = 8  # points of a letter
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (9, 3)), (0, (1, 3)))
WIDE, NARROW = 8.2, 3.7  # inches of a picture of several panels, and of one that fits a phone
WORDS = {  # what a column of metrics.csv is called in a picture
    "task_loss": "task",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "top1": "top-1 (%)",
    "top3": "top-3 (%)",
}
TASK = ("train_task_loss", "val_task_loss")
WEIGHTED = ("train_loss", "train_task")  # with weights, which validation has not
STYLE = {  # Okabe and Ito's colours, which the colour-blind tell apart, and a dash of its own for each
    "axes.prop_cycle": plt.cycler(color=COLORS) + plt.cycler(linestyle=DASHES),
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


def save(figure: plt.Figure, path: Path) -> None:
    durable(path, lambda temporary: figure.savefig(temporary, dpi=DPI, bbox_inches="tight"))
    plt.close(figure)


def panels(
    count: int, columns: int, width: float, height: float
) -> tuple[plt.Figure, list[plt.Axes]]:
    """So many axes in lines of a few."""
    columns = min(count, columns)
    lines = -(-count // columns)
    size = (width * columns, height * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, [*axes.flat[:count]]


def write_below(figure: plt.Figure, lines: Iterable[str]) -> None:
    """Lines of text below a picture, each as it is and broken where it is wider than the picture."""
    letters = int(figure.get_figwidth() * 14)  # of 8 points that an inch holds
    text = "\n".join(
        part
        for line in lines
        for part in textwrap.wrap(line, letters, subsequent_indent="    ", break_on_hyphens=False)
    )
    figure.text(0.01, -0.01, text, fontsize=SMALLEST, va="top", parse_math=False)


# ---------------------------------------------------------------- curves


def in_words(name: str) -> str:
    """A term or a score as it is called in a picture: distill/mse/latent is "mse of latent"."""
    loss, _, layer = name.removeprefix("distill/").rpartition("/")
    return WORDS.get(name) or (f"{loss} of {layer}" if loss else name.replace("_", " "))


def values_of(rows: list[dict], column: str) -> list[float]:
    """A column, with gaps where earlier versions wrote none."""
    return [row.get(column, math.nan) for row in rows]


def plot(axis: plt.Axes, rows: list[dict], column: str, **how) -> None:
    axis.plot(values_of(rows, "epoch"), values_of(rows, column), marker=".", **how)


def draw_curves(
    rows: list[dict], drawn: Sequence[str], path: Path, first_image: dict[str, float] | None = None
) -> None:
    """Losses, the drawn scores in training and in validation, and the terms' shares of the gradient over the epochs.

    `first_image` has the scores in validation of the images that the network is given.
    """
    shares = [name for name in rows[-1] if name.startswith("share_")]
    figure, axes = panels(4 if len(shares) > 1 else 3, 2, WIDE / 2, 2.8)
    draw_scores(axes[0], rows, drawn, "train", {})
    draw_scores(axes[1], rows, drawn, "val", first_image or {})
    axes[0].set_title("training images")
    axes[1].set_title("validation images")
    if all("%" in in_words(name) for name in drawn):
        axes[1].sharey(axes[0])
    draw_losses(axes[2], rows)
    if len(shares) > 1:
        for name in shares:
            plot(axes[3], rows, name, label=in_words(name.removeprefix("share_")))
        axes[3].set(title="gradient of each term", ylabel="share of the sum of norms")
        axes[3].set_ylim(-0.03, 1.03)
    for axis in axes:
        over_epochs(axis, [row["epoch"] for row in rows])
        axis.legend()
        axis.grid()
    save(figure, path)


def over_epochs(axis: plt.Axes, epochs: list[float]) -> None:
    """Ticks where epochs can be."""
    axis.set_xlabel("epoch")
    whole = all(float(epoch).is_integer() for epoch in epochs)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if len(epochs) == 1:
        axis.set_xticks(epochs)


def losses_of(row: dict) -> list[str]:
    """The columns of an epoch's row that are losses: the task's on both splits alike, and the terms that only training has."""
    terms = [
        name
        for name in row
        if name.startswith("train_") and f"val_{name.removeprefix('train_')}" not in row
    ]
    return [*TASK, *(name for name in terms if name not in WEIGHTED)]


def draw_losses(axis: plt.Axes, rows: list[dict]) -> None:
    """A colour for each loss, solid in training; the task's is dashed in validation."""
    training, validation, *terms = losses_of(rows[-1])
    task = in_words("task_loss")
    plot(axis, rows, training, color=COLORS[0], ls="-", label=task)
    plot(axis, rows, validation, color=COLORS[0], ls="--", label=f"{task}, validation")
    for k, name in enumerate(terms, 1):
        label = in_words(name.removeprefix("train_"))
        plot(axis, rows, name, color=COLORS[k % len(COLORS)], ls="-", label=label)
    axis.set(title="losses", ylabel="loss", yscale="log")
    plain_numbers(axis.yaxis)


class PlainNumbers(LogFormatter):
    """0.02 instead of 2 x 10^-2 on a logarithmic axis."""

    def __call__(self, x, pos=None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def plain_numbers(axis: Axis) -> None:
    for choose in (axis.set_major_formatter, axis.set_minor_formatter):
        choose(PlainNumbers(labelOnlyBase=False, minor_thresholds=(1.5, 0.6)))


def draw_scores(
    axis: plt.Axes, rows: list[dict], drawn: Sequence[str], split: str, lines: dict[str, float]
) -> None:
    """Scores of a split over the epochs, and some that stay the same as dotted lines."""
    for name in drawn:
        label = in_words(name) if len(drawn) > 1 else "network"
        plot(axis, rows, f"{split}_{name}", label=label)
        if name in lines:
            label = f"first image, {lines[name]:.2f}"
            axis.axhline(lines[name], color="0.35", ls=":", label=label)
    axis.set_ylabel(", ".join(map(in_words, drawn)))


def draw_splits(rows: list[dict], scores: Sequence[str], label: str, path: Path) -> None:
    """Scores of training and validation images over the epochs: a colour for each split, a dash for each score."""
    figure, (axis,) = panels(1, 1, WIDE / 2, 2.8)
    for column, dash in zip(scores, DASHES, strict=False):
        for split, what, color in zip(
            ("train", "val"), ("training", "validation"), COLORS, strict=False
        ):
            name = what if len(scores) == 1 else f"{what}, {column.replace('top', 'top-')}"
            plot(axis, rows, f"{split}_{column}", color=color, ls=dash, label=name)
    axis.set_ylabel(label)
    over_epochs(axis, values_of(rows, "epoch"))
    axis.legend()
    axis.grid()
    save(figure, path)


def draw_lines(rows: list[dict], over: str, path: Path) -> None:
    """Every other column over one of them, on a logarithmic scale."""
    figure, (axis,) = panels(1, 1, 5, 3.2)
    for name in rows[0]:
        if name != over:
            axis.plot(
                [row[over] for row in rows],
                [row[name] for row in rows],
                marker=".",
                label=in_words(name),
            )
    over_epochs(axis, [row[over] for row in rows])
    axis.set(xlabel=over, ylabel="loss", yscale="log")
    plain_numbers(axis.yaxis)
    axis.legend()
    axis.grid()
    save(figure, path)


# ---------------------------------------------------------------- images


def to_bytes(image: Tensor) -> np.ndarray:
    """(C, H, W) on the fixed scale [0, 1] as bytes (H, W) or (H, W, 3)."""
    array = (image.detach().cpu().clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def stretched(image: Tensor) -> Tensor:
    """From its own smallest to its own largest value, for feature maps, which have no scale of their own."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp_min(1e-12)


def save_image(image: Tensor, path: Path) -> None:
    durable(path, Image.fromarray(to_bytes(image)).save)


def detailed(images: Iterable[Tensor], count: int) -> list[int]:
    """The places of a few images that are neither flat nor hopeless: evenly spaced among the more detailed half."""
    detail = torch.tensor([image.std(correction=0).item() for image in images])
    half = max(count, len(detail) // 2)
    places = detail.argsort(descending=True, stable=True)[:half]
    return places[torch.linspace(0, len(places) - 1, min(count, len(places))).long()].tolist()


def notes_of(
    columns: dict[str, Sequence[Tensor]],
    truth: Sequence[Tensor],
    border: int = 0,
    luma: bool = False,
) -> dict[str, list[str]]:
    """The PSNR under each picture."""

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
    columns: dict[str, Sequence[Tensor]],
    truth: Sequence[Tensor] | None,
    path: Path,
    notes: dict[str, list[str]] | None = None,
) -> None:
    """The contact sheet as a file."""
    save(grid(columns, truth, notes), path)


def grid(
    columns: dict[str, Sequence[Tensor]],
    truth: Sequence[Tensor] | None,
    notes: dict[str, list[str]] | None = None,
) -> plt.Figure:
    """A line an image, a column an estimate, with a note under each; where there is a truth, errors on one scale.

    The errors of up to three estimates stand beside them, those of more below them.
    """
    shown = columns if truth is None else {"truth": truth, **columns}
    count, beside = len(next(iter(columns.values()))), len(columns) <= 3
    height, width = max(image.shape[-2:] for image in next(iter(columns.values())))
    more = 0 if truth is None else len(columns)
    across = len(shown) + (more if beside else 0)
    side = min(max(1.3, width / DPI), 16 / across)
    lines = 2 if more and not beside else 1  # of pictures for each image
    size = (side * across, count * (lines * side * height / width + 0.25) + (1.1 if more else 0.2))
    figure, axes = plt.subplots(
        count * lines, across, figsize=size, squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for j, (name, images) in enumerate(shown.items()):
        axes[0, j].set_title(name)
        for axis, image, k in zip(axes[::lines, j], images, range(count), strict=True):
            axis.imshow(to_bytes(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xlabel(notes[name][k] if notes and name in notes else "", fontsize=SMALLEST)
    if more:
        places = axes[:, len(shown) :] if beside else axes[1::2, 1:]
        draw_errors(figure, places, columns, truth)
    if more and beside:
        for axis, name in zip(axes[0, len(shown) :], columns, strict=True):
            axis.set_title(f"error,\n{name}")
    if more and not beside:
        for axis in axes[1::2, 0]:
            axis.set_axis_off()
            axis.text(1, 0.5, "absolute\nerror", ha="right", va="center", fontsize=SMALLEST)
    return figure


def draw_errors(
    figure: plt.Figure,
    axes: np.ndarray,
    columns: dict[str, Sequence[Tensor]],
    truth: Sequence[Tensor],
) -> None:
    """Absolute errors of estimates (columns) of images (lines) on one scale, with its bar below; a hundredth may exceed it."""
    maps = [
        [error_map(image, clean) for image, clean in zip(images, truth, strict=True)]
        for images in columns.values()
    ]
    top = np.quantile(np.concatenate([one.ravel() for some in maps for one in some]), 0.99) or 1.0
    for line, some in zip(axes.T, maps, strict=True):
        for axis, one in zip(line, some, strict=True):
            picture = axis.imshow(one, cmap="magma", vmin=0, vmax=top, interpolation="nearest")
    bar = figure.colorbar(
        picture, ax=[*figure.axes], location="bottom", extend="max", aspect=40, shrink=0.6, pad=0.01
    )
    bar.set_label("absolute error; images lie between 0 and 1")
