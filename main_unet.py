"""Train one U-Net at one ratio, or a mixture of ratios: a teacher, or the undistilled baseline."""

from training import checks, options


def parse(argv=None):
    parser = options.Parser(__doc__)
    options.add_data(parser, limits=("train", "val"))
    options.add_loading(parser)
    options.add_physics(parser)
    options.add_network(parser)
    options.add_training(parser)
    group = parser.add_argument_group("task")
    group.add_argument(
        "--loss",
        type=options.one_of(options.TASK_LOSSES, "loss"),
        default="mae",
        help=f"one of {', '.join(options.TASK_LOSSES)}",
    )
    options.add_style(group)
    group.add_argument("--train_again", metavar="CHECKPOINT", help="begin with its weights")
    options.add_run(parser)
    parser.checks.append(checks.loss_options)
    parser.files.append(options.checkpoints("train_again"))
    return parser.parse_args(argv)


def main(args) -> dict:
    from training import engine, pipeline

    device = engine.start(args.device)
    return pipeline.every_seed(lambda one, beside: learner(one, device, beside), args, "val_psnr")


def learner(args, device, beside):
    """One network that is ready to be trained, or the scores of a run that is finished."""
    from tables import label_of
    from training import pipeline
    from training.run import Run

    camera = pipeline.physics_recipe(args)
    name = checks.export_name(
        args.network, label_of(camera) + (f"_seed_{args.seed}" if args.seeds else "")
    )
    stem = checks.export_name(args.network, label_of(camera)).removesuffix(".pth")
    run = Run(
        args,
        f"{stem}_{args.dataset}",
        name,
        {"train_again": args.train_again} | pipeline.ordering_file(camera),
    )
    if run.finished:
        return run.already()
    splits = beside.splits if beside else pipeline.splits_of(args)
    physics = pipeline.camera_of(camera, splits)
    network, recipe = pipeline.network_of(args)
    pipeline.warm_start(network, recipe, args.train_again)
    return pipeline.learner(
        pipeline.supervised(args, network, physics, args.loss, device),
        recipe,
        splits,
        args,
        run,
        beside=beside,
    )


if __name__ == "__main__":
    options.run(parse, main)
