"""What `import distillpool` offers, made of the scripts' own parsers and functions."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from cli.flags import with_command
from core.errors import UserError, in_a_line
from core.zoo import resolved

if TYPE_CHECKING:
    from deepinv.physics import LinearPhysics as DeepinvPhysics

    from models.base import Network
    from physics.base import Physics


class Result(dict):
    """The scores of a training, and where its network and its run folder are."""

    @property
    def path(self) -> Path:
        """The network's file, which no other run replaces."""
        if "runs" in self:
            raise UserError("path: several seeds have a network each; choose one of 'checkpoints'")
        return Path(self.get("kept") or self["checkpoint"])


def train(**flags) -> Result:
    """Trains a network alone, as main_unet.py does, or with `model=` a classifier."""
    return Result(call("main_classify" if "model" in flags else "main_unet", flags))


def distill(teacher=None, **flags) -> Result:
    """Trains a student of a teacher, as main_unet_dist.py does, or with `model=` a classifier."""
    script = "main_classify_dist" if "model" in flags else "main_unet_dist"
    return Result(call(script, {"teacher": teacher} | flags))


def evaluate(checkpoint, **flags) -> dict:
    """The scores of one or several networks on test images, as test_UNet.py prints them."""
    paths = checkpoint if isinstance(checkpoint, list | tuple) else [checkpoint]
    from checkpoints.checkpoint import restore_network

    classifier = "classes" in restore_network(path_of(paths[0]))[1]
    return call("test_classify" if classifier else "test_UNet", {"checkpoint": [*paths]} | flags)


def load(checkpoint) -> "tuple[Network, Physics]":
    """A trained network in eval mode, and the physics that it was trained behind.

    `network(physics.observe(x))` measures clean images (B, C, n, n) and restores them.
    """
    from checkpoints.checkpoint import restore

    saved = restore(path_of(checkpoint))
    return saved.network, saved.physics


def physics(**flags) -> "DeepinvPhysics":
    """The camera of the flags without noise, cr=0.1 for instance, as a physics of deepinv.

    It has A, A_adjoint, A_dagger and prox_l2, so that deepinv's own algorithms work with it.
    """
    from algo_functions import build_physics
    from physics.base import Linear
    from preparation.setup import physics_config_of, splits_of

    parser = raising_parser(import_module("main_unet"))
    args = parser.parse_args(parser.words_of(flags, "physics"))
    noisy = [name for name in ("awgn_snr", "noise", "photons") if getattr(args, name) is not None]
    if noisy:
        raise UserError(f"physics: {noisy[0]} is noise, which deepinv's own noise models add")
    built = build_physics(physics_config_of(args), images=lambda: splits_of(args)["train"].stack())
    if not isinstance(built, Linear):
        raise UserError(f"physics '{args.physics}': it is not a linear operator of one ratio")
    return cast("DeepinvPhysics", built.operator)


def call(script: str, flags: dict) -> dict:
    """The main function of a script, with flags in place of a command line."""
    module = import_module(script)
    parser = raising_parser(module)
    words = parser.words_of({name: plain(value) for name, value in flags.items()}, script)
    return module.main(with_command(parser.parse_args(words), script, words))


def raising_parser(module):
    """A script's parser, whose errors are exceptions and not the end of the process."""
    parser = module.build_parser()

    def error(message: str) -> NoReturn:
        raise UserError(in_a_line(message))

    parser.error = error
    return parser


def plain(value):
    """A value as a configuration file has it."""
    if isinstance(value, Result):
        return str(value.path)
    if isinstance(value, dict):
        return [f"{name}={item}" for name, item in value.items()]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def path_of(checkpoint) -> str:
    """The file of a network that was trained here, of zoo:NAME, or of a path."""
    return resolved(str(plain(checkpoint)))
