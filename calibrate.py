"""Calibrate a detector: its offset, dark noise and gain, from black and white recordings."""

from cli import flags
from core.inputs import existing_file, folder_to_write


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "recordings",
        nargs="*",
        metavar="BLACK WHITE",
        help="a black and a white recording, as .npy, .npz, .csv or .mat; rows are exposures, "
        "their values are repeated counts",
    )
    group = parser.add_argument_group("recordings in several files")
    group.add_argument(
        "--black",
        nargs="+",
        action=flags.Distinct,
        metavar="FILE",
        help="counts without light: one exposure for all white ones, or one for each",
    )
    group.add_argument(
        "--white",
        nargs="+",
        action=flags.Distinct,
        metavar="FILE",
        help="counts of the same scene, at several lights or exposure times",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        default="results/calibration.json",
        metavar="FILE",
        help="file of the calibration, which --calibration takes; its figure lies beside it",
    )
    flags.add_config(group)
    parser.checks.append(sort_recordings)
    parser.files.append(check_files)
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def sort_recordings(args) -> None:
    """Black and white recordings, from two words or from the flags."""
    if args.recordings and (args.black or args.white):
        raise flags.UserError("give BLACK WHITE, or --black and --white, not both")
    if args.recordings:
        if len(args.recordings) != 2:
            raise flags.UserError(
                f"recordings {' '.join(args.recordings)}: give a black one and a white one, or "
                "several files by --black and --white"
            )
        args.black, args.white = ([path] for path in args.recordings)
    if not args.black or not args.white:
        raise flags.UserError("give a black and a white recording")
    if not args.output.endswith(".json"):
        raise flags.UserError(f"output {args.output}: a name that ends in .json is needed")


def check_files(args) -> None:
    """Refuses recordings that do not exist, and a place that cannot be written."""
    from pathlib import Path

    for path in args.black + args.white:
        existing_file(path, "recording")
    folder_to_write(Path(args.output).parent, "--output")


def main(args) -> dict:
    import json
    from pathlib import Path

    from core.files import write_text
    from laboratory.calibration import LEVEL, calibrate
    from laboratory.exposures import draw_transfer, read_exposures
    from report.tables import markdown

    calibration = calibrate(read_exposures(args.black), read_exposures(args.white))
    names = {
        "offset": ("dark", "counts"),
        "dark noise": ("dark_noise", "counts"),
        "gain": ("gain", "counts a photon"),
    }
    rows = []
    for name, (flag, unit) in names.items():
        value, low, high = getattr(calibration, flag)
        interval = f"{low:.4g} .. {high:.4g}"
        rows.append({"": name, "value": value, f"{LEVEL:.0%} interval": interval, "unit": unit})
    print(markdown(rows))
    for note in calibration.notes:
        print(f"note: {note}")
    path = Path(args.output)
    content = calibration.content() | {"black": args.black, "white": args.white}
    write_text(path, json.dumps(content, indent=2) + "\n")
    draw_transfer(calibration, path.with_suffix(".png"))
    print(f"written {path}, {path.with_suffix('.png').name}; use it by --calibration {path}")
    return content


if __name__ == "__main__":
    flags.run(parse, main)
