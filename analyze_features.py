"""Compare the features of networks layer by layer on the same images: measures, CKA, changes."""

from cli import flags
from core.registry import DATASETS, FEATURE_MEASURES, LABELLED


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        action=flags.Distinct,
        metavar="PATH",
        help="the others are compared with the first one, as students with a teacher",
    )
    flags.add_data(
        parser,
        n_default=None,
        c_default=None,
        crop_default=None,
        limits=("test",),
        table=DATASETS | LABELLED,
    )
    parser.set_defaults(limit_test=200)
    flags.add_bare(parser)
    flags.add_loading(parser)
    flags.add_evaluation(parser)
    group = parser.add_argument_group("features")
    names, every = ", ".join(FEATURE_MEASURES), list(FEATURE_MEASURES)
    group.add_argument(
        "--measures",
        type=flags.one_of(FEATURE_MEASURES, "measure"),
        nargs="+",
        action=flags.Distinct,
        default=every,
        metavar="NAME",
        help=f"measures of feature maps, some of {names}",
    )
    group.add_argument(
        "--channels",
        type=flags.within(1, 32, int),
        default=8,
        help="channels of every layer in the figures",
    )
    parser.files.append(flags.checkpoints("checkpoints"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from pathlib import Path

    from core import runtime
    from core.files import folder_for
    from evaluation import feature_report, features
    from evaluation.checkpoints import checkpoint_names, format_paths, open_checkpoint
    from evaluation.feature_figures import draw_features

    device = runtime.start(args.device)
    checkpoints = {path: open_checkpoint(path, args) for path in args.checkpoints}
    images = features.load_common_images(checkpoints, args)
    subjects = features.build_subjects(checkpoints, images, args, device)
    names = checkpoint_names(checkpoints)
    folder_name = feature_report.folder_name([*names.values()])
    folder = folder_for(Path(args.results) / "features", folder_name)
    batches = features.iterate_features(subjects, images, args, device)
    statistics = features.collect_statistics(subjects, batches, args.measures, args.seed)
    reference, *grams = features.compute_grams(batches, len(images))
    similarities = [features.cka([*reference.values()], [*own.values()]) for own in grams]
    weights = [
        features.weight_changes(subject.network, subjects[0].network) for subject in subjects[1:]
    ]
    tables = {
        "measures": feature_report.measure_rows(subjects, statistics),
        "cka": feature_report.similarity_rows(subjects, statistics, similarities),
        "layers": feature_report.layer_rows(subjects, statistics, weights),
        "channels": feature_report.channel_rows(subjects, statistics),
    }
    print(f"{format_paths(names)}\n{len(images)} test images of {args.dataset}")
    print(feature_report.format_summary(subjects, tables))
    feature_report.write_tables(tables, args.measures, folder)
    draw_features(subjects, statistics, similarities, tables["measures"], args.channels, folder)
    print(
        f"\n{folder}: measures, cka, layers and channels.csv, "
        "measures, histograms and cka.png, maps and fourier_<layer>.png written"
    )
    return tables | {"folder": folder}


if __name__ == "__main__":
    flags.run(parse, main)
