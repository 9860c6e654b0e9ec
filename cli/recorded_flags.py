"""The flags of trainings from recordings, whose clean images are not known."""

from argparse import Namespace

from core.registry import CANDIDATES, CANDIDATES_ALONE, LABELS, MEASUREMENT_WEIGHT
from parsing.parser import Parser
from parsing.values import not_negative, one_of

DISTANCES = ("measurements", "sure")  # losses that may count a part of the values
PARTS = ("all", "unmeasured")  # of the recorded values, which a loss compares


def add_truth(parser: Parser) -> None:
    """The flag of evaluations that compares frames with their clean images."""
    group = parser.add_argument_group("recordings (--dataset recorded)")
    group.add_argument(
        "--truth",
        metavar="FILE",
        help="clean images of a simulated recording; without it the recorded values are scored",
    )

    def check(args: Namespace) -> None:
        if args.truth is not None and args.dataset != "recorded":
            parser.error(f"--truth is for --dataset recorded, not for '{args.dataset}'")

    parser.rules.append(check)


def add_recorded(parser: Parser, default: str) -> None:
    """The flags of recordings; without a teacher, the labels that need one are left out."""
    teacher = LABELS[default].has_teacher
    names = [name for name, spec in LABELS.items() if teacher or not spec.has_teacher]
    group = parser.add_argument_group("recordings (--dataset recorded)")
    texts = "; ".join(f"{name}: {LABELS[name].text}" for name in names)
    best = ", ".join(CANDIDATES if teacher else CANDIDATES_ALONE)
    group.add_argument(
        "--labels",
        type=one_of([*names, "best"], "labels"),
        help=f"what stands for the truth. {texts}; best: train with each of {best}, and choose by "
        f"held-out frames; without it {default}",
    )
    group.add_argument(
        "--measurement_weight",
        type=not_negative,
        help="weight of the squared distance to the recorded values, in units of their noise; "
        f"without it {MEASUREMENT_WEIGHT:g}",
    )
    group.add_argument(
        "--measurement_part",
        choices=PARTS,
        help="values that this distance counts: all, or those that the student does not measure; "
        f"without it {PARTS[0]}",
    )
    group.add_argument(
        "--truth",
        metavar="FILE",
        help="clean images of a simulated recording, which only --labels oracle reads",
    )
    parser.rules.append(lambda args: check_recorded(args, parser, default))


def check_recorded(args: Namespace, parser: Parser, default: str) -> None:
    """Gives the flags their defaults where they are read, and refuses them elsewhere."""
    flags = ("labels", "measurement_weight", "measurement_part", "truth")
    if args.dataset != "recorded":
        for flag in flags:
            if getattr(args, flag) is not None:
                parser.error(f"--{flag} is for --dataset recorded, not for '{args.dataset}'")
        return
    args.labels = args.labels or default
    read = read_by_labels(args.labels)
    readers = {"measurement_weight": read, "measurement_part": read in DISTANCES}
    for flag, is_read in readers.items():
        if getattr(args, flag) is not None and not is_read:
            parser.error(f"--labels {args.labels} does not read --{flag}")
    if read and args.measurement_weight is None and args.labels != "best":  # which tries several
        args.measurement_weight = MEASUREMENT_WEIGHT
    if read in DISTANCES:
        args.measurement_part = args.measurement_part or PARTS[0]
    if (args.labels == "oracle") != (args.truth is not None):
        parser.error("--labels oracle and --truth FILE go together")
    if args.physics not in ("spc", "cs"):
        parser.error(
            f"dataset 'recorded' holds the values of a single-pixel camera: --physics spc, not "
            f"{args.physics}"
        )
    if isinstance(args.cr, list):
        parser.error(
            "dataset 'recorded' trains a student of one ratio: give --cr, not --crs_expert"
        )


def read_by_labels(labels: str) -> str | None:
    """The loss on recorded values that labels have."""
    return DISTANCES[0] if labels == "best" else LABELS[labels].loss


def settle_distillation(args: Namespace, parser: Parser) -> None:
    """The defaults of distillation: without clean images, the labels are what teaches."""
    recorded = args.dataset == "recorded"
    if args.loss_distill is None:
        args.loss_distill = [] if recorded else ["mse"]
    if args.sup_loss is None:
        args.sup_loss = 0 if recorded else 1
    if recorded and args.sup_loss:
        parser.error("--sup_loss 1: a recording has no clean images; leave it out")
