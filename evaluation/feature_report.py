"""The tables of features, and a few lines with the most of them."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from core.files import table, write_text
from evaluation.features import Subject, Tap, relative
from report.tables import cell, markdown

SHOWN = 5  # of what changed most
QUARTILES = ("channel_q1", "channel_median", "channel_q3")  # of the channels' means over images
COLUMNS = {  # of the tables
    "measures": ("checkpoint", "tap", "measure", "mean", "std", "values", *QUARTILES),
    "cka": ("reference", "checkpoint", "reference tap", "tap", "cka"),
    "layers": ("checkpoint", "kind", "layer", "channel", "change"),
    "channels": ("checkpoint", "tap", "channel", "change"),
}


def folder_name(names: list[str]) -> str:
    """The names of the networks, cut where they are longer than a file's name may be."""
    name = "_and_".join(names)
    return (
        name
        if len(name) <= 120
        else f"{name[:107]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    )


def measure_rows(subjects: list[Subject], layers: list[dict[str, Tap]]) -> list[dict]:
    """Mean and deviation of every measure over the images and channels of which it is defined, and the quartiles of its channels."""
    rows = []
    for subject, kept in zip(subjects, layers, strict=True):
        for name, layer in kept.items():
            for measure, sums in layer.sums.items():
                count, total, squares = sums.sum(1)
                mean = total / count
                deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
                row = {
                    "checkpoint": subject.name,
                    "tap": name,
                    "measure": measure,
                    "mean": mean.item(),
                    "std": deviation.item(),
                }
                quarters = torch.tensor((0.25, 0.5, 0.75), dtype=sums.dtype)
                quartiles = torch.nanquantile(sums[1] / sums[0], quarters).tolist()
                row |= dict(zip(QUARTILES, quartiles, strict=True))
                rows.append(row | {"values": int(count)})
    return rows


def similarity_rows(
    subjects: list[Subject], layers: list[dict[str, Tap]], similarities: list[Tensor]
) -> list[dict]:
    rows = []
    for subject, kept, matrix in zip(subjects[1:], layers[1:], similarities, strict=True):
        for theirs, line in zip(layers[0], matrix.tolist(), strict=True):
            for mine, value in zip(kept, line, strict=True):
                row = {
                    "reference": subjects[0].name,
                    "checkpoint": subject.name,
                    "reference tap": theirs,
                    "tap": mine,
                    "cka": value,
                }
                rows.append(row)
    return rows


def ranked(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: -row["change"])


def layer_rows(
    subjects: list[Subject], layers: list[dict[str, Tap]], weights: list[dict[str, Tensor] | None]
) -> list[dict]:
    """The change of every parameter, of each of its output channels, and of every tap; the largest of a network first."""
    rows = []
    for subject, kept, changes in zip(subjects[1:], layers[1:], weights, strict=True):
        here = []
        for name, squares in (changes or {}).items():
            row = {"checkpoint": subject.name, "kind": "parameter", "layer": name}
            here.append(row | {"channel": None, "change": relative(squares.sum(1)).item()})
            here += [
                row | {"channel": k, "change": change}
                for k, change in enumerate(relative(squares).tolist())
            ]
        for name, layer in kept.items():
            if layer.change is not None:
                change = relative(layer.change.sum(1)).item()
                here.append(
                    {
                        "checkpoint": subject.name,
                        "kind": "tap",
                        "layer": name,
                        "channel": None,
                        "change": change,
                    }
                )
        rows += ranked(here)
    return rows


def channel_rows(subjects: list[Subject], layers: list[dict[str, Tap]]) -> list[dict]:
    """The change of every channel's features, and what each of its measures gained; the largest of a network first."""
    rows = []
    for subject, kept in zip(subjects[1:], layers[1:], strict=True):
        here = []
        for name, layer in kept.items():
            if layer.change is None:
                continue
            means = {
                measure: [
                    sums[1] / sums[0]
                    for sums in (layer.sums[measure], layers[0][name].sums[measure])
                ]
                for measure in layer.sums
            }
            gains = {
                f"{measure} gained": (mine - theirs).tolist()
                for measure, (mine, theirs) in means.items()
            }
            for k, change in enumerate(relative(layer.change).tolist()):
                row = {"checkpoint": subject.name, "tap": name, "channel": k, "change": change}
                here.append(row | {column: values[k] for column, values in gains.items()})
        rows += ranked(here)
    return rows


def write(tables: dict[str, list[dict]], measures: list[str], folder: Path) -> None:
    """The tables, with their header alone where nothing could be compared."""
    for name, rows in tables.items():
        columns = COLUMNS[name] + tuple(
            f"{measure} gained" for measure in measures if name == "channels"
        )
        write_text(folder / f"{name}.csv", table(columns, rows))


def told(subjects: list[Subject], tables: dict[str, list[dict]]) -> str:
    """The tables in short; networks by their letters."""
    letters = {subject.name: subject.letter for subject in subjects}
    lines = {
        (layer, letter): {"tap": layer, "network": letter}
        for layer in layers_of(tables["measures"])
        for letter in letters.values()
    }
    for row in tables["measures"]:
        lines[row["tap"], letters[row["checkpoint"]]][row["measure"]] = row["mean"]
    near = {layer: {"tap": layer} for layer in layers_of(tables["cka"])}
    for row in tables["cka"]:
        if row["tap"] == row["reference tap"]:
            near[row["tap"]][f"CKA {subjects[0].letter}, {letters[row['checkpoint']]}"] = row["cka"]
    parts = [
        "\n".join(
            f"{subject.letter}: {subject.name}; {subject.camera.describe()}" for subject in subjects
        ),
        "Means over images and channels:",
        markdown([line for line in lines.values() if len(line) > 2]),
        markdown([line for line in near.values() if len(line) > 1]),
    ]
    for subject in subjects[1:]:
        own = {
            name: [row for row in rows if row["checkpoint"] == subject.name]
            for name, rows in tables.items()
        }
        parts += most_changed(subject.letter, subjects[0].letter, own)
    return "\n\n".join(parts)


def layers_of(rows: list[dict]) -> list[str]:
    """The taps of all networks in a table."""
    found: dict[str, dict] = {}
    for row in rows:
        found.setdefault(row["checkpoint"], {})[row["tap"]] = None
    return united(found.values())


def united(names: Iterable[Collection[str]]) -> list[str]:
    """The taps of the network that has most, then what others have beside them."""
    return list(
        dict.fromkeys(name for layers in sorted(names, key=len, reverse=True) for name in layers)
    )


def most_changed(b: str, a: str, tables: dict[str, list[dict]]) -> Iterator[str]:
    """What changed most from network a to network b, and why something cannot be compared."""
    whole = [row for row in tables["layers"] if row["channel"] is None]
    kinds = {
        kind: [(row["layer"], row["change"]) for row in whole if row["kind"] == kind]
        for kind in ("parameter", "tap")
    }
    if not kinds["parameter"]:
        yield f"{b} has another architecture than {a}: their weights are not compared."
    if other := [name for name in layers_of(tables["cka"]) if name not in dict(kinds["tap"])]:
        yield f"{b}'s {', '.join(other)} have no counterpart of their shape in {a}: their channels are not compared."
    kinds["channel"] = [
        (f"{row['tap']} {row['channel']}", row["change"]) for row in tables["channels"]
    ]
    columns = {
        kind: [f"{name}: {cell(change)}" for name, change in rows[:SHOWN]]
        for kind, rows in kinds.items()
        if rows
    }
    if columns:
        yield f"Changed most from {a} to {b}, ‖{b} - {a}‖ / ‖{a}‖:"
        yield markdown(
            [dict(zip(columns, line, strict=True)) for line in zip_longest(*columns.values())]
        )
