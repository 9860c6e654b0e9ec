"""What the classification scripts have in common: a label as the target, one or several teachers, one or several seeds."""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algo_functions import ClassMeter
from cli.checks import balanced, class_loss_options, weights_of
from core.errors import UserError
from core.registry import (
    ALPHA_SCHEDULES,
    CLASS_LOSSES,
    CLASSIFIERS,
    LABELLED,
    PREPARE_EPOCHS,
    bound,
    label_of,
    look_up,
)
from data.batches import Images
from distill.task import Distillation, Guide, Supervised
from models.base import to_device
from models.pretrained import load_pretrained
from physics.base import Physics
from training import checkpoint, setup
from training.loop import Fit
from training.run import Run

SMALL = 64  # pixels a side, below which a stem of 7 x 7 with stride and pooling leaves too little


def splits_of(args: Namespace) -> dict[str, Images]:
    return setup.splits_of(args, LABELLED, args.augment, labelled=True, shift=args.augment)


def network_of(args: Namespace, physics: Physics, classes: list[str]) -> tuple[nn.Module, dict]:
    """The classifier that the flags describe for what its camera shows; its recipe names the classes."""
    side = physics.parts[0].example(torch.device("cpu")).shape[-1]
    stem = {"auto": "small" if side < SMALL else "large"}.get(args.stem, args.stem)
    told = Namespace(**vars(args) | {"stem": stem, "pretrained": None})
    network, config = setup.network_of(told, classes=classes, side=side)
    if args.pretrained:
        load_pretrained(network, args.network, args.download)
    return network, config


def task(args: Namespace) -> Callable[[Tensor, Tensor], Tensor]:
    return partial(F.cross_entropy, label_smoothing=args.label_smoothing)


def supervised(
    args: Namespace, network: nn.Module, physics: Physics, device: torch.device
) -> Supervised:
    return Supervised(to_device(network, device), physics.to(device), task(args), "label")


class Reordered(nn.Module):
    """A classifier whose classes stand in another order."""

    def __init__(self, network: nn.Module, order: list[int]):
        super().__init__()
        self.network, self.order = network, order

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)["output"]

    def normalise(self, x: Tensor) -> Tensor:
        return self.network.normalise(x)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        layers = self.network.features(x)
        return layers | {"output": layers["output"][:, self.order]}


def in_order(
    network: nn.Module, theirs: list[str], ours: list[str], whose: str, dataset: str
) -> nn.Module:
    """A classifier of our classes, which tells them in our order."""
    if theirs == ours:
        return network
    if sorted(theirs) != sorted(ours):
        other = sorted(set(theirs) ^ set(ours))
        raise UserError(
            f"{whose} tells other classes than dataset '{dataset}': {', '.join(other[:6])} are not in both"
        )
    return Reordered(network, [theirs.index(name) for name in ours])


def checked(args: Namespace) -> Namespace:
    """The flags, of which none is there that no chosen loss reads."""
    losses_of(args)
    readers = {
        "type_dist": [name for name, line in CLASS_LOSSES.items() if line.layers != "output"],
        "prepare_epochs": [
            name for name in CLASS_LOSSES if hasattr(look_up(CLASS_LOSSES, name, "loss"), "prepare")
        ],
    }
    chosen = {word.partition(":")[0] for word in args.loss_distill}
    for flag, names in readers.items():
        if getattr(args, flag) is not None and not chosen.intersection(names):
            raise UserError(f"{flag} {getattr(args, flag)}: only {', '.join(names)} reads --{flag}")
    prepares = chosen.intersection(readers["prepare_epochs"])
    return Namespace(
        **vars(args)
        | {"prepare_epochs": args.prepare_epochs or PREPARE_EPOCHS if prepares else None}
    )


def teachers_of(args: Namespace) -> list[setup.Teacher]:
    """The teachers of checkpoints."""
    given, kind = {"n": args.n, "c": args.c}, checkpoint.CLASSIFIER
    return [setup.teacher_from(path, given, args.dataset, kind=kind) for path in args.teacher]


def agreeing(
    args: Namespace, teachers: list[setup.Teacher], classes: list[str]
) -> list[setup.Teacher]:
    """The teachers, which where they are asked for their opinion must tell the same classes, and tell them in the student's order."""
    if not any(term.layers == "output" for term in losses_of(args)):
        return teachers
    pairs = zip(args.teacher, teachers, strict=True)
    return [
        t._replace(
            network=in_order(
                t.network, t.config["classes"], classes, f"teacher {path}", args.dataset
            )
        )
        for path, t in pairs
    ]


def losses_of(args: Namespace) -> list:
    """The distillation losses; --type_dist replaces the taps of those that look at features."""
    return setup.losses_of(
        args,
        CLASS_LOSSES,
        class_loss_options(args),
        lambda line: None if line.layers == "output" else args.type_dist,
    )


def distillation(
    args: Namespace,
    student: nn.Module,
    physics: Physics,
    teachers: list,
    labels: list[int],
    device: torch.device,
) -> Distillation:
    """Student, teachers and what the losses learn, on the device; one physics object where two see alike."""
    torch.manual_seed(args.seed)  # of adapters and other modules
    teachers = []
    for teacher, weight in zip(teachers, weights_of(args), strict=True):
        seen = [physics, *(teacher.physics for teacher in teachers)]
        shared = next(
            (other for other in seen if other.same_first_image_as(teacher.physics)), teacher.physics
        )
        teachers.append(Guide(to_device(teacher.network, device), shared.to(device), weight))
    return Distillation(
        to_device(student, device),
        physics.to(device),
        teachers,
        selection="latent",
        losses=losses_of(args),
        task=task(args),
        target="label",
        alpha=args.alpha,
        schedule=bound(ALPHA_SCHEDULES, args.alpha_schedule, args),
        beta=args.beta,
        shuffled=args.shuffle_teacher,
        labels=labels,
    )


def teach(args: Namespace, device: torch.device, companion: Fit | None = None) -> Fit | dict:
    """A student of one or several teachers; with --assistant, of one that is trained first."""
    args = checked(balanced(args))
    teachers = teachers_of(args)
    if args.assistant:
        between = assistant(args, teachers[0].config, device)
        if "checkpoint" not in between:
            print("the student needs the assistant's checkpoint")
            return between
        args = Namespace(**vars(args) | {"teacher": [between["checkpoint"]], "assistant": False})
        teachers = teachers_of(args)
    camera = setup.physics_config(args)
    what = f"{args.network}_{label_of(camera)}_from_{'_'.join(label_of(t.physics.config) for t in teachers)}_{'_'.join(args.loss_distill)}"
    what = f"{what.replace(':', '_')[:120]}_{args.dataset}"  # names of files have an end
    files = {"teacher": None} | {
        f"teacher {i}": path for i, path in enumerate(args.teacher)
    }  # what is in them, wherever they lie
    run = Run(
        args,
        f"student_{what}",
        f"student_{what}_seed_{args.seed}_{{hash}}.pth",
        files | setup.ordering_file(camera),
    )
    if run.finished:
        return run.already()
    splits = companion.splits if companion else splits_of(args)
    classes = list(splits["train"].classes)
    physics = setup.fitted_physics(camera, splits)
    network, config = network_of(args, physics, classes)
    stage = distillation(
        args, network, physics, agreeing(args, teachers, classes), splits["train"].labels, device
    )
    return setup.learner(stage, config, splits, args, run, meter=ClassMeter, companion=companion)


def assistant(args: Namespace, config: dict, device: torch.device) -> dict:
    """The first teacher's network, taught to see what the student sees."""
    line = CLASSIFIERS[config["name"]].flags
    flags = {
        name: config.get(name, line.get(name))
        for name in ("width", "stem", "batch_norm", "patch", "pretrained")
    }
    name = args.run_name and f"{args.run_name}_assistant"
    chosen = teach(
        Namespace(
            **vars(args) | flags | {"network": config["name"], "assistant": False, "run_name": name}
        ),
        device,
    )
    return setup.trained([chosen])[0]


def alone(args: Namespace, device: torch.device, companion: Fit | None = None) -> Fit | dict:
    """A classifier that learns from labels."""
    camera = setup.physics_config(args)
    stem = f"{args.network.upper()}_{label_of(camera)}_{args.dataset}"
    run = Run(args, stem, f"{stem}_seed_{args.seed}.pth", setup.ordering_file(camera))
    if run.finished:
        return run.already()
    splits = companion.splits if companion else splits_of(args)
    physics = setup.fitted_physics(camera, splits)
    network, config = network_of(args, physics, list(splits["train"].classes))
    return setup.learner(
        supervised(args, network, physics, device),
        config,
        splits,
        args,
        run,
        meter=ClassMeter,
        companion=companion,
    )


def exported(
    path: str | Path, n: int | None = None, c: int | None = None, crop: str | None = None
) -> checkpoint.Restored:
    """The checkpoint of a classifier; what is asked for must not contradict it."""
    given = {"n": n, "c": c}
    found = checkpoint.restore_with_physics(path, given, kind=checkpoint.CLASSIFIER)
    check_crop(path, found, crop)
    return found


def check_crop(path: str | Path, found: checkpoint.Restored, crop: str | None) -> None:
    """Refuses another crop than the one with which a network learnt."""
    if crop not in (None, found.crop):
        raise UserError(
            f"checkpoint {path} has crop {found.crop}, which contradicts the crop {crop} that was asked for"
        )
