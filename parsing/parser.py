"""How a command line is read: one-line errors, both spellings of a flag, and files of settings.

argparse is extended by hand, since no library has flags that other flags' tables read, values from
files under the command line, and errors of one line.
"""

import json
import sys
from argparse import (
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentError,
    ArgumentParser,
    Namespace,
)
from collections.abc import Callable
from typing import NoReturn

from core.ending import format_os_error
from core.errors import UserError, in_a_line
from core.inputs import existing_file

EPOCHS = 20  # without --epochs and --steps


class Formatter(ArgumentDefaultsHelpFormatter):
    """Shows the defaults of flags that have one."""

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class Distinct(Action):
    """Several values, none of them twice."""

    def __call__(self, parser, namespace, values, option_string=None):
        assert isinstance(values, list), f"{self.dest} needs nargs"
        for value in values:
            if values.count(value) > 1:
                raise ArgumentError(
                    self, f"{format_value(value)} is given {values.count(value)} times"
                )
        setattr(namespace, self.dest, values)


def format_value(value) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Several(Distinct):
    """One number as it is, several as a sorted list."""

    def __call__(self, parser, namespace, values, option_string=None):
        super().__call__(parser, namespace, values, option_string)
        assert isinstance(values, list)
        setattr(namespace, self.dest, values[0] if len(values) == 1 else sorted(values))


class Parser(ArgumentParser):
    """argparse with one-line errors, both spellings of a flag, and --config FILE.

    A flag in `choosers` selects an entry of a table: the flags that the entry reads get its
    defaults, and all others are refused.
    """

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=Formatter, allow_abbrev=False)
        self.choosers: dict[str, dict] = {}
        # Of a flag, for each of its values the settings that it stands for; others overrule them.
        self.presets: dict[str, dict[str, dict]] = {}
        # Checks of flags as they are typed, of flags with their defaults, and of the user's files.
        self.rules: list[Callable[[Namespace], object]] = []
        self.checks: list[Callable[[Namespace], object]] = []
        self.files: list[Callable[[Namespace], object]] = []
        self.spellings: dict[str, str] = {}  # flags by their spelling with underscores
        self.demanding = True  # whether a flag without a default must be given
        self.argv: list[str] | None = None  # the words that are parsed, or those of the shell
        self.records_typed = False  # whether `typed` holds the settings that were typed

    def parse_args(self, args=None, namespace=None):
        self.argv = args
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
        """Gives the flags of the selected entry their defaults, and refuses those of others."""
        selected = getattr(args, chooser)
        reads = table[selected].flags if selected in table else {}  # the user's own has none
        names = dict.fromkeys(name for entry in table.values() for name in entry.flags)
        for name in names:
            if not hasattr(args, name):
                continue
            if getattr(args, name) is not None:
                if name not in reads:
                    listed = ", ".join(f"--{flag}" for flag in reads) or "no flag of its own"
                    self.error(f"{chooser} '{selected}' does not read --{name}: it reads {listed}")
            elif name in reads:
                if reads[name] is ... and self.demanding:
                    self.error(f"{chooser} '{selected}' needs --{name}")
                setattr(args, name, None if reads[name] is ... else reads[name])

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {in_a_line(message)}\n")

    def parse_known_args(self, args=None, namespace=None):
        args = [self._spelling(word) for word in (sys.argv[1:] if args is None else args)]
        if "--config" in self._option_string_actions:
            finder = ArgumentParser(add_help=False, allow_abbrev=False)
            finder.add_argument("--config", nargs="?")
            path = finder.parse_known_args(args)[0].config
            before = self._from_file(path) if path else []
            for flag, settings in self.presets.items():
                words = self._from_preset(flag, settings, before + args)
                typed = any(word.partition("=")[0] == f"--{flag}" for word in args)
                before = before + words if typed else words + before  # the command line counts more
            args = before + args
        return super().parse_known_args(args, namespace)

    def is_typed(self, name: str) -> bool:
        """Whether the command line names a setting, whatever its value; not --config."""
        words = [
            self._spelling(word) for word in (sys.argv[1:] if self.argv is None else self.argv)
        ]
        options = {
            option
            for action in self._actions
            if action.dest == name
            for option in action.option_strings
        }
        return any(word.partition("=")[0] in options for word in words)

    def _typed(self, argv: list[str] | None) -> set[str]:
        """The settings that the command line or --config names, whatever their value."""
        unset: list = []  # a list, to which flags that may be repeated are added in a copy
        blank = Namespace(**{action.dest: unset for action in self._actions})
        parsed = super().parse_args(argv, blank)
        return {name for name, value in vars(parsed).items() if value is not unset}

    def _spelling(self, word: str) -> str:
        """--awgn-snr for --awgn_snr, and --no_resume for --no-resume."""
        if not word.startswith("--"):
            return word
        name, equals, value = word.partition("=")
        if len(self.spellings) < len(self._option_string_actions):  # flags that were added since
            options = self._option_string_actions
            self.spellings = {option.replace("-", "_"): option for option in options}
        return self.spellings.get(name.replace("-", "_"), name) + equals + value

    def _from_file(self, path: str) -> list[str]:
        """The settings of a JSON or YAML file as command-line words."""
        where = f"--config {path}"
        return self.words_of(self.settings_in(path, where), where)

    def _from_preset(self, flag: str, settings: dict[str, dict], args: list[str]) -> list[str]:
        """The words that a flag stands for, without those that this script lacks."""
        finder = ArgumentParser(add_help=False, allow_abbrev=False)
        finder.add_argument(f"--{flag}", nargs="?", dest=flag)
        chosen = settings.get(getattr(finder.parse_known_args(args)[0], flag), {})
        there = {name: value for name, value in chosen.items() if self.option(name)}
        return self.words_of(there, f"--{flag}")

    def settings_in(self, path: str, where: str) -> dict:
        """The settings of a JSON or YAML file, by name."""
        try:
            return read_settings(path, where)
        except UserError as error:
            self.error(str(error))

    def option(self, name: str) -> str | None:
        """The flag of a setting's name, if there is one."""
        option = self._spelling(f"--{name}")
        if option in self._option_string_actions:
            return option
        for action in self._actions:  # such as --model, which sets network
            if action.dest == name and action.option_strings:
                return action.option_strings[0]
        return None

    def changes(self, args: Namespace) -> dict:
        """The settings that are not at their defaults."""
        defaults = {
            action.dest: self._get_value(action, action.default)
            if isinstance(action.default, str)
            else action.default
            for action in self._actions
        }
        for chooser, table in self.choosers.items():
            selected = getattr(args, chooser)
            reads = table[selected].flags if selected in table else {}
            defaults |= {name: value for name, value in reads.items() if value is not ...}
        if getattr(args, "steps", 0) is None:
            defaults["epochs"] = EPOCHS
        return {name: value for name, value in vars(args).items() if value != defaults.get(name)}

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
                self.error(f"{where}: {name} must be true or false, not {in_a_line(str(value))}")
            if isinstance(value, bool) and takes_value:
                words += [option, "on" if value else "off"]  # YAML's other spelling of these words
            elif isinstance(value, bool):
                word = option if value else self._spelling(f"--no_{name}")
                words += [word] if word in self._option_string_actions else []
            elif value is not None:
                words += [option, *map(as_word, value if isinstance(value, list) else [value])]
        return words


def read_settings(path: str, where: str) -> dict:
    """The settings of a JSON or YAML file, by name."""
    try:
        text = existing_file(path, where.removesuffix(path).rstrip(" :")).read_text()
    except OSError as error:
        raise UserError(format_os_error(error)) from None
    except UnicodeDecodeError:
        raise UserError(f"{where} is not a text file: JSON or YAML is needed") from None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = read_yaml(text, where)
    if not isinstance(settings, dict):
        start = f"{in_a_line(str(settings)):.60}"
        raise UserError(f"{where} must have settings 'name: value', but it has {start}")
    return settings


def read_yaml(text: str, where: str):
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
