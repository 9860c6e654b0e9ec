"""Compare checkpoints: parameters, FLOPs, memory, latency and quality, and their ratios to the first."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        action=flags.Distinct,
        metavar="PATH",
        help="the first one is what the others are compared with",
    )
    flags.add_data(parser, n_default=None, c_default=None, limits=("test",), whole=True)
    flags.add_bare(parser)
    flags.add_loading(parser)
    flags.add_scoring(parser)
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--awgn_snr",
        type=flags.noise_level,
        nargs=1,
        help="noise level in dB, or none; each checkpoint's own without it",
    )
    group.add_argument(
        "--sigma", type=flags.sigma, nargs=1, help="noise level of denoisers, on the 0..255 scale"
    )
    group.add_argument(
        "--batches",
        type=flags.counting,
        nargs="+",
        action=flags.Distinct,
        default=[1, 16],
        help="batch sizes of the latency",
    )
    group.add_argument(
        "--runs",
        type=flags.counting,
        default=30,
        help="timed passes of each, after a tenth as many to warm up",
    )
    group.add_argument("--seed", type=flags.natural, default=42, help="of the noise")
    flags.add_device(parser, group)
    flags.add_results(parser, group)
    parser.files.append(flags.checkpoints("checkpoints"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from pathlib import Path

    from core import runtime
    from evaluation import compare, restoration
    from report.tables import markdown

    device = runtime.start(args.device)
    restored = {path: restoration.restored(path, args) for path in args.checkpoints}
    rows = compare.compare(restored, args, device)
    folder = Path(args.results) / "compare"
    print(markdown(rows))
    compare.write(rows, args.batches[0], folder)
    print(f"{folder}/models.csv, models.png written")
    return {"rows": rows}


if __name__ == "__main__":
    flags.run(parse, main)
