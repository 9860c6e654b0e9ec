"""The flags of distillation and of teachers."""

from argparse import BooleanOptionalAction, Namespace
from collections.abc import Callable

from cli import checks
from cli.data_flags import add_code, add_labelled, add_loading, defaults_of
from cli.physics_flags import add_classifier, add_physics
from cli.recorded_flags import PARTS, settle_distillation
from cli.training_flags import add_run, add_training
from core.errors import UserError
from core.inputs import checkpoint_file
from core.registry import (
    ALPHA_SCHEDULES,
    BALANCES,
    CLASS_LOSSES,
    CLASS_OPTIONS,
    CLASS_SELECTIONS,
    CLASSIFIED,
    LOSSES,
    PREPARE_EPOCHS,
    SELECTIONS,
    TASK_LOSSES,
)
from parsing.parser import Parser, Several
from parsing.values import (
    counting,
    network_file,
    not_negative,
    number_or_auto,
    one_of,
    ordering,
    positive,
    ratio,
    selection,
    share,
    teacher,
    weighted,
)


def checkpoints(*flags: str) -> Callable[[Namespace], None]:
    """A check of the files that flags name, before torch is imported to read them."""

    def check(args: Namespace) -> None:
        for flag in flags:
            value = getattr(args, flag)
            paths = [value] if isinstance(value, str) else value or ()
            for path in paths:
                checkpoint_file(path, "checkpoint" if flag == "checkpoints" else f"--{flag}")

    return check


def distillation_defaults() -> dict:
    """The defaults of the flags that only a distillation has."""
    parser = Parser("")
    add_distillation(parser)
    add_teacher(parser)
    return {action.dest: action.default for action in parser._actions if action.dest != "help"}


def add_distillation(parser: Parser) -> None:
    parser.rules.append(lambda args: settle_distillation(args, parser))
    parser.checks.append(checks.check_distillation)
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--type_dist",
        type=selection,
        default="output_latent",
        help="layers to compare: 0 to {} or one of {}".format(
            len(SELECTIONS) - 1, ", ".join(SELECTIONS)
        ),
    )
    group.add_argument(
        "--loss_distill",
        type=weighted(LOSSES),
        nargs="+",
        metavar="NAME[:WEIGHT]",
        help=f"distillation losses, each perhaps with a weight: {', '.join(LOSSES)}; "
        "without it mse, and for recordings none beside their labels",
    )
    group.add_argument(
        "--loss_gt",
        type=one_of(TASK_LOSSES, "loss"),
        default="mae",
        help=f"task loss against the target: {', '.join(TASK_LOSSES)}",
    )
    add_alpha(parser, group)
    group.add_argument("--beta", type=not_negative, default=1.0, help="weight of the task loss")
    group.add_argument(
        "--gamma",
        type=number_or_auto,
        help="kernel width of loss comb_matrix, a number or auto; without it auto",
    )
    group.add_argument(
        "--temperature", type=positive, help="temperature of loss soft; without it 4"
    )
    add_style(group)
    group.add_argument(
        "--sup_loss",
        type=int,
        choices=(0, 1),
        help="target of the task loss: 1 is the image, 0 the teacher's output; without it 1, "
        "and for recordings 0",
    )
    group.add_argument(
        "--dist_part",
        choices=PARTS,
        default=PARTS[0],
        help="what distillation losses on the output compare: all of it, or the part that the "
        "student does not measure, its null space",
    )
    group.add_argument(
        "--awgn_teacher",
        action="store_true",
        help="add the noise of --awgn_snr or --photons to the teacher's measurements too",
    )


def add_alpha(parser: Parser, group) -> None:
    group.add_argument(
        "--alpha",
        type=not_negative,
        default=1.0,
        help="factor of all distillation losses, on top of their own weights",
    )
    parser.choosers["alpha_schedule"] = ALPHA_SCHEDULES
    group.add_argument(
        "--alpha_schedule",
        type=one_of(ALPHA_SCHEDULES, "schedule"),
        default="constant",
        help=f"schedule of alpha: {', '.join(ALPHA_SCHEDULES)}",
    )
    group.add_argument(
        "--alpha_milestones",
        type=share,
        nargs="+",
        help="fractions of the training at which alpha changes "
        f"{defaults_of('alpha_milestones', ALPHA_SCHEDULES)}",
    )
    group.add_argument(
        "--alpha_gamma",
        type=not_negative,
        help=f"factor of alpha at milestones {defaults_of('alpha_gamma', ALPHA_SCHEDULES)}",
    )
    group.add_argument(
        "--alpha_warmup",
        type=share,
        help="fraction of the training in which alpha grows to its value "
        f"{defaults_of('alpha_warmup', ALPHA_SCHEDULES)}",
    )
    group.add_argument(
        "--shuffle_teacher",
        action="store_true",
        help="a control: give each image the teacher's features of another image",
    )


def add_style(group) -> None:
    group.add_argument(
        "--style_weight",
        type=not_negative,
        help="weight of the Gram matrices in loss perceptual; without it 0",
    )


def add_teacher(
    parser: Parser,
    text: str = "its checkpoint; without it NETWORK_cr_<cr_teacher>.pth of the student's network, "
    "or else UNET_cr_<cr_teacher>.pth",
) -> None:
    def check_file(args: Namespace) -> None:
        path = checks.teacher_path(args) if args.teacher else None
        if path is not None:
            checkpoint_file(path, "--teacher")

    parser.files.append(check_file)
    group = parser.add_argument_group("teacher")
    group.add_argument("--teacher", type=teacher, metavar="PATH", help=text)
    add_code(group)
    ratios = group.add_mutually_exclusive_group()
    for flag in ("--cr_teacher", "--crs_expert_teacher"):
        ratios.add_argument(
            flag,
            dest="cr_teacher",
            type=ratio,
            nargs="+",
            action=Several,
            metavar="CR",
            help="its ratio, or the several ratios of a mixture",
        )
    group.add_argument(
        "--ordering_teacher",
        type=ordering,
        help="its ordering, only for a bare .pth of the original release",
    )


def add_untrained_teacher(parser: Parser) -> None:
    """What a teacher that is not trained needs beside its name."""

    def settle_answers(args: Namespace) -> None:
        kind, _ = checks.untrained_teacher(args.teacher)
        if args.answers is not None and not kind:
            raise UserError(
                f"answers {args.answers:g}: only those of --teacher tv or pnp:FILE are kept on "
                "disk; leave out --answers"
            )
        if args.answers is None:
            args.answers = ANSWERS if kind else 0.0

    parser.checks += [
        checks.check_untrained_teacher,
        checks.check_given_teacher,
        settle_answers,
    ]
    parser.add_argument_group("teacher that is not trained").add_argument(
        "--answers",
        type=not_negative,
        metavar="GiB",
        help="disk for its answers, in RESULTS/answers; none are kept where noise or --cr_range "
        f"makes every image new; 0 keeps none (without it {ANSWERS:g})",
    )


def add_self_ensemble(parser: Parser, who: str) -> None:
    parser.add_argument_group("mirror images").add_argument(
        "--self_ensemble",
        action="store_true",
        help=f"{who} by its mean over the four mirror images of what it sees; for spc with "
        "Hadamard patterns, denoise, sr, and blur without motion",
    )


# ---------------------------------------------------------------- classifiers


def add_class_training(parser: Parser) -> None:
    """The flags that all trainings of classifiers have."""
    group = add_labelled(parser, limits=("train", "val"))
    group.add_argument(
        "--limit_labels",
        type=counting,
        help="use the labels of only this many training images, a random subset; "
        "on the others a teacher teaches alone, and without one they are left out",
    )
    add_loading(parser)
    add_physics(parser, CLASSIFIED, "image")
    add_classifier(parser)
    add_training(parser, pictures=False, lr=1e-3)
    add_run(parser)


def add_class_distillation(parser: Parser) -> None:
    parser.checks.append(checks.check_class_distillation)
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--loss_distill",
        type=weighted(CLASS_LOSSES),
        nargs="+",
        metavar="NAME[:WEIGHT]",
        help="distillation losses, each perhaps with a weight: "
        f"{', '.join(CLASS_LOSSES)}; without it kd",
    )
    group.add_argument(
        "--weights",
        choices=("safe", "published"),
        help="weights of losses that have none behind their names: published ones, or smaller ones "
        "that leave most of the gradient to the labels; without it safe",
    )
    group.add_argument(
        "--type_dist",
        type=one_of(CLASS_SELECTIONS, "selection"),
        help=f"layers that losses on features compare: {', '.join(CLASS_SELECTIONS)}",
    )
    group.add_argument(
        "--beta", type=not_negative, help="weight of the cross-entropy; without it 1"
    )
    group.add_argument(
        "--balance",
        type=one_of(BALANCES, "balance"),
        help=f"a published balance of labels and teacher: {describe_balances()}",
    )
    add_alpha(parser, group)
    add_class_options(group)
    group.add_argument(
        "--prepare_epochs",
        type=counting,
        help="passes in which the paraphraser of loss ft learns before the student; "
        f"without it {PREPARE_EPOCHS}",
    )


ANSWERS = 2.0  # GiB
CLASS_OPTION_TEXTS = {
    "gamma": "kernel width, a number or auto",
    "temperature": "temperature of the softened logits",
    "standardise": "standardise the logits of each image",
    "dkd_alpha": "weight of the target class",
    "dkd_beta": "weight of the other classes",
    "dkd_warmup": "epochs in which the loss grows to its weight",
    "dist_beta": "weight of the relations within each image",
    "dist_gamma": "weight of the relations within each class",
    "rkd_distance": "weight of the distances between images",
    "rkd_angle": "weight of the angles between images",
    "crd_tau": "temperature of the contrast",
    "crd_negatives": "number of negative images",
    "ft_rate": "channels of a factor over those of the teacher",
    "tucker_ranks": "fraction of each mode's rank that is kept",
    "tucker_space": "compare the cores, or the maps projected by them",
    "tucker_over": "decompose a batch, or each sample",
}


def add_class_options(group) -> None:
    types: dict[str, Callable] = {
        "gamma": number_or_auto,
        "crd_negatives": counting,
        "tucker_ranks": share,
        "ft_rate": share,
    }
    choices = {"tucker_space": ("core", "projected"), "tucker_over": ("batch", "sample")}
    for option, value in CLASS_OPTIONS.items():
        readers = ", ".join(name for name, loss in CLASS_LOSSES.items() if option in loss.options)
        text = f"{CLASS_OPTION_TEXTS[option]}, for loss {readers}; without it {value}"
        if isinstance(value, bool):
            group.add_argument(f"--{option}", action=BooleanOptionalAction, help=text)
        elif option in choices:
            group.add_argument(f"--{option}", choices=choices[option], help=text)
        else:
            group.add_argument(f"--{option}", type=types.get(option, not_negative), help=text)


def describe_balances() -> str:
    texts = []
    for name, balance in BALANCES.items():
        losses = " ".join(balance["loss_distill"])
        temperature = f"temperature {balance['temperature']:g}"
        texts.append(f"{name}: beta {balance['beta']:g}, {losses}, {temperature}")
    return "; ".join(texts)


def add_class_teacher(parser: Parser) -> None:
    parser.files.append(checkpoints("teacher"))
    group = parser.add_argument_group("teacher")
    group.add_argument(
        "--teacher",
        type=network_file,
        metavar="PATH",
        nargs="+",
        required=True,
        help="checkpoint of a teacher, or of several",
    )
    group.add_argument(
        "--teacher_weights",
        type=positive,
        nargs="+",
        metavar="WEIGHT",
        help="weights of several teachers; without it equal ones of sum 1",
    )
    group.add_argument(
        "--assistant",
        action="store_true",
        help="train a copy of the teacher on the student's physics first, then distil from it",
    )
