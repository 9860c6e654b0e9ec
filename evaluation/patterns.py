"""Sensing patterns as pictures, as energy curves, and as files for a micromirror device."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from deepinv.physics.singlepixel import hadamard_2d, hadamard_2d_shift
from PIL import Image
from torch import Tensor

from core.errors import UserError
from core.files import durable, write_csv, write_text
from core.registry import ORDERINGS
from physics.single_pixel import SinglePixel, is_hadamard, patterns_of
from report.figures import SMALLEST, WIDE, panels, plain_numbers, save


def draw_mask(physics: SinglePixel, path: Path) -> None:
    """Which Hadamard coefficients are measured, low sequencies at the top left; dense patterns have the matrix itself."""
    figure, (axis,) = panels(1, 1, 4.5, 4.5)
    hadamard = is_hadamard(physics.patterns, physics.config["n"])
    picture = (
        hadamard_2d_shift((physics.patterns < physics.m).float()) if hadamard else physics.rows()
    )
    how = {"cmap": "gray", "interpolation": "nearest", "aspect": "equal" if hadamard else "auto"}
    axis.imshow(picture.numpy(), **how)
    name, ratio, pixels = (physics.config[key] for key in ("ordering", "cr", "n"))
    counted = f"{physics.m} of {pixels**2} coefficients, white" if hadamard else f"m = {physics.m}"
    axis.set_title(f"{name}, cr {ratio:g}: {counted}", parse_math=False)
    if hadamard:
        axis.set(xlabel="horizontal sequency", ylabel="vertical sequency")
    else:
        axis.set(xlabel="pixel", ylabel="pattern")
    save(figure, path)


def draw_patterns(physics: SinglePixel, count: int, path: Path) -> None:
    """The first patterns, in measuring order."""
    n = physics.config["n"]
    rows = physics.rows(count).view(-1, n, n)
    columns = min(8, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(1.2 * columns, 1.4 * lines + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for k, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.set_visible(k < len(rows))
        if k < len(rows):
            axis.imshow(
                rows[k].numpy(),
                cmap="gray",
                vmin=rows.min().item(),
                vmax=rows.max().item(),
                interpolation="nearest",
            )
            axis.set_title(str(k), fontsize=SMALLEST)
    low, high = rows.min().item(), rows.max().item()
    title = f"the first {len(rows)} patterns in measuring order; black {low:.3g}, white {high:.3g}"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    save(figure, path)


BEST = "best for these images"


def cumulative_energies(physics: SinglePixel, images: Tensor) -> dict[str, Tensor]:
    """For every ordering of Hadamard patterns, this camera's own, and the best that there is, the share of the images' energy in the first m."""
    n = physics.config["n"]
    if n & (n - 1):
        return {}  # no Hadamard patterns of this size
    energy = sum(
        hadamard_2d(chunk).double().square().sum((0, 1)) for chunk in images.split(500)
    ).view(-1)
    orderings = {
        name: patterns_of(name, n, 1, lambda: images) for name in ORDERINGS if name != "random"
    }
    orderings[physics.config["ordering"]] = physics.patterns
    return {
        name: energy[places.view(-1).argsort()].cumsum(0) / energy.sum()
        for name, places in orderings.items()
        if is_hadamard(places, n)
    } | {BEST: energy.sort(descending=True).values.cumsum(0) / energy.sum()}


def draw_energies(energies: dict[str, Tensor], m: int, path: Path) -> None:
    """The picture of the energies as a file."""
    save(energies_of(energies, m), path)


def energies_of(energies: dict[str, Tensor], m: int) -> plt.Figure:
    """The energy that is not measured yet against the number of measurements, and how much more that is than by the best ordering."""
    figure, (left, right) = panels(2, 2, WIDE / 2, 3.6)
    lost = {name: (1 - energy[:-1]).clamp_min(1e-15).numpy() for name, energy in energies.items()}
    for name, share in lost.items():
        measurements = np.arange(1, len(share) + 1)
        how = {"color": "0.35", "ls": ":"} if name == BEST else {}
        left.plot(measurements, share, label=name, **how)
        more = 100 * (share / lost[BEST] - 1)
        right.plot(measurements, np.where(more > 0.01, more, np.nan))
    left.set(ylabel="share of the energy that is not measured", yscale="log")
    right.set(ylabel="more than by the best ordering (%)", yscale="log", ylim=(0.1, None))
    right.set_title("below 0.1 %: as good as the best")
    right.sharex(left)
    plain_numbers(right.yaxis)
    for axis in (left, right):
        axis.axvline(m, color="black", lw=0.8, label=f"m = {m}" if axis is left else None)
        axis.set(xscale="log", xlabel="measurements")
        plain_numbers(axis.xaxis)
        axis.grid()
    for label in left.legend(loc="lower left").get_texts():
        label.set_parse_math(False)
    return figure


def export(physics: SinglePixel, folder: Path, magnify: int = 1) -> int:
    """0/1 pictures in complementary pairs, in measuring order, and the manifest that says how to read their detector values."""
    n, rows = physics.config["n"], physics.rows()
    scale = rows.abs().max()
    if not torch.allclose(rows.abs(), scale.expand_as(rows), rtol=1e-4):
        raise UserError(
            f"export: the patterns of ordering '{physics.config['ordering']}' are not ±1, so no pair of 0/1 pictures shows them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"export: folder {folder} is not empty")
    lines = []
    for k, row in enumerate(rows.view(-1, n, n) > 0):
        names = {
            "positive": f"pattern_{k:05d}_positive.png",
            "negative": f"pattern_{k:05d}_negative.png",
        }
        for sign, name in names.items():
            mirrors = (
                (row if sign == "positive" else ~row).numpy().repeat(magnify, 0).repeat(magnify, 1)
            )
            durable(
                folder / name, Image.fromarray(mirrors.astype(np.uint8) * 255).convert("1").save
            )
        lines.append({"measurement": k, **names})
    write_csv(folder / "patterns.csv", lines)
    manifest = {
        "config": physics.config,
        "measurements": len(rows),
        "side": n * magnify,
        "order": "patterns.csv, top to bottom; of each pair the positive first",
        "value": "y[k] = scale * (detector(positive k) - detector(negative k)), a detector summing the light of mirrors that are 1",
        "scale": scale.item() / magnify**2,
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return len(rows)
