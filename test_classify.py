"""Evaluate classifiers: scores of every split into a CSV, confusion matrices, reports, and mean and deviation over checkpoints."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action=options.Distinct,
        required=True,
        metavar="PATH",
        help="one or several; they tell network, physics and classes",
    )
    options.add_labelled(
        parser, limits=("train", "val", "test"), n_default=None, c_default=None, crop_default=None
    )
    options.add_loading(parser)
    group = options.add_evaluation(parser)
    group.add_argument(
        "--splits",
        nargs="+",
        action=options.Distinct,
        choices=("train", "val", "test"),
        default=["train", "val", "test"],
        help="what is scored",
    )
    parser.files.append(options.checkpoints("checkpoint"))
    return parser.parse_args(argv)


def main(args) -> dict:
    from statistics import mean

    from analysis import report
    from training import classification, engine, grading, pipeline
    from training.testing import names_of

    device = engine.start(args.device)
    found = {
        path: classification.exported(path, args.n, args.c, args.crop) for path in args.checkpoint
    }
    rows = []
    with report.printed(rows):
        for path, name in names_of(found).items():
            grades = grading.grade(path, name, found[path], args, device)
            rows += grades.rows
            grading.write(grades, args, device)
    tops = {}
    for row in rows:
        if row["split"] == args.splits[-1]:
            tops.setdefault(row["camera"], []).append(row["top-1"])
    for camera, values in tops.items():
        print(f"{args.splits[-1]} top-1, {camera}: {pipeline.mean_and_deviation(values)} %")
    return {"rows": rows, "top1": {camera: mean(values) for camera, values in tops.items()}}


if __name__ == "__main__":
    options.run(parse, main)
