"""A teacher that learns from a recording before it teaches."""

from argparse import Namespace
from pathlib import Path

import torch

from cli.flags import distillation_flags
from core.registry import LABELS, MEASUREMENT_WEIGHT, MODELS, label_of
from data.batches import Images
from distill.task import Teacher
from preparation import setup
from training.loop import train


def adapt_teacher(
    args: Namespace,
    teacher: Teacher,
    path: Path | None,
    splits: dict[str, Images],
    device: torch.device,
) -> Teacher:
    """The teacher after a training of its own, with the steps and the learning rate of args."""
    own, recording = args_of(args, teacher), setup.physics_of_recording(splits["train"])
    label = f"adapted_teacher_{label_of(teacher.physics.config)}"
    inputs = {"teacher": path} | setup.recording_files(args)
    try:
        run = setup.begin_run(own, f"{label}_recorded", f"{label}_{{hash}}.pth", inputs)
        print(f"the teacher learns from the recording first: {run.folder}")
        task = setup.supervised(own, teacher.network, teacher.physics, own.loss, device, recording)
        (scores,) = train([setup.fit_of(task, teacher.config, splits, own, run)])
    except setup.Finished as finished:
        scores = finished.scores
    if args.dry_run:
        return teacher
    return setup.teacher_from(scores["checkpoint"], {}, args.dataset)


def args_of(args: Namespace, teacher: Teacher) -> Namespace:
    """The flags of the teacher's own training: its network's, and none of a distillation."""
    flags = {flag for entry in MODELS.values() for flag in entry.flags}
    network = {flag: teacher.config.get(flag) for flag in flags}
    recorded = {
        "labels": LABELS[args.labels].teacher_loss,
        "measurement_weight": MEASUREMENT_WEIGHT,
        "measurement_part": "all",
    }
    own = {
        "network": teacher.config["name"],
        "cr": teacher.physics.config["cr"],
        "x0": teacher.physics.config["x0"],
        "loss": args.loss_gt,  # not read, as there is no truth
        "init_student": None,
        "run_name": args.run_name and f"{args.run_name}_teacher",
    }
    left_out = distillation_flags()
    kept = {name: value for name, value in vars(args).items() if name not in left_out}
    return Namespace(**kept | network | recorded | own)
