"""Compare checkpoints: parameters, FLOPs, memory, latency, quality, and ratios to the first."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "checkpoints",
        type=flags.network_file,
        nargs="+",
        action=flags.Distinct,
        metavar="PATH",
        help="the others are compared with the first one",
    )
    flags.add_data(parser, n_default=None, c_default=None, limits=("test",), whole=True)
    flags.add_truth(parser)
    flags.add_bare(parser)
    flags.add_loading(parser)
    flags.add_scoring(parser)
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--awgn_snr",
        type=flags.noise_level,
        nargs=1,
        help="noise level in dB, or none (default: each checkpoint's own)",
    )
    group.add_argument(
        "--noise",
        type=flags.white_noise,
        nargs=1,
        help="noise on every value of a single-pixel camera, or none (default: each checkpoint's "
        "own)",
    )
    group.add_argument(
        "--photons",
        type=flags.photons,
        nargs=1,
        help="photons of a single-pixel camera, or none (default: each checkpoint's own)",
    )
    flags.add_calibration(group)
    group.add_argument(
        "--sigma", type=flags.sigma, nargs=1, help="noise level of a denoiser on the 0..255 scale"
    )
    group.add_argument(
        "--batches",
        type=flags.counting,
        nargs="+",
        action=flags.Distinct,
        default=[1, 16],
        help="batch sizes for the latency",
    )
    group.add_argument(
        "--runs",
        type=flags.counting,
        default=30,
        help="timed passes for each batch size, after a tenth as many to warm up",
    )
    group.add_argument("--seed", type=flags.natural, default=42, help="seed of the noise")
    flags.add_device(parser, group)
    flags.add_results(parser, group)
    parser.checks.append(check_noise)
    parser.files.append(flags.checkpoints("checkpoints"))
    return parser


def check_noise(args) -> None:
    """Refuses two noises: networks are compared at one."""
    given = [name for name in ("awgn_snr", "noise", "photons") if getattr(args, name)]
    if len(given) > 1:
        raise flags.UserError(
            f"{' and '.join(given)} are {len(given)} models of the same noise: give one of them"
        )


def parse(argv=None):
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.dataset == "recorded" and args.truth is None:
        parser.error("the quality of recorded frames needs their --truth; test_UNet.py does not")
    return args


def main(args) -> dict:
    from pathlib import Path

    from core import runtime
    from evaluation.checkpoints import checkpoint_names, format_paths, open_restorer
    from evaluation.compare import compare_checkpoints, write_comparison
    from report.tables import markdown

    device = runtime.start(args.device)
    checkpoints = {path: open_restorer(path, args) for path in args.checkpoints}
    print(format_paths(checkpoint_names(checkpoints)))
    rows = compare_checkpoints(checkpoints, args, device)
    print(markdown(rows))
    folder = Path(args.results) / "compare"
    write_comparison(rows, args.batches[0], folder)
    print(f"{folder}/models.csv, models.png written")
    return {"rows": rows}


if __name__ == "__main__":
    flags.run(parse, main)
