"""Train one classifier: a teacher, or the undistilled student."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    options.add_class_training(parser)
    return parser.parse_args(argv)


def main(args) -> dict:
    from training import engine, pipeline

    device = engine.start(args.device)
    return pipeline.every_seed(lambda one, beside: learner(one, device, beside), args, "val_top1")


def learner(args, device, beside):
    """One classifier that is ready to be trained, or the scores of a run that is finished."""
    from training import classification

    return classification.alone(args, device, beside)


if __name__ == "__main__":
    options.run(parse, main)
