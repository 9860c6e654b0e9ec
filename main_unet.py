"""Train one U-Net at one ratio, or a mixture of ratios: a teacher, or the undistilled baseline."""

from cli import checks, flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    flags.add_data(parser, limits=("train", "val"))
    flags.add_loading(parser)
    flags.add_physics(parser)
    flags.add_network(parser)
    flags.add_training(parser)
    group = parser.add_argument_group("task")
    group.add_argument(
        "--loss",
        type=flags.one_of(flags.TASK_LOSSES, "loss"),
        default="mae",
        help=f"one of {', '.join(flags.TASK_LOSSES)}",
    )
    flags.add_style(group)
    group.add_argument("--train_again", metavar="CHECKPOINT", help="begin with its weights")
    flags.add_run(parser)
    parser.checks.append(checks.loss_options)
    parser.files.append(flags.checkpoints("train_again"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from core import runtime
    from training import setup

    device = runtime.start(args.device)
    return setup.run_seeds(lambda one, companion: prepare(one, device, companion), args, "val_psnr")


def prepare(args, device, companion=None):
    """A network that is ready to be trained."""
    from core.registry import label_of
    from training import setup

    physics_config = setup.physics_config_of(args)
    label = label_of(physics_config)
    seed = f"_seed_{args.seed}" if args.seeds else ""
    stem = checks.export_name(args.network, label).removesuffix(".pth")
    run = setup.begin_run(
        args,
        f"{stem}_{args.dataset}",
        checks.export_name(args.network, label + seed),
        {"train_again": args.train_again} | setup.ordering_file(physics_config),
    )
    splits = companion.splits if companion else setup.splits_of(args)
    physics = setup.fitted_physics(physics_config, splits)
    network, config = setup.network_of(args)
    setup.warm_start(network, config, args.train_again)
    task = setup.supervised(args, network, physics, args.loss, device)
    return setup.fit_of(task, config, splits, args, run, companion=companion)


if __name__ == "__main__":
    flags.run(parse, main)
