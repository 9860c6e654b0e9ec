"""Train one U-Net at one ratio, or a mixture of ratios: a teacher, or the undistilled baseline."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    options.add_data(parser, limits=("train", "val"))
    options.add_loading(parser)
    options.add_physics(parser)
    options.add_network(parser)
    options.add_training(parser)
    group = parser.add_argument_group("task")
    group.add_argument("--loss", type=options.one_of(options.TASK_LOSSES, "loss"), default="mae", help=f"one of {', '.join(options.TASK_LOSSES)}")
    options.add_style(group)
    group.add_argument("--train_again", metavar="CHECKPOINT", help="begin with its weights")
    options.add_run(parser)
    return parser.parse_args(argv)


def main(args) -> dict:
    from tables import label_of
    from training import engine, pipeline
    from training.run import Run

    device = engine.start(args.device)
    camera = pipeline.physics_recipe(args)
    name = pipeline.export_name(args.network, label_of(camera))
    run = Run(args, f"{name.removesuffix('.pth')}_{args.dataset}", name, {"train_again": args.train_again} | pipeline.ordering_file(camera))
    if run.finished:
        return run.already()
    splits = pipeline.splits_of(args)
    physics = pipeline.camera_of(camera, splits)
    network, recipe = pipeline.network_of(args)
    pipeline.warm_start(network, recipe, args.train_again)
    return pipeline.fit(pipeline.supervised(args, network, physics, args.loss, device), recipe, splits, args, run)


if __name__ == "__main__":
    options.run(parse, main)
