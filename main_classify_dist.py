"""Distil one or several classifiers into a student that is smaller, sees a smaller image, or only a few measurements."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    options.add_class_training(parser)
    options.add_class_distillation(parser)
    options.add_class_teacher(parser)
    return parser.parse_args(argv)


def main(args) -> dict:
    from training import classification, engine, pipeline

    device = engine.start(args.device)
    return pipeline.every_seed(lambda one, beside: classification.teach(one, device, beside), args, "val_top1")


if __name__ == "__main__":
    options.run(parse, main)
