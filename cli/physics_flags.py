"""The flags of physics and networks."""

from argparse import ArgumentError, BooleanOptionalAction, Namespace

from cli import checks
from cli.data_flags import defaults_of, refuse_with_recording
from cli.parser import Parser, Several
from cli.values import (
    counting,
    decibels,
    degradation,
    one_of,
    ordering,
    photons,
    physics_of,
    positive,
    ratio,
    sigma,
    within,
)
from core.errors import UserError
from core.inputs import read_calibration
from core.registry import (
    BATCH_NORMS,
    CLASSIFIERS,
    DEGRADATIONS,
    FIRST_IMAGES,
    KERNELS,
    LIGHT,
    LIGHT_BUDGETS,
    LIGHT_LIMITS,
    MASK_TYPES,
    NETWORKS,
    ORDERINGS,
    PADDINGS,
    RESIZES,
    RESTORED,
)


def add_patterns(parser: Parser) -> None:
    group = parser.add_argument_group("patterns")
    group.add_argument(
        "--ordering", type=ordering, default="xy", help=f"{', '.join(ORDERINGS)} or file:PATH.npy"
    )


def add_physics(parser: Parser, table: dict = RESTORED, default: str = "spc") -> None:
    """The flags of every physics; the table says which of them a physics reads."""
    parser.choosers["physics"] = table

    def check_pairs(args: Namespace) -> None:
        if args.dataset == "paired" and args.physics != "given":
            parser.error(
                "dataset 'paired' has its own degraded pictures: "
                f"it needs --physics given, not {args.physics}"
            )

    def check_side(args: Namespace) -> None:
        if parser.demanding:  # else the physics may be a checkpoint's
            checks.check_physics_side(args)

    def check_recorded(args: Namespace) -> None:
        if args.dataset != "recorded":
            return
        if args.physics != "spc":
            parser.error(
                "dataset 'recorded' was measured by a single-pixel camera: "
                f"it needs --physics spc, not {args.physics}"
            )
        refuse_with_recording(parser, args, ("ordering",))

    parser.rules += [check_pairs, check_recorded]
    parser.checks.append(check_side)
    group = parser.add_argument_group(
        "physics; in brackets are the physics that read a flag, with their defaults"
    )
    group.add_argument(
        "--physics",
        type=physics_of(table),
        default=default,
        help=f"how images are measured: {', '.join(table)}",
    )

    def add(flag: str, text: str, **how) -> None:
        if any(flag[2:] in entry.flags for entry in table.values()):
            group.add_argument(flag, help=f"{text} {defaults_of(flag[2:], table)}", **how)

    add_ratios(group, table)
    add("--ordering", f"{', '.join(ORDERINGS)} or file:PATH.npy", type=ordering)
    add(
        "--sigma",
        "noise on the 0..255 scale; of two values, each image gets one between them",
        type=sigma,
        nargs="+",
        action=Several,
    )
    add("--factor", "how many times smaller the image is along a side", type=within(2, 16, int))
    add("--kernel", f"one of {', '.join(KERNELS)}", type=one_of(KERNELS, "kernel"))
    add(
        "--blur_width",
        "deviation of a Gaussian, side of a box or length of a motion, in pixels",
        type=positive,
    )
    add("--acceleration", "how many times fewer lines of k-space", type=within(2, 64, int))
    add(
        "--mask_type",
        f"choice of the lines beside the central ones: {', '.join(MASK_TYPES)}",
        type=one_of(MASK_TYPES, "mask_type"),
    )
    add(
        "--degradation",
        f"strengths: {', '.join(DEGRADATIONS)}, or your own in file:PATH.yml",
        type=degradation,
    )
    add("--lessen_ratio", "how many times smaller along a side", type=within(1, 4096))
    add("--resize", f"one of {', '.join(RESIZES)}", type=one_of(RESIZES, "resize"))
    add(
        "--x0",
        "first image, which is the network's input: adjoint or lmmse",
        type=one_of(FIRST_IMAGES, "first image"),
    )
    add(
        "--awgn_snr",
        "signal-to-noise ratio of the measurements in dB; without it there is no noise",
        type=decibels,
    )
    if any("photons" in entry.flags for entry in table.values()):
        add_light(parser, group, table)


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


def add_light(parser: Parser, group, table: dict) -> None:
    """The flags of a camera that counts photons."""

    def add(flag: str, text: str, **how) -> None:
        group.add_argument(flag, help=f"{text} {defaults_of(flag[2:], table)}", **how)

    add(
        "--photons",
        "photons that a pixel of value 1 gives; of two values, each image gets one between them, "
        "log-uniformly; none: no photon noise",
        type=photons,
        nargs="+",
        action=Photons,
    )
    add(
        "--photon_budget",
        "whether these are the photons of one pattern, or those of a whole frame, divided among "
        "its patterns",
        type=one_of(LIGHT_BUDGETS, "photon_budget"),
    )
    add("--dark", "offset of the detector in counts", type=limited("dark"))
    add("--dark_noise", "standard deviation of a dark count", type=limited("dark_noise"))
    add("--gain", "counts that a photon gives", type=limited("gain"))
    add_calibration(group)

    def complete(args: Namespace) -> None:
        if args.calibration and "gain" not in table[args.physics].flags:
            parser.error(f"physics '{args.physics}' does not read --calibration")
        if args.calibration:
            apply_calibration(args)

    def check(args: Namespace) -> None:
        if args.photons is None and "gain" in table[args.physics].flags:
            for name, default in LIGHT.items():
                if getattr(args, name) != default:
                    parser.error(
                        f"{name} {getattr(args, name)}: it belongs to a camera that counts "
                        "photons; give their number by --photons"
                    )
        elif getattr(args, "awgn_snr", None) is not None and args.photons is not None:
            parser.error("photons and awgn_snr are two models of the same noise: give one of them")

    parser.rules.append(complete)
    parser.checks.append(check)


def add_calibration(group) -> None:
    group.add_argument(
        "--calibration",
        metavar="FILE",
        help="dark, dark_noise and gain of a camera, as calibrate.py wrote them",
    )


def limited(name: str):
    """A value of the light within its limits."""
    low, high, open_low = LIGHT_LIMITS[name]
    return within(low, high, open_low=open_low)


def apply_calibration(args: Namespace) -> None:
    """Fills the flags of the detector from --calibration; one that contradicts it is refused."""
    for name, value in read_calibration(args.calibration).items():
        typed = getattr(args, name)
        if typed is not None and typed != value:
            raise UserError(
                f"{name} {typed:g} contradicts --calibration {args.calibration}, "
                f"which has {value:g}: leave one of them out"
            )
        setattr(args, name, value)
        if hasattr(args, "typed"):
            args.typed.add(name)


def add_ratios(group, table: dict) -> None:
    ratios = group.add_mutually_exclusive_group()
    how = {"dest": "cr", "type": ratio, "nargs": "+", "action": Several, "metavar": "CR"}
    ratios.add_argument(
        "--cr",
        "--cr_student",
        **how,
        help=f"measurements / pixels, in (0, 1] {defaults_of('cr', table)}",
    )
    ratios.add_argument(
        "--crs_expert",
        **how,
        help="several ratios for one network: a mixture, of which every batch gets one",
    )


def add_network(parser: Parser, student: bool = False) -> None:
    """The flags of every network; the table says which of them a network reads."""
    parser.choosers["network"] = NETWORKS
    group = parser.add_argument_group("network (the student's)" if student else "network")

    def add(flag: str, text: str, old: tuple[str, ...] = (), **how) -> None:
        names = (flag, *old)
        flags = [f"--{name}" for name in names]
        if student:
            flags += [f"--student_{name}" for name in names]
        readers = "" if flag == "network" else f" {defaults_of(flag, NETWORKS)}"
        group.add_argument(*flags, dest=flag, help=text + readers, **how)

    names = ", ".join(NETWORKS)
    add("network", f"one of {names}", type=one_of(NETWORKS, "network"), default="unet")
    add("scales", "number of resolutions", type=within(2, 5, int))
    add("width", "channels at full resolution, doubled at each further one", type=counting)
    add("channels", "channels of all blocks", old=("features",), type=counting)
    add("blocks", "number of blocks, or of blocks at each resolution", type=counting)
    add("growth", "channels that each convolution of a dense block adds", type=counting)
    norms, paddings = ", ".join(BATCH_NORMS), ", ".join(PADDINGS)
    add("batch_norm", f"one of {norms}", type=one_of(BATCH_NORMS, "batch_norm"))
    add("padding", f"one of {paddings}", type=one_of(PADDINGS, "padding"))


def add_classifier(parser: Parser) -> None:
    """The flags of every classifier; `--model` selects it."""
    parser.choosers["network"] = CLASSIFIERS
    group = parser.add_argument_group("classifier")

    def add(flag: str, text: str, **how) -> None:
        group.add_argument(f"--{flag}", help=f"{text} {defaults_of(flag, CLASSIFIERS)}", **how)

    group.add_argument(
        "--model",
        dest="network",
        type=one_of(CLASSIFIERS, "model"),
        default="resnet8",
        help=f"one of {', '.join(CLASSIFIERS)}",
    )
    add("width", "channels of the first stage; the defaults are the published ones", type=counting)
    add(
        "stem",
        "large: 7 x 7 with stride 2 and pooling; small: 3 x 3; auto: small below 64 pixels",
        choices=("auto", "large", "small"),
    )
    add("batch_norm", "whether batches are normalised", choices=("on", "off"))
    add("patch", "side of a patch in pixels", type=counting)
    add(
        "pretrained",
        "begin with published weights, which are cached or fetched by --download",
        action=BooleanOptionalAction,
    )
    group.add_argument(
        "--label_smoothing",
        type=within(0, 1),
        default=0.0,
        help="share of the target that is spread over all classes",
    )
    group.add_argument(
        "--augment",
        action=BooleanOptionalAction,
        default=True,
        help="shift training images, and mirror them unless they are digits",
    )
