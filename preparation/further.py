"""A trained student, or a hybrid of two checkpoints, that is trained further."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import torch

from checkpoints.checkpoint import RESTORER, Checkpoint, restore
from core.errors import UserError
from core.registry import LIGHT, NETWORKS, PHYSICS
from distill.task import Teacher
from physics.base import Physics
from preparation import own_code, setup
from preparation.adapted import prepare_teacher
from training.loop import Fit
from training.run import Run

FILES = ("teacher", "redistill", "encoder_from", "decoder_from")  # flags of checkpoints


def begin(args: Namespace) -> Run:
    """The run, which is named after what it begins with."""
    args, start = start_of(args)
    return begin_run(args, start.physics, teacher_of(args))


def prepare(args: Namespace, device: torch.device, companion: Fit | None = None) -> Fit:
    """A student or a hybrid, with the physics of its checkpoint, ready to be trained."""
    args, start = start_of(args)
    teacher = teacher_of(args)
    run = begin_run(args, start.physics, teacher)
    if args.decoder_from:
        network, config = setup.hybrid_of(start, args.decoder_from, args.freeze)
    else:
        network, config = setup.unfrozen(start)
    network = setup.apply_checkpointing(network, args)
    splits = companion.splits if companion else setup.splits_of(args, check=False)
    print(f"physics: {start.physics.describe()}")
    recording = setup.physics_of_recording(splits["train"])
    if teacher is None:
        task = setup.supervised(args, network, start.physics, args.loss_gt, device, recording)
    else:
        teacher = prepare_teacher(args, teacher, Path(args.teacher), splits, device)
        images = splits["train"].stack
        task = setup.distillation(
            args, network, start.physics, teacher, images, device, recording=recording
        )
    return setup.fit_of(task, config, splits, args, run, companion=companion)


def start_of(args: Namespace) -> tuple[Namespace, Checkpoint]:
    """The flags with the settings of a checkpoint, and the checkpoint at the noise of the flags."""
    named = args.typed & {"n", "c", "cr", "ordering"}
    named |= {"n", "c"} if args.dataset == "recorded" else set()  # they are the recording's
    typed = {name: getattr(args, name) for name in named}
    start = restore(args.redistill or args.encoder_from, typed, kind=RESTORER)
    physics, noise = start.physics, {}
    for name in args.typed & {*physics.levels, *(LIGHT if "photons" in physics.levels else ())}:
        noise[name] = getattr(args, name)
    changed = any(value != physics.config[name] for name, value in noise.items())
    if changed:
        physics = physics.at_noise(**noise)
    args = with_settings_of(args, start.network_config, physics.config)
    if changed:
        physics = physics.refit(lambda: setup.splits_of(args, check=False)["train"].stack())
    return args, replace(start, physics=physics)


def with_settings_of(args: Namespace, network_config: dict, physics_config: dict) -> Namespace:
    """The flags with the checkpoints' settings, which belong to the run's configuration.

    A flag that the user typed must not contradict them.
    """
    names = {"physics": physics_config["name"], "network": network_config["name"]}
    names |= {"consistency": "none"}  # which a network's config names only where it is another
    stored = names | network_config | physics_config
    stored |= own_code.flags_of(network_config)
    flags_of_tables = [
        flag for entry in (*PHYSICS.values(), *NETWORKS.values()) for flag in entry.flags
    ]
    own = dict.fromkeys(flags_of_tables) | stored
    own = {name: value for name, value in own.items() if hasattr(args, name)}
    for name in args.typed & own.keys():
        if getattr(args, name) != own[name]:
            raise UserError(
                f"{name} {getattr(args, name)} contradicts the checkpoint's {own[name]}"
            )
    # The test images are not part of the training.
    changed = vars(args) | own | {"limit_test": None}
    return Namespace(**{name: value for name, value in changed.items() if name != "typed"})


def teacher_of(args: Namespace) -> Teacher | None:
    """The teacher of --teacher, if there is one."""
    if not args.teacher:
        return None
    requested = {
        "n": args.n,
        "c": args.c,
        "cr": args.cr_teacher,
        "ordering": args.ordering_teacher,
    }
    return setup.teacher_from(args.teacher, requested, args.dataset)


def begin_run(args: Namespace, physics: Physics, teacher: Teacher | None) -> Run:
    """The run of a student or a hybrid with the settings of its checkpoint."""
    prefix = "redistilled" if args.redistill else f"hybrid_{args.freeze}_frozen"
    config_t = None if teacher is None else teacher.physics.config
    names = setup.student_names(args, physics.config, config_t, prefix)
    files = {name: getattr(args, name) for name in FILES} | setup.recording_files(args)
    files |= own_code.files(args)
    return setup.begin_run(args, *names, files)
