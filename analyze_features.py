"""What is in the features of networks: a teacher's and a student's, tap by tap, of the same images."""

from cli import flags
from core.registry import DATASETS, FEATURE_MEASURES, LABELLED


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        action=flags.Distinct,
        metavar="PATH",
        help="the first one, the teacher, is what the others are held against",
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
        help=f"of {names}",
    )
    group.add_argument(
        "--channels", type=flags.within(1, 32, int), default=8, help="of every tap that are drawn"
    )
    parser.files.append(flags.checkpoints("checkpoints"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from pathlib import Path

    from core import runtime
    from core.files import folder_for
    from evaluation import feature_figures, feature_report, features, restoration

    device = runtime.start(args.device)
    found = {path: restoration.opened(path, args) for path in args.checkpoints}
    images = features.images_of(found, args)
    subjects = features.subjects_of(found, images, args, device)
    folder = folder_for(
        Path(args.results) / "features",
        feature_report.folder_name([*restoration.names_of(found).values()]),
    )
    batches = features.walk(subjects, images, args, device)
    layers = features.gathered(subjects, batches, args.measures, args.seed)
    grams = features.grams(batches, len(images))
    similarities = [features.cka([*grams[0].values()], [*own.values()]) for own in grams[1:]]
    weights = [
        features.weight_changes(subject.network, subjects[0].network) for subject in subjects[1:]
    ]
    tables = {
        "measures": feature_report.measure_rows(subjects, layers),
        "cka": feature_report.similarity_rows(subjects, layers, similarities),
        "layers": feature_report.layer_rows(subjects, layers, weights),
        "channels": feature_report.channel_rows(subjects, layers),
    }
    print(f"{len(images)} test images of {args.dataset}\n{feature_report.told(subjects, tables)}")
    feature_report.write(tables, args.measures, folder)
    feature_figures.draw(subjects, layers, similarities, tables["measures"], args.channels, folder)
    print(
        f"\n{folder}: measures, cka, layers and channels.csv, measures, histograms and cka.png, maps and fourier_<tap>.png written"
    )
    return tables | {"folder": folder}


if __name__ == "__main__":
    flags.run(parse, main)
