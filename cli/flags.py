"""Everything that a script's parser is made of; importing it takes no time."""

from argparse import BooleanOptionalAction

from cli.data_flags import (
    BARE,
    add_bare,
    add_code,
    add_data,
    add_labelled,
    add_loading,
    defaults_of,
)
from cli.distillation_flags import (
    add_class_distillation,
    add_class_teacher,
    add_class_training,
    add_distillation,
    add_self_ensemble,
    add_style,
    add_teacher,
    add_untrained_teacher,
    checkpoints,
    distillation_defaults,
)
from cli.laboratory_flags import SCENES, add_import, add_simulation
from cli.light_flags import add_calibration, add_light_levels
from cli.physics_flags import (
    add_classifier,
    add_network,
    add_patterns,
    add_physics,
)
from cli.recorded_flags import add_recorded, add_truth
from cli.training_flags import (
    LATER,
    RENAMED,
    TECHNICAL,
    add_cluster,
    add_config,
    add_device,
    add_results,
    add_run,
    add_training,
    changes,
    identity,
    with_command,
)
from core.ending import run
from core.errors import UserError
from core.registry import (
    BALANCES,
    CLASS_LOSSES,
    CLASSIFIERS,
    DEMOS,
    EXPORTS,
    LABELLED,
    NETWORKS,
    PHYSICS,
    TASK_LOSSES,
    TRAINING,
)
from parsing.parser import Distinct, Parser, Several
from parsing.values import (
    assignment,
    counting,
    name,
    natural,
    network_file,
    noise_level,
    number_or_auto,
    one_of,
    photon_count,
    photons,
    ratio,
    side,
    sigma,
    weighted,
    white_noise,
    within,
)

gain = number_or_auto  # of predict.py's --scale


def add_scoring(parser: Parser) -> None:
    group = parser.add_argument_group("scores")
    group.add_argument(
        "--crop_border",
        type=natural,
        default=0,
        metavar="PIXELS",
        help="width of the image border that is left out of the scores",
    )
    group.add_argument("--y_channel", action="store_true", help="score only the luma of RGB images")


def add_evaluation(parser: Parser):
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--awgn_snr",
        type=noise_level,
        nargs="+",
        action=Distinct,
        help="noise levels in dB, or none for no noise; without it the checkpoint's",
    )
    group.add_argument(
        "--noise",
        type=white_noise,
        nargs="+",
        action=Distinct,
        help="noise on every value of a single-pixel camera, or none; without it the checkpoint's",
    )
    group.add_argument(
        "--photons",
        type=photons,
        nargs="+",
        action=Distinct,
        help="photons of a single-pixel camera, or none for no noise; without it the checkpoint's",
    )
    add_calibration(group)
    group.add_argument(
        "--sigma",
        type=sigma,
        nargs="+",
        action=Distinct,
        help="noise levels of physics denoise, on the 0..255 scale",
    )
    group.add_argument("--seed", type=natural, default=42, help="seed of the noise")
    add_device(parser, group)
    add_results(parser, group)
    add_config(group)
    return group


__all__ = [
    "BALANCES",
    "BARE",
    "CLASSIFIERS",
    "CLASS_LOSSES",
    "DEMOS",
    "EXPORTS",
    "LABELLED",
    "LATER",
    "NETWORKS",
    "PHYSICS",
    "RENAMED",
    "SCENES",
    "TASK_LOSSES",
    "TECHNICAL",
    "TRAINING",
    "BooleanOptionalAction",
    "Distinct",
    "Parser",
    "Several",
    "UserError",
    "add_bare",
    "add_calibration",
    "add_class_distillation",
    "add_class_teacher",
    "add_class_training",
    "add_classifier",
    "add_cluster",
    "add_code",
    "add_config",
    "add_data",
    "add_device",
    "add_distillation",
    "add_evaluation",
    "add_import",
    "add_labelled",
    "add_light_levels",
    "add_loading",
    "add_network",
    "add_patterns",
    "add_physics",
    "add_recorded",
    "add_results",
    "add_run",
    "add_scoring",
    "add_self_ensemble",
    "add_simulation",
    "add_style",
    "add_teacher",
    "add_training",
    "add_truth",
    "add_untrained_teacher",
    "assignment",
    "changes",
    "checkpoints",
    "counting",
    "defaults_of",
    "distillation_defaults",
    "gain",
    "identity",
    "name",
    "natural",
    "network_file",
    "noise_level",
    "one_of",
    "photon_count",
    "photons",
    "ratio",
    "run",
    "side",
    "sigma",
    "weighted",
    "white_noise",
    "with_command",
    "within",
]
