"""Distil one or several classifiers into a student that is smaller, sees a smaller image, or only a few measurements."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    options.add_class_training(parser)
    options.add_class_distillation(parser)
    options.add_class_teacher(parser)
    return parser.parse_args(argv)


def main(args) -> dict:
    from training import engine, pipeline

    device = engine.start(args.device)
    return pipeline.every_seed(lambda one, beside: learner(one, device, beside), args, "val_top1")


def learner(args, device, beside):
    """One student that is ready to be taught, or the scores of a run that is finished."""
    from training import classification

    return classification.teach(args, device, beside)


if __name__ == "__main__":
    options.run(parse, main)
