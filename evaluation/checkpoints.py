"""Checkpoints of an evaluation: opening, naming and comparing them, and their test images."""

import hashlib
from argparse import Namespace
from collections import Counter
from pathlib import Path

from algo_functions import Meter
from checkpoints.checkpoint import RESTORER, Checkpoint, restore
from cli.flags import BARE
from core.errors import UserError
from core.inputs import read_calibration
from data.batches import Images
from data_loader import build_splits
from evaluation.piecewise import Piecewise
from models.base import Network
from physics.base import Physics
from physics.mosaic import Mosaic
from physics.single_pixel import SinglePixel
from preparation.setup import request_of

LONGEST_NAME = 40  # letters of a row's name in a printed table
LEVELS = ("awgn_snr", "noise", "photons", "sigma")  # flags of noise levels
GENERIC_NAMES = ("best", "last", "last_before", "teacher")  # of files that every run folder has


def open_checkpoint(path: str, args: Namespace, kind: str | None = None) -> Checkpoint:
    """A checkpoint; the flags complete a bare file with a single-pixel camera or a denoiser."""
    values = {name: getattr(args, name) for name in ("c", *BARE)}
    physics_config = None
    if args.n and args.sigma:
        physics_config = {"name": "denoise", "n": args.n, "sigma": args.sigma[0], "x0": "adjoint"}
    return restore(path, values, physics_config, kind)


def open_restorer(path: str, args: Namespace) -> Checkpoint:
    """A checkpoint that restores images."""
    return open_checkpoint(path, args, RESTORER)


def check_same_images(checkpoints: dict[str, Checkpoint]) -> None:
    """Refuses networks of different image sizes or channels."""
    first_path, first = next(iter(checkpoints.items()))
    n_first, c_first = (first.physics.config[key] for key in ("n", "c"))
    for path, checkpoint in checkpoints.items():
        n, c = (checkpoint.physics.config[key] for key in ("n", "c"))
        if (n, c) != (n_first, c_first):
            raise UserError(
                f"{path} takes images of {n} pixels and {c} channels, "
                f"{first_path} takes {n_first} pixels and {c_first} channels"
            )


def checkpoint_name(path: str | Path) -> str:
    """A short name: the file's, with the run's folder before a name that every run has."""
    path = Path(path)
    return f"{path.parent.name}_{path.stem}" if path.stem in GENERIC_NAMES else path.stem


def checkpoint_names(checkpoints: dict[str, Checkpoint]) -> dict[str, str]:
    """A short unique name for each path; equal names get a digest of the content."""
    names = {path: checkpoint_name(path) for path in checkpoints}
    counts = Counter(names.values())
    return {
        path: name if counts[name] == 1 else f"{name}_{checkpoints[path].digest}"
        for path, name in names.items()
    }


def short_name(name: str) -> str:
    """A name as a row of a printed table has it: a long one is cut and gets a digest of itself."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{name[: LONGEST_NAME - 7]}_{digest}"


def format_paths(names: dict[str, str]) -> str:
    """The full path of each short name, a line each, to be printed once beside a table."""
    return "\n".join(f"{short_name(name)}: {path}" for path, name in names.items())


def load_test_images(args: Namespace, physics: Physics) -> Images:
    """The test images in the size that a physics takes."""
    n, c = physics.config["n"], physics.config["c"]
    request = request_of(args, n=n, c=c, multiple=physics.step)
    return build_splits(request, wanted=("test",))["test"]


def check_recorded(
    recording: SinglePixel | None, physics: Physics, owner: str, args: Namespace
) -> None:
    """Refuses a physics that needs more than what a recording has measured, and levels of noise."""
    if recording is None:
        return
    recording.check_part(physics, owner)
    if args.calibration or any(getattr(args, flag) for flag in LEVELS):
        raise UserError("a recording brings its own noise: leave out the noise level")


def fit_to_images(network: Network, physics: Physics, images: Images) -> tuple[Network, Physics]:
    """Both block by block where the images are larger than the n x n pixels of the physics."""
    if images.same_size or physics.step < physics.config["n"]:
        return network, physics
    return Piecewise(network, physics.block), Mosaic(physics)


def calibrated(physics: Physics, path: str) -> Physics:
    """A camera that counts photons with the detector of a calibration file; another as it is."""
    photons = physics.config.get("photons")
    if photons is None:
        return physics
    return physics.at_noise(photons=photons, **read_calibration(path))


def check_counts_photons(levels: list[Physics], path: str) -> None:
    """Refuses a calibration where no physics has a detector."""
    if all(one.config.get("photons") is None for one in levels):
        raise UserError(
            f"calibration {path}: physics '{levels[0].label}' counts no photons, "
            "so it has no detector; leave it out, or give --photons where there is such a flag"
        )


def physics_at_levels(physics: Physics, args: Namespace) -> list[Physics]:
    """The physics at each noise level of the flags, or as it is; with the detector of a file."""
    at_levels = []
    for flag in LEVELS:
        levels = getattr(args, flag, None)
        if levels and flag not in physics.levels:
            own = " or ".join(f"--{name}" for name in physics.levels) or "its config"
            raise UserError(
                f"{flag}: the noise of physics '{physics.config['name']}' is set by {own}"
            )
        at_levels += [physics.at_noise(**{flag: level}) for level in levels or []]
    at_levels = at_levels or [physics]
    if not args.calibration:
        return at_levels
    check_counts_photons(at_levels, args.calibration)
    return [calibrated(one, args.calibration) for one in at_levels]


def build_meter(args: Namespace) -> Meter:
    return Meter(args.crop_border, args.y_channel)
