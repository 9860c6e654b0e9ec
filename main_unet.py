"""Train one network (default: a U-Net) at one ratio or several: a teacher, or a student alone."""

from cli import checks, flags
from core import own


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    flags.add_data(parser, limits=("train", "val"))
    flags.add_loading(parser)
    flags.add_physics(parser)
    flags.add_network(parser)
    flags.add_recorded(parser, "sure")
    flags.add_training(parser)
    group = parser.add_argument_group("task")
    group.add_argument(
        "--loss",
        type=flags.one_of(flags.TASK_LOSSES, "loss"),
        default="mae",
        help=f"one of {', '.join(flags.TASK_LOSSES)}",
    )
    flags.add_style(group)
    group.add_argument(
        "--train_again",
        type=flags.network_file,
        metavar="CHECKPOINT",
        help="begin with its weights",
    )
    flags.add_run(parser)
    parser.checks.append(checks.loss_options)
    parser.files.append(flags.checkpoints("train_again"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from core import runtime
    from preparation import choice, setup

    device = runtime.start(args.device)
    train = choice.trainer(prepare, begin, False, device)
    return setup.over_seeds(train, args, setup.score_of(args))


def begin(args):
    """The run of a network, which is named after its physics."""
    from core.registry import label_of
    from preparation import own_code, setup

    physics_config = setup.physics_config_of(args)
    label = label_of(physics_config)
    if args.labels:
        label += f"_labels_{args.labels}"
    seed = f"_seed_{args.seed}" if args.seeds else ""
    stem = checks.export_name(args.network, label).removesuffix(".pth")
    return setup.begin_run(
        args,
        f"{stem}_{own.short_name(args.dataset)}",
        checks.export_name(args.network, label + seed),
        {"train_again": args.train_again}
        | setup.ordering_file(physics_config)
        | own_code.files(args)
        | setup.recording_files(args),
        flags.changes(build_parser(), args),
    )


def prepare(args, device, companion=None):
    """A network that is ready to be trained."""
    from preparation import setup

    run = begin(args)
    splits = companion.splits if companion else setup.splits_of(args)
    physics = setup.fitted_physics(setup.physics_config_of(args), splits)
    network, config = setup.network_of(args)
    setup.warm_start(network, config, physics, args.train_again)
    recording = setup.physics_of_recording(splits["train"])
    task = setup.supervised(args, network, physics, args.loss, device, recording)
    return setup.fit_of(task, config, splits, args, run, companion=companion)


if __name__ == "__main__":
    flags.run(parse, main)
