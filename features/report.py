"""The tables of features, and a summary of them."""

import hashlib
from argparse import Namespace
from collections.abc import Collection, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from core.files import table, write_text
from features.statistics import LayerStatistics, relative_change
from features.subjects import Subject
from report.tables import format_cell, markdown

LARGEST = 5  # changes in the summary
QUARTILES = ("channel_q1", "channel_median", "channel_q3")  # of the channels' means over images
COLUMNS = {  # of the tables
    "measures": ("checkpoint", "layer", "measure", "mean", "std", "values", *QUARTILES),
    "cka": ("reference", "checkpoint", "reference layer", "layer", "cka"),
    "layers": ("checkpoint", "kind", "layer", "channel", "change"),
    "channels": ("checkpoint", "layer", "channel", "change"),
}

Statistics = list[dict[str, LayerStatistics]]  # of the layers of every subject


def folder_name(names: list[str]) -> str:
    """The names of the networks, cut where they are longer than a file's name may be."""
    name = "_and_".join(names)
    if len(name) <= 120:
        return name
    return f"{name[:107]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


# ---------------------------------------------------------------- tables


def measure_rows(subjects: list[Subject], statistics: Statistics) -> list[dict]:
    """Mean and deviation of every measure over images and channels, and the channels' quartiles."""
    rows = []
    for subject, layers in zip(subjects, statistics, strict=True):
        for name, layer in layers.items():
            for measure, sums in layer.sums.items():
                count, total, squares = sums.sum(1)
                mean = total / count
                deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
                quarters = torch.tensor((0.25, 0.5, 0.75), dtype=sums.dtype)
                quartiles = torch.nanquantile(sums[1] / sums[0], quarters).tolist()
                row = {
                    "checkpoint": subject.name,
                    "layer": name,
                    "measure": measure,
                    "mean": mean.item(),
                    "std": deviation.item(),
                    **dict(zip(QUARTILES, quartiles, strict=True)),
                    "values": int(count),
                }
                rows.append(row)
    return rows


def similarity_rows(
    subjects: list[Subject], statistics: Statistics, similarities: list[Tensor]
) -> list[dict]:
    """The CKA of every layer of the first network with every layer of the others."""
    rows = []
    reference, *others = subjects
    for subject, layers, matrix in zip(others, statistics[1:], similarities, strict=True):
        for reference_layer, line in zip(statistics[0], matrix.tolist(), strict=True):
            for layer, value in zip(layers, line, strict=True):
                row = {
                    "reference": reference.name,
                    "checkpoint": subject.name,
                    "reference layer": reference_layer,
                    "layer": layer,
                    "cka": value,
                }
                rows.append(row)
    return rows


def sort_by_change(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: -row["change"])


def layer_rows(
    subjects: list[Subject], statistics: Statistics, weights: list[dict[str, Tensor] | None]
) -> list[dict]:
    """The change of every parameter, of its output channels, and of every layer's features."""
    rows = []
    for subject, layers, changes in zip(subjects[1:], statistics[1:], weights, strict=True):
        own = []
        for name, squares in (changes or {}).items():
            row = {"checkpoint": subject.name, "kind": "parameter", "layer": name}
            own.append(row | {"channel": None, "change": relative_change(squares.sum(1)).item()})
            for k, change in enumerate(relative_change(squares).tolist()):
                own.append(row | {"channel": k, "change": change})
        for name, layer in layers.items():
            if layer.change is not None:
                change = relative_change(layer.change.sum(1)).item()
                row = {"checkpoint": subject.name, "kind": "features", "layer": name}
                own.append(row | {"channel": None, "change": change})
        rows += sort_by_change(own)
    return rows


def channel_rows(subjects: list[Subject], statistics: Statistics) -> list[dict]:
    """The change of every channel's features, and the difference of each of its measures."""
    rows = []
    for subject, layers in zip(subjects[1:], statistics[1:], strict=True):
        own = []
        for name, layer in layers.items():
            if layer.change is None:
                continue
            reference = statistics[0][name]
            differences = {}
            for measure, sums in layer.sums.items():
                reference_sums = reference.sums[measure]
                difference = sums[1] / sums[0] - reference_sums[1] / reference_sums[0]
                differences[f"{measure} difference"] = difference.tolist()
            for k, change in enumerate(relative_change(layer.change).tolist()):
                row = {"checkpoint": subject.name, "layer": name, "channel": k, "change": change}
                own.append(row | {column: values[k] for column, values in differences.items()})
        rows += sort_by_change(own)
    return rows


def write_tables(tables: dict[str, list[dict]], measures: list[str], folder: Path) -> None:
    """Writes the tables, with their header alone where nothing could be compared."""
    for name, rows in tables.items():
        columns = COLUMNS[name]
        if name == "channels":
            columns += tuple(f"{measure} difference" for measure in measures)
        write_text(folder / f"{name}.csv", table(columns, rows))


# ---------------------------------------------------------------- summary


def format_images(count: int, args: Namespace) -> str:
    """How many images of what the networks see."""
    if args.dataset == "recorded":
        return f"{count} test frames of {args.data_root}"
    return f"{count} test images of {args.dataset}"


def format_summary(subjects: list[Subject], tables: dict[str, list[dict]]) -> str:
    """The tables in short, with a letter for each network."""
    letters = {subject.name: subject.letter for subject in subjects}
    means: dict[tuple[str, str], dict] = {
        (layer, letter): {"layer": layer, "network": letter}
        for layer in layers_in(tables["measures"])
        for letter in letters.values()
    }
    for row in tables["measures"]:
        means[row["layer"], letters[row["checkpoint"]]][row["measure"]] = row["mean"]
    similar: dict[str, dict] = {layer: {"layer": layer} for layer in layers_in(tables["cka"])}
    for row in tables["cka"]:
        if row["layer"] == row["reference layer"]:
            pair = f"CKA {subjects[0].letter}, {letters[row['checkpoint']]}"
            similar[row["layer"]][pair] = row["cka"]
    legend = [f"{one.letter}: {one.name}; {one.physics.describe()}" for one in subjects]
    parts = [
        "\n".join(legend),
        "Means over images and channels:",
        markdown([line for line in means.values() if len(line) > 2]),
        markdown([line for line in similar.values() if len(line) > 1]),
    ]
    for subject in subjects[1:]:
        own = {
            name: [row for row in rows if row["checkpoint"] == subject.name]
            for name, rows in tables.items()
        }
        parts += format_changes(subject.letter, subjects[0].letter, own)
    return "\n\n".join(parts)


def layers_in(rows: list[dict]) -> list[str]:
    """The layers of all networks in a table."""
    layers: dict[str, dict] = {}
    for row in rows:
        layers.setdefault(row["checkpoint"], {})[row["layer"]] = None
    return merge_names(layers.values())


def merge_names(names: Iterable[Collection[str]]) -> list[str]:
    """The layers of the network that has most, then those that only others have."""
    longest_first = sorted(names, key=len, reverse=True)
    return list(dict.fromkeys(name for layers in longest_first for name in layers))


def format_changes(b: str, a: str, tables: dict[str, list[dict]]) -> Iterator[str]:
    """What changed most from network a to network b, and what cannot be compared."""
    whole = [row for row in tables["layers"] if row["channel"] is None]
    kinds = {
        kind: [(row["layer"], row["change"]) for row in whole if row["kind"] == kind]
        for kind in ("parameter", "features")
    }
    if not kinds["parameter"]:
        yield f"{b} has another architecture than {a}, so their weights are not compared."
    compared = dict(kinds["features"])
    if other := [name for name in layers_in(tables["cka"]) if name not in compared]:
        layers = ", ".join(other)
        yield f"{a} has no layers of the same shape as {b}'s {layers}: these are not compared."
    kinds["channel"] = [
        (f"{row['layer']} {row['channel']}", row["change"]) for row in tables["channels"]
    ]
    columns = {
        kind: [f"{name}: {format_cell(change)}" for name, change in rows[:LARGEST]]
        for kind, rows in kinds.items()
        if rows
    }
    if columns:
        yield f"Largest changes from {a} to {b}, ‖{b} - {a}‖ / ‖{a}‖:"
        lines = zip_longest(*columns.values())
        yield markdown([dict(zip(columns, line, strict=True)) for line in lines])
