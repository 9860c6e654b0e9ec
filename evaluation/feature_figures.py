"""Pictures of features: measures and histograms of taps, their similarity, maps and Fourier transforms of channels."""

from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from evaluation.feature_measures import fourier
from evaluation.feature_report import QUARTILES, layers_of, united
from evaluation.features import Subject, Tap
from report.figures import COLORS, DASHES, SMALLEST, panels, plain_numbers, save, write_below

TITLES = {  # of the measures whose names are short
    "wavelet": "energy in Haar's details (share)",
    "high_frequency": "energy in high frequencies (share)",
    "low_pass_residual": "energy that a low pass removes (share)",
    "std": "standard deviation",
    "iqr": "interquartile range",
    "variation": "coefficient of variation",
}
MARKERS = "os^Dv<>"
DECADES = 3  # of a Fourier transform


def color_of(k: int) -> str:
    return COLORS[k % len(COLORS)]


def entitle(figure: plt.Figure, subjects: list[Subject]) -> None:
    """The networks' names below a picture."""
    write_below(figure, [f"{subject.letter}: {subject.name}" for subject in subjects])


def draw_measures(rows: list[dict], subjects: list[Subject], path: Path) -> None:
    """The picture of the measures as a file."""
    save(measures_of(rows, subjects), path)


def measures_of(rows: list[dict], subjects: list[Subject]) -> plt.Figure:
    """Every measure over the taps: the median of the channels, and a bar for the middle half of them, which is never where no channel is."""
    places = {layer: k for k, layer in enumerate(layers_of(rows))}
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    figure, axes = panels(len(measures), 3, 3.4, 2.5)
    for axis, measure in zip(axes, measures, strict=True):
        for k, subject in enumerate(subjects):
            names = {"measure": measure, "checkpoint": subject.name}
            mine = [row for row in rows if names.items() <= row.items()]
            shift = 0.14 * (k - (len(subjects) - 1) / 2)  # so that bars stand beside each other
            low, middle, high = (np.array([row[name] for row in mine]) for name in QUARTILES)
            bars = {"yerr": (middle - low, high - middle), "capsize": 2, "linewidth": 1}
            x = [places[row["tap"]] + shift for row in mine]
            marker = MARKERS[k % len(MARKERS)]
            axis.errorbar(x, middle, fmt=marker, color=color_of(k), label=subject.letter, **bars)
        axis.set_title(TITLES.get(measure, measure.replace("_", " ")))
        axis.set_xticks(range(len(places)), places, rotation=45 if len(places) > 6 else 0)
        axis.grid()
    axes[0].legend()
    entitle(figure, subjects)
    return figure


def draw_histograms(layers: list[dict[str, Tap]], subjects: list[Subject], path: Path) -> None:
    """The densities of the values of every tap, of all but the outermost thousandths."""
    names = united(layers)
    figure, axes = panels(len(names), 3, 3.4, 2.4)
    for axis, name in zip(axes, names, strict=True):
        values = {
            k: torch.cat(kept[name].values).double().numpy()
            for k, kept in enumerate(layers)
            if name in kept
        }
        low, high = np.quantile(np.concatenate([*values.values()]), (0.001, 0.999))
        bins = np.linspace(low, high, 61) if high > low else np.array([low - 0.5, low + 0.5])
        for k, own in values.items():
            heights = np.histogram(own, bins)[0] / len(own) / np.diff(bins)
            how = {"fill": True, "alpha": 0.35} if k == 0 else {"ls": DASHES[k % len(DASHES)]}
            axis.stairs(heights, bins, color=color_of(k), label=subjects[k].letter, **how)
        axis.set(title=name, xlabel="value", ylabel="density", yscale="log")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        plain_numbers(axis.yaxis)
        axis.grid()
    axes[0].legend()
    entitle(figure, subjects)
    save(figure, path)


def draw_similarities(
    layers: list[dict[str, Tap]], similarities: list[Tensor], subjects: list[Subject], path: Path
) -> None:
    """The picture of the similarities as a file."""
    save(similarities_of(layers, similarities, subjects), path)


def similarities_of(
    layers: list[dict[str, Tap]], similarities: list[Tensor], subjects: list[Subject]
) -> plt.Figure:
    """CKA of every tap of the first network with every tap of each other, on one scale that begins below the smallest."""
    width, height = 1.2 + 0.5 * max(map(len, layers)), 1.0 + 0.4 * len(layers[0])
    figure, axes = panels(len(similarities), 3, width, height)
    matrices = [matrix.cpu().numpy() for matrix in similarities]
    defined = np.concatenate([matrix[np.isfinite(matrix)] for matrix in matrices])
    least = min(np.floor(10 * defined.min(initial=1)) / 10, 0.9)
    for axis, matrix, kept, subject in zip(axes, matrices, layers[1:], subjects[1:], strict=True):
        picture = axis.imshow(matrix, vmin=least, vmax=1, cmap="cividis", aspect="auto")
        axis.set_xticks(range(len(kept)), kept, rotation=45)
        axis.set_yticks(range(len(layers[0])), layers[0])
        axis.set(xlabel=f"network {subject.letter}", ylabel=f"network {subjects[0].letter}")
        for (i, j), value in np.ndenumerate(matrix):
            color = "black" if value > (1 + least) / 2 else "white"
            how = {"ha": "center", "va": "center", "fontsize": SMALLEST, "color": color}
            axis.text(j, i, f"{value:.2f}", **how)
    figure.colorbar(picture, ax=axes, fraction=0.04, label="linear CKA")
    entitle(figure, subjects)
    return figure


class Shown(NamedTuple):
    """The channels of a tap that are drawn: a list for each network that has it, and which they are in words."""

    channels: list[list[int]]
    which: str
    common: bool  # whether all networks show the same ones


def channels_shown(maps: list[Tensor], count: int) -> Shown:
    """The channels of maps (C, H, W) of one image that changed most from the first network to any other, without those that are constant in all.

    Where shapes differ no channels correspond: the most varied ones of each network.
    """
    varied = [f.double().flatten(1).std(1, correction=0) for f in maps]
    if len({f.shape for f in maps}) > 1 or len(maps) == 1:
        chosen = [std.argsort(descending=True, stable=True)[:count].tolist() for std in varied]
        return Shown(chosen, "the most varied channels of each network", False)
    lively = torch.stack(varied).amax(0) > 0
    if not lively.any():  # vectors, and taps that say nothing
        lively = torch.ones_like(lively)
    change = torch.stack([(f - maps[0]).double().square().sum((1, 2)) for f in maps]).amax(0)
    order = change.where(lively, -1).argsort(descending=True, stable=True)
    dead = int((~lively).sum())
    constant = f"; constant in all networks: {dead} of {len(lively)}" if dead else ""
    which = f"the channels that changed most{constant}"
    return Shown([order[: min(count, int(lively.sum()))].tolist()] * len(maps), which, True)


def draw_channels(
    name: str, layers: list[dict[str, Tap]], subjects: list[Subject], count: int, folder: Path
) -> None:
    """A line a network, a column a channel, of one image: the maps, and what is in their Fourier transforms."""
    having = [k for k, kept in enumerate(layers) if name in kept]
    maps, named = [layers[k][name].shown for k in having], [subjects[k] for k in having]
    shown = channels_shown(maps, count)
    scale = "each channel on one scale" if shown.common else "each on its own scale"
    titles = {
        "maps": f"{name}: {shown.which}\n{scale}; below each its range",
        "fourier": f"{name}: |Fourier transform| of {shown.which}\n"
        f"lowest frequency in the middle, {DECADES} decades below the largest value of each",
    }
    for kind, title in titles.items():
        figure = (maps_of if kind == "maps" else fouriers_of)(maps, named, shown)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        entitle(figure, named)
        save(figure, folder / f"{kind}_{name}.png")


def sheet(maps: list[Tensor], named: list[Subject], shown: Shown) -> tuple[plt.Figure, list]:
    """Axes for the channels, in lines of networks, and what belongs into each: network, column, channel's map."""
    across = max(map(len, shown.channels))
    size = (max(1.3 * across, 4.5), 1.65 * len(maps) + 0.4)
    figure, axes = plt.subplots(
        len(maps), across, figsize=size, squeeze=False, layout="constrained"
    )
    cells = []
    for line, f, subject, channels in zip(axes, maps, named, shown.channels, strict=True):
        for axis in line[len(channels) :]:
            axis.set_visible(False)
        for axis, channel in zip(line, channels, strict=False):
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{subject.letter}, channel {channel}", fontsize=SMALLEST)
            cells.append((axis, channel, f[channel]))
    return figure, cells


def maps_of(maps: list[Tensor], named: list[Subject], shown: Shown) -> plt.Figure:
    """The maps, on a scale for each channel where the networks show the same ones."""
    figure, cells = sheet(maps, named, shown)
    for axis, channel, values in cells:
        alike = torch.stack([f[channel] for f in maps]) if shown.common else values
        low, high = alike.min().item(), alike.max().item()
        axis.imshow(values.numpy(), vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
        axis.set_xlabel(f"{values.min():.2g} .. {values.max():.2g}", fontsize=SMALLEST)
    return figure


def fouriers_of(maps: list[Tensor], named: list[Subject], shown: Shown) -> plt.Figure:
    figure, cells = sheet(maps, named, shown)
    for axis, _, values in cells:
        draw_fourier(axis, values)
    return figure


def draw_fourier(axis: plt.Axes, values: Tensor) -> None:
    amplitudes = fourier(values[None, None].double())[0, 0].numpy()
    top = amplitudes.max() or 1.0
    axis.imshow(
        amplitudes.clip(top / 10**DECADES),
        norm=LogNorm(top / 10**DECADES, top),
        cmap="magma",
        interpolation="nearest",
    )
    axis.set_xlabel(f"{amplitudes.max():.3g}", fontsize=SMALLEST)


def draw(
    subjects: list[Subject],
    layers: list[dict[str, Tap]],
    similarities: list[Tensor],
    rows: list[dict],
    count: int,
    folder: Path,
) -> None:
    """All pictures; those of taps that are no longer there go."""
    for stale in [*folder.glob("maps_*.png"), *folder.glob("fourier_*.png")]:
        stale.unlink()
    draw_measures(rows, subjects, folder / "measures.png")
    draw_histograms(layers, subjects, folder / "histograms.png")
    draw_similarities(layers, similarities, subjects, folder / "cka.png")
    for name in layers_of(rows):
        draw_channels(name, layers, subjects, count, folder)
