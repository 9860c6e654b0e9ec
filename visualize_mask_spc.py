"""Draw the patterns of a single-pixel camera and the energy they measure, or export them."""

from cli import flags
from core.inputs import check_patterns, folder_to_write


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--cr", type=flags.ratio, required=True, help="ratio: measurements / pixels, in (0, 1]"
    )
    flags.add_data(parser, limits=("train",))
    flags.add_patterns(parser)
    flags.add_light_levels(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--patterns", type=flags.counting, default=16, help="number of patterns in the figure"
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
        help="micromirrors along the side of a pixel, in exported patterns",
    )
    flags.add_results(parser, group)
    parser.checks.append(lambda args: check_patterns(args.ordering, args.n))
    parser.files.append(check_export)
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def check_export(args) -> None:
    """Refuses a folder that cannot be written."""
    if args.export:
        folder_to_write(args.export, "--export")


def main(args) -> dict:
    from argparse import Namespace
    from pathlib import Path

    from algo_functions import build_physics
    from core import runtime
    from data_loader import build_splits
    from evaluation import patterns
    from physics.single_pixel import SinglePixel
    from preparation import setup
    from report.tables import markdown

    runtime.start("cpu")
    noiseless = dict.fromkeys(("awgn_snr", "noise", "photons"))
    noiseless |= dict.fromkeys(("dark", "dark_noise"), 0.0)
    fixed = {"physics": "spc", "x0": "adjoint", "photon_budget": "pattern", "gain": 1.0}
    fixed |= {"block": None, "cr_range": None}
    flags_of_physics = Namespace(**vars(args) | noiseless | fixed)
    config = setup.physics_config_of(flags_of_physics)
    setup.check_physics(args, config)
    images = build_splits(setup.request_of(args), wanted=("train",))["train"].stack
    physics = build_physics(config, images=images)
    assert isinstance(physics, SinglePixel), "its config is that of a single-pixel camera"
    print(f"physics: {physics.describe()}")
    outcomes = outcomes_of(physics, images(), args)
    ordering = args.ordering.replace("/", "_").replace(":", "_")
    folder = Path(args.results) / "masks" / f"{ordering}_cr_{args.cr:g}_n_{args.n}"
    if args.export:  # first: nothing is written where the patterns cannot be exported
        count = patterns.export_patterns(physics, Path(args.export), args.magnify)
        print(f"exported {count} pairs of patterns to {args.export}")
    curves = patterns.cumulative_energies(physics, images())
    energies = {name: 100 * curve[physics.m - 1].item() for name, curve in curves.items()}
    if energies:
        rows = [
            {"ordering": name, "measurements": physics.m, "energy measured (%)": energy}
            for name, energy in energies.items()
        ]
        print(markdown(rows))
        patterns.draw_energies(curves, physics.m, folder / "energy.png")
    else:
        print(f"no energies, because there are no Hadamard patterns for n {args.n}")
    best = show_light(outcomes, physics.m, folder) if outcomes else []
    patterns.draw_mask(physics, folder / "mask.png")
    patterns.draw_patterns(physics, args.patterns, folder / "patterns.png")
    print(f"figures: {folder}")
    energies.pop(patterns.BEST, None)
    return {"m": physics.m, "energies": energies, "best_ratios": best}


def outcomes_of(physics, images, args) -> list:
    """What each light of the flags gives."""
    from evaluation import light_budget
    from physics.light import Light

    lights = [
        Light(photons, args.photon_budget, dark_noise=args.dark_noise, gain=args.gain)
        for photons in args.photons or []
    ]
    return light_budget.outcomes_of(physics, images, lights) if lights else []


def show_light(outcomes, m: int, folder) -> list[float]:
    """Prints and draws what each light gives; returns its best ratio."""
    from evaluation import light_budget
    from report.tables import markdown

    rows = [
        {"back-projection": name} | outcome.row(count)
        for outcome in outcomes
        for name, count in (("at --cr", m), ("best ratio", outcome.best))
    ]
    print(markdown(rows))
    light_budget.draw_outcomes(outcomes, m, folder / "light.png")
    light_budget.write_outcomes(outcomes, folder / "light.csv")
    return [outcome.best / len(outcome.noise) for outcome in outcomes]


if __name__ == "__main__":
    flags.run(parse, main)
