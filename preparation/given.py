"""Teachers that no checkpoint holds: total variation, a denoiser, the user's own, a program."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from algo_functions import build_physics
from cli.checks import given_teacher
from core import own
from core.errors import UserError
from distill.task import Teacher
from models.given import Exported, ReadsValues, load_program, takes_values
from models.own_network import OwnNetwork
from models.untrained import TotalVariation
from physics.base import Physics
from physics.single_pixel import SinglePixel
from preparation import own_code
from preparation.baselines import plugged_in, total_variation
from preparation.setup import physics_config_of, state_of
from recordings.file import read_recording
from training.answers import Remembered


def physics_of_teacher(
    args: Namespace, images: Callable[[], Tensor], measurements: bool
) -> Physics:
    """What a teacher without a checkpoint sees: --cr_teacher without noise, or as the student.

    Of a recording it sees all.
    """
    config = physics_config_of(args) | {"x0": "adjoint"}
    if "cr" in config:
        config |= {"measurements": measurements}
    recording = read_recording(args.data_root) if args.dataset == "recorded" else None
    if args.cr_teacher is not None:
        noise = {} if recording else {"awgn_snr": None, "noise": None, "photons": None}
        config |= {"cr": args.cr_teacher, "cr_range": None} | noise
    elif recording:
        config |= {"cr": recording.config["cr"]}
    state = state_of(recording) if recording else None
    return build_physics(config, images=images, state=state)


def build_untrained_teacher(
    args: Namespace, kind: str, option: str, images: Callable[[], Tensor]
) -> Teacher:
    """Total variation, or a plugged-in denoiser, as a teacher.

    It sees --cr_teacher without noise, or by default the student's values; of a recording all.
    """
    physics = physics_of_teacher(args, images, measurements=True)
    config, recorded = physics.config, args.dataset == "recorded"
    if kind == "pnp":
        network = plugged_in(option, physics)
    elif option:
        network = TotalVariation(config["c"], physics.block, float(option))
    else:
        network = total_variation(physics, None if recorded else images)
        print(f"teacher: total variation of weight {network.weight:g}")
    random = any(config.get(name) is not None for name in (*physics.levels, "cr_range"))
    if args.answers and (recorded or not random):  # else no image is seen twice
        network = Remembered(network, Path(args.results) / "answers", args.answers * 2**30)
    return Teacher(network, physics)


def build_given_teacher(args: Namespace, images: Callable[[], Tensor]) -> Teacher:
    """A teacher of the user's own code, or a program of torch.export."""
    c = args.c
    if given_teacher(args.teacher) == "program":
        physics = physics_of_teacher(args, images, measurements=False)
        return Teacher(Exported(c, args.teacher, load_program(args.teacher)), physics)
    key = args.teacher
    module = build_module(key, c, own_code.settings_of(args, key))
    if not takes_values(module):
        return Teacher(
            OwnNetwork(c, key, module, {}), physics_of_teacher(args, images, measurements=False)
        )
    if args.physics not in ("spc", "cs"):
        raise UserError(f"teacher {key} takes (y, physics), which needs --physics spc")
    physics = physics_of_teacher(args, images, measurements=True)
    if not isinstance(physics, SinglePixel):
        raise UserError(f"teacher {key} takes (y, physics), which needs a camera of one ratio")
    return Teacher(ReadsValues(c, physics.config["n"], key, module, physics.operator), physics)


def build_module(key: str, c: int, settings: dict) -> nn.Module:
    """The module of a user's class, or what a user's function returns."""
    thing = own.load(key)
    arguments = own.settings_for(thing, key, settings, {"c": c})
    with own.pointing_at(own.source_of(key).path):
        module = thing(**arguments)
    if not isinstance(module, nn.Module):
        raise UserError(f"{key} makes {type(module).__name__}, but a torch.nn.Module is needed")
    return module.eval().requires_grad_(False)
