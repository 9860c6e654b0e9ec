"""Train one classifier: a teacher, or the undistilled student."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    flags.add_class_training(parser)
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from core import runtime
    from training import setup

    device = runtime.start(args.device)
    return setup.every_seed(
        lambda one, companion: learner(one, device, companion), args, "val_top1"
    )


def learner(args, device, companion):
    """One classifier that is ready to be trained, or the scores of a run that is finished."""
    from training import classification

    return classification.alone(args, device, companion)


if __name__ == "__main__":
    flags.run(parse, main)
