"""What a study keeps of a finished run: the scores of every test image, and where its error lies."""

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from algo_functions import ClassMeter, score
from core.files import significant
from core.registry import DATASETS, LABELLED
from data.batches import build_loader
from data_loader import build_splits
from models.base import FirstImage
from physics.base import Physics
from physics.paired import physics_for
from training import setup
from training.cache import Views
from training.checkpoint import Checkpoint, restore
from training.classification import in_order
from training.validation import evaluate, outputs

NOISE_SEED = 0  # of the test images' measurements, which are the same for all runs of a study
BATCH = 200


def ledger(camera: Physics, error: Tensor) -> dict[str, Tensor]:
    """e = A†A e + (I - A†A) e: mean squared errors (B,) within what the camera measures, and outside of it."""
    within = camera.project(error)
    if within is None:
        return {}
    return {
        name: part.square().mean((1, 2, 3))
        for name, part in (("measured", within), ("unmeasured", error - within))
    }


@torch.no_grad()
def restored_images(network, physics: Physics, images, device: torch.device) -> list[dict]:
    """A row an image: PSNR, SSIM and the two parts of its error, means over the cameras that a network copes with."""
    loader, sums = build_loader(images, BATCH), {}
    for part in physics.parts:
        found: dict[str, list[Tensor]] = {}
        for batch, _, output in outputs(network, Views(part, loader, device, NOISE_SEED)):
            values = score(output, batch.image) | ledger(part, output - batch.image)
            for name in values.keys() - {"psnr_clipped"}:
                found.setdefault(name, []).append(values[name].cpu())
        for name, values in found.items():
            sums[name] = sums.get(name, 0) + torch.cat(values).double() / len(physics.parts)
    return [
        {"image": images.name(i)}
        | {name: significant(values[i].item(), 9) for name, values in sorted(sums.items())}
        for i in range(len(images))
    ]


def told_images(found: Checkpoint, images, args: Namespace, device: torch.device) -> list[dict]:
    """A row an image: 100 where the likeliest class is right, else 0, and the cross-entropy."""
    classes = list(images.classes)
    network = in_order(
        found.network.to(device),
        found.classes,
        classes,
        "the run",
        args.dataset,
    )
    meter = evaluate(
        network,
        Views(found.physics.to(device), build_loader(images, BATCH), device, NOISE_SEED),
        ClassMeter(),
    )
    logits, labels = meter.both()
    right, loss = (
        100.0 * (logits.argmax(1) == labels),
        torch.nn.functional.cross_entropy(logits, labels, reduction="none"),
    )
    return [
        {"image": images.name(i), "top1": right[i].item(), "loss": significant(loss[i].item(), 9)}
        for i in range(len(images))
    ]


def held_out(found: Checkpoint, args: Namespace, limit: int | None):
    """The test images of a run's dataset, as its camera looks at them."""
    n, c, labelled = (
        found.physics.config["n"],
        found.physics.config["c"],
        found.is_classifier,
    )
    crop = {"crop": found.crop} if labelled else {"multiple": found.physics.step}
    request = setup.request_of(args, n=n, c=c, labelled=labelled, limit_test=limit, **crop)
    return build_splits(request, ("test",), table=LABELLED if labelled else DATASETS)["test"]


def score_run(
    path: Path, args: Namespace, limit: int | None, device: torch.device
) -> tuple[list[dict], int]:
    """The scores of every test image by a run's checkpoint, and its number of parameters."""
    found = restore(path, {})
    images, count = held_out(found, args, limit), sum(w.numel() for w in found.network.parameters())
    if found.is_classifier:
        return told_images(found, images, args, device), count
    network = found.network.to(device)
    return restored_images(
        network, physics_for(images, found.physics, network).to(device), images, device
    ), count


def score_baselines(
    path: Path, args: Namespace, limit: int | None, device: torch.device
) -> dict[str, list[dict]]:
    """The same of first images that need no training, by the camera of a checkpoint."""
    found = restore(path, {})
    if found.is_classifier or args.dataset == "paired":
        return {}
    images, n, c = (
        held_out(found, args, limit),
        found.physics.config["n"],
        found.physics.config["c"],
    )
    train = build_splits(setup.request_of(args, n=n, c=c), wanted=("train",))["train"].stack
    network, baselines = FirstImage(c), {}
    for part in found.physics.parts:
        for name, camera in part.baselines(train).items():
            title = (
                name
                if len(found.physics.parts) == 1
                else f"{name}, {part.condition.replace('_', ' ')}"
            )
            baselines[title] = restored_images(network, camera.to(device), images, device)
    return baselines
