"""The last lines of a run: the exported file, its scores, and the command that evaluates it."""

import shlex
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from core import own
from core.errors import UserError
from core.registry import CLASSIFIERS
from models.base import FirstImage
from physics.base import Linear
from training.cache import Views
from training.validation import evaluate

if TYPE_CHECKING:
    from training.loop import Fit

CHEAP_LMMSE = 32  # n: 32 x 32 pixels take two seconds, and the cost grows with their cube
# Flags that the evaluation must share with the training, and the values that need not be written.
SHARED_FLAGS = {
    "dataset": "photos",
    "data_root": "data",
    "gt": None,
    "lq": None,
    "pairs": None,
    "results": "results",
}


def closing_lines(fit: "Fit", scores: dict, export: Path) -> str:
    """Where the network is, how it scores beside its first image, and how it is evaluated."""
    lines = {
        "network": str(export),
        "validation": describe_scores(fit, scores),
        "next": next_command(fit.args, export),
    }
    return "\n".join(f"{name:<12}{line}" for name, line in lines.items())


def describe_scores(fit: "Fit", scores: dict) -> str:
    """The best scores on validation, and those of first images that need no training."""
    text = fit.meter.format_scores({n.removeprefix("val_"): v for n, v in scores.items()})
    if fit.meter.target == "label":
        return text
    first = fit.plots.first_image
    # Patterns that are learned make another first image after each step.
    which = "first image of the first patterns" if fit.task.physics.learns else "its first image"
    others = [f"{which} {first[fit.meter.curves[0]]:.2f} dB"] if first else []
    if fit.first_row:
        others.append(f"not adapted {fit.first_row[f'val_{fit.meter.curves[0]}']:.2f} dB")
    companion = fit.plots.companion  # of the same images and physics; it ends before this one
    known = companion.lmmse if companion else None
    fit.plots.lmmse = psnr_of_lmmse(fit) if known is None else known
    if fit.plots.lmmse is not None:
        others.append(f"LMMSE {fit.plots.lmmse:.2f} dB")
    return f"{text} ({', '.join(others)})" if others else text


def psnr_of_lmmse(fit: "Fit") -> float | None:
    """The validation PSNR of the best linear estimate, if cheap and not the first image."""
    physics = fit.val_physics
    config = physics.config
    if fit.meter.target != "image":
        return None
    if not isinstance(physics, Linear) or config["n"] > CHEAP_LMMSE or config.get("x0") == "lmmse":
        return None
    with suppress(UserError):  # where the training images do not suffice for it
        lmmse = physics.baselines(fit.splits["train"].stack)["LMMSE"].to(fit.device)
        views = Views(lmmse, fit.val, fit.device, fit.data_seed)
        return evaluate(FirstImage(config["c"]), views, fit.meter.new()).summary()["psnr"]
    return None


def next_command(args: Namespace, export: Path) -> str:
    """The command that scores the network on test images."""
    classifier = args.network in CLASSIFIERS
    words = ["python", "test_classify.py" if classifier else "test_UNet.py"]
    words += ["--checkpoint", str(export)]
    things = (args.network, getattr(args, "physics", None))
    files = [str(own.source_of(name).path) for name in things if name and own.is_own(name)]
    for file in dict.fromkeys(files):
        words += ["--code", file]
    for flag, default in SHARED_FLAGS.items():
        value = getattr(args, flag, default)
        if value == "hybrid":
            value = "paired"  # a mixture is validated and tested on its pairs
        if value != default:
            words += [f"--{flag}", own.with_folder(str(value))]
    return shlex.join(words)
