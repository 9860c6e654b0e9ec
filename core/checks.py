"""What flags cannot say together, found by their words alone: parsers call these before anything heavy is imported."""

import re
from argparse import Namespace
from pathlib import Path

from core.errors import UserError
from core.inputs import check_patterns
from core.registry import (
    BALANCES,
    CLASS_LOSSES,
    CLASS_OPTIONS,
    LOSS_OPTIONS,
    LOSSES,
    TASK_LOSSES,
    label_of,
    words,
)


def check_device(device: str) -> None:
    """Refuses what is no device's name; whether this machine has it, torch knows."""
    if not re.fullmatch(r"auto|cpu|-1|cuda|(cuda:)?\d+", device, re.ASCII):
        raise UserError(f"device '{device}': allowed are auto, cpu, -1, cuda, cuda:N and N")


def check_run_name(name: str) -> None:
    if not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", name):
        raise UserError(f"run_name '{name}': letters, digits, '_', '-', '.' and '+' make a name")


def check_physics_side(args: Namespace) -> None:
    """Refuses sides that the patterns of a single-pixel camera do not have."""
    if args.physics == "spc":
        check_patterns(args.ordering, args.n)


# ---------------------------------------------------------------- losses


def named_losses(args: Namespace) -> dict[str, float | None]:
    """The distillation losses, each name once, with the weights that the command line gives."""
    pairs = [word.partition(":")[::2] for word in args.loss_distill]
    if len({name for name, _ in pairs}) < len(pairs):
        raise UserError(f"loss_distill {' '.join(args.loss_distill)}: a loss is named twice")
    return {name: float(weight) if weight else None for name, weight in pairs}


def loss_options(args: Namespace) -> dict:
    """The options of losses; one that no loss of this run reads is refused."""
    chosen = {word.partition(":")[0]: LOSSES for word in getattr(args, "loss_distill", [])}
    task = {args.loss_gt if hasattr(args, "loss_gt") else args.loss: TASK_LOSSES}
    read = {
        option
        for table in (chosen, task)
        for name, lines in table.items()
        for option in lines[name].options
    }
    return options_read(args, LOSS_OPTIONS, read, LOSSES)


def class_loss_options(args: Namespace) -> dict:
    """The same of the losses of classifiers."""
    read = {option for name in named_losses(args) for option in CLASS_LOSSES[name].options}
    return options_read(args, CLASS_OPTIONS, read, CLASS_LOSSES)


def options_read(args: Namespace, defaults: dict, read: set[str], table: dict) -> dict:
    """The options of losses with their defaults; one that is given and not read is refused."""
    for option in defaults:
        if getattr(args, option, None) is not None and option not in read:
            readers = ", ".join(name for name, loss in table.items() if option in loss.options)
            raise UserError(f"{option} {getattr(args, option)}: only {readers} reads --{option}")
    return {
        option: value if (given := getattr(args, option, None)) is None else given
        for option, value in defaults.items()
    }


# ---------------------------------------------------------------- distillation


def check_distillation(args: Namespace) -> None:
    """Refuses flags of a restoring student that cannot go together."""
    named_losses(args)
    loss_options(args)
    if args.shuffle_teacher and getattr(args, "online", False):
        raise UserError(
            "shuffle_teacher: a teacher that learns beside the student would learn from shuffled images too"
        )
    check_shuffled(args)
    if args.awgn_teacher and args.awgn_snr is None:
        raise UserError("awgn_teacher needs a noise level: give --awgn_snr")


def check_shuffled(args: Namespace) -> None:
    if args.shuffle_teacher and args.batch_size * args.accumulate == 1:
        raise UserError(
            "shuffle_teacher: a batch of one image has no other one whose answer it could be taught; choose a larger --batch_size"
        )


def check_class_distillation(args: Namespace) -> None:
    """Refuses flags of a student that classifies which cannot go together."""
    class_loss_options(balanced(args))
    check_shuffled(args)
    weights_of(args)
    if args.assistant and len(args.teacher) > 1:
        raise UserError("assistant: it stands between one teacher and the student")
    if args.assistant and args.teacher_weights:
        raise UserError(
            f"teacher_weights {args.teacher_weights[0]:g}: with --assistant there is one teacher"
        )


def balanced(args: Namespace) -> Namespace:
    """The flags with what --balance stands for in its place."""
    if args.balance:
        for name in BALANCES[args.balance]:
            if getattr(args, name) is not None:
                raise UserError(f"balance {args.balance} sets --{name}: give one of them")
        return Namespace(**vars(args) | BALANCES[args.balance] | {"balance": None})
    return Namespace(
        **vars(args)
        | {
            "loss_distill": args.loss_distill or ["kd"],
            "beta": 1.0 if args.beta is None else args.beta,
        }
    )


def weights_of(args: Namespace) -> list[float]:
    """How much each teacher counts."""
    weights = args.teacher_weights or [1 / len(args.teacher)] * len(args.teacher)
    if len(weights) != len(args.teacher):
        raise UserError(
            f"teacher_weights {' '.join(f'{w:g}' for w in weights)}: one for each of {len(args.teacher)} teachers"
        )
    return weights


# ---------------------------------------------------------------- the teacher's file


def export_name(network: str, label: str) -> str:
    """The exported file of a teacher or baseline."""
    return f"{network.upper()}_{label}.pth"


def teacher_path(args: Namespace) -> Path | None:
    """The file that --teacher or the teacher's ratios stand for; none where an online teacher begins afresh."""
    if args.teacher:
        return Path(args.teacher)
    if args.ordering_teacher:
        raise UserError(
            f"ordering_teacher {args.ordering_teacher} is for a --teacher whose file does not tell"
        )
    if args.cr_teacher is None:
        raise UserError(
            "which teacher? give --teacher PATH, or for a single-pixel camera --cr_teacher or --crs_expert_teacher"
        )
    if args.online:
        return None
    path = (
        Path(args.results)
        / "trained_models"
        / export_name("unet", label_of({"name": "spc", "cr": args.cr_teacher}))
    )
    if not path.is_file():
        raise UserError(
            f"no teacher {path}: train it with main_unet.py --cr {words(args.cr_teacher).replace('_', ' ')}, or name one with --teacher PATH"
        )
    return path
