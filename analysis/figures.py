"""Pictures: curves, contact sheets, comparisons; always files, never windows."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from torch import Tensor

from files import durable


def save(figure: plt.Figure, path: Path) -> None:
    durable(path, lambda temporary: figure.savefig(temporary, dpi=110, bbox_inches="tight"))
    plt.close(figure)


def losses_of(row: dict) -> list[str]:
    """The columns of an epoch's row that are losses: the task's on both splits alike, and the terms that only training has."""
    alone = [
        name
        for name in row
        if name.startswith("train_") and f"val_{name.removeprefix('train_')}" not in row
    ]
    whole = ("train_loss", "train_task")  # with weights, which validation has not
    return ["train_task_loss", "val_task_loss", *(name for name in alone if name not in whole)]


def draw_curves(rows: list[dict], drawn: Sequence[str], path: Path) -> None:
    """Loss terms, the drawn scores and the terms' shares of the gradient over the epochs."""
    epochs = [row["epoch"] for row in rows]
    groups = {
        "loss": losses_of(rows[-1]),
        ", ".join(drawn): [f"{split}_{name}" for name in drawn for split in ("train", "val")],
        "share of the gradient": [k for k in rows[-1] if k.startswith("share_")],
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.4))
    for axis, (title, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            axis.plot(epochs, values_of(rows, name), marker=".", label=name.removeprefix("share_"))
        axis.set(title=title, xlabel="epoch", yscale="log" if title == "loss" else "linear")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    save(figure, path)


def values_of(rows: list[dict], name: str) -> list[float]:
    """A column, with gaps where earlier versions wrote none."""
    return [row.get(name, math.nan) for row in rows]


def draw_splits(rows: list[dict], scores: Sequence[str], label: str, path: Path) -> None:
    """Scores of training and validation images over the epochs, a colour for each split."""
    figure, axis = plt.subplots(figsize=(5, 3.4))
    epochs = [row["epoch"] for row in rows]
    for score, style in zip(scores, ("-", "--"), strict=False):
        for split, what, colour in (("train", "training", "C0"), ("val", "validation", "C1")):
            name = what if len(scores) == 1 else f"{what}, {score.replace('top', 'top-')}"
            values = values_of(rows, f"{split}_{score}")
            axis.plot(epochs, values, style, color=colour, marker=".", label=name)
    axis.set(xlabel="epoch", ylabel=label)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    save(figure, path)


def draw_lines(rows: list[dict], over: str, path: Path) -> None:
    """Every other column over one of them, on a logarithmic scale."""
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for name in rows[0].keys() - {over}:
        axis.plot([row[over] for row in rows], [row[name] for row in rows], marker=".", label=name)
    axis.set(xlabel=over, ylabel="loss", yscale="log")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    save(figure, path)


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


def draw_grid(
    columns: dict[str, Tensor],
    truth: Tensor | None,
    path: Path,
    notes: dict[str, list[str]] | None = None,
) -> None:
    """One row an image, one column an estimate, all on the same intensity scale; a note under each picture."""
    columns = columns if truth is None else {"truth": truth, **columns}
    count, _, height, width = next(iter(columns.values())).shape
    side = 1.55 * max(1, min(width / 128, 3))
    figure, axes = plt.subplots(
        count,
        len(columns),
        figsize=(side * len(columns), (side * height / width + 0.25) * count),
        squeeze=False,
    )
    for j, (name, images) in enumerate(columns.items()):
        for i in range(count):
            axis = axes[i, j]
            axis.imshow(to_bytes(images[i]), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(notes[name][i] if notes and name in notes else "", fontsize=8)
            if i == 0:
                axis.set_title(name, fontsize=9)
    figure.tight_layout(pad=0.4)
    save(figure, path)
