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
    from preparation import setup

    device = runtime.start(args.device)
    return setup.run_seeds(lambda one, companion: prepare(one, device, companion), args, "val_top1")


def prepare(args, device, companion=None):
    """A classifier that is ready to be trained."""
    from preparation import classification

    return classification.prepare_alone(
        args, device, companion, flags.changes(build_parser(), args)
    )


if __name__ == "__main__":
    flags.run(parse, main)
