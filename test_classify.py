"""Evaluate classifiers: scores of every split into a CSV, confusion matrices, reports, and mean and deviation over checkpoints."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action=flags.Distinct,
        required=True,
        metavar="PATH",
        help="one or several; they tell network, physics and classes",
    )
    flags.add_labelled(
        parser, limits=("train", "val", "test"), n_default=None, c_default=None, crop_default=None
    )
    flags.add_loading(parser)
    group = flags.add_evaluation(parser)
    group.add_argument(
        "--splits",
        nargs="+",
        action=flags.Distinct,
        choices=("train", "val", "test"),
        default=["train", "val", "test"],
        help="what is scored",
    )
    parser.files.append(flags.checkpoints("checkpoint"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from statistics import mean

    from core import runtime
    from evaluation import grading
    from evaluation.restoration import names_of
    from report import tables
    from training import classification, setup

    device = runtime.start(args.device)
    found = {
        path: classification.restore_classifier(path, args.n, args.c, args.crop)
        for path in args.checkpoint
    }
    rows = []
    with tables.printed(rows):
        for path, name in names_of(found).items():
            grades = grading.grade(path, name, found[path], args, device)
            rows += grades.rows
            grading.write(grades, args, device)
    tops = {}
    for row in rows:
        if row["split"] == args.splits[-1]:
            tops.setdefault(row["camera"], []).append(row["top-1"])
    for camera, values in tops.items():
        print(f"{args.splits[-1]} top-1, {camera}: {setup.mean_and_deviation(values)} %")
    return {"rows": rows, "top1": {camera: mean(values) for camera, values in tops.items()}}


if __name__ == "__main__":
    flags.run(parse, main)
