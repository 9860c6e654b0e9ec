"""Command lines: the flags that scripts share, one group a noun; importing this costs nothing."""

import json
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable
from pathlib import Path

from tables import (
    BATCH_NORMS,
    DATASETS,
    FIRST_IMAGES,
    LOSSES,
    OPTIMIZERS,
    ORDERINGS,
    PADDINGS,
    PHYSICS,
    SELECTIONS,
    TASK_LOSSES,
    Diverged,
    UserError,
)

# What may change between two calls without making them different experiments.
TECHNICAL = {
    "config", "device", "download", "dry_run", "num_workers", "overwrite", "results", "resume", "run_name", "wandb", "wandb_project",
}  # fmt: skip


class Parser(ArgumentParser):
    """argparse with one-line errors, both spellings of a flag, defaults in the help, and --config FILE under the command line."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=ArgumentDefaultsHelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_known_args(self, args=None, namespace=None):
        args = [self._spelling(word) for word in (sys.argv[1:] if args is None else args)]
        if "--config" in self._option_string_actions:
            finder = ArgumentParser(add_help=False, allow_abbrev=False)
            finder.add_argument("--config")
            path = finder.parse_known_args(args)[0].config
            if path:
                args = self._from_file(path) + args
        return super().parse_known_args(args, namespace)

    def typed(self, argv: list[str] | None) -> set[str]:
        """The settings that the command line or --config names, whatever their value."""
        unset = object()
        found = self.parse_args(argv, Namespace(**{action.dest: unset for action in self._actions}))
        return {name for name, value in vars(found).items() if value is not unset}

    def _spelling(self, word: str) -> str:
        """--awgn-snr for --awgn_snr, and --no_resume for --no-resume."""
        if not word.startswith("--"):
            return word
        name, equals, value = word.partition("=")
        known = {option.replace("-", "_"): option for option in self._option_string_actions}
        return known.get(name.replace("-", "_"), name) + equals + value

    def _from_file(self, path: str) -> list[str]:
        """The settings of a JSON or YAML file as command-line words."""
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            self.error(f"--config {path}: {error}")
        try:
            settings = json.loads(text)
        except json.JSONDecodeError:
            import yaml

            try:
                settings = yaml.safe_load(text)
            except yaml.YAMLError as error:
                self.error(f"--config {path} is neither JSON nor YAML: {' '.join(str(error).split())}")
        if not isinstance(settings, dict):
            self.error(f"--config {path}: expected settings 'name: value'")
        words = []
        for name, value in settings.items():
            option = self._spelling(f"--{name}")
            if option not in self._option_string_actions:
                self.error(f"--config {path}: unknown setting '{name}'")
            if isinstance(value, bool):
                word = option if value else self._spelling(f"--no_{name}")
                words += [word] if word in self._option_string_actions else []
            elif value is not None:
                words += [option, *map(str, value if isinstance(value, list) else [value])]
        return words


def one_of(names, what: str) -> Callable[[str], str]:
    """A name of a table in any case."""

    def name_of(text: str) -> str:
        if text.lower() not in names:
            raise ArgumentTypeError(f"unknown {what} '{text}': choose from {', '.join(names)}")
        return text.lower()

    return name_of


def ordering(text: str) -> str:
    return text if text.startswith("file:") and len(text) > 5 else one_of([*ORDERINGS, "file:PATH"], "ordering")(text)


def selection(text: str) -> str:
    """A selection of taps by its place in the list or its name."""
    if text.isdecimal() and int(text) < len(SELECTIONS):
        return SELECTIONS[int(text)]
    if text in SELECTIONS:
        return text
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(SELECTIONS))
    raise ArgumentTypeError(f"unknown selection '{text}': choose from {listed}")


def within(low: float, high: float, kind=float, open_low: bool = False) -> Callable[[str], float]:
    """A number of the interval [low, high], or (low, high]."""

    def number(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise ArgumentTypeError(f"'{text}' is not {'a whole number' if kind is int else 'a number'}") from None
        if not (low < value if open_low else low <= value) or not value <= high or value == float("inf"):
            top = f"{high}]" if high != float("inf") else "infinity)"
            raise ArgumentTypeError(f"{text} is outside {'(' if open_low else '['}{low}, {top}")
        return value

    return number


INFINITY = float("inf")
ratio = within(0, 1, open_low=True)
positive = within(0, INFINITY, open_low=True)
not_negative = within(0, INFINITY)
counting = within(1, INFINITY, int)
natural = within(0, INFINITY, int)


decibels = within(-100, 200)


def noise_level(text: str) -> float | None:
    """dB, or none for measurements without noise."""
    return None if text == "none" else decibels(text)


def gamma(text: str) -> str | float:
    return text if text == "auto" else positive(text)


def add_data(parser: Parser, n_default: int | None = 32, c_default: int | None = 1, limits=("train", "val", "test")) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", type=one_of(DATASETS, "dataset"), default="photos", help=f"one of {', '.join(DATASETS)}")
    group.add_argument("--data_root", default="data", help="folder of the data set's files; the file itself for npz")
    group.add_argument("--download", action="store_true", help="fetch a torchvision data set that is not there")
    group.add_argument("--n", type=within(2, 4096, int), default=n_default, help="side of the images in pixels")
    group.add_argument("--c", type=int, choices=(1, 3), default=c_default, help="channels: grey or RGB")
    group.add_argument("--crop", choices=("center", "none"), default="center", help="central square first, or the whole image resized")
    for split in limits:
        group.add_argument(f"--limit_{split}", type=counting, help=f"use only so many {split} images, a fixed random subset")


def add_loading(parser: Parser) -> None:
    group = parser.add_argument_group("loading")
    group.add_argument("--batch_size", type=counting, default=16, help="images a step")
    group.add_argument("--num_workers", type=natural, default=0, help="processes that load data; 0 is the main one")


def add_patterns(parser: Parser) -> None:
    group = parser.add_argument_group("patterns")
    group.add_argument("--physics", type=one_of(PHYSICS, "physics"), default="spc", help="what a network sees: the single-pixel camera")
    group.add_argument("--ordering", type=ordering, default="xy", help=f"{', '.join(ORDERINGS)} or file:PATH.npy")


def add_physics(parser: Parser) -> None:
    add_patterns(parser)
    group = parser.add_argument_group("first image and noise")
    group.add_argument("--x0", type=one_of(FIRST_IMAGES, "first image"), default="adjoint", help="first image: adjoint or lmmse")
    group.add_argument("--awgn_snr", type=decibels, help="dB of signal to noise on the measurements; none without it")


def add_ratio(parser: Parser, student: bool = False) -> None:
    """--cr, or the ratios of a mixture; exactly one of them."""
    group = parser.add_argument_group("ratio").add_mutually_exclusive_group(required=True)
    spellings = ("--cr", "--cr_student") if student else ("--cr",)
    group.add_argument(*spellings, dest="cr", type=ratio, help="measurements / pixels, in (0, 1]")
    group.add_argument("--crs_expert", type=ratio, nargs="+", metavar="CR", help="one network for several ratios, drawn per batch")


def add_network(parser: Parser, student: bool = False) -> None:
    group = parser.add_argument_group("network (the student's)" if student else "network")
    alias = (lambda flag: (f"--{flag}", f"--student_{flag}")) if student else (lambda flag: (f"--{flag}",))
    group.add_argument(*alias("scales"), type=within(2, 5, int), default=2, help="resolutions of the U-Net")
    group.add_argument(*alias("width"), type=counting, default=64, help="channels at full resolution, doubled at each further one")
    group.add_argument("--batch_norm", type=one_of(BATCH_NORMS, "batch_norm"), default="off", help=f"one of {', '.join(BATCH_NORMS)}")
    group.add_argument("--padding", type=one_of(PADDINGS, "padding"), default="zeros", help=f"one of {', '.join(PADDINGS)}")


def add_training(parser: Parser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", "--iters", type=counting, default=20, help="passes over the training images")
    group.add_argument("--lr", type=positive, default=2e-3, help="highest learning rate")
    group.add_argument("--optimizer", type=one_of(OPTIMIZERS, "optimizer"), default="adamw", help=f"one of {', '.join(OPTIMIZERS)}")
    group.add_argument("--weight_decay", type=not_negative, default=1e-4, help="decoupled for adamw, coupled for adam and sgd")
    group.add_argument("--schedule", choices=("cosine", "constant"), default="cosine", help="of the learning rate")
    group.add_argument("--warmup", type=not_negative, default=0.5, help="epochs of linear warm-up")
    group.add_argument("--ema", type=within(0, 0.999999), default=0.0, help="decay of a moving average of the weights; 0 is none")
    group.add_argument("--grad_clip", type=not_negative, default=1.0, help="largest norm of the gradient; 0 is no limit")
    group.add_argument("--seed", type=natural, default=42, help="of weights, order, augmentation and noise")
    group.add_argument("--device", default="auto", help="auto, cpu (= -1), cuda, cuda:N (= N)")


def add_run(parser: Parser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--results", default="results", help="folder of everything that is written")
    group.add_argument("--run_name", help="name of the run folder; made from the configuration without it")
    group.add_argument("--overwrite", action="store_true", help="replace a run or an exported file of another configuration")
    group.add_argument("--resume", action=BooleanOptionalAction, default=True, help="go on with an unfinished run, else start again")
    group.add_argument("--wandb", choices=("auto", "online", "offline", "disabled"), default="auto", help="auto is online where logged in")
    group.add_argument("--wandb_project", default="DistillPool", help="project at Weights & Biases")
    group.add_argument("--config", metavar="FILE", help="JSON or YAML of these flags; the command line wins")
    group.add_argument("--dry_run", action="store_true", help="print the resolved configuration and stop")


def add_distillation(parser: Parser) -> None:
    group = parser.add_argument_group("distillation")
    group.add_argument("--type_dist", type=selection, default="output_latent", help="taps to compare: 0..12 or a name")
    group.add_argument("--loss_distill", type=one_of(LOSSES, "loss"), default="mse", help=f"one of {', '.join(LOSSES)}")
    group.add_argument("--loss_gt", type=one_of(TASK_LOSSES, "loss"), default="mae", help="task loss against the target")
    group.add_argument("--alpha", type=not_negative, default=1.0, help="multiplies the distillation loss and its default weight")
    group.add_argument("--beta", type=not_negative, default=1.0, help="multiplies the task loss")
    group.add_argument("--gamma", type=gamma, help="kernel width of comb_matrix: a number or auto (its default)")
    group.add_argument("--sup_loss", type=int, choices=(0, 1), default=1, help="target: 1 the image, 0 the teacher's output")
    group.add_argument("--awgn_teacher", action="store_true", help="noise of --awgn_snr on the teacher's measurements too")


def add_teacher(parser: Parser) -> None:
    group = parser.add_argument_group("teacher")
    group.add_argument("--teacher", metavar="PATH", help="its checkpoint; else the exported UNET_cr_<cr_teacher>.pth")
    ratios = group.add_mutually_exclusive_group()
    ratios.add_argument("--cr_teacher", type=ratio, help="its ratio")
    ratios.add_argument("--crs_expert_teacher", type=ratio, nargs="+", metavar="CR", help="its ratios, if it learnt a mixture")
    group.add_argument("--ordering_teacher", type=ordering, help="its ordering, only for a release .pth that does not tell")


def identity(args: Namespace) -> dict:
    """The settings that make a run what it is."""
    return {name: value for name, value in sorted(vars(args).items()) if name not in TECHNICAL}


def run(parse: Callable, main: Callable) -> None:
    """The entry point of a script: a user's mistake is one line and exit code 2."""
    try:
        main(parse())
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except Diverged as error:
        print(f"{Path(sys.argv[0]).name}: stopped: {error}", file=sys.stderr)
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(130)
