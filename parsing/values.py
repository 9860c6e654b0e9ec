"""The values that flags take: numbers of an interval, names of a table, files."""

import json
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection
from typing import TypeVar

from core import own, zoo
from core.errors import UserError
from core.inputs import NAME_RULE, is_name
from core.registry import (
    DATASETS,
    DEGRADATION_VALUES,
    DEGRADATIONS,
    LABELLED,
    LIGHT_LIMITS,
    MODELS,
    NETWORKS,
    ORDERINGS,
    PHYSICS,
    SELECTIONS,
    Entry,
    LossSpec,
    load,
)
from parsing.parser import read_settings

INFINITY = float("inf")
Number = TypeVar("Number", int, float)


def one_of(names: Collection[str], what: str) -> Callable[[str], str]:
    """A name of a table, in upper or lower case."""

    def name_of(text: str) -> str:
        if text.lower() not in names:
            raise ArgumentTypeError(f"unknown {what} '{text}': choose from {', '.join(names)}")
        return text.lower()

    return name_of


def network(text: str) -> str:
    """A network of the table, or the user's own, which becomes one of the table."""
    thing = own.parse(text)
    if thing is None:
        return one_of([*NETWORKS, "FILE.py:CLASS"], "network")(text)
    key = find_own(thing)
    NETWORKS[key] = MODELS[key] = Entry(path=key, flags={})
    return key


def dataset(table: dict) -> Callable[[str], str]:
    """A dataset of a table, or the user's own, which becomes one of the table."""

    def name_of(text: str) -> str:
        thing = own.parse(text)
        if thing is None:
            return one_of([*table, "FILE.py:FUNCTION"], "dataset")(text)
        key = find_own(thing)
        for one in (table, DATASETS, LABELLED):
            one[key] = "data.own_arrays:own_images"
        return key

    return name_of


def find_own(thing: own.Own) -> str:
    """The name in tables of a class or function of the user's, whose file must have it."""
    try:
        return own.find(thing)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


def own_source(text: str) -> str:
    """A file of the user's own code, which may be run from now on."""
    try:
        own.definitions(own.read_source(text))
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def named_value(text: str) -> str:
    """NAME=VALUE"""
    name, equals, _ = text.partition("=")
    if not equals or not name.isidentifier():
        raise ArgumentTypeError(f"'{text}' must be NAME=VALUE")
    return text


def ordering(text: str) -> str:
    """An ordering of the table, or the user's file."""
    if text.startswith("file:") and len(text) > len("file:"):
        return text
    return one_of([*ORDERINGS, "file:PATH"], "ordering")(text)


def import_order(text: str) -> str:
    """The order of the patterns of an imported file."""
    if text.startswith("listed:") and len(text) > len("listed:"):
        return text
    if text.lower() in ("natural", "walsh"):
        return text.lower()
    try:
        return ordering(text)
    except ArgumentTypeError:
        names = ["natural", "walsh", "listed:FILE", *ORDERINGS, "file:PATH"]
        raise ArgumentTypeError(f"unknown order '{text}': choose from {', '.join(names)}") from None


def scaling(text: str) -> str | float:
    """A positive number, auto for one of all frames, or frame for one of each."""
    return text if text in ("auto", "frame") else positive(text)


def degradation(text: str) -> str | dict:
    """A preset, or values in the place of some of a preset's: in a file, or as JSON by --config."""
    if not text.startswith(("file:", "{")):
        return one_of([*DEGRADATIONS, "file:PATH.yml"], "degradation")(text)
    complete_values = load(DEGRADATION_VALUES)
    try:
        if text.startswith("file:"):
            return complete_values(read_settings(text.removeprefix("file:"), text))
        return complete_values(json.loads(text))
    except (UserError, RecursionError) as error:
        raise ArgumentTypeError(str(error)) from None
    except ValueError as error:
        raise ArgumentTypeError(f"'{text}' is not JSON: {error}") from None


def selection(text: str) -> str:
    """A selection of layers, by its place in the list or its name."""
    names = list(SELECTIONS)
    if text.isdecimal() and int(text) < len(names):
        return names[int(text)]
    if text in names:
        return text
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(names))
    raise ArgumentTypeError(f"unknown selection '{text}': choose from {listed}")


def within(
    low: float, high: float, kind: type[Number] = float, open_low: bool = False
) -> Callable[[str], Number]:
    """A number of the interval [low, high], or (low, high]."""
    what = "a whole number" if kind is int else "a number"
    start = f"({low}" if open_low else f"[{low}"
    interval = f"{start}, infinity)" if high == INFINITY else f"{start}, {high}]"

    def number(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            raise ArgumentTypeError(f"'{text}' is not {what}") from None
        above = low < value if open_low else low <= value
        if not above or not value <= high or value == INFINITY:
            raise ArgumentTypeError(f"{text} is outside {interval}")
        return value

    return number


def teacher(text: str) -> str:
    """A checkpoint, zoo:NAME, a teacher that is not trained, or the user's own."""
    thing = own.parse(text)
    return find_own(thing) if thing is not None else network_file(text)


def network_file(text: str) -> str:
    """The path of a checkpoint; zoo:NAME is one of the networks of this repository."""
    try:
        return zoo.resolved(text)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


def assignment(text: str) -> tuple[str, object]:
    """NAME=VALUE, or NAME=VALUE,VALUE,... for several; values as YAML writes them."""
    import yaml

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"'{text}' must have the form NAME=VALUE")
    try:
        values = [yaml.safe_load(part) for part in value.split(",")]
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError):
        raise ArgumentTypeError(f"the value in '{text}' is not YAML") from None
    return name, values[0] if len(values) == 1 else values


def name(text: str) -> str:
    """The name of a folder."""
    if not is_name(text):
        raise ArgumentTypeError(f"'{text}' is not a name: {NAME_RULE}")
    return text


ratio = within(0, 1, open_low=True)
share = within(0, 1, open_low=True)
positive = within(0, INFINITY, open_low=True)
not_negative = within(0, INFINITY)
decay = within(0, 0.999999)
counting = within(1, INFINITY, int)
natural = within(0, 2**32 - 1, int)
decibels = within(-100, 200)
sigma = within(0, 255)


def noise_level(text: str) -> float | None:
    """dB, or none for measurements without noise."""
    return None if text == "none" else decibels(text)


def white_noise(text: str) -> float | None:
    """The standard deviation of the noise on every value, or none for no noise."""
    return None if text == "none" else positive(text)


photon_count = within(0, LIGHT_LIMITS["photons"][1], open_low=True)


def photons(text: str) -> float | None:
    """Photons from a pixel of value 1, or none for measurements without their noise."""
    return None if text == "none" else photon_count(text)


def side(text: str) -> int:
    """A power of two, as the side of an image that Hadamard patterns measure."""
    n = within(2, 4096, int)(text)
    if n & (n - 1):
        raise ArgumentTypeError(f"{n} is not a power of two")
    return n


def physics_of(table: dict) -> Callable[[str], str]:
    """A physics of a table, or the user's own; cs is another word for spc."""

    def physics(text: str) -> str:
        thing = own.parse(text)
        if thing is not None:
            key = find_own(thing)
            flags = {"x0": "adjoint", "awgn_snr": None}
            entry = Entry(path="physics.own_physics:own_physics", flags=flags)
            table[key] = PHYSICS[key] = entry
            return key
        name = one_of([*table, "FILE.py:FUNCTION"], "physics")(text)
        return "spc" if name == "cs" else name

    return physics


def weighted(table: dict) -> Callable[[str], str]:
    """NAME or NAME:WEIGHT of a table of losses; the weight replaces the table's."""

    def weighted_loss(text: str) -> str:
        thing = own.parse(text)
        if thing is None:
            name, colon, weight = text.partition(":")
            name = one_of([*table, "FILE.py:NAME"], "loss")(name)
        else:
            name, colon, weight = find_own(thing), thing.rest is not None, thing.rest or ""
            table[name] = LossSpec(path=name)
        if colon and not weight:
            raise ArgumentTypeError(f"'{text}' must be NAME, or NAME:WEIGHT with a number")
        return f"{name}:{not_negative(weight):g}" if colon else name

    return weighted_loss


def number_or_auto(text: str) -> str | float:
    """A positive number, or auto."""
    return text if text == "auto" else positive(text)
