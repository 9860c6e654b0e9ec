"""The classification scripts: a label as the target, and one or several teachers."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from algo_functions import ClassMeter
from checkpoints import checkpoint
from checkpoints.checkpoint import Checkpoint
from cli.checks import balanced, class_loss_options, weights_of
from core import own
from core.errors import UserError
from core.registry import (
    ALPHA_SCHEDULES,
    CLASS_LOSSES,
    CLASSIFIERS,
    LABELLED,
    PREPARE_EPOCHS,
    bound,
    label_of,
)
from data.batches import UNLABELLED, Images
from distill import WeightedLoss
from distill.task import Distillation, Supervised, Teacher
from models.base import Network, to_device
from models.classifier import Classifier
from models.pretrained import load_pretrained
from physics.base import Physics
from preparation import own_code, setup
from training.loop import Fit

SMALL = 64  # pixels a side, below which a stem of 7 x 7 with stride and pooling leaves too little


def splits_of(args: Namespace) -> dict[str, Images]:
    return setup.splits_of(args, LABELLED, args.augment, labelled=True, shift=args.augment)


def network_of(args: Namespace, physics: Physics, classes: list[str]) -> tuple[Network, dict]:
    """The classifier that the flags describe, for images of its physics's size."""
    side = physics.parts[0].example(torch.device("cpu")).shape[-1]
    stem = {"auto": "small" if side < SMALL else "large"}.get(args.stem, args.stem)
    flags = Namespace(**vars(args) | {"stem": stem, "pretrained": None})
    network, config = setup.network_of(flags, classes=classes, side=side)
    if args.pretrained:
        assert isinstance(network, Classifier)
        load_pretrained(network, args.network, args.download)
    return network, config


def known_cross_entropy(logits: Tensor, label: Tensor, label_smoothing: float) -> Tensor:
    """The mean cross-entropy of images, to which those without a label add nothing.

    So a label counts as much as where every image has one, beside a teacher that answers for all,
    and it does not matter how a batch is split.
    """
    losses = F.cross_entropy(
        logits, label, ignore_index=UNLABELLED, reduction="none", label_smoothing=label_smoothing
    )
    return losses.mean()


def supervised(
    args: Namespace, network: Network, physics: Physics, device: torch.device
) -> Supervised:
    loss = partial(known_cross_entropy, label_smoothing=args.label_smoothing)
    return Supervised(to_device(network, device), physics.to(device), loss, "label")


class Reordered(Network):
    """A classifier whose classes stand in another order."""

    def __init__(self, network: Network, order: list[int]):
        super().__init__(network.c)
        self.network, self.order = network, order

    def normalise(self, x: Tensor) -> Tensor:
        return self.network.normalise(x)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        layers = self.network.features(x)
        return layers | {"output": layers["output"][:, self.order]}


def in_order(
    network: Network, theirs: list[str], ours: list[str], name: str, dataset: str
) -> Network:
    """A classifier of our classes, whose outputs are put into our order."""
    if theirs == ours:
        return network
    if sorted(theirs) != sorted(ours):
        other = sorted(set(theirs) ^ set(ours))
        raise UserError(
            f"{name} has other classes than dataset '{dataset}': {', '.join(other[:6])} "
            "are not in both"
        )
    return Reordered(network, [theirs.index(name) for name in ours])


def checked(args: Namespace) -> Namespace:
    """The flags, none of which is there that no chosen loss reads."""
    losses_of(args)
    readers = {
        "type_dist": [name for name, spec in CLASS_LOSSES.items() if spec.layers != "output"],
        "prepare_epochs": [name for name, spec in CLASS_LOSSES.items() if spec.pretrain],
    }
    chosen = {own.split_word(word)[0] for word in args.loss_distill}
    for flag, names in readers.items():
        if getattr(args, flag) is not None and not chosen.intersection(names):
            raise UserError(f"{flag} {getattr(args, flag)}: only {', '.join(names)} reads --{flag}")
    pretrains = chosen.intersection(readers["prepare_epochs"])
    epochs = (args.prepare_epochs or PREPARE_EPOCHS) if pretrains else None
    return Namespace(**vars(args) | {"prepare_epochs": epochs})


def teachers_of(args: Namespace) -> list[Teacher]:
    """The teachers of checkpoints, with their weights."""
    requested, kind = {"n": args.n, "c": args.c}, checkpoint.CLASSIFIER
    return [
        replace(setup.teacher_from(path, requested, args.dataset, kind=kind), weight=weight)
        for path, weight in zip(args.teacher, weights_of(args), strict=True)
    ]


def with_our_classes(args: Namespace, teachers: list[Teacher], classes: list[str]) -> list[Teacher]:
    """The teachers, whose outputs are compared only where they have the student's classes."""
    if not any(loss.layers == "output" for loss in losses_of(args)):
        return teachers
    return [
        replace(
            teacher,
            network=in_order(
                teacher.network, teacher.config["classes"], classes, f"teacher {path}", args.dataset
            ),
        )
        for path, teacher in zip(args.teacher, teachers, strict=True)
    ]


def losses_of(args: Namespace) -> list[WeightedLoss]:
    """The distillation losses; --type_dist replaces the layers of those that compare features."""
    return setup.losses_of(
        args,
        CLASS_LOSSES,
        class_loss_options(args),
        lambda spec: None if spec.layers == "output" else args.type_dist,
    )


def distillation(
    args: Namespace,
    student: Network,
    physics: Physics,
    teachers: list[Teacher],
    labels: Sequence[int],
    device: torch.device,
) -> Distillation:
    """Student, teachers and what the losses learn, on the device.

    Where two networks see the same, they share one physics object.
    """
    torch.manual_seed(args.seed)  # of adapters and other modules
    placed: list[Teacher] = []
    for teacher in teachers:
        candidates = [physics, *(other.physics for other in placed)]
        shared = next(
            (other for other in candidates if other.same_first_image_as(teacher.physics)),
            teacher.physics,
        )
        network = to_device(teacher.network, device)
        placed.append(replace(teacher, network=network, physics=shared.to(device)))
    return Distillation(
        to_device(student, device),
        physics.to(device),
        placed,
        selection="latent",
        losses=losses_of(args),
        task_loss=partial(known_cross_entropy, label_smoothing=args.label_smoothing),
        target="label",
        alpha=args.alpha,
        schedule=bound(ALPHA_SCHEDULES, args.alpha_schedule, args),
        beta=args.beta,
        shuffled=args.shuffle_teacher,
        labels=labels,
    )


def prepare_student(args: Namespace, device: torch.device, companion: Fit | None = None) -> Fit:
    """A student of one or several teachers; with --assistant, of one that is trained first."""
    args = checked(balanced(args))
    teachers = teachers_of(args)
    if args.assistant:
        assistant = train_assistant(args, teachers[0].config, device)
        if "checkpoint" not in assistant:
            print("the student needs the assistant's checkpoint")
            raise setup.Finished(assistant)
        teacher = {"teacher": [assistant["checkpoint"]], "assistant": False}
        args = Namespace(**vars(args) | teacher)
        teachers = teachers_of(args)
    physics_config = setup.physics_config_of(args)
    teacher_labels = "_".join(label_of(teacher.physics.config) for teacher in teachers)
    losses = "_".join(args.loss_distill)
    name = f"{args.network}_{label_of(physics_config)}_from_{teacher_labels}_{losses}"
    name = (
        f"{name.replace(':', '_')[:120]}_{own.short_name(args.dataset)}"  # file names have a limit
    )
    # The content of these files belongs to the run's configuration, wherever they lie.
    files = {"teacher": None} | {f"teacher {i}": path for i, path in enumerate(args.teacher)}
    run = setup.begin_run(
        args,
        f"student_{name}",
        f"student_{name}_seed_{args.seed}_{{hash}}.pth",
        files
        | setup.ordering_file(physics_config)
        | setup.recording_files(args)
        | own_code.files(args),
    )
    splits = companion.splits if companion else splits_of(args)
    classes = list(splits["train"].classes)
    physics = setup.fitted_physics(physics_config, splits)
    network, config = network_of(args, physics, classes)
    teachers = with_our_classes(args, teachers, classes)
    task = distillation(args, network, physics, teachers, splits["train"].labels or (), device)
    return setup.fit_of(task, config, splits, args, run, meter=ClassMeter(), companion=companion)


def train_assistant(args: Namespace, config: dict, device: torch.device) -> dict:
    """The first teacher's network, taught to see what the student sees."""
    defaults = CLASSIFIERS[config["name"]].flags
    flags = {
        name: config.get(name, defaults.get(name))
        for name in ("width", "stem", "batch_norm", "patch", "pretrained")
    }
    name = args.run_name and f"{args.run_name}_assistant"
    own = {"network": config["name"], "assistant": False, "run_name": name}
    return setup.run_once(
        lambda one, companion: prepare_student(one, device, companion),
        Namespace(**vars(args) | flags | own),
    )


def prepare_alone(
    args: Namespace, device: torch.device, companion: Fit | None, changes: dict
) -> Fit:
    """A classifier that learns from labels; `changes` are flags that are not at their defaults."""
    physics_config = setup.physics_config_of(args)
    stem = f"{args.network.upper()}_{label_of(physics_config)}_{own.short_name(args.dataset)}"
    files = setup.ordering_file(physics_config) | setup.recording_files(args)
    files |= own_code.files(args)
    run = setup.begin_run(args, stem, f"{stem}_seed_{args.seed}.pth", files, changes)
    splits = companion.splits if companion else splits_of(args)
    # The physics is fitted to all images, as that of a student with a teacher.
    physics = setup.fitted_physics(physics_config, splits | {"train": splits["train"].every})
    splits = splits | {"train": splits["train"].with_labels()}
    network, config = network_of(args, physics, list(splits["train"].classes))
    task = supervised(args, network, physics, device)
    return setup.fit_of(task, config, splits, args, run, meter=ClassMeter(), companion=companion)


def restore_classifier(
    path: str | Path, n: int | None = None, c: int | None = None, crop: str | None = None
) -> Checkpoint:
    """The checkpoint of a classifier, which what is asked for must not contradict."""
    classifier = checkpoint.restore(path, {"n": n, "c": c}, kind=checkpoint.CLASSIFIER)
    check_crop(path, classifier, crop)
    return classifier


def check_crop(path: str | Path, classifier: Checkpoint, crop: str | None) -> None:
    """Refuses another crop than the one that a network was trained with."""
    if crop not in (None, classifier.crop):
        raise UserError(
            f"checkpoint {path} has crop {classifier.crop}, which contradicts the crop {crop} that "
            "was asked for"
        )
