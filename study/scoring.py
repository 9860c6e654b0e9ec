"""The scores of a finished run for every test image, and the decomposition of its error."""

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor, nn

from algo_functions import ClassMeter, score
from checkpoints.checkpoint import Checkpoint, restore
from core.files import significant
from core.registry import DATASETS, LABELLED
from data.batches import Images, build_loader, present
from data_loader import build_splits
from evaluation.checkpoints import fit_to_images
from models.base import Network
from physics.base import Physics
from physics.paired import physics_for
from preparation import setup
from preparation.baselines import baselines_of
from preparation.classification import in_order
from recordings.file import truth_path
from training.cache import Views
from training.validation import evaluate, outputs

NOISE_SEED = 0  # of the measurements of test images, the same for all runs of a study
BATCH = 200
OF_RATIOS = ("psnr", "ssim")  # scores that are shown for each ratio of a mixture


def decompose_error(physics: Physics, error: Tensor) -> dict[str, Tensor]:
    """e = A†A e + (I - A†A) e: the mean squared errors (B,) of both parts, where A has both."""
    project = physics.project(error)
    if project is None:
        return {}
    parts = {"measured": project, "unmeasured": error - project}
    return {name: part.square().mean((1, 2, 3)) for name, part in parts.items()}


def condition_of(part: Physics) -> str:
    return part.condition.replace("_", " ")


@torch.no_grad()
def score_images(
    network: Network, physics: Physics, images: Images, device: torch.device
) -> list[dict]:
    """PSNR, SSIM and error decomposition of every image.

    Of a mixture they are means over its ratios, beside which are the first two of each ratio.
    """
    network, loader = network.to(device), build_loader(images, BATCH)
    sums: dict[str, Tensor] = {}
    for part in physics.parts:
        scores: dict[str, list[Tensor]] = {}
        fitted, view = fit_to_images(network, part, images)
        for batch, _, output in outputs(fitted, Views(view, loader, device, NOISE_SEED)):
            truth = present(batch.image)
            error = output - truth
            values = score(output, truth) | decompose_error(part, error)
            for name in values.keys() - {"psnr_clipped"}:
                scores.setdefault(name, []).append(values[name].cpu())
        for name, values in scores.items():
            mean = torch.cat(values).double() / len(physics.parts)
            sums[name] = sums[name] + mean if name in sums else mean
            if len(physics.parts) > 1 and name in OF_RATIOS:
                sums[f"{name}, {condition_of(part)}"] = mean * len(physics.parts)
    names = sorted(sums)
    return [
        {"image": images.name(i)} | {name: significant(sums[name][i].item(), 9) for name in names}
        for i in range(len(images))
    ]


def score_answers(
    checkpoint: Checkpoint, images: Images, args: Namespace, device: torch.device
) -> list[dict]:
    """Top-1 of every image, 100 or 0, and its cross-entropy."""
    network, classes = checkpoint.network.to(device), checkpoint.classes
    ordered = in_order(network, classes, list(images.classes), "the run", args.dataset)
    loader = build_loader(images, BATCH)
    views = Views(checkpoint.physics.to(device), loader, device, NOISE_SEED)
    logits, labels = evaluate(ordered, views, ClassMeter()).both()
    top1 = 100.0 * (logits.argmax(1) == labels)
    loss = nn.functional.cross_entropy(logits, labels, reduction="none")
    return [
        {"image": images.name(i), "top1": top1[i].item(), "loss": significant(loss[i].item(), 9)}
        for i in range(len(images))
    ]


def load_run_images(checkpoint: Checkpoint, args: Namespace, limit: int | None) -> Images:
    """The test images of a run's dataset in the size that its physics takes."""
    n, c = checkpoint.physics.config["n"], checkpoint.physics.config["c"]
    labelled = checkpoint.is_classifier
    cut = {"crop": checkpoint.crop} if labelled else {"multiple": checkpoint.physics.step}
    request = setup.request_of(args, n=n, c=c, labelled=labelled, limit_test=limit, **cut)
    if args.dataset == "recorded":  # after the training, its truth is opened
        request = request._replace(truth=str(truth_path(Path(args.data_root))))
    return build_splits(request, ("test",), table=LABELLED if labelled else DATASETS)["test"]


def score_run(
    path: Path, args: Namespace, limit: int | None, device: torch.device
) -> tuple[list[dict], int]:
    """The scores of every test image by a run's checkpoint, and its number of parameters."""
    checkpoint = restore(path, {})
    images = load_run_images(checkpoint, args, limit)
    parameters = sum(w.numel() for w in checkpoint.network.parameters())
    if checkpoint.is_classifier:
        return score_answers(checkpoint, images, args, device), parameters
    network = checkpoint.network.to(device)
    physics = physics_for(images, checkpoint.physics, network).to(device)
    return score_images(network, physics, images, device), parameters


def score_baselines(
    path: Path, args: Namespace, simulated: Namespace, limit: int | None, device: torch.device
) -> dict[str, list[dict]]:
    """The same of first images that need no training, by the physics of a checkpoint.

    They are fitted to the training images of `simulated`, with the noise of the test images.
    """
    checkpoint = restore(path, {})
    if checkpoint.is_classifier or args.dataset == "paired":
        return {}
    images = load_run_images(checkpoint, args, limit)
    n, c = checkpoint.physics.config["n"], checkpoint.physics.config["c"]
    train = build_splits(setup.request_of(simulated, n=n, c=c), wanted=("train",))["train"]
    scores, parts = {}, checkpoint.physics.parts
    for part in parts:
        for name, (network, baseline) in baselines_of(part, train.stack, images).items():
            if len(parts) > 1:
                name = f"{name}, {condition_of(part)}"
            scores[name] = score_images(network, baseline.to(device), images, device)
    return scores
