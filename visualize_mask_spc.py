"""Draw the patterns of a single-pixel camera and the energy they measure, or export them."""

from cli import flags
from core.inputs import check_patterns, folder_to_write


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument("--cr", type=flags.ratio, help="ratio: measurements / pixels, in (0, 1]")
    parser.add_argument(
        "--checkpoint",
        type=flags.network_file,
        metavar="PATH",
        help="the patterns of its camera, --ordering learned too; --cr is one of its ratios",
    )
    flags.add_code(parser)
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
        "--one_sided",
        action="store_true",
        help="export patterns without their opposites: half as many, and the first must be all "
        "ones",
    )
    group.add_argument(
        "--magnify",
        type=flags.counting,
        default=1,
        help="micromirrors along the side of a pixel, in exported patterns",
    )
    flags.add_results(parser, group)
    parser.checks.append(lambda args: check_source(args, parser))
    parser.files += [flags.checkpoints("checkpoint"), check_export]
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def check_source(args, parser) -> None:
    """Refuses patterns that are described twice or not at all."""
    for flag, default in (("one_sided", False), ("magnify", 1)):
        if getattr(args, flag) != default and not args.export:
            parser.error(f"{flag}: it is read with --export")
    if not args.checkpoint:
        if args.cr is None:
            parser.error("give --cr, or the patterns of a --checkpoint")
        if args.ordering == "learned":
            parser.error("ordering 'learned': only a training learns patterns; give --checkpoint")
        check_patterns(args.ordering, args.n)
        return
    for flag in ("n", "c", "ordering"):
        if parser.is_typed(flag):
            parser.error(f"{flag}: the checkpoint brings its own; leave out --{flag}")


def check_export(args) -> None:
    """Refuses a folder that cannot be written."""
    if args.export:
        folder_to_write(args.export, "--export")


def main(args) -> dict:
    from pathlib import Path

    from core import runtime
    from evaluation import patterns
    from report.tables import markdown

    runtime.start("cpu")
    physics, images = from_checkpoint(args) if args.checkpoint else from_flags(args)
    print(f"physics: {physics.describe()}")
    outcomes = outcomes_of(physics, images(), args)
    config = physics.config
    name = args.checkpoint and Path(args.checkpoint).stem
    ordering = name or config["ordering"].replace("/", "_").replace(":", "_")
    folder = Path(args.results) / "masks" / f"{ordering}_cr_{config['cr']:g}_n_{config['n']}"
    if args.export:  # first: nothing is written where the patterns cannot be exported
        shown = (Path(args.export), args.magnify, args.one_sided)
        count = patterns.export_patterns(physics, *shown)
        print(f"exported {count} patterns for {physics.m} values to {args.export}")
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
        print(f"no energies, because there are no Hadamard patterns for n {config['n']}")
    best = show_light(outcomes, physics.m, folder) if outcomes else []
    patterns.draw_mask(physics, folder / "mask.png")
    patterns.draw_patterns(physics, args.patterns, folder / "patterns.png")
    print(f"figures: {folder}")
    energies.pop(patterns.BEST, None)
    return {"m": physics.m, "energies": energies, "best_ratios": best}


def from_flags(args) -> tuple:
    """The camera that the flags describe, and what loads the training images."""
    from argparse import Namespace

    from algo_functions import build_physics
    from data_loader import build_splits
    from preparation import setup

    noiseless = dict.fromkeys(("awgn_snr", "noise", "photons"))
    noiseless |= dict.fromkeys(("dark", "dark_noise"), 0.0)
    fixed = {"physics": "spc", "x0": "adjoint", "photon_budget": "pattern", "gain": 1.0}
    fixed |= {"block": None, "cr_range": None}
    config = setup.physics_config_of(Namespace(**vars(args) | noiseless | fixed))
    setup.check_physics(args, config)
    images = build_splits(setup.request_of(args), wanted=("train",))["train"].stack
    return build_physics(config, images=images), images


def from_checkpoint(args) -> tuple:
    """The camera of a checkpoint, and what loads training images of its size."""
    from checkpoints.checkpoint import restore
    from core.errors import UserError
    from data_loader import build_splits
    from physics.mosaic import Mosaic
    from physics.single_pixel import SinglePixel
    from preparation import setup

    whole = restore(args.checkpoint, {"cr": args.cr}).physics
    physics = whole.physics if isinstance(whole, Mosaic) else whole
    if not isinstance(physics, SinglePixel):
        several = " for several ratios: give --cr" if len(physics.parts) > 1 else " no such camera"
        raise UserError(
            f"checkpoint {args.checkpoint}: patterns are drawn of a single-pixel camera of one "
            f"ratio, and this is{several}"
        )
    request = setup.request_of(args, n=whole.config["n"], c=whole.config["c"])
    images = build_splits(request, wanted=("train",))["train"].stack
    return physics, whole.of_blocks(images) if isinstance(whole, Mosaic) else images


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
