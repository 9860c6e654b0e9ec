"""The text of a study: its file, what the command line changes in it, and how its values read."""

import itertools
from argparse import Namespace
from collections.abc import Iterable, Iterator

from core.errors import UserError, in_a_line

KEYS = (
    "question", "script", "seeds", "fixed", "teacher", "student", "recording", "grid", "shuffled",
    "test", "limit_test", "tiny",
)  # fmt: skip


def resolve_tiny(text: dict, tiny: bool, keys: tuple[str, ...] = KEYS) -> dict:
    """A study file; with `tiny`, the values of its section of that name replace the others."""
    section = flags_in(text, "tiny")
    for level in (text, section):
        unknown = [in_a_line(str(name)) for name in level if name not in keys]
        if unknown:
            raise UserError(f"study: unknown {', '.join(unknown)}: the keys are {', '.join(keys)}")
    text = without(text, "tiny")
    if not tiny:
        return text
    if not section:
        raise UserError("its file has no section 'tiny'; leave out --tiny")
    fixed = flags_in(text, "fixed") | flags_in(section, "fixed")
    return text | section | ({"fixed": fixed} if fixed else {})


def apply_flags(text: dict, args: Namespace) -> dict:
    """A study with the changes of the command line."""
    changes = {}
    for name in ("vary", "fixed", "teacher", "student", "recording"):
        pairs = [(underscored(flag), value) for flag, value in getattr(args, name)]
        check_distinct([flag for flag, _ in pairs], f"--{name}")
        changes[name] = dict(pairs)
    grids = [flags_in({"grid": grid}, "grid") for grid in as_list(text.get("grid") or {})]
    grids = [grid | changes["vary"] for grid in grids]
    for flag in changes["fixed"]:
        if any(flag in grid for grid in grids):
            flag = in_a_line(flag)
            raise UserError(f"--fixed {flag}: the grid sets it; give --vary {flag}=VALUE")
    for flag in changes["teacher"]:
        if any(flag in teacher for grid in grids for teacher in teachers_in(grid)):
            raise UserError(
                f"--teacher {in_a_line(flag)}: the grid sets it; change it in the study file"
            )
    for name in ("script", "seeds", "shuffled", "limit_test"):
        if getattr(args, name) is not None:
            text = text | {name: getattr(args, name)}
    text = text | {"fixed": flags_in(text, "fixed") | changes["fixed"]}
    text = text | {"teacher": shared_teacher(text) | changes["teacher"]}
    if args.student:
        text = text | {"student": flags_in(text, "student") | changes["student"]}
    if args.recording:
        parts = as_list(text.get("recording") or {})
        sections = [flags_in({"recording": part}, "recording") for part in parts]
        text = text | {"recording": [section | changes["recording"] for section in sections]}
    return text | {"grid": grids} if args.vary else text


def shared_teacher(text: dict) -> dict:
    """The flags of all teachers, which stand above the grid."""
    if isinstance(text.get("teacher"), list):
        raise UserError(
            "study: a list of teachers, which teach one student together, belongs into the grid; "
            "what they share stands above it"
        )
    return flags_in(text, "teacher")


def flags_in(text: dict, name: str) -> dict:
    """A part of a study that holds flags."""
    flags = text.get(name) or {}
    if not isinstance(flags, dict):
        raise UserError(f"study: {name} must hold flags 'name: value', not {in_a_line(str(flags))}")
    names = [underscored(str(flag)) for flag in flags]
    check_distinct(names, name)
    return dict(zip(names, flags.values(), strict=True))


def underscored(flag: str) -> str:
    """The one spelling of a flag that may have hyphens."""
    return flag.replace("-", "_")


def teachers_in(grid: dict) -> list[dict]:
    """The sections of a grid's teachers: several teach one student together."""
    sections = as_list(grid.get("teacher") or {})
    return [flags_in({"teacher": section}, "teacher") for section in sections]


def whole_number(value, name: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(
            f"study: {name} {in_a_line(str(value))} is not a whole number of at least {least}"
        )
    return value


def check_distinct(values: list, where: str) -> None:
    """Refuses a value that is listed twice."""
    for value in values:
        count = sum(is_equal(value, other) for other in values)
        if count > 1:
            raise UserError(f"study: {where} lists {in_a_line(format_value(value))} {count} times")


def is_equal(a, b) -> bool:
    """Whether two values of a study are the same on a command line."""
    return str(a) == str(b) or (a == b and not isinstance(a, bool) and not isinstance(b, bool))


def as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def combinations(flags: dict) -> Iterator[dict]:
    """Every combination of the values that are listed."""
    names = list(flags)
    for values in itertools.product(*(as_list(flags[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def varying_flags(grids: list[dict]) -> list[str]:
    """Flags that do not have one value in all grids."""
    names = dict.fromkeys(name for grid in grids for name in grid)
    return [
        name
        for name in names
        if len({format_value(value) for grid in grids for value in as_list(grid.get(name))}) > 1
    ]


def select(flags: dict, names: Iterable[str]) -> dict:
    return {name: flags[name] for name in names if name in flags}


def without(flags: dict, name: str) -> dict:
    return {other: value for other, value in flags.items() if other != name}


def format_value(value) -> str:
    """A value in a table and in a folder's name."""
    if isinstance(value, list):
        return " ".join(map(format_value, value))
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_setting(setting: dict) -> str:
    """A setting in words."""
    return ", ".join(f"{name} {format_value(value)}" for name, value in setting.items())
