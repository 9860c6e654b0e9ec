"""Studies: a grid of settings times seeds over a training script, and the controls beside it, as runs with a folder each."""

import hashlib
import itertools
import json
import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError, in_a_line
from core.files import inside
from core.registry import ALONE

KEYS = ("question", "script", "seeds", "fixed", "teacher", "grid", "shuffled", "limit_test", "tiny")
OWN = (
    "seeds",
    "results",
    "run_name",
    "config",
    "dry_run",
    "overwrite",
    "resume",
)  # flags that a study sets itself, or that it cannot have
SAME = "same"  # of a teacher's flag: what the student has
RENAMED = {
    "loss_gt": "loss",
    "init_student": "train_again",
}  # what the student alone calls a flag of the distilled one
COMMON = (
    "dataset",
    "data_root",
    "on_bad_image",
    "n",
    "c",
    "crop",
)  # of teacher and student, where they vary too


class Planned(NamedTuple):
    """A run: an ordinary call of a training script."""

    key: str  # its name, and that of its folder in the study's
    role: str  # teacher, alone, shuffled, distilled, or trained where nothing is distilled
    script: str
    flags: dict  # the seed and the teacher's file among them
    setting: dict  # what varies in the study
    seed: int
    teacher: str | None = None  # the key of its teacher
    alone: str | None = None  # and of the same student without one


class Study(NamedTuple):
    """All runs of a question, teachers first, and the jobs that they are done in: keys of runs that are trained beside each other."""

    name: str
    text: dict
    folder: Path
    runs: dict[str, Planned]
    jobs: list[list[str]]
    limit_test: int | None

    @property
    def teachers(self) -> int:
        """How many jobs train teachers: the first ones."""
        return sum(self.runs[keys[0]].role == "teacher" for keys in self.jobs)

    def of(self, *roles: str) -> list[Planned]:
        return [run for run in self.runs.values() if run.role in roles]


def resolved(text: dict, tiny: bool) -> dict:
    """What a study file says; with `tiny`, what its section of that name puts in the place of the rest."""
    small = table(text, "tiny")
    for level in (text, small):
        unknown = [str(name) for name in level if name not in KEYS]
        if unknown:
            raise UserError(
                f"study: unknown {', '.join(map(in_a_line, unknown))}: it holds {', '.join(KEYS)}"
            )
    text = {name: value for name, value in text.items() if name != "tiny"}
    if not tiny:
        return text
    if not small:
        raise UserError("study: it has no section 'tiny'")
    return text | small | {"fixed": table(text, "fixed") | table(small, "fixed")}


def changed(text: dict, args: Namespace) -> dict:
    """A study with what the command line adds to it."""
    for name in ("vary", "fixed", "teacher"):
        distinct([flag for flag, _ in getattr(args, name)], f"--{name}")
    grids = [
        table({"grid": grid}, "grid") | dict(args.vary) for grid in listed(text.get("grid") or {})
    ]
    for flag, _ in args.fixed:
        if any(flag in grid for grid in grids):
            raise UserError(
                f"--fixed {in_a_line(flag)}: the grid says what it is; give --vary {in_a_line(flag)}=VALUE"
            )
    for flag, _ in args.teacher:
        if any(flag in table(grid, "teacher") for grid in grids):
            raise UserError(f"--teacher {in_a_line(flag)}: the grid's parts say what it is")
    given = {
        name: getattr(args, name)
        for name in ("script", "seeds", "shuffled", "limit_test")
        if getattr(args, name) is not None
    }
    text = (
        text
        | given
        | {name: table(text, name) | dict(getattr(args, name)) for name in ("fixed", "teacher")}
    )
    if args.vary:
        text["grid"] = grids
    return text


def listed(value) -> list:
    return value if isinstance(value, list) else [value]


def distinct(values: list, what: str) -> None:
    """Refuses a value that is listed twice, of which one would be left out without a word."""
    for value in values:
        count = sum(is_equal(value, other) for other in values)
        if count > 1:
            raise UserError(f"study: {what} lists {in_a_line(label(value))} {count} times")


def is_equal(a, b) -> bool:
    """Whether two values of a study are one on a command line."""
    return str(a) == str(b) or (a == b and not isinstance(a, bool) and not isinstance(b, bool))


def product(flags: dict) -> Iterator[dict]:
    """Every combination of the values that are listed."""
    names = list(flags)
    for values in itertools.product(*(listed(flags[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def label(value) -> str:
    """A value in a table and in a folder's name."""
    if isinstance(value, list):
        return " ".join(map(label, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def key_of(role: str, setting: dict, script: str, flags: dict) -> str:
    """The name of a run's folder: what it is in words, and a hash of all."""
    digest = hashlib.sha256(
        json.dumps([role, script, flags], sort_keys=True, default=str).encode()
    ).hexdigest()[:8]
    said = re.sub(
        r"[^\w.+-]+", "_", "_".join([role, *(label(value) for value in setting.values())])
    )[:80]
    return f"{said}_seed_{flags.get('seed')}_{digest}"


class Plan:
    """The runs of a study, as they are found to be needed."""

    def __init__(self, text: dict, folder: Path, script_of: Callable[[str], object], more: dict):
        """`script_of` imports a script; `more` are flags of every run that do not change what it is."""
        self.text, self.folder, self.script_of, self.more = text, folder, script_of, more
        self.script = str(text.get("script", "main_unet_dist.py")).removesuffix(".py")
        self.fixed, self.seeds = (
            table(text, "fixed"),
            [number(seed, "seed") for seed in listed(text.get("seeds", [0]))],
        )
        grids = [table({"grid": part}, "grid") for part in listed(text.get("grid") or {})]
        self.grids = [
            (without(grid, "teacher"), table(text, "teacher") | table(grid, "teacher"))
            for grid in grids
        ]
        self.varied = varied([grid for grid, _ in self.grids])
        self.runs: dict[str, Planned] = {}
        self.parsers: dict[str, object] = {}
        self.parser(self.script)
        self.check()

    def check(self) -> None:
        """Refuses what would be overwritten by the study itself, or read by nobody."""
        distils = self.script in ALONE
        if not distils and (
            self.text.get("shuffled") is not None or any(teacher for _, teacher in self.grids)
        ):
            raise UserError(
                f"study: {self.script}.py has no teacher and shuffles none: these are of {', '.join(f'{name}.py' for name in ALONE)}"
            )
        own = (*OWN, "teacher", "shuffle_teacher") if distils else OWN
        for flags, taken in [
            (self.fixed, ("seed", *own)),
            *((grid, ("seed", *own)) for grid, _ in self.grids),
            *((of, own) for _, of in self.grids),
        ]:
            for name, value in flags.items():
                if name.replace("-", "_") in taken:
                    raise UserError(f"study: {name}: a study sets this flag itself")
                if any(isinstance(part, dict | set) for part in listed(value)):
                    raise UserError(
                        f"study: {in_a_line(name)} {in_a_line(str(value))}: a flag is a value, or a list of them"
                    )

        if distils and not all(teacher for _, teacher in self.grids):
            raise UserError(
                f"study: {self.script}.py needs a teacher: 'teacher: {{NAME: VALUE}}' in the study, "
                "or --teacher NAME=VALUE, says how it is trained"
            )
        distinct(self.seeds, "seeds")
        for grid, teacher in self.grids:
            for flags, where in ((grid, "the grid's"), (teacher, "the teacher's")):
                for name, value in flags.items():
                    distinct(listed(value), f"{where} {in_a_line(name)}")

    def parser(self, script: str):
        if script not in self.parsers:
            self.parsers[script] = self.script_of(script).build_parser()
        return self.parsers[script]

    def read_by(self, script: str, flags: dict) -> dict:
        """The flags that a script has."""
        return {name: value for name, value in flags.items() if self.parser(script).option(name)}

    def add(self, role: str, script: str, flags: dict, setting: dict, **more) -> str:
        key = key_of(role, setting, script, flags)
        self.runs.setdefault(key, Planned(key, role, script, flags, setting, flags["seed"], **more))
        return key

    def trained(self) -> None:
        """Runs of a script that distils nothing."""
        for grid, _ in self.grids:
            for point in product(grid):
                for seed in self.seeds:
                    self.add(
                        "trained",
                        self.script,
                        self.fixed | point | {"seed": seed},
                        chosen(point, self.varied),
                    )

    def distilled(self) -> None:
        """Teachers; students, each beside the same student alone; and students of shuffled teachers."""
        differing = varied([teacher for _, teacher in self.grids])
        shuffled, seen = self.text.get("shuffled", "every"), set()
        asked = dict.fromkeys(name for grid, _ in self.grids for name in grid)
        if shuffled not in ("every", "none", *asked):
            raise UserError(
                f"study: shuffled '{shuffled}': every, none, or a flag of the grid ({', '.join(asked)})"
            )
        for grid, teachers in self.grids:
            for point, teacher in itertools.product(product(grid), list(product(teachers))):
                setting = chosen(point, self.varied) | {
                    f"teacher {name}": value for name, value in chosen(teacher, differing).items()
                }
                mixed = shuffled == "every" or (
                    shuffled != "none" and label(point.get(shuffled)) not in seen
                )
                seen.add(label(point.get(shuffled)))
                self.taught(self.fixed | point, teacher, setting, mixed)

    def taught(self, flags: dict, teacher: dict, setting: dict, mixed: bool) -> None:
        """One setting, with every seed."""
        other = ALONE[self.script]
        teacher = {
            name: flags.get(name) if value == SAME else value for name, value in teacher.items()
        }
        shared = {
            RENAMED.get(name, name): value
            for name, value in without(self.fixed, "data_seed").items()
        }
        about = (
            self.read_by(other, shared) | chosen(flags, COMMON) | {"seed": self.seeds[0]} | teacher
        )
        by = {"teacher": self.add("teacher", other, about, teacher)}
        bare = self.read_by(other, {named(name): value for name, value in flags.items()})
        for seed in self.seeds:
            by["alone"] = self.add(
                "alone",
                other,
                bare | {"seed": seed},
                {name: value for name, value in setting.items() if named(name) in bare},
            )
            mine = flags | {"seed": seed, "teacher": by["teacher"]}
            self.add("distilled", self.script, mine, setting, **by)
            if mixed:
                self.add("shuffled", self.script, mine | {"shuffle_teacher": True}, setting, **by)

    def checkpoint(self, key: str) -> Path:
        """What a run ends with."""
        return self.folder / key / "runs" / key / "best.pth"

    def words(self, run: Planned) -> list[str]:
        """The command line of a run, without its script."""
        flags = run.flags | ({"teacher": str(self.checkpoint(run.teacher))} if run.teacher else {})
        flags |= {"results": str(self.folder / run.key), "run_name": run.key} | self.more
        return self.parser(run.script).words_of(flags, f"study, run {run.key}")

    def jobs(self) -> list[list[str]]:
        """Runs that differ in the seed alone are done in one job where --data_seed gives them the same images in the same order."""
        groups: dict[str, list[str]] = {}
        for run in sorted(self.runs.values(), key=lambda run: run.role != "teacher"):
            together = "data_seed" in run.flags and run.role != "teacher"
            groups.setdefault(group_of(run) if together else run.key, []).append(run.key)
        return list(groups.values())


def build(
    text: dict,
    name: str,
    results: Path,
    script_of: Callable[[str], object],
    more: dict,
    check: bool = True,
) -> tuple[Study, Plan]:
    """All runs of a study; to `check` them, every command line is read by its script."""
    plan = Plan(text, inside(results / "sweeps", name), script_of, more)
    if not plan.seeds:
        raise UserError("study: it has no seeds")
    if not plan.grids or any(
        value == [] for grid, teacher in plan.grids for value in (*grid.values(), *teacher.values())
    ):
        raise UserError("study: its grid is empty")
    if plan.script in ALONE:
        plan.distilled()
    else:
        plan.trained()
    for run in plan.runs.values() if check else ():
        plan.script_of(run.script).parse(plan.words(run))
    limit = text.get("limit_test")
    return Study(
        name,
        text,
        plan.folder,
        plan.runs,
        plan.jobs(),
        limit if limit is None else number(limit, "limit_test", 1),
    ), plan


def group_of(run: Planned) -> str:
    """What a run is but for its seed."""
    return json.dumps(
        [run.role, run.script, without(run.flags, "seed")], sort_keys=True, default=str
    )


def varied(grids: list[dict]) -> list[str]:
    """Flags that do not have one value in all grids."""
    names = dict.fromkeys(name for grid in grids for name in grid)
    return [
        name
        for name in names
        if len({label(value) for grid in grids for value in listed(grid.get(name))}) > 1
    ]


def named(flag: str) -> str:
    """What the script of the student alone calls a flag."""
    return RENAMED.get(flag, flag.removeprefix("student_"))


def chosen(flags: dict, names) -> dict:
    return {name: flags[name] for name in names if name in flags}


def without(flags: dict, name: str) -> dict:
    return {other: value for other, value in flags.items() if other != name}


def table(text: dict, name: str) -> dict:
    """A part of a study that holds flags."""
    found = text.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"study: {name} must hold flags 'name: value', not {in_a_line(str(found))}")
    return {str(flag): value for flag, value in found.items()}


def number(value, name: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(
            f"study: {name} {in_a_line(str(value))} is not a whole number from {least} on"
        )
    return value
