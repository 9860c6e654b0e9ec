"""Evaluate classifiers: scores of every split, confusion matrices, means over checkpoints."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        type=flags.network_file,
        nargs="+",
        action=flags.Distinct,
        required=True,
        metavar="PATH",
        help="one or several checkpoints, which contain network, physics and classes",
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
        help="splits to evaluate",
    )
    parser.files.append(flags.checkpoints("checkpoint"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from statistics import mean

    from core import runtime
    from evaluation.checkpoints import checkpoint_names, format_paths
    from evaluation.classification import evaluate_classifier, write_classification
    from preparation.classification import restore_classifier
    from preparation.setup import mean_and_deviation
    from report import tables

    device = runtime.start(args.device)
    checkpoints = {
        path: restore_classifier(path, args.n, args.c, args.crop) for path in args.checkpoint
    }
    names = checkpoint_names(checkpoints)
    print(format_paths(names))
    rows = []
    with tables.print_at_end(rows):
        for path, name in names.items():
            result = evaluate_classifier(path, name, checkpoints[path], args, device)
            rows += result.rows
            write_classification(result, args, device)
    last_split, tops = args.splits[-1], {}
    for row in rows:
        if row["split"] == last_split:
            tops.setdefault(row["physics"], []).append(row["top-1"])
    for physics, values in tops.items():
        print(f"{last_split} top-1, {physics}: {mean_and_deviation(values)} %")
    return {"rows": rows, "top1": {physics: mean(values) for physics, values in tops.items()}}


if __name__ == "__main__":
    flags.run(parse, main)
