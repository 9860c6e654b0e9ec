"""The flags of recordings: of a simulated campaign, and of files that are imported."""

from dataclasses import replace

from cli.data_flags import add_data
from cli.physics_flags import add_physics
from core.registry import DATASETS, PHYSICS, Entry
from parsing.parser import Parser
from parsing.values import counting, import_order, natural, positive, scaling, within

SCENES = {  # datasets of clean images
    name: line
    for name, line in DATASETS.items()
    if not isinstance(line, Entry) and name != "recorded"
}
WITHOUT = ("x0", "block", "cr_range")  # flags of the camera that a recording does not have


def add_simulation(parser: Parser) -> None:
    """Which scenes an apparatus records, and its imperfections."""
    group = parser.add_argument_group("simulate: scenes")
    group.add_argument(
        "--frames", type=counting, default=500, help="recorded training images of the dataset"
    )
    group.add_argument(
        "--test_frames", type=counting, default=1000, help="recorded test images of the dataset"
    )
    group.add_argument("--labels", action="store_true", help="keep the classes of the scenes")
    group.add_argument(
        "--seed",
        type=natural,
        default=42,
        help="seed of the training images that are recorded, of noise and of drift",
    )
    add_data(parser, limits=(), table=SCENES)
    camera = PHYSICS["spc"]
    settings = {flag: value for flag, value in camera.flags.items() if flag not in WITHOUT}
    add_physics(parser, {"spc": replace(camera, flags=settings)})
    group = parser.add_argument_group("simulate: imperfections of the apparatus")
    group.add_argument(
        "--drift",
        type=within(0, 1),
        default=0.0,
        help="largest share by which the light changes from the first to the last pattern",
    )
    group.add_argument(
        "--vignetting", type=within(0, 1), default=0.0, help="share of the light lost in corners"
    )
    group.add_argument(
        "--blur",
        type=within(0, 8),
        default=0.0,
        help="deviation in pixels of the Gaussian that blurs the patterns",
    )


def add_import(parser: Parser) -> None:
    """Which files are imported, and how they are to be understood."""
    group = parser.add_argument_group("import")
    group.add_argument(
        "--input",
        metavar="PATH",
        help="a file .npy, .csv, .mat or .h5 with shape (frames, values), a folder with one file a "
        "frame, or a folder of SPAS",
    )
    group.add_argument("--key", help="array of a .mat or .h5 file that has several")
    group.add_argument(
        "--frames_in", choices=("rows", "columns"), default="rows", help="where a table has frames"
    )
    group.add_argument(
        "--order",
        type=import_order,
        help="order of the patterns: natural (rows of scipy.linalg.hadamard), walsh (sequency of "
        "rows, then of columns), listed:FILE with the natural number of each, or an --ordering",
    )
    group.add_argument(
        "--pairs",
        choices=("interleaved", "stacked", "none"),
        help="values of pairs of patterns: y+ y- y+ y-, or all y+ before all y-; without it none, "
        "for values that are differences already",
    )
    group.add_argument(
        "--scale",
        type=scaling,
        default="auto",
        help="factor for values of ±1 patterns, so that images are in [0, 1]; auto: one for all "
        "frames; frame: one for each",
    )
    group.add_argument(
        "--bands", type=positive, nargs=2, metavar="NM", help="limits of the wavelengths of SPAS"
    )
    group.add_argument(
        "--band_count", type=counting, help="bins of wavelengths, each of which is a frame; 1"
    )
    group.add_argument(
        "--test_share", type=within(0, 1), default=0.2, help="share of the frames for the test"
    )
    group.add_argument(
        "--on_bad_frame",
        choices=("stop", "skip", "keep"),
        default="stop",
        help="stop at a frame that does not fit the patterns, leave it out, or keep it",
    )
