"""How a command line is read: one-line errors, both spellings of a flag, files of settings, and the values that flags take."""

import json
import re
import sys
from argparse import (
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
)
from collections.abc import Callable

from core.ending import said
from core.errors import UserError, in_a_line
from core.inputs import existing_file
from core.registry import DEGRADATION_VALUES, DEGRADATIONS, ORDERINGS, SELECTIONS, load

EPOCHS = 20  # unless --epochs or --steps says otherwise


class Formatter(ArgumentDefaultsHelpFormatter):
    """Defaults in the help, where a flag has one of its own."""

    def _get_help_string(self, action: Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


class Distinct(Action):
    """Several values, none of them twice."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if values.count(value) > 1:
                shown = (
                    "none" if value is None else f"{value:g}" if isinstance(value, float) else value
                )
                raise ArgumentError(self, f"{shown} is given {values.count(value)} times")
        setattr(namespace, self.dest, values)


class Several(Distinct):
    """One number as it is, several as a sorted list."""

    def __call__(self, parser, namespace, values, option_string=None):
        super().__call__(parser, namespace, values, option_string)
        setattr(namespace, self.dest, values[0] if len(values) == 1 else sorted(values))


class Parser(ArgumentParser):
    """argparse with one-line errors, both spellings of a flag, defaults in the help, and --config FILE under the command line.

    A flag in `choosers` names an entry of a table; the flags that the entry reads get its defaults, all others are refused.
    """

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=Formatter, allow_abbrev=False)
        self.choosers: dict[str, dict] = {}
        # What must hold between flags as they are typed, what between flags with their defaults,
        # and what must be there of the files that a user names.
        self.rules: list[Callable[[Namespace], None]] = []
        self.checks: list[Callable[[Namespace], object]] = []
        self.files: list[Callable[[Namespace], None]] = []
        self.known: dict[str, str] = {}  # flags by their spelling with underscores
        self.demanding = True  # a flag without a default must be given
        self.records_typed = False  # whether `typed` holds the settings that were typed

    def parse_args(self, args=None, namespace=None):
        from_shell = args is None  # another script may still have to make the files that it names
        typed = self._typed(args) if self.records_typed else None
        args = super().parse_args(args, namespace)
        if typed is not None:
            args.typed = typed
        for rule in self.rules:
            rule(args)
        for chooser, table in self.choosers.items():
            self._settle(args, chooser, table)
        if getattr(args, "steps", 0) is None and getattr(args, "epochs", 0) is None:
            args.epochs = EPOCHS
        for check in self.checks + (self.files if from_shell else []):
            check(args)
        return args

    def _settle(self, args: Namespace, chooser: str, table: dict) -> None:
        chosen = getattr(args, chooser)
        for flag in dict.fromkeys(
            flag for entry in table.values() for flag in entry.flags if hasattr(args, flag)
        ):
            reads = table[chosen].flags
            if flag not in reads and getattr(args, flag) is not None:
                self.error(
                    f"{chooser} '{chosen}' does not read --{flag}: it reads {', '.join('--' + name for name in reads) or 'no flag of its own'}"
                )
            if flag in reads and getattr(args, flag) is None:
                if reads[flag] is ... and self.demanding:
                    self.error(f"{chooser} '{chosen}' needs --{flag}")
                setattr(args, flag, None if reads[flag] is ... else reads[flag])

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {in_a_line(message)}\n")

    def parse_known_args(self, args=None, namespace=None):
        args = [self._spelling(word) for word in (sys.argv[1:] if args is None else args)]
        if "--config" in self._option_string_actions:
            finder = ArgumentParser(add_help=False, allow_abbrev=False)
            finder.add_argument("--config", nargs="?")
            path = finder.parse_known_args(args)[0].config
            if path:
                args = self._from_file(path) + args
        return super().parse_known_args(args, namespace)

    def _typed(self, argv: list[str] | None) -> set[str]:
        """The settings that the command line or --config names, whatever their value."""
        unset = object()
        blank = Namespace(**{action.dest: unset for action in self._actions})
        parsed = super().parse_args(argv, blank)
        return {name for name, value in vars(parsed).items() if value is not unset}

    def _spelling(self, word: str) -> str:
        """--awgn-snr for --awgn_snr, and --no_resume for --no-resume."""
        if not word.startswith("--"):
            return word
        name, equals, value = word.partition("=")
        if len(self.known) < len(self._option_string_actions):  # flags that were added since
            options = self._option_string_actions
            self.known = {option.replace("-", "_"): option for option in options}
        return self.known.get(name.replace("-", "_"), name) + equals + value

    def _from_file(self, path: str) -> list[str]:
        """The settings of a JSON or YAML file as command-line words."""
        where = f"--config {path}"
        return self.words_of(self.settings_in(path, where), where)

    def settings_in(self, path: str, where: str) -> dict:
        """What a JSON or YAML file says, name by name."""
        try:
            return read_settings(path, where)
        except UserError as error:
            self.error(str(error))

    def option(self, name: str) -> str | None:
        """The flag that a setting's name stands for, if there is one."""
        option = self._spelling(f"--{name}")
        if option in self._option_string_actions:
            return option
        return next(
            (
                action.option_strings[0]
                for action in self._actions
                if action.dest == name and action.option_strings
            ),
            None,
        )  # --model: network

    def words_of(self, settings: dict, where: str) -> list[str]:
        """Settings as command-line words."""
        words = []
        for name, value in settings.items():
            option = self.option(str(name))
            if option is None:
                self.error(f"{where}: unknown setting '{name}'")
            action = self._option_string_actions[option]
            takes_value = action.nargs != 0
            if isinstance(value, list) and action.nargs is None:
                self.error(f"{where}: {name} takes one value, not the list {value}")
            if not isinstance(value, bool | None) and not takes_value:
                self.error(f"{where}: {name} is true or false, not {in_a_line(str(value))}")
            if isinstance(value, bool) and takes_value:
                words += [option, "on" if value else "off"]  # YAML's other spelling of these words
            elif isinstance(value, bool):
                word = option if value else self._spelling(f"--no_{name}")
                words += [word] if word in self._option_string_actions else []
            elif value is not None:
                words += [option, *map(as_word, value if isinstance(value, list) else [value])]
        return words


def read_settings(path: str, where: str) -> dict:
    """What a JSON or YAML file says, name by name."""
    try:
        text = existing_file(path, where.removesuffix(path).rstrip(" :")).read_text()
    except OSError as error:
        raise UserError(said(error)) from None
    except UnicodeDecodeError:
        raise UserError(f"{where} is not a text file: JSON or YAML is needed") from None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = yaml_in(text, where)
    if not isinstance(settings, dict):
        shown = f"{in_a_line(str(settings)):.60}"
        raise UserError(f"{where}: expected settings 'name: value', found {shown}")
    return settings


def yaml_in(text: str, where: str):
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is neither JSON nor YAML: {reason}") from None


def as_word(value) -> str:
    """A setting as a word of a command line; what holds names of its own as JSON."""
    try:
        return json.dumps(value) if isinstance(value, dict) else str(value)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def one_of(names, what: str) -> Callable[[str], str]:
    """A name of a table in any case."""

    def name_of(text: str) -> str:
        if text.lower() not in names:
            raise ArgumentTypeError(f"unknown {what} '{text}': choose from {', '.join(names)}")
        return text.lower()

    return name_of


def ordering(text: str) -> str:
    return (
        text
        if text.startswith("file:") and len(text) > 5
        else one_of([*ORDERINGS, "file:PATH"], "ordering")(text)
    )


def degradation(text: str) -> str | dict:
    """A preset, or values in the place of some of a preset's: in a file, or as JSON by --config."""
    if not text.startswith(("file:", "{")):
        return one_of([*DEGRADATIONS, "file:PATH.yml"], "degradation")(text)
    complete_values = load(DEGRADATION_VALUES)
    try:
        if text.startswith("file:"):
            return complete_values(read_settings(text.removeprefix("file:"), text))
        return complete_values(json.loads(text))
    except (UserError, RecursionError) as error:
        raise ArgumentTypeError(str(error)) from None
    except ValueError as error:
        raise ArgumentTypeError(f"'{text}' is not JSON: {error}") from None


def selection(text: str) -> str:
    """A selection of layers, by its place in the list or its name."""
    names = list(SELECTIONS)
    if text.isdecimal() and int(text) < len(names):
        return names[int(text)]
    if text in names:
        return text
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(names))
    raise ArgumentTypeError(f"unknown selection '{text}': choose from {listed}")


def within(low: float, high: float, kind=float, open_low: bool = False) -> Callable[[str], float]:
    """A number of the interval [low, high], or (low, high]."""

    def number(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise ArgumentTypeError(
                f"'{text}' is not {'a whole number' if kind is int else 'a number'}"
            ) from None
        if (
            not (low < value if open_low else low <= value)
            or not value <= high
            or value == float("inf")
        ):
            top = f"{high}]" if high != float("inf") else "infinity)"
            raise ArgumentTypeError(f"{text} is outside {'(' if open_low else '['}{low}, {top}")
        return value

    return number


def assignment(text: str) -> tuple[str, object]:
    """NAME=VALUE, or NAME=VALUE,VALUE,... for several; values as YAML writes them."""
    import yaml

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"'{text}': NAME=VALUE")
    try:
        values = [yaml.safe_load(part) for part in value.split(",")]
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError):
        raise ArgumentTypeError(f"'{text}': not a value") from None
    return name, values[0] if len(values) == 1 else values


def name(text: str) -> str:
    """The name of a folder."""
    if not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", text):
        raise ArgumentTypeError(f"'{text}': letters, digits, '_', '-', '.' and '+' make a name")
    return text


INFINITY = float("inf")
ratio = within(0, 1, open_low=True)
share = within(0, 1, open_low=True)
positive = within(0, INFINITY, open_low=True)
not_negative = within(0, INFINITY)
decay = within(0, 0.999999)
counting = within(1, INFINITY, int)
natural = within(0, 2**32 - 1, int)
decibels = within(-100, 200)
sigma = within(0, 255)


def noise_level(text: str) -> float | None:
    """dB, or none for measurements without noise."""
    return None if text == "none" else decibels(text)


def side(text: str) -> int:
    """A power of two, as the side of an image that Hadamard patterns measure."""
    n = within(2, 4096, int)(text)
    if n & (n - 1):
        raise ArgumentTypeError(f"{n} is not a power of two")
    return n


def physics_of(table: dict) -> Callable[[str], str]:
    """A physics of a table; cs is another word for spc."""

    def physics(text: str) -> str:
        name = one_of(table, "physics")(text)
        return "spc" if name == "cs" else name

    return physics


def weighted(table: dict) -> Callable[[str], str]:
    """NAME or NAME:WEIGHT of a table of losses; the weight replaces the table's."""

    def weighted_loss(text: str) -> str:
        name, colon, weight = text.partition(":")
        name = one_of(table, "loss")(name)
        if colon and not weight:
            raise ArgumentTypeError(f"'{text}': NAME, or NAME:WEIGHT with a number")
        return f"{name}:{not_negative(weight):g}" if colon else name

    return weighted_loss


def gain(text: str) -> str | float:
    """A factor, or auto."""
    return text if text == "auto" else positive(text)


def gamma(text: str) -> str | float:
    return text if text == "auto" else positive(text)
