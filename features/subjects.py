"""Networks on the same images: which are compared, and their features batch by batch."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import ascii_lowercase

import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint
from core.errors import UserError
from core.registry import LABELLED
from data.batches import Batch, Images, build_loader, present
from data_loader import build_splits
from evaluation.checkpoints import (
    check_recorded,
    check_same_images,
    checkpoint_names,
    load_test_images,
    physics_at_levels,
)
from models.base import Network
from physics.base import Physics
from physics.paired import physics_for
from physics.single_pixel import SinglePixel
from preparation.classification import check_crop
from preparation.setup import physics_of_recording, request_of
from training.cache import Views

IMAGES = (2, 4096)  # the fewest and the most of which CKA relates every one to every other


@dataclass(frozen=True)
class Subject:
    """A network with a physics; tables and figures name it by a letter."""

    letter: str
    name: str
    network: Network
    physics: Physics


Features = list[dict[str, Tensor]]  # the layers (B, C, H, W) of every subject
Batches = Callable[..., Iterator[tuple[int, Tensor, Features]]]


# ---------------------------------------------------------------- images and networks


def load_common_images(checkpoints: dict[str, Checkpoint], args: Namespace) -> Images:
    """The test images or recorded frames, of which all networks take the same."""
    check_same_images(checkpoints)
    (first_path, first), *others = checkpoints.items()
    classifies = first.is_classifier
    for path, other in others:
        if (other.is_classifier) != classifies:
            tasks = ("classifies", "restores images")
            first_task, other_task = tasks if classifies else tasks[::-1]
            raise UserError(
                f"checkpoint {path} {other_task}, {first_path} {first_task}: "
                "only networks of one task can be compared"
            )
    if not classifies:
        return load_test_images(args, first.physics)
    for path, other in checkpoints.items():
        check_crop(path, other, args.crop)
        if other.crop != first.crop:
            raise UserError(
                f"{path} was trained with crop {other.crop}, {first_path} with crop {first.crop}"
            )
    n, c = first.physics.config["n"], first.physics.config["c"]
    request = request_of(args, n=n, c=c, crop=first.crop, labelled=True)
    return build_splits(request, ("test",), table=LABELLED)["test"]


def recording_of(
    images: Images, checkpoints: dict[str, Checkpoint], args: Namespace
) -> SinglePixel | None:
    """What measured all values of a recording, of which every network sees its own part."""
    recording = physics_of_recording(images)
    for path, checkpoint in checkpoints.items():
        check_recorded(recording, checkpoint.physics, f"checkpoint {path}", args)
    return recording


def build_subjects(
    checkpoints: dict[str, Checkpoint], images: Images, args: Namespace, device: torch.device
) -> list[Subject]:
    """Every network with each physics of its own, at every noise level of the flags."""
    subjects = []
    for path, name in checkpoint_names(checkpoints).items():
        network = checkpoints[path].network.to(device)
        levels = physics_at_levels(checkpoints[path].physics, args)
        parts = [part for level in levels for part in physics_for(images, level, network).parts]
        for part in parts:
            full_name = f"{name}_{part.condition}" if len(parts) > 1 else name
            subjects.append((full_name, network, part.to(device)))
    if len({name for name, *_ in subjects}) < len(subjects):
        raise UserError(f"{' and '.join(checkpoints)}: the same checkpoint is listed twice")
    if not 1 < len(subjects) <= len(ascii_lowercase):
        raise UserError(
            f"{len(subjects)} networks with their physics: "
            f"2 to {len(ascii_lowercase)} can be compared"
        )
    fewest, most = IMAGES
    if not fewest <= len(images) <= most:
        raise UserError(
            f"{len(images)} test images: {fewest} to {most} can be compared, "
            "limit them with --limit_test"
        )
    return [Subject(letter, *one) for letter, one in zip(ascii_lowercase, subjects, strict=False)]


def iterate_features(
    subjects: list[Subject],
    images: Images,
    recording: SinglePixel | None,
    args: Namespace,
    device: torch.device,
) -> Batches:
    """A function that walks over the images from an index on.

    It yields the index of a batch's first image, the scenes, and the features.
    """
    recording = None if recording is None else recording.to(device)
    loader = build_loader(images, args.batch_size, args.num_workers)
    views = [Views(subject.physics, loader, device, args.seed) for subject in subjects]

    @torch.no_grad()
    def batches(start: int = 0) -> Iterator[tuple[int, Tensor, Features]]:
        index = 0
        for view in zip(*views, strict=True):
            first_images = [x0 for _, _, x0 in view]
            if index >= start:
                features = [
                    feature_maps(subject.network, x0)
                    for subject, x0 in zip(subjects, first_images, strict=True)
                ]
                yield index, scenes_of(view[0][0], recording), features
            index += len(first_images[0])

    return batches


def scenes_of(batch: Batch, recording: SinglePixel | None) -> Tensor:
    """The clean images of a batch; without them the back-projections of all recorded values."""
    if recording is None:
        return present(batch.image)
    return recording.back_projection(present(batch.recorded))


def feature_maps(network: Network, x0: Tensor) -> dict[str, Tensor]:
    """The layers as maps (B, C, H, W); vectors have maps of one pixel."""
    layers = network.features(x0)
    return {name: f if f.dim() == 4 else f[..., None, None] for name, f in layers.items()}
