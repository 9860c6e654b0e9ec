"""Train one U-Net at one ratio, or a mixture of ratios: a teacher, or the undistilled baseline."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    options.add_data(parser, limits=("train", "val"))
    options.add_loading(parser)
    options.add_physics(parser)
    options.add_ratio(parser)
    options.add_network(parser)
    options.add_training(parser)
    group = parser.add_argument_group("task")
    group.add_argument("--loss", type=options.one_of(options.TASK_LOSSES, "loss"), default="mae", help="mse, mae, l2 or charbonnier")
    group.add_argument("--train_again", metavar="CHECKPOINT", help="begin with its weights")
    options.add_run(parser)
    return parser.parse_args(argv)


def main(args) -> dict:
    from training import engine, pipeline
    from training.run import Run

    device = engine.start(args.device)
    cr = pipeline.mixture(args.cr, args.crs_expert)
    name = pipeline.teacher_name(cr)
    run = Run(args, f"{name.removesuffix('.pth')}_{args.dataset}", name, {"train_again": args.train_again} | pipeline.ordering_file(args))
    if run.finished:
        return run.already()
    splits = pipeline.splits_of(args)
    physics = pipeline.camera_of(args, cr, splits)
    network, recipe = pipeline.network_of(args)
    pipeline.warm_start(network, args.train_again)
    return pipeline.fit(pipeline.supervised(network, physics, args.loss, device), recipe, splits, args, run)


if __name__ == "__main__":
    options.run(parse, main)
