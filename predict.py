"""Restore or classify pictures, or what a laboratory's detector measured, with a trained network; or export the network."""

from pathlib import Path

from cli import flags
from core.inputs import existing_file


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--checkpoint", required=True, metavar="PATH", help="it tells network and physics"
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="PICTURE",
        help="pictures, or folders of them, that the camera took",
    )
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--simulate",
        action="store_true",
        help="the pictures are clean scenes: measure them first (spc and mri always do)",
    )
    group.add_argument(
        "--truth",
        metavar="PATH",
        help="the clean picture, or a folder with pictures of the same names",
    )
    group.add_argument(
        "--sigma",
        type=flags.sigma,
        help="the pictures' noise on the 0..255 scale, for networks that are told it",
    )
    group.add_argument(
        "--tile",
        type=flags.within(16, 4096, int),
        help="larger pictures are cut into tiles of this side; 512",
    )
    group.add_argument(
        "--overlap",
        type=flags.natural,
        help="pixels in which neighbouring tiles are blended; 32, simulated 0",
    )
    group = parser.add_argument_group("measurements")
    group.add_argument(
        "--measurements",
        metavar="FILE",
        help=".npy: m values, or 2 m of complementary pairs, a frame; one frame or several",
    )
    group.add_argument(
        "--scale", type=flags.gain, help="what values are multiplied by, or auto; see README"
    )
    group = parser.add_argument_group("export")
    group.add_argument(
        "--export",
        type=flags.one_of(flags.EXPORTS, "export"),
        nargs="+",
        action=flags.Distinct,
        default=[],
        help=f"alone: {', '.join(flags.EXPORTS)}",
    )
    flags.add_bare(parser, n=True)
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=flags.natural, default=42, help="of simulated noise")
    flags.add_device(parser, group)
    flags.add_results(parser, group)

    def words_go_together(args) -> None:
        check(args, parser)

    parser.checks.append(words_go_together)
    parser.files += [flags.checkpoints("checkpoint"), inputs_are_there]
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def check(args, parser: flags.Parser) -> None:
    """Refuses flags of one use in another one."""
    if bool(args.inputs) + bool(args.measurements) + bool(args.export) != 1:
        parser.error("give one of pictures, --measurements FILE, --export FORM")
    what = "pictures" if args.inputs else "--measurements" if args.measurements else "--export"
    for flag, reader in dict.fromkeys(
        ("simulate", "truth", "sigma", "tile", "overlap"), "pictures"
    ).items() | {("scale", "--measurements")}:
        if getattr(args, flag) is not None and getattr(args, flag) is not False and reader != what:
            parser.error(
                f"--{flag} {getattr(args, flag)}: it is read with {reader}, not with {what}"
            )


def inputs_are_there(args) -> None:
    """Refuses pictures and measurements that are not where the command line says."""
    for path in args.inputs + [args.truth] * bool(args.truth):
        if not Path(path).is_dir():
            existing_file(path, "picture")
    if args.measurements:
        existing_file(args.measurements, "--measurements")


def main(args) -> dict:
    from functools import partial

    from core import runtime
    from core.files import folder_for
    from evaluation import export, prediction
    from evaluation.restoration import name_of
    from training.checkpoint import restore

    device = runtime.start(args.device)
    restored = restore(args.checkpoint, {name: getattr(args, name) for name in flags.BARE})
    folder = folder_for(Path(args.results) / "predict", name_of(args.checkpoint))
    if args.export:
        return {"exports": {kind: export.export(restored, kind, folder) for kind in args.export}}
    work = prediction.from_measurements if args.measurements else prediction.from_pictures
    if restored.is_classifier:
        work = partial(prediction.classes_of, restored.classes, restored.crop)
    return work(restored.network.to(device), restored.physics.to(device), args, folder, device)


if __name__ == "__main__":
    flags.run(parse, main)
