"""A simulated campaign: scenes that an imperfect apparatus records once.

    y = L A G V x + n

with the equations of its imperfections, all of which are 0 by default:

    vignetting v    V x = (1 - v r²) x, where r is the distance from the centre, 1 in the corners
    blur b          G: a Gaussian of deviation b pixels, zero outside; the patterns are G p
    drift d         L_k = 1 + d u (k / (m - 1) - 1/2) for pattern k, u uniform in [-1, 1] by frame

Noise n: white, of a level relative to the signal (`awgn_snr`) or of a standard deviation on every
orthonormal coefficient (`noise`), or photons that are counted in pairs of patterns.
"""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from algo_functions import build_physics
from core.errors import UserError
from core.registry import DATASETS, LABELLED
from core.runtime import seeded
from data.splits import WORDS, shuffled_order
from data_loader import build_splits
from laboratory.report import describe, next_command
from physics.orderings import is_hadamard
from physics.single_pixel import SinglePixel
from preparation.setup import check_physics, physics_config_of, request_of
from recordings.file import Recording, truth_path, write_recording, write_truth

BATCH = 256  # frames that are measured at once
SCENES = 1  # the random numbers that choose scenes, beside those of the noise


@dataclass(frozen=True)
class Apparatus:
    """A single-pixel camera with its imperfections."""

    physics: SinglePixel
    drift: float = 0.0
    vignetting: float = 0.0
    blur: float = 0.0

    def shade(self, x: Tensor) -> Tensor:
        """V x"""
        n = x.shape[-1]
        place = torch.linspace(-1, 1, n)
        r2 = (place[:, None] ** 2 + place[None, :] ** 2) / 2
        return x * (1 - self.vignetting * r2)

    def soften(self, x: Tensor) -> Tensor:
        """G x, which is what patterns G p measure of x, as G is symmetric."""
        if not self.blur:
            return x
        reach = max(1, round(4 * self.blur))
        offsets = torch.arange(-reach, reach + 1.0)
        weights = (-offsets.square() / (2 * self.blur**2)).softmax(0)
        channels, (height, width) = x.shape[1], x.shape[2:]
        flat = x.reshape(-1, 1, height, width)
        flat = F.conv2d(flat, weights.view(1, 1, -1, 1), padding=(reach, 0))
        flat = F.conv2d(flat, weights.view(1, 1, 1, -1), padding=(0, reach))
        return flat.view(-1, channels, height, width)

    def light(self, frames: int, generator: torch.Generator) -> Tensor:
        """L, (B, 1, m)."""
        u = 2 * torch.rand(frames, 1, 1, generator=generator) - 1
        time = torch.linspace(-0.5, 0.5, self.physics.m)
        return 1 + self.drift * u * time

    def record(self, x: Tensor, generator: torch.Generator) -> "Measured":
        """The values of images (B, C, n, n), the variance of their noise, and photon counts."""
        x, light = self.soften(self.shade(x)), self.light(len(x), generator)
        if self.physics.light is not None:
            return self.count(x, light, generator)
        values = light * self.physics.values(self.physics.operator.A(x))  # (B, C, m)
        variance = self.physics.white_variance(values)  # (B, 1, 1)
        noise = torch.randn(values.shape, generator=generator)
        variance = variance.expand(-1, values.shape[1], -1).contiguous()
        return Measured(values + variance.sqrt() * noise, variance, None)

    def count(self, x: Tensor, light: Tensor, generator: torch.Generator) -> "Measured":
        """The same with the counts (B, C, m, 2) of photons."""
        physics = self.physics
        assert physics.light is not None, "a camera that counts photons"
        alpha = physics.light.sample_alpha(len(x), physics.m, generator)
        total, difference = physics.split_light(x)
        counts = physics.light.counts(light * total, light * difference, alpha, generator)
        values, variance = physics.values_of_counts(counts, alpha)
        if is_hadamard(physics.patterns, x.shape[-1]):  # all pairs have one sum, and one variance
            variance = variance.mean(-1, keepdim=True)
        return Measured(values.float(), variance.clamp_min(0).float(), counts.float())


class Measured(NamedTuple):
    """Values (B, C, m), the variance of their noise, and perhaps the counts of pairs."""

    values: Tensor
    variance: Tensor
    counts: Tensor | None


class Scenes(NamedTuple):
    """Images (N, C, n, n) with their splits and names, and perhaps labels."""

    images: Tensor
    split: Tensor
    names: tuple[str, ...]
    labels: Tensor | None
    classes: tuple[str, ...]


def choose_scenes(args: Namespace) -> Scenes:
    """Random training images, of which a share is for validation, and test images."""
    table = LABELLED if args.labels else DATASETS
    if args.labels and args.dataset not in LABELLED:
        raise UserError(f"labels: the images of dataset '{args.dataset}' have none")
    request = request_of(args, limit_test=args.test_frames)._replace(labelled=args.labels)
    splits = build_splits(request, ("train", "test"), table=table)
    for name, wanted in (("train", args.frames), ("test", args.test_frames)):
        if len(splits[name]) < wanted:
            flag = "frames" if name == "train" else "test_frames"
            raise UserError(
                f"{flag} {wanted}: dataset '{args.dataset}' has {len(splits[name])} "
                f"{WORDS[name]} images"
            )
    held = round(args.val_share * args.frames)
    if not 0 < held < args.frames:
        raise UserError(
            f"val_share {args.val_share:g} of {args.frames} frames leaves {held} for validation "
            f"and {args.frames - held} for training: both need at least one"
        )
    split = torch.zeros(args.frames + args.test_frames, dtype=torch.uint8)
    split[shuffled_order(args.frames)[:held]] = 1
    split[args.frames :] = 2
    order = torch.randperm(len(splits["train"]), generator=seeded(args.seed, SCENES))
    places = {"train": order[: args.frames], "test": torch.arange(len(splits["test"]))}
    names = [f"{name}_{i:05d}" for name in splits for i in places[name].tolist()]
    labels = None
    if args.labels:
        known = {name: torch.tensor(splits[name].labels) for name in splits}
        labels = torch.cat([known[name][places[name]] for name in splits])
    images = torch.cat([splits[name].decode(places[name]) for name in splits])
    return Scenes(images, split, tuple(names), labels, splits["train"].classes)


def build_apparatus(args: Namespace) -> Apparatus:
    if args.ordering == "variance":
        raise UserError("ordering variance depends on the scenes, which a laboratory does not know")
    config = physics_config_of(
        Namespace(**vars(args) | {"x0": "adjoint", "block": None, "cr_range": None})
    )
    check_physics(args, config)
    physics = build_physics(config)
    if not isinstance(physics, SinglePixel):
        raise UserError(f"cr {args.cr}: a recording has one ratio")
    return Apparatus(physics, args.drift, args.vignetting, args.blur)


def simulate(args: Namespace) -> dict:
    """Records scenes of a dataset once, and writes the recording and its truth."""
    apparatus = build_apparatus(args)
    scenes, generator = choose_scenes(args), seeded(args.seed)
    parts = [apparatus.record(x, generator) for x in scenes.images.split(BATCH)]
    values, variance, counts = zip(*parts, strict=True)
    known = {name: getattr(args, name) for name in ("drift", "vignetting", "blur", "seed")}
    recording = Recording(
        config=apparatus.physics.config,
        patterns=apparatus.physics.patterns,
        values=torch.cat(values),
        variance=torch.cat(variance),
        split=scenes.split,
        names=scenes.names,
        counts=None if counts[0] is None else torch.cat(counts),
        labels=scenes.labels,
        classes=scenes.classes if args.labels else (),
        calibration={"made_by": "simulation", "scenes": args.dataset, **known},
    )
    path = Path(args.output)
    write_truth(truth_path(path), scenes.images, recording)  # first: it is of no use alone
    write_recording(path, recording)
    print(f"{path}, and its truth, which no training opens: {truth_path(path)}")
    print(f"{describe(recording)}; {describe_noise(args)}")
    print(f"next: {next_command(path, recording)}")
    return {"frames": len(recording), "digest": recording.digest}


def describe_noise(args: Namespace) -> str:
    """The noise and the imperfections of a simulation in words."""
    words = "no noise"
    if args.photons is not None:
        ends = args.photons if isinstance(args.photons, list) else [args.photons]
        words = f"{' to '.join(f'{end:g}' for end in ends)} photons a {args.photon_budget}"
    elif args.awgn_snr is not None:
        words = f"noise at {args.awgn_snr:g} dB"
    elif args.noise:
        words = f"noise of {args.noise:g} on every value"
    for name in ("drift", "vignetting", "blur"):
        if getattr(args, name):
            words += f", {name} {getattr(args, name):g}"
    return words
