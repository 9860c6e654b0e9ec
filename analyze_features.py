"""Compare the features of networks layer by layer on the same images: measures, CKA, changes."""

from cli import flags
from core.registry import DATASETS, FEATURE_MEASURES, LABELLED


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "checkpoints",
        type=flags.network_file,
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
        help="number of channels that the figures show of each layer",
    )
    parser.files.append(flags.checkpoints("checkpoints"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from pathlib import Path

    from core import runtime
    from core.files import folder_for
    from evaluation.checkpoints import checkpoint_names, format_paths, open_checkpoint
    from features import report, statistics, subjects
    from features.figures import draw_features

    device = runtime.start(args.device)
    checkpoints = {path: open_checkpoint(path, args) for path in args.checkpoints}
    images = subjects.load_common_images(checkpoints, args)
    recording = subjects.recording_of(images, checkpoints, args)
    networks = subjects.build_subjects(checkpoints, images, args, device)
    names = checkpoint_names(checkpoints)
    folder_name = report.folder_name([*names.values()])
    folder = folder_for(Path(args.results) / "features", folder_name)
    batches = subjects.iterate_features(networks, images, recording, args, device)
    layers = statistics.collect_statistics(networks, batches, args.measures, args.seed)
    reference, *grams = statistics.compute_grams(batches, len(images))
    similarities = [statistics.cka([*reference.values()], [*own.values()]) for own in grams]
    weights = [
        statistics.weight_changes(other.network, networks[0].network) for other in networks[1:]
    ]
    tables = {
        "measures": report.measure_rows(networks, layers),
        "cka": report.similarity_rows(networks, layers, similarities),
        "layers": report.layer_rows(networks, layers, weights),
        "channels": report.channel_rows(networks, layers),
    }
    print(f"{format_paths(names)}\n{report.format_images(len(images), args)}")
    print(report.format_summary(networks, tables))
    report.write_tables(tables, args.measures, folder)
    draw_features(networks, layers, similarities, tables["measures"], args.channels, folder)
    print(
        f"\n{folder}: measures, cka, layers and channels.csv, "
        "measures, histograms and cka.png, maps and fourier_<layer>.png written"
    )
    return tables | {"folder": folder}


if __name__ == "__main__":
    flags.run(parse, main)
