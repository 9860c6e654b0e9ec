"""The flags of physics and networks."""

from argparse import BooleanOptionalAction, Namespace

from cli import checks
from cli.data_flags import defaults_of, refuse_with_recording
from cli.light_flags import add_light
from core import own
from core.errors import UserError
from core.registry import (
    BATCH_NORMS,
    CLASSIFIERS,
    CONSISTENCIES,
    DEGRADATIONS,
    FIRST_IMAGES,
    KERNELS,
    MASK_TYPES,
    NETWORKS,
    ORDERINGS,
    PADDINGS,
    READ_MEASUREMENTS,
    RESIZES,
    RESTORED,
)
from parsing.parser import Parser, Several
from parsing.values import (
    counting,
    decibels,
    degradation,
    named_value,
    network,
    one_of,
    ordering,
    physics_of,
    positive,
    ratio,
    sigma,
    within,
)

VALIDATED_RATIOS = 6  # of a range


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
        refuse_with_recording(parser, args, ("ordering", "block", "cr_range"))

    parser.rules += [check_pairs, check_recorded, fill_ratios]
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
    add(
        "--cr_range",
        "two ratios for one network: every batch gets one between them, log-uniformly; it is "
        f"validated at those of --crs_expert, by default at {VALIDATED_RATIOS} of them",
        type=ratio,
        nargs=2,
        metavar=("LOW", "HIGH"),
    )
    add("--ordering", f"{', '.join(ORDERINGS)} or file:PATH.npy", type=ordering)
    add(
        "--block",
        "side of the blocks in which larger images are measured, one after the other; without it "
        "an image is measured as a whole",
        type=within(2, 4096, int),
    )
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
    add(
        "--noise",
        "standard deviation of white noise on every value of orthonormal patterns, for images in "
        "[0, 1]; without it there is none",
        type=positive,
    )
    if any("photons" in entry.flags for entry in table.values()):
        add_light(parser, group, table)


def fill_ratios(args: Namespace) -> None:
    """The ratios at which a network of a range of them is validated, evenly on a log scale."""
    if getattr(args, "cr_range", None) is None:
        return
    low, high = args.cr_range
    if low >= high:
        raise UserError(f"cr_range {low:g} {high:g}: give a lower ratio and a higher one")
    if args.cr is None:
        steps = VALIDATED_RATIOS - 1
        ratios = [low * (high / low) ** (k / steps) for k in range(VALIDATED_RATIOS)]
        args.cr = [float(f"{cr:.2g}") for cr in ratios[1:-1]]
        args.cr = [low, *args.cr, high]
    given = args.cr if isinstance(args.cr, list) else [args.cr]
    outside = [f"{cr:g}" for cr in given if not low <= cr <= high]
    if outside or len(given) < 2:
        raise UserError(
            f"cr_range {low:g} {high:g} is validated at the ratios of --crs_expert, several "
            f"between its ends; {', '.join(outside) or 'one alone'} is not allowed"
        )


def add_ratios(group, table: dict) -> None:
    ratios = group.add_mutually_exclusive_group()
    how = {"dest": "cr", "type": ratio, "nargs": "+", "action": Several, "metavar": "CR"}
    ratios.add_argument(
        "--cr",
        "--cr_student",
        **how,
        help=f"ratio: measurements / pixels, in (0, 1] {defaults_of('cr', table)}",
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
    add("network", f"one of {names}, or your own, my.py:MyNet", type=network, default="unet")
    add("scales", "number of resolutions", type=within(2, 5, int))
    add("width", "channels at full resolution, doubled at each further one", type=counting)
    add("channels", "channels of all blocks", old=("features",), type=counting)
    add("blocks", "number of blocks, or of blocks at each resolution", type=counting)
    add("stages", "steps towards the measurements, with a denoiser each", type=counting)
    add("share", "one denoiser for all stages", action=BooleanOptionalAction)
    add("growth", "channels that each convolution of a dense block adds", type=counting)
    group.add_argument(
        "--consistency",
        choices=CONSISTENCIES,
        default="none",
        help="range: what was measured is taken from the measurements, less where they are noisy, "
        "and the network is left the rest",
    )
    group.add_argument(
        "--set",
        type=named_value,
        nargs="+",
        metavar="NAME=VALUE",
        help="arguments of your own network, physics, losses or teacher",
    )
    group.add_argument(
        "--layers",
        type=named_value,
        nargs="+",
        metavar="LAYER=SUBMODULE",
        help="what of your own network distillation compares, under names as --type_dist has them, "
        "such as latent=encoder.3",
    )
    parser.rules += [
        lambda args: check_own(args, parser),
        lambda args: check_measurements(args, parser),
    ]
    norms, paddings = ", ".join(BATCH_NORMS), ", ".join(PADDINGS)
    add("batch_norm", f"one of {norms}", type=one_of(BATCH_NORMS, "batch_norm"))
    add("padding", f"one of {paddings}", type=one_of(PADDINGS, "padding"))


def check_own(args: Namespace, parser: Parser) -> None:
    """Refuses arguments of a network of the user's where there is none."""
    for flag in ("set", "layers"):
        words = getattr(args, flag)
        losses = [own.split_word(word)[0] for word in getattr(args, "loss_distill", None) or ()]
        others = [args.physics, getattr(args, "teacher", None) or "", *losses]
        here = own.is_own(args.network) or (flag == "set" and any(map(own.is_own, others)))
        if words and not here:
            parser.error(f"{flag} {words[0]}: it is for a network of your own, not {args.network}")
        names = [word.partition("=")[0] for word in words or []]
        if len({*names}) < len(names):
            parser.error(f"{flag} {' '.join(words)}: a name is given twice")


def check_measurements(args: Namespace, parser: Parser) -> None:
    """Refuses networks that read measurements where there are none on the grid of the patterns."""
    named = f"--network {args.network}" if args.network in READ_MEASUREMENTS else ""
    named = "--consistency range" if args.consistency == "range" else named
    if named and args.physics not in ("spc", "cs"):
        parser.error(
            f"{named} reads the measurements of a single-pixel camera: it needs --physics spc, "
            f"not {args.physics}"
        )
    if named and getattr(args, "labels", None) in ("r2r", "splitting"):
        parser.error(
            f"--labels {args.labels} changes the values behind the back of {named}, which reads "
            "them with their noise; choose other --labels"
        )


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
    add("batch_norm", "whether there is batch normalisation", choices=("on", "off"))
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
        help="shift and mirror training images; mnist is only shifted, and digits and recorded "
        "frames stay as they are",
    )
