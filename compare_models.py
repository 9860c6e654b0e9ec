"""Compare checkpoints: parameters, FLOPs, memory, latency and quality, and their ratios to the first."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        action=options.Distinct,
        metavar="PATH",
        help="the first one is what the others are compared with",
    )
    options.add_data(parser, n_default=None, c_default=None, limits=("test",), whole=True)
    options.add_bare(parser)
    options.add_loading(parser)
    options.add_scoring(parser)
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--awgn_snr",
        type=options.noise_level,
        nargs=1,
        help="noise level in dB, or none; each checkpoint's own without it",
    )
    group.add_argument(
        "--sigma", type=options.sigma, nargs=1, help="noise level of denoisers, on the 0..255 scale"
    )
    group.add_argument(
        "--batches",
        type=options.counting,
        nargs="+",
        action=options.Distinct,
        default=[1, 16],
        help="batch sizes of the latency",
    )
    group.add_argument(
        "--runs",
        type=options.counting,
        default=30,
        help="timed passes of each, after a tenth as many to warm up",
    )
    group.add_argument("--seed", type=options.natural, default=42, help="of the noise")
    options.add_device(parser, group)
    options.add_results(parser, group)
    parser.files.append(options.checkpoints("checkpoints"))
    return parser.parse_args(argv)


def main(args) -> dict:
    from pathlib import Path

    from analysis import comparison
    from analysis.report import markdown
    from training import engine, testing

    device = engine.start(args.device)
    restored = {path: testing.restored(path, args) for path in args.checkpoints}
    rows = comparison.compare(restored, args, device)
    folder = Path(args.results) / "compare"
    print(markdown(rows))
    comparison.write(rows, args.batches[0], folder)
    print(f"{folder}/models.csv, models.png written")
    return {"rows": rows}


if __name__ == "__main__":
    options.run(parse, main)
