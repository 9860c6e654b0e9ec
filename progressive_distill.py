"""Distil in steps: a ladder of students, a trained student again, or a hybrid of two networks."""

from argparse import Namespace

from cli import flags
from cli.checks import check_physics_side, untrained_teacher
from core.registry import LABELS


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    group = parser.add_argument_group("what to do (one of ladder, redistill, encoder_from)")
    one = group.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--ladder",
        type=flags.ratio,
        nargs="+",
        action=flags.Distinct,
        metavar="CR",
        help="ratios from the first teacher's down; the first is trained alone, or from --teacher",
    )
    one.add_argument(
        "--redistill",
        type=flags.network_file,
        metavar="CHECKPOINT",
        help="a trained student, distilled again from --teacher",
    )
    one.add_argument(
        "--encoder_from",
        type=flags.network_file,
        metavar="CHECKPOINT",
        help="a hybrid: this encoder and its camera, with --decoder_from",
    )
    group.add_argument(
        "--decoder_from", type=flags.network_file, metavar="CHECKPOINT", help="the hybrid's decoder"
    )
    group.add_argument(
        "--freeze",
        choices=("encoder", "decoder", "none"),
        default="none",
        help="the part of the hybrid that stays as it is",
    )
    group.add_argument(
        "--warm_start",
        action=flags.BooleanOptionalAction,
        help="a rung of the ladder begins with the weights of its teacher, which must be the same "
        "network; without it only on recordings, whose frames are few to begin afresh",
    )
    flags.add_data(parser, limits=("train", "val", "test"))
    flags.add_loading(parser)
    flags.add_physics(parser)
    flags.add_network(parser, student=True)
    flags.add_distillation(parser)
    flags.add_recorded(parser, "both")
    flags.add_teacher(
        parser,
        "teacher of --redistill, of a hybrid, or of a ladder's first rung; without it a hybrid or "
        "a first rung learns alone, and a ladder distils from its second rung on",
    )
    flags.add_training(parser, several=False)
    flags.add_run(parser)
    parser.files.append(flags.checkpoints("redistill", "encoder_from", "decoder_from"))
    parser.demanding = False  # the rungs or the checkpoints say what the camera is
    parser.records_typed = True
    parser.rules.append(settle)
    parser.checks.append(check)
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from core import distributed
    from data_loader import build_splits
    from preparation import setup

    setup.check_losses(args)
    if args.ladder:
        for cr in args.ladder:
            rung = Namespace(**vars(args) | {"cr": cr})
            setup.check_physics(args, setup.physics_config_of(rung))
    build_splits(
        setup.request_of(args)
    )  # the test images too: what is missing is said before the first rung
    rungs = climb(args) if args.ladder else [go_on(args)]
    if args.dry_run:
        return {}
    import test_UNet

    # Network, physics and noise are the checkpoints' own.
    own = dict.fromkeys(
        (
            "n",
            "c",
            "cr",
            "ordering",
            "scales",
            "width",
            "padding",
            "awgn_snr",
            "noise",
            "photons",
            "sigma",
            "calibration",
        )
    )
    paths = [rung["checkpoint"] for rung in rungs]
    with distributed.single_process():
        tested = (
            {}
            if distributed.rank()
            else test_UNet.main(
                settings(test_UNet, ["--checkpoint", "x"], args, checkpoint=paths, **own)
            )
        )
    return tested | {"rungs": rungs}


def settle(args) -> None:
    """Whether a rung begins with its teacher's weights, where this is not typed."""
    if args.warm_start is None:
        args.warm_start = bool(args.ladder) and args.dataset == "recorded"


def check(args) -> None:
    """Flags that belong to one of the three ways are refused in the others."""
    if args.ladder and "cr" not in flags.PHYSICS[args.physics].flags:
        raise flags.UserError(f"ladder: physics '{args.physics}' has no ratio to climb down")
    if args.ladder:
        check_physics_side(args)
    if args.ladder and "cr" in args.typed:
        raise flags.UserError(f"cr {args.cr}: a ladder has the ratios of --ladder; leave out --cr")
    if args.ladder and sorted(set(args.ladder), reverse=True) != args.ladder:
        raise flags.UserError(
            f"ladder {' '.join(map(str, args.ladder))}: each ratio must be below the one before it"
        )
    if (args.cr_teacher or args.ordering_teacher) and not args.teacher:
        raise flags.UserError(
            "cr_teacher and ordering_teacher are only for a --teacher whose file does not name them"
        )
    if bool(args.encoder_from) != bool(args.decoder_from):
        raise flags.UserError("a hybrid needs both --encoder_from and --decoder_from")
    if args.freeze != "none" and not args.encoder_from:
        raise flags.UserError(
            f"freeze '{args.freeze}': only a part of a hybrid (--encoder_from) can be frozen"
        )
    if args.warm_start and not args.ladder:
        raise flags.UserError(
            "warm_start is only for --ladder: --redistill and a hybrid begin with trained weights"
        )
    if untrained_teacher(args.teacher)[0]:
        raise flags.UserError(
            f"teacher {args.teacher}: it is not trained, and only main_unet_dist.py takes such a "
            "teacher; give a checkpoint"
        )
    if args.redistill and not args.teacher:
        raise flags.UserError("redistill: which teacher? give --teacher PATH")
    if args.dataset == "recorded" and not args.teacher:
        check_labels(args.labels)
    unused = args.typed & {
        "type_dist",
        "loss_distill",
        "alpha",
        "beta",
        "gamma",
        "temperature",
        "sup_loss",
        "awgn_teacher",
        "shuffle_teacher",
        "dist_part",
    }
    unused |= {flag for flag in args.typed if flag.startswith("alpha_") or flag == "style_weight"}
    if args.encoder_from and not args.teacher and unused:
        raise flags.UserError(
            f"{', '.join(sorted(unused))}: a hybrid is distilled only from a --teacher PATH"
        )


def check_labels(labels: str) -> None:
    """Refuses labels of a teacher where there is none."""
    alone = [name for name, spec in LABELS.items() if not spec.has_teacher]
    if labels not in (*alone, "best"):
        raise flags.UserError(
            f"labels '{labels}' need a teacher: give --teacher PATH, or choose among those that "
            f"need none: {', '.join(alone)}, best"
        )


def settings(script, required: list[str], args, **changes) -> Namespace:
    """The arguments of another script: its defaults, the flags it shares, and changes."""
    theirs = vars(script.parse(required))
    return Namespace(
        **theirs | {name: value for name, value in vars(args).items() if name in theirs} | changes
    )


def climb(args) -> list[dict]:
    """Trains the rungs from the top; a finished rung is not trained again."""
    import main_unet
    import main_unet_dist

    rungs, teacher = [], args.teacher
    for cr in args.ladder:
        name = {"run_name": args.run_name and f"{args.run_name}_cr_{cr:g}", "cr": cr}
        if teacher is None:
            rung = main_unet.main(
                settings(main_unet, ["--cr", "1"], args, loss=args.loss_gt, **name)
            )
        else:
            # A rung's own file names its ratio and ordering.
            bare = {} if teacher == args.teacher else {"cr_teacher": None, "ordering_teacher": None}
            begin = teacher if args.warm_start else None
            rung = main_unet_dist.main(
                settings(
                    main_unet_dist,
                    ["--cr", "1"],
                    args,
                    teacher=teacher,
                    init_student=begin,
                    **bare,
                    **name,
                )
            )
        if args.dry_run and "checkpoint" not in rung:
            print("the rungs below need this one's checkpoint")
            break
        rungs.append(rung)
        teacher = rung["checkpoint"]
    return rungs


def go_on(args) -> dict:
    """Trains a student that exists already, or a hybrid of two checkpoints."""
    from core import runtime
    from preparation import choice, further

    device = runtime.start(args.device)
    train = choice.trainer(further.prepare, further.begin, bool(args.teacher), device)
    return train([args])[0]


if __name__ == "__main__":
    flags.run(parse, main)
