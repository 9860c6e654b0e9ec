"""Measured frames of a file, an array or a recording, and their reconstructions."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from core.files import durable
from core.inputs import existing_file, is_name
from data.arrays import BAD_ARRAY, read_npy
from data.numbers import TABLES, read_table
from evaluation.checkpoints import calibrated, check_counts_photons
from evaluation.live import Live, needs_variance, place, time_frames
from evaluation.patterns import shows_ones_first
from models.base import Network
from physics.base import Linear, Physics
from physics.single_pixel import SinglePixel
from preparation.setup import camera_of
from recordings.file import Recording, read_recording, save_arrays
from report.figures import draw_grid, save_image

FRAMES = 64  # that are restored at once


def read_frames(path: str, m: int, c: int) -> tuple[Tensor, Tensor | None]:
    """The values (frames, C, m) of a file, and where they are differences of pairs their sums.

    The values of complementary patterns alternate, the positive one first.
    """
    existing_file(path, "measurements")
    if Path(path).suffix.lower() in TABLES:
        array = read_table(Path(path))  # a line for each frame
    else:
        try:
            array = read_npy(Path(path))
        except BAD_ARRAY as error:
            raise UserError(
                f"measurements {path}: neither a .npy array nor a table in "
                f"{', '.join(TABLES)} ({error})"
            ) from None
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise UserError(f"measurements {path}: not an array of finite numbers")
    if array.size == 0 or not 1 <= array.ndim <= 3 or array.shape[-1] not in (m, 2 * m):
        raise UserError(
            f"measurements {path} has shape {array.shape}: "
            f"a frame has {m} values, or {2 * m} of complementary pairs"
        )
    channels = array.shape[-2] if array.ndim == 3 else 1
    if channels != c:
        raise UserError(
            f"measurements {path} has {channels} channels, the physics {c}: "
            f"expected shape (frames, {c}, values)"
        )
    values = torch.from_numpy(array.astype(np.float64)).reshape(-1, channels, array.shape[-1])
    if array.shape[-1] == m:
        return values, None
    positive, negative = values[..., 0::2], values[..., 1::2]
    return positive - negative, positive + negative


def without_opposites(values: Tensor, sums: Tensor | None, physics: Linear, path: str) -> Tensor:
    """The values of ±1 from those of 0/1 patterns, 2 y - y1, where the first is all ones."""
    if sums is not None:
        raise UserError(f"one_sided: measurements {path} have two values a pattern; leave it out")
    if not shows_ones_first(physics.rows(1)):
        raise UserError(
            "one_sided: the first pattern of this network is not all ones, so the values of 0/1 "
            "patterns alone do not tell those of its patterns; give pairs"
        )
    light = physics.light if isinstance(physics, SinglePixel) else None
    values = values - (0 if light is None else light.dark)  # which cancels out in pairs
    return 2 * values - values[..., :1]


def scale_of(
    values: Tensor, physics: Linear, scale: float | str | None, detected: bool
) -> float | Tensor:
    """The factor from values to the units of the physics, one number or one for each frame.

    `auto` makes the brightest pixel of each frame's back-projection 1. Without a number,
    light is multiplied by the amplitude of the patterns, as the manifest says for
    one mirror a pixel, or as the light of a camera that counts photons says; single values stay as
    they are.
    """
    if scale == "auto":
        back_projection = physics.back_projection(physics.place_values(values.float()))
        brightest = back_projection.flatten(1).amax(1)
        if (brightest <= 0).any():
            raise UserError("scale auto: the back-projection of a frame has no bright pixel")
        return 1 / brightest.double()[:, None, None]
    if isinstance(scale, float | int):
        return scale
    if not detected:
        return 1.0
    if isinstance(physics, SinglePixel) and physics.light is not None:
        low, high = physics.light.range_of_alpha(physics.m)
        if low != high:
            raise UserError(
                f"measurements: the network was trained with {physics.light.describe()}, so the "
                "scale of these counts is not known; give --scale"
            )
        return physics.amplitudes.to(values) / (physics.light.gain * low)
    return physics.rows(1).abs().max().item()


def select_physics(physics: Physics, args: Namespace) -> Physics:
    """The physics, or the one with the ratio --cr of a mixture."""
    parts = [part for part in physics.parts if args.cr in (None, part.config.get("cr"))]
    if len(parts) > 1:
        ratios = ", ".join(f"{part.config['cr']:g}" for part in parts)
        raise UserError(f"the checkpoint is for several ratios: give --cr, one of {ratios}")
    return parts[0]


class Frames(NamedTuple):
    """Measured frames: their names, values (frames, C, m), and what else is known of them."""

    names: list[str]
    values: Tensor
    variance: Tensor | None  # of the noise of the values
    recording: Recording | None = None

    def stream(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The values and the variances of one frame after the other."""
        unknown = [None] * len(self.values)
        return zip(self.values, unknown if self.variance is None else self.variance, strict=True)

    def batches(self, physics: Linear, device: torch.device) -> list[Tensor]:
        """What the physics measured, in batches."""
        values = self.values.to(device).split(FRAMES)
        if self.variance is None:
            return [place(physics, batch) for batch in values]
        variances = self.variance.to(device).split(FRAMES)
        return [place(physics, *pair) for pair in zip(values, variances, strict=True)]


def read_recorded(physics: Physics, args: Namespace, device: torch.device) -> Frames:
    """The frames of a recording, or of one of its splits."""
    path = args.measurements
    for flag in ("scale", "calibration", "one_sided"):
        value = getattr(args, flag)
        if value is not None and value is not False:
            given = flag if value is True else f"{flag} {value}"
            raise UserError(f"{given}: recording {path} is in its units already")
    recording = read_recording(path)
    camera_of(recording).check_part(physics, "the network")
    numbers = torch.arange(len(recording)) if args.split is None else recording.frames(args.split)
    if not len(numbers):
        raise UserError(f"split {args.split}: recording {path} has no such frames")
    assert isinstance(physics, SinglePixel), "as has been checked"
    values, variance = (
        physics.values(recording.place(recorded[numbers]).to(device)).cpu()  # its own among them
        for recorded in (recording.values, recording.variance)
    )
    return Frames(file_names(recording, numbers.tolist()), values, variance, recording)


def file_names(recording: Recording, numbers: list[int]) -> list[str]:
    """The names of frames where they can be those of different files, else their numbers."""
    names = [recording.names[k] for k in numbers]
    if len({name.lower() for name in names}) == len(names) and all(map(is_name, names)):
        return names
    return [f"frame_{k:05d}" for k in numbers]


def read_measurements(
    network: Network, physics: Physics, args: Namespace, device: torch.device
) -> Frames:
    """The measurements of a file."""
    if Path(args.measurements).suffix == ".npz":
        return read_recorded(physics, args, device)
    if args.split is not None:
        raise UserError(f"split {args.split}: only a recording has splits, not {args.measurements}")
    values, variance = read_values(network, physics, args, device)
    return Frames([f"frame_{k:05d}" for k in range(len(values))], values, variance)


def read_values(
    network: Network, physics: Physics, args: Namespace, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The values of a bare array, and where pairs count photons the variances of their noise."""
    if physics.config.get("block"):
        raise UserError(
            f"measurements {args.measurements}: the checkpoint's camera measures images in blocks "
            f"of {physics.block} x {physics.block}; files are read for cameras that measure an "
            "image as a whole"
        )
    if not isinstance(physics, Linear):
        raise UserError(
            f"measurements {args.measurements}: the checkpoint's physics, '{physics.label}', "
            "measures images; give images instead"
        )
    if args.calibration:
        check_counts_photons([physics], args.calibration)
        physics = calibrated(physics, args.calibration)
        assert isinstance(physics, Linear)
    values, sums = read_frames(args.measurements, physics.m, physics.config["c"])
    if args.one_sided:
        values = without_opposites(values, sums, physics, args.measurements)
    detected = sums is not None or args.one_sided  # light, not values in the units of the physics
    scale = scale_of(values.to(device), physics, args.scale, detected)
    values = (values.to(device) * scale).float().cpu()
    if sums is not None and isinstance(physics, SinglePixel) and physics.light is not None:
        variance = scale**2 * physics.light.variance_of_sums(sums.to(device))
        return values, variance.float().cpu()
    if needs_variance(network, physics):
        raise UserError(
            f"measurements {args.measurements}: this network reads the noise level, which single "
            "values do not tell; give the counts of pairs"
        )
    return values, None


@torch.no_grad()
def restore_measurements(
    network: Network, physics: Physics, args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Reconstructs measured frames; writes them as images and, unrounded, as one array."""
    physics = select_physics(physics, args)
    frames = read_measurements(network, physics, args, device)
    assert isinstance(physics, Linear), "a physics that has values"
    batches = frames.batches(physics, device)
    first = torch.cat([physics.back_projection(y) for y in batches])
    if args.live:
        output = time_frames(Live(network, physics, device), frames.stream())
    else:
        output = torch.cat([network(physics.first_image(y)) for y in batches])
    for name, image in zip(frames.names, output, strict=True):
        save_image(image, folder / f"{name}.png")
    draw_grid({"before": first[:8], "after": output[:8]}, None, folder / "before_after.png")
    array = output.cpu().numpy()
    if frames.recording is None:
        durable(folder / "reconstructions.npy", lambda temporary: np.save(temporary, array))
    else:
        for name, *pair in zip(frames.names, first, output, strict=True):
            save_image(torch.cat(pair, dim=-1), folder / f"{name}_before_after.png")
        arrays = {
            "reconstructions": array,
            "first_images": first.cpu().numpy(),
            "names": np.array(frames.names),
            "recording": np.array(frames.recording.digest),
        }
        save_arrays(folder / "reconstructions.npz", arrays)
    print(f"{len(output)} frames restored to {folder}")
    return {"folder": str(folder), "frames": len(output)}
