"""The flags of a camera that counts photons, and of its detector."""

from argparse import ArgumentError, Namespace

from cli.data_flags import defaults_of
from core.errors import UserError
from core.inputs import read_calibration
from core.registry import LIGHT, LIGHT_BUDGETS, LIGHT_LIMITS, PHYSICS
from parsing.parser import Distinct, Parser, Several
from parsing.values import one_of, photon_count, photons, within

WHITE = ("awgn_snr", "noise")  # flags of white noise


class Photons(Several):
    """One number, the two ends of a range, or none."""

    def __call__(self, parser, namespace, values, option_string=None):
        assert isinstance(values, list)
        if values == [None]:
            setattr(namespace, self.dest, None)
            return
        if None in values or len(values) > 2:
            raise ArgumentError(self, "give one number, the two ends of a range, or none")
        super().__call__(parser, namespace, values, option_string)


def limited(name: str):
    """A value of the light within its limits."""
    low, high, open_low = LIGHT_LIMITS[name]
    return within(low, high, open_low=open_low)


DETECTOR = {  # help and type of a flag
    "photon_budget": (
        "whether these are the photons of one pattern, or those of a whole frame, divided among "
        "its pairs of patterns",
        one_of(LIGHT_BUDGETS, "photon_budget"),
    ),
    "dark": ("offset of the detector in counts", limited("dark")),
    "dark_noise": ("standard deviation of a dark count", limited("dark_noise")),
    "gain": ("counts that a photon gives", limited("gain")),
}


def add_light(parser: Parser, group, table: dict) -> None:
    """The flags of the light of a physics of a table."""
    group.add_argument(
        "--photons",
        help="photons that a pixel of value 1 gives; of two values, each image gets one between "
        f"them, log-uniformly; none: no photon noise {defaults_of('photons', table)}",
        type=photons,
        nargs="+",
        action=Photons,
    )
    for name, (text, kind) in DETECTOR.items():
        group.add_argument(f"--{name}", type=kind, help=f"{text} {defaults_of(name, table)}")
    add_calibration(group)

    def complete(args: Namespace) -> None:
        if args.calibration and "gain" not in table[args.physics].flags:
            parser.error(f"physics '{args.physics}' does not read --calibration")
        if args.calibration:
            apply_calibration(args)

    def check(args: Namespace) -> None:
        if "gain" not in table[args.physics].flags:
            return
        if args.photons is None:
            check_unused(args)
        given = [name for name in WHITE if getattr(args, name) is not None]
        given += ["photons"] * (args.photons is not None)
        if len(given) > 1:
            raise UserError(
                f"{' and '.join(given)} are {len(given)} models of the same noise: give one of them"
            )

    parser.rules.append(complete)
    parser.checks.append(check)


def add_light_levels(parser: Parser) -> None:
    """The flags of a picture of what several numbers of photons give."""
    group = parser.add_argument_group("light")
    group.add_argument(
        "--photons",
        type=photon_count,
        nargs="+",
        action=Distinct,
        help="photons that a pixel of value 1 gives: draw the noise of back-projection and what "
        "is not measured, for every ratio",
    )
    defaults = {name: LIGHT[name] for name in DETECTOR}
    for name, (text, kind) in DETECTOR.items():
        if name != "dark":  # a difference of pairs has no offset
            default = defaults_of(name, {"spc": PHYSICS["spc"]})
            group.add_argument(f"--{name}", type=kind, help=f"{text} {default}")
    add_calibration(group)

    def complete(args: Namespace) -> None:
        if args.calibration:
            apply_calibration(args)
        for name, default in defaults.items():
            if getattr(args, name, default) is None:
                setattr(args, name, default)
        if not args.photons:
            check_unused(args)

    parser.checks.append(complete)


def add_calibration(group) -> None:
    group.add_argument(
        "--calibration",
        metavar="FILE",
        help="dark, dark_noise and gain of a detector, as calibrate.py wrote them",
    )


def check_unused(args: Namespace) -> None:
    """Refuses a detector without light."""
    if args.calibration:
        raise UserError(
            f"calibration {args.calibration}: it belongs to a camera that counts photons; give "
            "their number by --photons"
        )
    for name, default in LIGHT.items():
        value = getattr(args, name, None)
        if value is not None and value != default:
            raise UserError(
                f"{name} {value}: it belongs to a camera that counts photons; give their number "
                "by --photons"
            )


def apply_calibration(args: Namespace) -> None:
    """Fills the flags of the detector from --calibration; one that contradicts it is refused."""
    for name, value in read_calibration(args.calibration).items():
        typed = getattr(args, name, None)
        if typed is not None and typed != value:
            raise UserError(
                f"{name} {typed:g} contradicts --calibration {args.calibration}, "
                f"which has {value:g}: leave one of them out"
            )
        if hasattr(args, name):
            setattr(args, name, value)
        if hasattr(args, "typed"):
            args.typed.add(name)
