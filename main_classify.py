"""Train one classifier: a teacher, or the undistilled student."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    options.add_class_training(parser)
    return parser.parse_args(argv)


def main(args) -> dict:
    from training import classification, engine, pipeline

    device = engine.start(args.device)
    return pipeline.every_seed(lambda one, beside: classification.alone(one, device, beside), args, "val_top1")


if __name__ == "__main__":
    options.run(parse, main)
