"""Restore or classify images or measurements with a trained network, or export the network."""

from pathlib import Path

from cli import flags
from core.inputs import existing_file


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        type=flags.network_file,
        required=True,
        metavar="PATH",
        help="contains the configs of network and physics",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="IMAGE",
        help="image files, or folders of them, as the physics measured them",
    )
    group = parser.add_argument_group("images")
    group.add_argument(
        "--simulate",
        action="store_true",
        help="the images are clean: measure them first (always so with spc and mri)",
    )
    group.add_argument(
        "--truth",
        metavar="PATH",
        help="the clean image, or a folder of clean images with the same names",
    )
    group.add_argument(
        "--sigma",
        type=flags.sigma,
        help="noise of the images on the 0..255 scale, for networks that take a noise level",
    )
    group.add_argument(
        "--tile",
        type=flags.within(16, 4096, int),
        help="side of the tiles into which larger images are cut (default: 512)",
    )
    group.add_argument(
        "--overlap",
        type=flags.natural,
        help="pixels in which neighbouring tiles are blended (default: 32, simulated 0)",
    )
    group = parser.add_argument_group("measurements")
    group.add_argument(
        "--measurements",
        metavar="FILE",
        help="a recording, or frames in a .npy file or in lines of a .csv; each has m values, or "
        "2 m values of complementary pairs",
    )
    group.add_argument("--scale", type=flags.gain, help="factor for the measured values, or auto")
    group.add_argument(
        "--one_sided",
        action="store_true",
        help="the m values are those of 0/1 patterns without their opposites, the first all ones",
    )
    flags.add_calibration(group)
    flags.add_self_ensemble(parser, "the network answers")
    group.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="the frames of a recording that are restored; without it all",
    )
    group.add_argument(
        "--live",
        action="store_true",
        help="restore one frame at a time, as a camera measures them, and print how long each took",
    )
    group = parser.add_argument_group("export")
    group.add_argument(
        "--export",
        type=flags.one_of(flags.EXPORTS, "export"),
        nargs="+",
        action=flags.Distinct,
        default=[],
        help=f"write the network alone, as {', '.join(flags.EXPORTS)}",
    )
    flags.add_bare(parser, n=True)
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=flags.natural, default=42, help="seed of the simulated noise")
    flags.add_device(parser, group)
    flags.add_results(parser, group)

    def check_flags(args) -> None:
        check_one_use(args, parser)

    parser.checks.append(check_flags)
    parser.files += [flags.checkpoints("checkpoint"), check_inputs]
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def check_one_use(args, parser: flags.Parser) -> None:
    """Refuses a command line without exactly one use, or with flags of another one."""
    if bool(args.inputs) + bool(args.measurements) + bool(args.export) != 1:
        parser.error("give one of images, --measurements FILE, --export FORM")
    use = "images" if args.inputs else "--measurements" if args.measurements else "--export"
    users: dict[str, str] = dict.fromkeys(
        ("simulate", "truth", "sigma", "tile", "overlap"), "images"
    )
    users |= dict.fromkeys(("scale", "one_sided", "calibration", "split", "live"), "--measurements")
    if args.self_ensemble and args.export:
        parser.error("--self_ensemble: an exported network answers once; leave it out")
    for flag, user in users.items():
        value = getattr(args, flag)
        if value is not None and value is not False and user != use:
            given = f"--{flag}" if value is True else f"--{flag} {value}"
            parser.error(f"{given}: it is read with {user}, not with {use}")


def check_inputs(args) -> None:
    """Refuses image files and measurements that do not exist."""
    for path in args.inputs + [args.truth] * bool(args.truth):
        if not Path(path).is_dir():
            existing_file(path, "picture")
    if args.measurements:
        existing_file(args.measurements, "--measurements")


def main(args) -> dict:
    from functools import partial

    from checkpoints.checkpoint import restore
    from core import runtime
    from core.files import folder_for
    from evaluation.checkpoints import checkpoint_name
    from evaluation.export import export_network
    from evaluation.measurements import restore_measurements
    from evaluation.predict import classify_files, restore_files
    from preparation.mirrored import mirrored_checkpoint

    device = runtime.start(args.device)
    values = {name: getattr(args, name) for name in flags.BARE}
    checkpoint = restore(args.checkpoint, values)
    name = checkpoint_name(args.checkpoint)
    if args.self_ensemble:
        checkpoint = mirrored_checkpoint(args.checkpoint, checkpoint)
        name = f"self_ensemble_{name}"
    folder = folder_for(Path(args.results) / "predict", name)
    if args.export:
        return {"exports": {kind: export_network(checkpoint, kind, folder) for kind in args.export}}
    predict = restore_measurements if args.measurements else restore_files
    if checkpoint.is_classifier:
        predict = partial(classify_files, checkpoint.classes, checkpoint.crop)
    network, physics = checkpoint.network.to(device), checkpoint.physics.to(device)
    return predict(network, physics, args, folder, device)


if __name__ == "__main__":
    flags.run(parse, main)
