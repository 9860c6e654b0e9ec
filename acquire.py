"""Make a recording: simulate a campaign of an apparatus, or import the files of one."""

from pathlib import Path

from cli import flags
from core.inputs import folder_to_write


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.records_typed, parser.demanding = True, False
    parser.add_argument(
        "command",
        choices=("simulate", "import"),
        help="simulate: scenes of a dataset, recorded once; import: files of other people",
    )
    group = parser.add_argument_group("recording")
    group.add_argument(
        "--output", required=True, metavar="FILE.npz", help="the recording that is written"
    )
    group.add_argument("--overwrite", action="store_true", help="replace a recording")
    group.add_argument(
        "--val_share",
        type=flags.within(0, 1),
        default=0.2,
        help="share of the frames for validation; of simulated ones, of --frames",
    )
    both = {action.dest for action in parser._actions}
    flags.add_import(parser)
    imported = {action.dest for action in parser._actions} - both | {"calibration", "n"}
    flags.add_simulation(parser)
    simulated = {action.dest for action in parser._actions} - imported - both | {"calibration", "n"}
    flags_of = {"simulate": both | simulated, "import": both | imported}

    def check_command(args) -> None:
        """Refuses flags of the other command."""
        for name in sorted(args.typed - flags_of[args.command]):
            parser.error(f"{args.command} does not read --{name}")
        if args.command == "import":
            args.n = args.n if "n" in args.typed else None
            args.imported_calibration, args.calibration = args.calibration, None
            if args.input is None:
                parser.error("import needs --input")
        elif args.cr is None:
            parser.error("simulate needs --cr")

    parser.rules.insert(0, check_command)
    parser.files.append(check_output)
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def check_output(args) -> None:
    """Refuses a file that cannot be written, or one that is there already."""
    path = Path(args.output)
    if path.suffix != ".npz":
        raise flags.UserError(f"output {path}: a recording is a file NAME.npz")
    folder_to_write(path.parent, "--output")
    if path.exists() and not args.overwrite:
        raise flags.UserError(f"output {path} exists: give another name, or --overwrite")


def main(args) -> dict:
    from core import runtime
    from laboratory.imports import import_recording
    from laboratory.simulate import simulate

    runtime.start("cpu")
    check_output(args)
    return simulate(args) if args.command == "simulate" else import_recording(args)


if __name__ == "__main__":
    flags.run(parse, main)
