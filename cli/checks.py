"""Checks of flags that cannot go together; parsers call them before torch is imported."""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from core import own, zoo
from core.errors import UserError
from core.inputs import NAME_RULE, check_patterns, is_name
from core.registry import (
    BALANCES,
    CLASS_LOSSES,
    CLASS_OPTIONS,
    LABELS,
    LOSS_OPTIONS,
    LOSSES,
    TASK_LOSSES,
    UNTRAINED_TEACHERS,
    label_of,
    words,
)
from core.runs import check_one_network
from parsing.values import within


def check_run_name(name: str) -> None:
    if not is_name(name):
        raise UserError(f"run_name '{name}' is not a name: {NAME_RULE}")


def check_physics_side(args: Namespace) -> None:
    """Refuses a side that the patterns of a single-pixel camera cannot have."""
    if args.physics == "spc" and args.dataset != "recorded":  # which brings its own patterns
        block = getattr(args, "block", None)
        if block is not None and (args.n % block or block == args.n):
            raise UserError(f"block {block}: n {args.n} must be a larger multiple of it")
        check_patterns(args.ordering, block or args.n)


# ---------------------------------------------------------------- losses


def named_losses(args: Namespace) -> dict[str, float | None]:
    """The distillation losses with the weights of the command line."""
    losses: dict[str, float | None] = {}
    for word in args.loss_distill:
        name, weight = own.split_word(word)
        if name in losses:
            raise UserError(f"loss_distill {' '.join(args.loss_distill)}: '{name}' is given twice")
        losses[name] = float(weight) if weight else None
    return losses


def loss_options(args: Namespace) -> dict:
    """The options of losses; one that no loss of this run reads is refused."""
    distilled = [own.split_word(word)[0] for word in getattr(args, "loss_distill", [])]
    task = args.loss_gt if hasattr(args, "loss_gt") else args.loss
    read = set(TASK_LOSSES[task].options)
    for name in distilled:
        read |= set(LOSSES[name].options)
    return read_options(args, LOSS_OPTIONS, read, LOSSES)


def class_loss_options(args: Namespace) -> dict:
    """The same for the losses of classifiers."""
    read = {option for name in named_losses(args) for option in CLASS_LOSSES[name].options}
    return read_options(args, CLASS_OPTIONS, read, CLASS_LOSSES)


def read_options(args: Namespace, defaults: dict, read: set[str], table: dict) -> dict:
    """The options of losses with their defaults; one that is not read is refused."""
    values = {}
    for option, default in defaults.items():
        value = getattr(args, option, None)
        if value is not None and option not in read:
            readers = ", ".join(name for name, loss in table.items() if option in loss.options)
            raise UserError(f"{option} {value}: only {readers} reads --{option}")
        values[option] = default if value is None else value
    return values


# ---------------------------------------------------------------- distillation


def check_distillation(args: Namespace) -> None:
    """Refuses flags of the distillation of a restorer that cannot go together."""
    named_losses(args)
    loss_options(args)
    if args.dataset == "recorded" and getattr(args, "online", False):
        raise UserError("online: a teacher that learns too needs clean images, not a recording")
    if args.shuffle_teacher and getattr(args, "online", False):
        raise UserError(
            "shuffle_teacher: with --online the teacher would train on shuffled images too; "
            "leave out one of them"
        )
    check_shuffled(args)
    levels = [getattr(args, name) for name in ("awgn_snr", "noise", "photons")]
    if args.awgn_teacher and levels == [None] * 3:
        raise UserError("awgn_teacher needs a noise level: give --awgn_snr, --noise or --photons")


def check_shuffled(args: Namespace) -> None:
    if args.shuffle_teacher and args.batch_size * args.accumulate == 1:
        raise UserError(
            "shuffle_teacher: a batch of one image cannot be shuffled; choose a larger --batch_size"
        )


def check_class_distillation(args: Namespace) -> None:
    """Refuses flags of the distillation of a classifier that cannot go together."""
    class_loss_options(balanced(args))
    check_shuffled(args)
    weights_of(args)
    needing = [name for name in named_losses(balanced(args)) if CLASS_LOSSES[name].labelled]
    if args.limit_labels and needing:
        raise UserError(
            f"limit_labels {args.limit_labels}: loss '{needing[0]}' needs the label of every "
            "image; leave it out, or choose another loss"
        )
    if args.assistant and len(args.teacher) > 1:
        raise UserError(f"assistant: it needs one --teacher, not {len(args.teacher)}")
    if args.assistant and args.teacher_weights:
        raise UserError(
            f"teacher_weights {args.teacher_weights[0]:g}: with --assistant there is one teacher; "
            "leave out --teacher_weights"
        )


def balanced(args: Namespace) -> Namespace:
    """The flags with the values of --balance, or with the default losses."""
    if not args.balance:
        losses = [weighted(word, args.weights) for word in args.loss_distill or ["kd"]]
        beta = 1.0 if args.beta is None else args.beta
        return Namespace(**vars(args) | {"loss_distill": losses, "beta": beta})
    if args.weights:
        raise UserError(
            f"balance {args.balance} sets the weights of labels and kd: leave out --weights"
        )
    for name in BALANCES[args.balance]:
        if getattr(args, name) is not None:
            raise UserError(f"balance {args.balance} sets --{name}: leave out one of them")
    return Namespace(**vars(args) | BALANCES[args.balance] | {"balance": None})


def weighted(word: str, weights: str | None) -> str:
    """A loss with its safe weight where the command line gives none and asks for safe ones."""
    name, weight = own.split_word(word)
    safe = None if weight or weights == "published" else CLASS_LOSSES[name].safe
    return word if safe is None else f"{name}:{safe:g}"


def weights_of(args: Namespace) -> list[float]:
    """The weight of each teacher."""
    count = len(args.teacher)
    weights = args.teacher_weights or [1 / count] * count
    if len(weights) != count:
        listed = " ".join(f"{weight:g}" for weight in weights)
        raise UserError(f"teacher_weights {listed}: give one for each of {count} teachers")
    return weights


# ---------------------------------------------------------------- the teacher's file


def export_name(network: str, label: str) -> str:
    """The exported file of a teacher or baseline."""
    return f"{own.file_name(network)}_{label}.pth"


def untrained_teacher(word: str | None) -> tuple[str, str]:
    """Kind and option of a teacher that is not trained, tv, tv:WEIGHT or pnp:FILE; else blank."""
    kind, _, option = (word or "").partition(":")
    return (kind, zoo.resolved(option)) if kind in UNTRAINED_TEACHERS else ("", "")


def given_teacher(word: str | None) -> str | None:
    """The kind of a teacher that is given as it is: "own", of a user's file, or "program"."""
    if own.is_own(word):
        return "own"
    return "program" if (word or "").endswith(".pt2") else None


def check_given_teacher(args: Namespace) -> None:
    """Refuses what cannot go together with a teacher of the user's own code or a program."""
    if given_teacher(args.teacher):
        refuse_changes(args, "stays as it is")


def refuse_changes(args: Namespace, why: str) -> None:
    """Refuses flags that would change a teacher which nothing changes, or what it sees."""
    for flag in ("ordering_teacher", "awgn_teacher"):
        if getattr(args, flag):
            raise UserError(
                f"teacher {args.teacher}: it sees the student's own values, or with --cr_teacher "
                f"more without noise; leave out --{flag}"
            )
    if getattr(args, "online", False):
        raise UserError(f"teacher {args.teacher}: it {why}; leave out --online")
    labels = getattr(args, "labels", None)
    if labels and labels in LABELS and LABELS[labels].teacher_labels:
        raise UserError(
            f"labels {labels}: the teacher learns first, and {args.teacher} {why}; "
            "choose other --labels"
        )


def check_untrained_teacher(args: Namespace) -> None:
    """Refuses what cannot go together with a teacher that is not trained."""
    kind, option = untrained_teacher(args.teacher)
    if not kind:
        return
    if kind == "tv" and option:
        try:
            within(0.001, 1000)(option)
        except ArgumentTypeError as error:
            raise UserError(f"teacher {args.teacher}: the weight {error}") from None
    if kind == "pnp" and not option:
        raise UserError(
            "teacher pnp: which denoiser? give --teacher pnp:zoo:plug_in_denoiser or pnp:FILE.pth"
        )
    if args.physics not in ("spc", "cs"):
        raise UserError(
            f"teacher {args.teacher}: it reads the measurements of a single-pixel camera, so it "
            f"needs --physics spc, not {args.physics}"
        )
    refuse_changes(args, "has nothing to learn")


def check_self_ensemble(args: Namespace) -> None:
    """Refuses a mean over mirror images where it would change nothing, or cannot be taken."""
    if not args.self_ensemble:
        return
    if args.online:
        raise UserError("self_ensemble: with --online the teacher learns too; leave out one")
    if args.loss_distill and args.type_dist != "output":
        raise UserError(
            f"self_ensemble: a mean over mirror images has one layer, and --type_dist "
            f"{args.type_dist} compares others; give --type_dist output"
        )
    taught = args.labels not in LABELS or LABELS[args.labels].has_teacher
    if not (args.loss_distill or taught):
        raise UserError(
            f"self_ensemble: labels {args.labels} ask no teacher, so nothing would change; "
            "leave it out"
        )


def teacher_files(args: Namespace) -> dict[str, Path | None]:
    """The files of a teacher, whose content belongs to the configuration of a run."""
    kind, _ = untrained_teacher(args.teacher)
    if kind == "tv" or given_teacher(args.teacher) == "own":  # its code is a file of the run
        return {}
    if given_teacher(args.teacher):
        return {"teacher": Path(args.teacher)}
    return {"denoiser" if kind == "pnp" else "teacher": teacher_path(args)}


def teacher_path(args: Namespace) -> Path | None:
    """The file of --teacher or of the teacher's ratios; None for a teacher without a file."""
    kind, option = untrained_teacher(args.teacher)
    if kind:
        return Path(option) if kind == "pnp" else None
    if given_teacher(args.teacher):
        return None
    if args.teacher:
        return Path(args.teacher)
    if args.ordering_teacher:
        raise UserError(
            f"ordering_teacher {args.ordering_teacher}: it is only for a --teacher that is a "
            "bare .pth of the original release"
        )
    if args.cr_teacher is None:
        raise UserError(
            "which teacher? give --teacher PATH, "
            "or for a single-pixel camera --cr_teacher or --crs_expert_teacher"
        )
    if args.online:
        return None
    block = getattr(args, "block", None)
    label = label_of({"name": "spc", "cr": args.cr_teacher, "block": block})
    folder = Path(args.results) / "trained_models"
    names = dict.fromkeys(export_name(network, label) for network in (args.network, "unet"))
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        ratio = words(args.cr_teacher).replace("_", " ")
        blocks = f" --n {args.n} --block {block}" if block else ""
        raise UserError(
            f"no teacher {folder / ' or '.join(names)}: train it with main_unet.py "
            f"--cr {ratio}{blocks}, or give one with --teacher PATH"
        )
    path = found[0]
    check_one_network(args.results, path.name, f"cr_teacher {words(args.cr_teacher)}")
    return path
