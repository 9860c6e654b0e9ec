"""A teacher that learns from a recording before it teaches."""

from argparse import Namespace
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch

from cli.flags import distillation_defaults
from core.registry import LABELS, MEASUREMENT_WEIGHT, MODELS, label_of
from data.batches import Images
from distill.task import Teacher
from preparation import setup
from training import loop

# Flags that say what a student begins with.
BEGINNINGS = ("init_student", "redistill", "encoder_from", "decoder_from", "freeze")


def prepare_teacher(
    args: Namespace,
    teacher: Teacher,
    path: Path | None,
    splits: dict[str, Images],
    device: torch.device,
    train: Callable[[list[loop.Fit]], list[dict]] | None = None,
) -> Teacher:
    """The teacher, after a training of its own on the recording where --labels ask for that.

    `train` is what trains it, by default to its end. The recorded values know nothing of what no
    pattern measured: there it stays as it was.
    """
    if not args.labels or not LABELS[args.labels].teacher_labels:
        return teacher
    own, physics = args_of(args, teacher), teacher.physics
    label = f"adapted_teacher_{label_of(physics.config)}"
    inputs = {"teacher": path} | setup.recording_files(args)
    try:
        run = setup.begin_run(own, f"{label}_recorded", f"{label}_{{hash}}.pth", inputs)
        print(f"the teacher learns from the recording first: {run.folder}")
        learner, recording = deepcopy(teacher.network), setup.physics_of_recording(splits["train"])
        images = splits["train"].stack
        task = setup.distillation(
            own, learner, physics, teacher, images, device, recording=recording
        )
        train = train or loop.train
        (scores,) = train([setup.fit_of(task, teacher.config, splits, own, run)])
    except setup.Finished as finished:
        scores = finished.scores
    if args.dry_run:
        return teacher
    return setup.teacher_from(scores["checkpoint"], {}, args.dataset)


def args_of(args: Namespace, teacher: Teacher) -> Namespace:
    """The flags of the teacher's own training: its network's, and the defaults of distillation."""
    flags = {flag for entry in MODELS.values() for flag in entry.flags}
    network = {flag: teacher.config.get(flag) for flag in flags}
    recorded = {
        "labels": LABELS[args.labels].teacher_labels,
        "measurement_weight": MEASUREMENT_WEIGHT,
        "measurement_part": "all",
        "loss_distill": [],
        "sup_loss": 0,
        "self_ensemble": False,  # which changes its answers, not what it learns
    }
    own = {
        "network": teacher.config["name"],
        "cr": teacher.physics.config["cr"],
        "x0": teacher.physics.config["x0"],
        "consistency": teacher.config.get("consistency", "none"),
        "run_name": args.run_name and f"{args.run_name}_teacher",
    }
    begun = {name: None for name in BEGINNINGS if hasattr(args, name)}
    return Namespace(**vars(args) | distillation_defaults() | begun | network | recorded | own)
