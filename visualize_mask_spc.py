"""Look at the sensing patterns of a single-pixel camera, say what is really measured, and export the patterns."""

from cli import flags
from core.inputs import check_patterns, folder_to_write


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--cr", type=flags.ratio, required=True, help="measurements / pixels, in (0, 1]"
    )
    flags.add_data(parser, limits=("train",))
    flags.add_patterns(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--patterns", type=flags.counting, default=16, help="patterns drawn as images"
    )
    group.add_argument(
        "--export",
        metavar="DIR",
        help="write the patterns for a micromirror device, with a manifest",
    )
    group.add_argument(
        "--magnify",
        type=flags.counting,
        default=1,
        help="micromirrors along the side of a pixel in exported patterns",
    )
    flags.add_results(parser, group)
    parser.checks.append(lambda args: check_patterns(args.ordering, args.n))
    parser.files.append(export_can_be_written)
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def export_can_be_written(args) -> None:
    if args.export:
        folder_to_write(args.export, "--export")


def main(args) -> dict:
    from argparse import Namespace
    from pathlib import Path

    from algo_functions import build_physics
    from core import runtime
    from data_loader import build_splits
    from evaluation import patterns
    from report.tables import markdown
    from training import setup

    runtime.start("cpu")
    config = setup.physics_config_of(
        Namespace(**vars(args), physics="spc", x0="adjoint", awgn_snr=None)
    )
    setup.check_physics(args, config)
    images = build_splits(setup.request_of(args), wanted=("train",))["train"].stack
    physics = build_physics(config, images=images)
    print(f"physics: {physics.describe()}")
    folder = (
        Path(args.results)
        / "masks"
        / f"{args.ordering.replace('/', '_').replace(':', '_')}_cr_{args.cr:g}_n_{args.n}"
    )
    if args.export:  # first: nothing is written where the patterns cannot be shown
        count = patterns.export(physics, Path(args.export), args.magnify)
        print(f"exported {count} pairs of patterns to {args.export}")
    energies = patterns.cumulative_energies(physics, images())
    if energies:
        rows = [
            {
                "ordering": name,
                "measurements": physics.m,
                "energy measured (%)": 100 * e[physics.m - 1].item(),
            }
            for name, e in energies.items()
        ]
        print(markdown(rows))
    else:
        print(f"no energies: n {args.n} has no Hadamard patterns")
    patterns.draw_mask(physics, folder / "mask.png")
    patterns.draw_patterns(physics, args.patterns, folder / "patterns.png")
    if energies:
        patterns.draw_energies(energies, physics.m, folder / "energy.png")
    print(f"pictures: {folder}")
    return {
        "m": physics.m,
        "energies": {
            name: 100 * e[physics.m - 1].item()
            for name, e in energies.items()
            if name != patterns.BEST
        },
    }


if __name__ == "__main__":
    flags.run(parse, main)
