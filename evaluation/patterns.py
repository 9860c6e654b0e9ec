"""Sensing patterns as figures, as energy curves, and as files for a micromirror device."""

import json
from pathlib import Path

import numpy as np
import torch
from deepinv.physics.singlepixel import hadamard_2d, hadamard_2d_shift
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from core.errors import UserError
from core.files import durable, write_csv, write_text
from core.registry import ORDERINGS
from physics.orderings import is_hadamard, patterns_of
from physics.single_pixel import OF_SIGNS, SinglePixel
from report.figures import SMALLEST, WIDE, panels, save_figure, use_decimal_labels

BEST = "best for these images"
DETECTOR = "a detector summing the light of mirrors that are 1"
PAIRS = {
    "order": "patterns.csv, top to bottom; of each pair the positive first",
    "value": f"y[k] = scale * (detector(positive k) - detector(negative k)), {DETECTOR}",
}
ONE_SIDED = {
    "order": "patterns.csv, top to bottom",
    "value": f"y[k] = scale * (2 * detector(k) - detector(0)), {DETECTOR}, without its dark value",
}


def draw_mask(physics: SinglePixel, path: Path) -> None:
    """Which Hadamard coefficients are measured, low sequencies at the top left, or the matrix."""
    figure, (axis,) = panels(1, 1, 4.5, 4.5)
    name, ratio, n = (physics.config[key] for key in ("ordering", "cr", "n"))
    hadamard = is_hadamard(physics.patterns, n)
    if hadamard:
        mask = hadamard_2d_shift((physics.patterns < physics.m).float())
        count = f"{physics.m} of {n**2} coefficients, white"
        axis.set(xlabel="horizontal sequency", ylabel="vertical sequency")
    else:
        mask = physics.rows()
        count = f"m = {physics.m}"
        axis.set(xlabel="pixel", ylabel="pattern")
    aspect = "equal" if hadamard else "auto"
    axis.imshow(mask.numpy(), cmap="gray", interpolation="nearest", aspect=aspect)
    axis.set_title(f"{name}, cr {ratio:g}: {count}", parse_math=False)
    save_figure(figure, path)


def draw_patterns(physics: SinglePixel, count: int, path: Path) -> None:
    """The first patterns, in measuring order."""
    n = physics.config["n"]
    rows = physics.rows(count).view(-1, n, n)
    columns = min(8, len(rows))
    lines = -(-len(rows) // columns)
    low, high = rows.min().item(), rows.max().item()
    figure, axes = panels(len(rows), columns, 1.2, 1.4 + 0.3 / lines)
    for k, axis in enumerate(axes):
        axis.set(xticks=[], yticks=[])
        axis.imshow(rows[k].numpy(), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(str(k), fontsize=SMALLEST)
    title = f"the first {len(rows)} patterns in measuring order; black {low:.3g}, white {high:.3g}"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    save_figure(figure, path)


def cumulative_energies(physics: SinglePixel, images: Tensor) -> dict[str, Tensor]:
    """The share of the images' energy that the first patterns measure, for every Hadamard ordering.

    The patterns of this physics and the best ordering for these images are among them.
    """
    n = physics.config["n"]
    if n & (n - 1):
        return {}  # no Hadamard patterns of this size
    energy = torch.zeros(n, n, dtype=torch.float64)
    for chunk in images.split(500):
        energy = energy + hadamard_2d(chunk).double().square().sum((0, 1))
    energy = energy.view(-1)
    orderings = {
        name: patterns_of(name, n, 1, lambda: images) for name in ORDERINGS if name not in OF_SIGNS
    }
    orderings[physics.config["ordering"]] = physics.patterns
    energies = {
        name: energy[ranks.view(-1).argsort()].cumsum(0) / energy.sum()
        for name, ranks in orderings.items()
        if is_hadamard(ranks, n)
    }
    if not is_hadamard(physics.patterns, n):
        energies[physics.config["ordering"]] = energies_of_rows(physics.rows(), images)
    return energies | {BEST: energy.sort(descending=True).values.cumsum(0) / energy.sum()}


def energies_of_rows(rows: Tensor, images: Tensor) -> Tensor:
    """The share of the images' energy in the span of the first rows, for every number of them."""
    basis = torch.linalg.qr(rows.double().T).Q  # each row without what those before it measure
    inside, total = torch.zeros(len(rows), dtype=torch.float64), 0.0
    for chunk in images.flatten(2).split(500):
        inside += (chunk.double() @ basis).square().sum((0, 1))
        total += chunk.double().square().sum().item()
    return inside.cumsum(0) / total


def draw_energies(energies: dict[str, Tensor], m: int, path: Path) -> None:
    """The figure of the energies as a file."""
    save_figure(plot_energies(energies, m), path)


def plot_energies(energies: dict[str, Tensor], m: int) -> Figure:
    """The energy not measured over the number of measurements, and its excess over the best."""
    figure, (left, right) = panels(2, 2, WIDE / 2, 3.6)
    lost = {name: (1 - energy[:-1]).clamp_min(1e-15).numpy() for name, energy in energies.items()}
    for name, share in lost.items():
        measurements = np.arange(1, len(share) + 1)
        (line,) = left.plot(measurements, share, label=name)
        if name == BEST:
            line.set(color="0.35", linestyle=":")
        best = lost[BEST][: len(share)]
        excess = 100 * (share / best - 1)
        # Where the best ordering leaves only rounding errors there is nothing to compare.
        shown = (excess > 0.01) & (best > 1e-6)
        right.plot(measurements, np.where(shown, excess, np.nan))
    left.set(ylabel="share of the energy that is not measured", yscale="log")
    right.set(ylabel="excess over the best ordering (%)", yscale="log", ylim=(0.1, None))
    right.set_title("below 0.1 %: as good as the best")
    right.sharex(left)
    use_decimal_labels(right.yaxis)
    for axis in (left, right):
        axis.axvline(m, color="black", lw=0.8, label=f"m = {m}" if axis is left else None)
        axis.set(xscale="log", xlabel="measurements")
        use_decimal_labels(axis.xaxis)
        axis.grid()
    for label in left.legend(loc="lower left").get_texts():
        label.set_parse_math(False)
    return figure


def shows_ones_first(rows: Tensor) -> bool:
    """Whether the first pattern is all ones, so that 0/1 patterns alone tell those of ±1."""
    first = rows[0]
    return bool((first > 0).all()) and torch.allclose(first, first[:1], rtol=1e-4)


def export_patterns(
    physics: SinglePixel, folder: Path, magnify: int = 1, one_sided: bool = False
) -> int:
    """Writes 0/1 images and a manifest that explains detector values; returns their number.

    They are complementary pairs, or `one_sided` without the opposites. Patterns that are not
    Hadamard's are written as a matrix too, which `--ordering file:patterns.npy` reads.
    """
    n, rows = physics.config["n"], physics.rows()
    scale = rows.abs().max()
    if not torch.allclose(rows.abs(), scale.expand_as(rows), rtol=1e-4):
        raise UserError(
            f"export: the patterns of ordering '{physics.config['ordering']}' are not ±1, "
            "so 0/1 images cannot represent them"
        )
    if one_sided and not shows_ones_first(rows):
        raise UserError(
            f"one_sided: the first pattern of ordering '{physics.config['ordering']}' is not all "
            "ones, so 0/1 patterns need their opposites"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"export: folder {folder} is not empty")
    signs = ("positive",) if one_sided else ("positive", "negative")
    table = []
    for k, positive in enumerate(rows.view(-1, n, n) > 0):
        mirrors = {"positive": positive, "negative": ~positive}
        names = {sign: f"pattern_{k:05d}_{sign}.png" for sign in signs}
        for sign, name in names.items():
            write_mirrors(mirrors[sign], magnify, folder / name)
        table.append({"measurement": k, **names})
    write_csv(folder / "patterns.csv", table)
    if not is_hadamard(physics.patterns, n):
        durable(folder / "patterns.npy", lambda path: save_array(path, rows.numpy()))
    manifest = {
        "config": physics.config,
        "measurements": len(rows),
        "side": n * magnify,
        **(ONE_SIDED if one_sided else PAIRS),
        "scale": scale.item() / magnify**2,
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return len(signs) * len(rows)


def save_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def write_mirrors(pattern: Tensor, magnify: int, path: Path) -> None:
    """A pattern (n, n) of booleans as a black and white image."""
    mirrors = pattern.numpy().repeat(magnify, 0).repeat(magnify, 1)
    image = Image.fromarray(mirrors.astype(np.uint8) * 255).convert("1")
    durable(path, image.save)
