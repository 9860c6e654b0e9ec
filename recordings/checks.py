"""Whether the parts of a recording fit together."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from core.errors import CONTROL, UserError, in_a_line
from core.registry import LIGHT
from data.splits import SPLITS

if TYPE_CHECKING:
    from recordings.file import Recording

NUMBERS = (
    "awgn_snr",
    "noise",
    *(name for name, value in LIGHT.items() if not isinstance(value, str)),
)
WITHOUT = ("block", "cr_range", "measurements")  # parts of a config of other physics
CONFIG = {  # what every config has
    "name": str,
    "n": int,
    "c": int,
    "cr": float,
    "ordering": str,
    "x0": str,
}


def check_recording(recording: "Recording", path: Path) -> None:
    """Refuses a recording whose parts do not fit together."""

    def refuse(what: str) -> UserError:
        return UserError(f"recording {path}: {what}")

    config = recording.config
    for name, kind in CONFIG.items():
        if type(config.get(name)) is not kind:
            raise refuse(
                f"{name} in its config is {config.get(name)!r}, not of type {kind.__name__}"
            )
    if config["name"] != "spc" or config["c"] not in (1, 3) or not 2 <= config["n"] <= 4096:
        raise refuse(
            f"physics '{in_a_line(config['name'])}', n {config['n']} and c {config['c']}: it must "
            "be spc with images of 2 to 4096 pixels a side and 1 or 3 channels"
        )
    check_camera(config, refuse)
    count, pixels = len(recording.names), config["n"] ** 2
    if recording.values.ndim != 3 or recording.values.shape[:2] != (count, config["c"]):
        shape = tuple(recording.values.shape)
        raise refuse(f"its values have shape {shape} for {count} frames of {config['c']} channels")
    if (
        not count
        or not 1 <= recording.m <= pixels
        or not abs(config["cr"] * pixels - recording.m) < 1
    ):
        raise refuse(f"it has {recording.m} values of {pixels} pixels, but cr {config['cr']:g}")
    check_shapes(recording, refuse)
    check_patterns_of(recording, refuse)
    for name in (*recording.names, *recording.classes):
        if CONTROL.search(name):
            raise refuse(f"the name '{in_a_line(name)}' has control characters")


def check_camera(config: dict, refuse: Callable[[str], UserError]) -> None:
    """Refuses a config that is not that of one camera with back-projection and known noise."""
    if "awgn_snr" not in config:
        raise refuse("its config lacks awgn_snr")
    for name in NUMBERS:
        value = config.get(name, LIGHT.get(name))
        if value is None and LIGHT.get(name) is None:  # no such noise
            continue
        ends = value if isinstance(value, list) and name == "photons" else [value]
        if not all(map(is_number, ends)):
            raise refuse(f"{name} in its config is {value!r:.40}, not a number")
    if config["x0"] != "adjoint":
        raise refuse(f"x0 in its config is '{in_a_line(config['x0']):.40}', not adjoint")
    for name in WITHOUT:
        if config.get(name):
            raise refuse(f"its config has {name} {config[name]!r:.40}, which no recording has")


def is_number(value) -> bool:
    """Whether a value of a config is a finite number."""
    return type(value) in (int, float) and isfinite(value)


def check_shapes(recording: "Recording", refuse: Callable[[str], UserError]) -> None:
    """Refuses tensors of wrong types, shapes or values."""
    count, c, m = recording.values.shape
    allowed = {
        "values": (torch.float32, [(count, c, m)]),
        "variance": (torch.float32, [(count, c, m), (count, c, 1)]),
        "split": (torch.uint8, [(count,)]),
        "counts": (torch.float32, [(count, c, m, 2)]),
        "labels": (torch.int64, [(count,)]),
    }
    for name, (kind, shapes) in allowed.items():
        tensor = getattr(recording, name)
        if tensor is None:
            continue
        if tensor.dtype != kind or tuple(tensor.shape) not in shapes:
            raise refuse(
                f"its {name} are {tensor.dtype} {tuple(tensor.shape)}, not {kind} {shapes}"
            )
        if not tensor.isfinite().all():
            raise refuse(f"its {name} are not all finite")
    if (recording.variance < 0).any():
        raise refuse("its variance is negative somewhere")
    if (recording.split >= len(SPLITS)).any():
        raise refuse(f"its split has {int(recording.split.max())}, and 0, 1 and 2 are allowed")
    labels = recording.labels
    if labels is not None and not 0 <= labels.min() <= labels.max() < len(recording.classes):
        raise refuse(
            f"its labels go from {labels.min()} to {labels.max()}, "
            f"but it has {len(recording.classes)} classes"
        )


def check_patterns_of(recording: "Recording", refuse: Callable[[str], UserError]) -> None:
    """Refuses patterns that are neither places of the Hadamard grid nor enough rows."""
    patterns, pixels = recording.patterns, recording.config["n"] ** 2
    kinds = (torch.int64,) if recording.is_hadamard else (torch.float32, torch.int8)
    if patterns.dtype not in kinds:
        raise refuse(f"its patterns are {patterns.dtype}, not {' or '.join(map(str, kinds))}")
    if recording.is_hadamard:
        if not torch.equal(patterns.flatten().sort().values, torch.arange(pixels)):
            raise refuse(f"its patterns must hold each place 0 .. {pixels - 1} once")
        if recording.config["n"] & (recording.config["n"] - 1):
            raise refuse(f"n {recording.config['n']}: Hadamard patterns need a power of two")
        return
    if patterns.ndim != 2 or patterns.shape[1] != pixels or len(patterns) < recording.m:
        raise refuse(
            f"its patterns have shape {tuple(patterns.shape)}: allowed are places "
            f"({recording.config['n']}, {recording.config['n']}) and rows (M, {pixels})"
        )
    if not patterns.isfinite().all():
        raise refuse("its patterns are not all finite")
