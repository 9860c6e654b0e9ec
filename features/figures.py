"""Figures of features: measures, histograms, similarity, maps and their Fourier transforms."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from features.measures import fourier
from features.report import QUARTILES, Statistics, layers_in, merge_names
from features.subjects import Subject
from report.figures import (
    COLORS,
    DASHES,
    SMALLEST,
    panels,
    save_figure,
    use_decimal_labels,
    write_below,
)

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


def write_legend(figure: Figure, subjects: list[Subject]) -> None:
    """The networks' names below a figure."""
    write_below(figure, [f"{subject.letter}: {subject.name}" for subject in subjects])


# ---------------------------------------------------------------- measures and histograms


def plot_measures(rows: list[dict], subjects: list[Subject]) -> Figure:
    """Every measure over the layers: the median of the channels, and their quartiles as a bar."""
    positions = {layer: k for k, layer in enumerate(layers_in(rows))}
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    figure, axes = panels(len(measures), 3, 3.4, 2.5)
    for axis, measure in zip(axes, measures, strict=True):
        for k, subject in enumerate(subjects):
            names = {"measure": measure, "checkpoint": subject.name}
            own = [row for row in rows if names.items() <= row.items()]
            shift = 0.14 * (k - (len(subjects) - 1) / 2)  # the bars stand beside each other
            low, median, high = (np.array([row[name] for row in own]) for name in QUARTILES)
            axis.errorbar(
                [positions[row["layer"]] + shift for row in own],
                median,
                yerr=(median - low, high - median),
                fmt=MARKERS[k % len(MARKERS)],
                color=color_of(k),
                label=subject.letter,
                capsize=2,
                linewidth=1,
            )
        axis.set_title(str(TITLES.get(measure, measure.replace("_", " "))))
        rotation = 45 if len(positions) > 6 else 0
        axis.set_xticks(range(len(positions)), list(positions), rotation=rotation)
        axis.grid()
    axes[0].legend()
    write_legend(figure, subjects)
    return figure


def plot_histograms(statistics: Statistics, subjects: list[Subject]) -> Figure:
    """The densities of the values of every layer, without the outermost thousandths."""
    names = merge_names(statistics)
    figure, axes = panels(len(names), 3, 3.4, 2.4)
    for axis, name in zip(axes, names, strict=True):
        values = {
            k: torch.cat(layers[name].samples).double().numpy()
            for k, layers in enumerate(statistics)
            if name in layers
        }
        low, high = np.quantile(np.concatenate([*values.values()]), (0.001, 0.999))
        bins = np.linspace(low, high, 61) if high > low else np.array([low - 0.5, low + 0.5])
        for k, own in values.items():
            heights = np.histogram(own, bins)[0] / len(own) / np.diff(bins)
            color, label, dash = color_of(k), subjects[k].letter, DASHES[k % len(DASHES)]
            if k == 0:
                axis.stairs(heights, bins, color=color, label=label, fill=True, alpha=0.35)
            else:
                axis.stairs(heights, bins, color=color, label=label, linestyle=dash)
        axis.set(title=name, xlabel="value", ylabel="density", yscale="log")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        use_decimal_labels(axis.yaxis)
        axis.grid()
    axes[0].legend()
    write_legend(figure, subjects)
    return figure


# ---------------------------------------------------------------- similarity


def plot_similarities(
    statistics: Statistics, similarities: list[Tensor], subjects: list[Subject]
) -> Figure:
    """CKA of the first network's layers with those of each other, all on one scale."""
    reference = list(statistics[0])
    width, height = 1.2 + 0.5 * max(map(len, statistics)), 1.0 + 0.4 * len(reference)
    figure, axes = panels(len(similarities), 3, width, height)
    matrices = [matrix.cpu().numpy() for matrix in similarities]
    defined = np.concatenate([matrix[np.isfinite(matrix)] for matrix in matrices])
    least = min(np.floor(10 * defined.min(initial=1)) / 10, 0.9)
    others = zip(axes, matrices, statistics[1:], subjects[1:], strict=True)
    picture = None
    for axis, matrix, layers, subject in others:
        picture = axis.imshow(matrix, vmin=least, vmax=1, cmap="cividis", aspect="auto")
        axis.set_xticks(range(len(layers)), list(layers), rotation=45)
        axis.set_yticks(range(len(reference)), reference)
        axis.set(xlabel=f"network {subject.letter}", ylabel=f"network {subjects[0].letter}")
        for (i, j), value in np.ndenumerate(matrix):
            color = "black" if value > (1 + least) / 2 else "white"
            style = {"ha": "center", "va": "center", "fontsize": SMALLEST, "color": color}
            axis.text(j, i, f"{value:.2f}", **style)
    if picture is not None:
        figure.colorbar(picture, ax=axes, fraction=0.04, label="linear CKA")
    write_legend(figure, subjects)
    return figure


# ---------------------------------------------------------------- channels


@dataclass(frozen=True)
class ChannelSelection:
    """The channels of a layer that are plotted, and in words which they are."""

    channels: list[list[int]]  # for each network that has the layer
    description: str
    common: bool  # whether they are the same for all networks


def select_channels(maps: list[Tensor], count: int) -> ChannelSelection:
    """The channels of maps (C, H, W) of one image that changed most from the first network.

    Channels that are constant in all networks are left out. Where shapes differ no channels
    correspond: then the most varied ones of each network are selected.
    """
    varied = [f.double().flatten(1).std(1, correction=0) for f in maps]
    if len({f.shape for f in maps}) > 1 or len(maps) == 1:
        channels = [std.argsort(descending=True, stable=True)[:count].tolist() for std in varied]
        return ChannelSelection(channels, "the most varied channels of each network", False)
    varies = torch.stack(varied).amax(0) > 0
    if not varies.any():  # vectors, and layers of constants
        varies = torch.ones_like(varies)
    change = torch.stack([(f - maps[0]).double().square().sum((1, 2)) for f in maps]).amax(0)
    order = change.where(varies, -1).argsort(descending=True, stable=True)
    channels = order[: min(count, int(varies.sum()))].tolist()
    description = "the channels that changed most"
    if constant := int((~varies).sum()):
        description += f"; constant in all networks: {constant} of {len(varies)}"
    return ChannelSelection([channels] * len(maps), description, True)


def draw_channels(
    name: str, statistics: Statistics, subjects: list[Subject], count: int, folder: Path
) -> None:
    """Maps and Fourier transforms of one image: a line a network, a column a channel."""
    owners = [k for k, layers in enumerate(statistics) if name in layers]
    maps, named = [statistics[k][name].maps for k in owners], [subjects[k] for k in owners]
    selection = select_channels(maps, count)
    scale = "each channel on one scale" if selection.common else "each on its own scale"
    figures = {
        "maps": (
            plot_maps(maps, named, selection),
            f"{name}: {selection.description}\n{scale}; below each its range",
        ),
        "fourier": (
            plot_fourier_transforms(maps, named, selection),
            f"{name}: |Fourier transform| of {selection.description}\n"
            f"lowest frequency in the middle; each over {DECADES} decades, below it its maximum",
        ),
    }
    for kind, (figure, title) in figures.items():
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        write_legend(figure, named)
        save_figure(figure, folder / f"{kind}_{name}.png")


def channel_axes(
    maps: list[Tensor], named: list[Subject], selection: ChannelSelection
) -> tuple[Figure, list[tuple[Axes, int, Tensor]]]:
    """An axis for each channel, a line for each network; the channel's number and its map."""
    across = max(map(len, selection.channels))
    size = (max(1.3 * across, 4.5), 1.65 * len(maps) + 0.4)
    figure, axes = plt.subplots(
        len(maps),
        across,
        figsize=size,
        squeeze=False,
        layout="constrained",
        gridspec_kw={"hspace": 0.12},  # the text below a map keeps away from the next title
    )
    cells = []
    for line, f, subject, channels in zip(axes, maps, named, selection.channels, strict=True):
        for axis in line[len(channels) :]:
            axis.set_visible(False)
        for axis, channel in zip(line, channels, strict=False):
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{subject.letter}, channel {channel}", fontsize=SMALLEST)
            cells.append((axis, channel, f[channel]))
    return figure, cells


def plot_maps(maps: list[Tensor], named: list[Subject], selection: ChannelSelection) -> Figure:
    """The maps; a channel has one scale where all networks have the same ones."""
    figure, cells = channel_axes(maps, named, selection)
    for axis, channel, values in cells:
        scaled = torch.stack([f[channel] for f in maps]) if selection.common else values
        low, high = scaled.min().item(), scaled.max().item()
        axis.imshow(values.numpy(), vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
        axis.set_xlabel(f"{values.min():.2g} .. {values.max():.2g}", fontsize=SMALLEST)
    return figure


def plot_fourier_transforms(
    maps: list[Tensor], named: list[Subject], selection: ChannelSelection
) -> Figure:
    """|Fourier transform| of the maps, each on a logarithmic scale below its largest value."""
    figure, cells = channel_axes(maps, named, selection)
    for axis, _, values in cells:
        amplitudes = fourier(values[None, None].double())[0, 0].numpy()
        top = amplitudes.max() or 1.0
        low = top / 10**DECADES
        axis.imshow(
            amplitudes.clip(low), norm=LogNorm(low, top), cmap="magma", interpolation="nearest"
        )
        axis.set_xlabel(f"{amplitudes.max():.3g}", fontsize=SMALLEST)
    return figure


def draw_features(
    subjects: list[Subject],
    statistics: Statistics,
    similarities: list[Tensor],
    rows: list[dict],
    count: int,
    folder: Path,
) -> None:
    """Writes all figures; those of an earlier call whose layers no longer exist are deleted."""
    for stale in [*folder.glob("maps_*.png"), *folder.glob("fourier_*.png")]:
        stale.unlink()
    save_figure(plot_measures(rows, subjects), folder / "measures.png")
    save_figure(plot_histograms(statistics, subjects), folder / "histograms.png")
    save_figure(plot_similarities(statistics, similarities, subjects), folder / "cka.png")
    for name in layers_in(rows):
        draw_channels(name, statistics, subjects, count, folder)
