"""Pictures of features: measures and histograms of taps, their similarity, maps and Fourier transforms of channels."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LogNorm
from torch import Tensor

from analysis.feature_report import taps_of, united
from analysis.features import Subject, Tap, relative
from analysis.figures import save
from analysis.measures import fourier

DECADES = 3  # of a Fourier transform


def panels(
    count: int, columns: int, width: float, height: float
) -> tuple[plt.Figure, list[plt.Axes]]:
    """So many axes in lines of a few."""
    columns = min(count, columns)
    lines = -(-count // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(width * columns, height * lines), squeeze=False
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, [*axes.flat[:count]]


def entitle(figure: plt.Figure, subjects: list[Subject]) -> None:
    """The networks' names below a picture."""
    text = "\n".join(f"{subject.letter}: {subject.name}" for subject in subjects)
    figure.tight_layout()
    figure.text(0.01, -0.01, text, fontsize=7, va="top", parse_math=False)


def draw_measures(rows: list[dict], subjects: list[Subject], path: Path) -> None:
    """Every measure over the taps, with its deviation over images and channels."""
    places = {tap: k for k, tap in enumerate(taps_of(rows))}
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    figure, axes = panels(len(measures), 3, 4.2, 2.8)
    for axis, measure in zip(axes, measures, strict=True):
        for k, subject in enumerate(subjects):
            mine = [
                row
                for row in rows
                if row["measure"] == measure and row["checkpoint"] == subject.name
            ]
            shift = 0.12 * (k - (len(subjects) - 1) / 2)  # so that bars stand beside each other
            x, y, bars = (
                [places[row["tap"]] + shift for row in mine],
                [row["mean"] for row in mine],
                [row["std"] for row in mine],
            )
            axis.errorbar(
                x, y, bars, fmt="o", markersize=4, capsize=2, linewidth=1, label=subject.letter
            )
        axis.set_title(measure.replace("_", " "), fontsize=10)
        axis.set_xticks(
            range(len(places)), places, fontsize=8, rotation=45 if len(places) > 6 else 0
        )
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    entitle(figure, subjects)
    save(figure, path)


def draw_histograms(taps: list[dict[str, Tap]], subjects: list[Subject], path: Path) -> None:
    """The densities of the values of every tap, of all but the outermost thousandths."""
    names = united(taps)
    figure, axes = panels(len(names), 3, 4.2, 2.6)
    for axis, name in zip(axes, names, strict=True):
        values = {
            s.letter: torch.cat(kept[name].values).double().numpy()
            for s, kept in zip(subjects, taps, strict=True)
            if name in kept
        }
        low, high = np.quantile(np.concatenate([*values.values()]), (0.001, 0.999))
        bins = np.linspace(low, high, 81) if high > low else np.array([low - 0.5, low + 0.5])
        for k, subject in enumerate(subjects):
            if subject.letter in values:
                own = values[subject.letter]
                heights = np.histogram(own, bins)[0] / len(own) / np.diff(bins)
                axis.stairs(
                    heights,
                    bins,
                    color=f"C{k}",
                    fill=k == 0,
                    alpha=0.4 if k == 0 else 1,
                    label=subject.letter,
                )
        axis.set(yscale="log")
        axis.set_title(name, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    entitle(figure, subjects)
    save(figure, path)


def draw_similarities(
    taps: list[dict[str, Tap]], similarities: list[Tensor], subjects: list[Subject], path: Path
) -> None:
    """CKA of every tap of the first network with every tap of each other."""
    figure, axes = panels(
        len(similarities), 3, 1.6 + 0.55 * max(map(len, taps)), 1.2 + 0.45 * len(taps[0])
    )
    for axis, matrix, kept, subject in zip(axes, similarities, taps[1:], subjects[1:], strict=True):
        picture = axis.imshow(matrix.cpu().numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axis.set_xticks(range(len(kept)), kept, fontsize=8, rotation=45)
        axis.set_yticks(range(len(taps[0])), taps[0], fontsize=8)
        axis.set(xlabel=subject.letter, ylabel=subjects[0].letter, title="linear CKA")
        axis.title.set_fontsize(10)
        for (i, j), value in np.ndenumerate(matrix.cpu().numpy()):
            axis.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if value > 0.6 else "white",
            )
        figure.colorbar(picture, ax=axis, fraction=0.05)
    entitle(figure, subjects)
    save(figure, path)


def channels_shown(name: str, taps: list[dict[str, Tap]], count: int) -> tuple[list[int], str]:
    """The channels of a tap that changed most in any network, or the first ones where the shapes differ."""
    kept = [mine[name] for mine in taps if name in mine]
    others = [mine[name] for mine in taps[1:] if name in mine]
    if name in taps[0] and others and all(tap.change is not None for tap in others):
        changes = torch.stack([relative(tap.change) for tap in others]).amax(0)
        return changes.argsort(descending=True, stable=True)[
            :count
        ].tolist(), "the channels that changed most"
    return list(range(min(count, max(len(tap.shown) for tap in kept)))), "the first channels"


def draw_channels(
    name: str, taps: list[dict[str, Tap]], subjects: list[Subject], count: int, folder: Path
) -> None:
    """A line a network, a column a channel, of one image: the maps, and what is in their Fourier transforms."""
    lines = [
        (subject, kept[name].shown)
        for subject, kept in zip(subjects, taps, strict=True)
        if name in kept
    ]
    channels, which = channels_shown(name, taps, count)
    titles = {
        "maps": f"{name}: {which}, with their smallest and largest value",
        "fourier": f"{name}: |Fourier transform| of {which}, lowest frequency in the middle, {DECADES} decades below its largest value",
    }
    for kind, title in titles.items():
        figure, axes = plt.subplots(
            len(lines),
            len(channels),
            figsize=(1.35 * len(channels), 1.75 * len(lines) + 0.3),
            squeeze=False,
        )
        for line, (subject, maps) in zip(axes, lines, strict=True):
            for axis, channel in zip(line, channels, strict=True):
                axis.set(xticks=[], yticks=[])
                axis.set_visible(channel < len(maps))
                if channel < len(maps):
                    axis.set_title(f"{subject.letter}, channel {channel}", fontsize=7)
                    (draw_map if kind == "maps" else draw_fourier)(axis, maps[channel])
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        entitle(figure, [subject for subject, _ in lines])
        save(figure, folder / f"{kind}_{name}.png")


def draw_map(axis: plt.Axes, values: Tensor) -> None:
    axis.imshow(values.numpy(), cmap="viridis", interpolation="nearest")
    axis.set_xlabel(f"{values.min():.2g} .. {values.max():.2g}", fontsize=7)


def draw_fourier(axis: plt.Axes, values: Tensor) -> None:
    amplitudes = fourier(values[None, None].double())[0, 0].numpy()
    top = amplitudes.max() or 1.0
    axis.imshow(
        amplitudes.clip(top / 10**DECADES),
        norm=LogNorm(top / 10**DECADES, top),
        cmap="magma",
        interpolation="nearest",
    )
    axis.set_xlabel(f"{amplitudes.max():.2g}", fontsize=7)


def draw(
    subjects: list[Subject],
    taps: list[dict[str, Tap]],
    similarities: list[Tensor],
    rows: list[dict],
    count: int,
    folder: Path,
) -> None:
    """All pictures; those of taps that are no longer there go."""
    for stale in [*folder.glob("maps_*.png"), *folder.glob("fourier_*.png")]:
        stale.unlink()
    draw_measures(rows, subjects, folder / "measures.png")
    draw_histograms(taps, subjects, folder / "histograms.png")
    draw_similarities(taps, similarities, subjects, folder / "cka.png")
    for name in taps_of(rows):
        draw_channels(name, taps, subjects, count, folder)
