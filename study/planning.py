"""Studies: a grid of settings times seeds over a training script, and its controls, as runs."""

import hashlib
import itertools
import json
import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from core.errors import UserError, in_a_line
from core.files import inside
from core.registry import ALONE, TRAINING
from parsing.parser import Parser
from study.question import (
    as_list,
    check_distinct,
    combinations,
    flags_in,
    format_setting,
    format_value,
    select,
    shared_teacher,
    teachers_in,
    varying_flags,
    whole_number,
    without,
)

# flags that a study sets itself, or that it cannot have
RESERVED = ("seeds", "results", "run_name", "config", "dry_run", "overwrite", "resume")
SAME = "same"  # the value of a teacher's flag that is the student's
SEED = "seed"  # the value of a flag that is the seed of each run
UNTRAINED = "untrained"  # of a teacher's section: the word of --teacher, such as tv
ALONE_NAMES = {"loss_gt": "loss", "init_student": "train_again"}  # flags of the student alone
COMMON = ("dataset", "data_root", "on_bad_image", "n", "c", "crop")  # of teacher and student
OF_TEST = ("dataset", "data_root", "crop")  # flags of a study's own test set
RECORDING = "recording"  # the role of a run that makes a recording instead of a network
FIRST = ("teacher", "student", RECORDING)  # roles of runs that others need
ADAPTED, TEACHER_THERE = "adapted", "recorded_teacher"  # roles on recordings
WITH_TEAMS = "main_classify_dist"  # the script whose students may have several teachers


@dataclass(frozen=True)
class PlannedRun:
    """A run: an ordinary call of a training script."""

    key: str  # its name, and that of its folder in the study's
    role: str  # teacher, alone, shuffled, distilled, or trained where nothing is distilled;
    # with recordings also student (in simulation), recording, adapted, and recorded_teacher
    script: str
    flags: dict  # with the seed, without the teacher's file
    setting: dict  # what varies in the study
    seed: int
    teachers: tuple[str, ...] = ()  # the keys of its teachers
    alone: str | None = None  # and of the same student without a teacher
    student: str | None = None  # of the student in simulation with which it begins
    recording: str | None = None  # of the recording that it learns from, or is scored on
    network: str | None = None  # of the run whose network it scores, where it trains none

    @property
    def seeded_flags(self) -> dict:
        """Its flags, of which those that follow the seed have its value."""
        return {name: self.seed if value == SEED else value for name, value in self.flags.items()}

    @property
    def needs(self) -> list[tuple[str, str]]:
        """The runs that come before it, each behind what it is to it."""
        others = (("student", self.student), (RECORDING, self.recording))
        pairs = [("teacher", key) for key in self.teachers]
        return pairs + [(role, key) for role, key in others if key is not None]


@dataclass(frozen=True)
class Study:
    """All runs of a question, teachers first, and the jobs of runs that are trained together."""

    name: str
    text: dict
    folder: Path
    runs: dict[str, PlannedRun]
    jobs: list[list[str]]
    limit_test: int | None
    test: dict  # flags of another test set than that of the runs' dataset

    def test_arguments(self, args: Namespace) -> Namespace:
        """The flags of a run with the test set of the study."""
        return Namespace(**vars(args) | self.test)

    @property
    def teacher_jobs(self) -> int:
        """How many jobs train teachers, and make what else others need: the first ones."""
        return sum(self.runs[keys[0]].role in FIRST for keys in self.jobs)

    def with_role(self, *roles: str) -> list[PlannedRun]:
        return [run for run in self.runs.values() if run.role in roles]


class Plan:
    """Builds the runs of a study from its text.

    `load_script` imports a training script; `shared_flags` of every run do not change what it is.
    `made` are the runs that have a folder: each keeps its name, whatever varies in the study now.
    """

    def __init__(
        self,
        text: dict,
        folder: Path,
        load_script: Callable[[str], ModuleType],
        shared_flags: dict,
        made: dict[str, str],
    ):
        self.text, self.folder, self.made = text, folder, made
        self.load_script, self.shared_flags = load_script, shared_flags
        self.script = str(text.get("script", "main_unet_dist.py")).removesuffix(".py")
        self.distills = self.script in ALONE
        self.fixed = flags_in(text, "fixed")
        self.seeds = [whole_number(seed, "seed") for seed in as_list(text.get("seeds", [0]))]
        self.grids: list[tuple[dict, list[dict]]] = []  # flags of the student, and of its teachers
        for part in as_list(text.get("grid") or {}):
            grid = flags_in({"grid": part}, "grid")
            shared = shared_teacher(text)
            teachers = [with_shared(own, shared) for own in teachers_in(grid)]
            self.grids.append((without(grid, "teacher"), teachers))
        self.varying = varying_flags([grid for grid, _ in self.grids])
        self.runs: dict[str, PlannedRun] = {}
        self.parsers: dict[str, Parser] = {}
        if self.script not in TRAINING:
            scripts = ", ".join(f"{script}.py" for script in TRAINING)
            raise UserError(f"study: unknown script '{self.script}': choose from {scripts}")
        self.check()
        self.check_seeds()

    # ---------------------------------------------------------------- checks

    def check(self) -> None:
        """Refuses a study that has reserved flags, too little, or something that nobody reads."""
        scripts = ", ".join(f"{name}.py" for name in ALONE)
        has_teacher = any(teacher for _, teachers in self.grids for teacher in teachers)
        if not self.distills and (self.text.get("shuffled") is not None or has_teacher):
            raise UserError(
                f"study: {self.script}.py has no teacher, so 'teacher' and 'shuffled' "
                f"have no meaning: they are for {scripts}"
            )
        if "student" in self.text and RECORDING not in self.text:
            raise UserError(
                "study: 'student' describes the training before a student is adapted to a "
                "recording: give a section 'recording' too"
            )
        reserved = (*RESERVED, "teacher", "shuffle_teacher") if self.distills else RESERVED
        check_flags(self.fixed, ("seed", *reserved))
        for grid, _ in self.grids:
            check_flags(grid, ("seed", *reserved))
        for _, teachers in self.grids:
            self.check_teachers(teachers, reserved)
        if self.distills and not all(all(teachers) for _, teachers in self.grids):
            raise UserError(
                f"study: {self.script}.py needs a teacher: describe its training by "
                "'teacher: {NAME: VALUE}' in the study, or by --teacher NAME=VALUE"
            )
        for grid, _ in self.grids if self.distills else ():
            flags = self.fixed | grid
            if flags.get("limit_labels") and not (flags.get("steps") and flags.get("val_every")):
                raise UserError(
                    "study: limit_labels makes the epochs of the student alone shorter: give steps "
                    "and val_every, so that it trains as long as the others"
                )
        check_distinct(self.seeds, "seeds")
        for grid, teachers in self.grids:
            owned = [(grid, "the grid's"), *((teacher, "the teacher's") for teacher in teachers)]
            for flags, owner in owned:
                for name, value in flags.items():
                    check_distinct(as_list(value), f"{owner} {in_a_line(name)}")
        if not self.seeds:
            raise UserError("study: it has no seeds; give --seeds")
        sections = [flags for grid, teachers in self.grids for flags in (grid, *teachers)]
        values = [value for flags in sections for value in flags.values()]
        if not self.grids or [] in values:
            raise UserError("study: its grid is empty; give --vary NAME=VALUE,VALUE")

    @property
    def seeds_of_teachers(self) -> list:
        """The seeds of all teachers that are trained, as the study says them."""
        teachers = [teacher for _, together in self.grids for teacher in together]
        trained = [teacher for teacher in teachers if teacher and UNTRAINED not in teacher]
        return [seed for teacher in trained for seed in as_list(teacher.get("seed"))]

    @property
    def own_teachers(self) -> bool:
        """Whether seeds of a student have teachers of their own."""
        return SAME in self.seeds_of_teachers

    @property
    def shares_teachers(self) -> bool:
        """Whether a teacher is the same for all seeds of a student."""
        return any(seed != SAME for seed in self.seeds_of_teachers)

    def check_seeds(self) -> None:
        """Refuses what cannot follow the seed."""
        sections = [self.fixed, *(grid for grid, _ in self.grids)]
        following = [k for flags in sections for k, value in flags.items() if value == SEED]
        every = [teacher for _, teachers in self.grids for teacher in teachers]
        sections += every
        if (following or self.own_teachers) and any("data_seed" in flags for flags in sections):
            what = in_a_line(following[0]) if following else "the teacher"
            raise UserError(
                "study: with data_seed all seeds of a setting share the images and the teacher; "
                f"leave it out where {what} follows the seed"
            )
        for name in following:
            for teacher in (one for one in every if one and UNTRAINED not in one):
                followed = SAME in as_list(teacher.get(name, SAME)) and teacher.get("seed") != SAME
                if followed:
                    raise UserError(
                        f"study: {in_a_line(name)} follows the seed of each student: give its "
                        f"teachers 'seed: {SAME}', or {in_a_line(name)} of their own"
                    )

    def check_teachers(self, teachers: list[dict], reserved: tuple[str, ...]) -> None:
        """Refuses what the teachers of one student cannot be."""
        for teacher in teachers:
            check_flags(teacher, reserved)
            if UNTRAINED in teacher and (
                more := [n for n in teacher if n not in (UNTRAINED, "cr")]
            ):
                raise UserError(
                    f"study: {in_a_line(', '.join(more))}: an untrained teacher has no training to "
                    f"describe; beside '{UNTRAINED}' it may have 'cr'"
                )
        if len(teachers) > 1 and self.script != WITH_TEAMS:
            raise UserError(
                f"study: a list of teachers is for {WITH_TEAMS}.py, whose students may have "
                f"several: {self.script}.py has one"
            )
        if len(teachers) > 1 and any(UNTRAINED in teacher for teacher in teachers):
            raise UserError(f"study: a teacher that is {UNTRAINED} teaches alone, not in a list")

    def parser(self, script: str) -> Parser:
        if script not in self.parsers:
            self.parsers[script] = self.load_script(script).build_parser()
        return self.parsers[script]

    # ---------------------------------------------------------------- runs

    def add_runs(self) -> None:
        """Adds every run of the study."""
        if self.distills:
            self.add_distilled()
            return
        for grid, _ in self.grids:
            for point, seed in itertools.product(combinations(grid), self.seeds):
                flags = self.fixed | point | {"seed": seed}
                self.add("trained", self.script, flags, select(point, self.varying))

    def add_distilled(self) -> None:
        """Adds teachers, students alone and with their teachers, and shuffled controls."""
        differing = self.differing_of_teachers()
        shuffled_order = self.text.get("shuffled", "every")
        names = dict.fromkeys(name for grid, _ in self.grids for name in grid)
        if shuffled_order not in ("every", "none", *names):
            raise UserError(
                f"study: shuffled '{shuffled_order}': "
                f"every, none, or a flag of the grid ({', '.join(names)})"
            )
        controlled = set()  # values of that flag that have a shuffled control
        for point, teachers in self.points():
            setting = select(point, self.varying) | setting_of_teachers(teachers, differing)
            value = format_value(point.get(shuffled_order))
            control = shuffled_order == "every" or (
                shuffled_order != "none" and value not in controlled
            )
            controlled.add(value)
            self.add_setting(self.fixed | point, teachers, setting, control)

    def points(self) -> Iterator[tuple[dict, tuple[dict, ...]]]:
        """The flags of every student and its teachers."""
        for grid, teachers in self.grids:
            together = list(itertools.product(*map(combinations, teachers)))
            yield from itertools.product(combinations(grid), together)

    def differing_of_teachers(self) -> list[str]:
        """Flags in which teachers differ; what is untrained has its word alone."""
        teachers = [teacher for _, together in self.grids for teacher in together]
        untrained = [teacher for teacher in teachers if UNTRAINED in teacher]
        differing = varying_flags([teacher for teacher in teachers if UNTRAINED not in teacher])
        differing += varying_flags(untrained)
        return list(dict.fromkeys([*differing, UNTRAINED] if untrained else differing))

    def add_setting(
        self, flags: dict, teachers: tuple[dict, ...], setting: dict, control: bool
    ) -> None:
        """Adds one setting, with every seed."""
        script_alone = ALONE[self.script]
        taught = untrained_flags(teachers[0], flags)
        named_alone = {name_alone(name): value for name, value in flags.items()}
        flags_alone = self.flags_of(script_alone, named_alone)
        setting_alone = {
            name: value for name, value in setting.items() if name_alone(name) in flags_alone
        }
        named: tuple[str, ...] = ()  # in the flags: the teachers of the first seed
        for seed in self.seeds:
            seeded = flags | {"seed": seed}
            trained = () if taught else tuple(self.add_teacher(seeded, one) for one in teachers)
            if len({*trained}) < len(trained):
                raise UserError(
                    f"study: a student has the same teacher twice ({format_setting(setting)}); "
                    "give another seed"
                )
            named = named or trained
            alone_key = self.add("alone", script_alone, flags_alone | {"seed": seed}, setting_alone)
            own = seeded | taught | flag_of_teachers(named)
            self.add("distilled", self.script, own, setting, trained, alone=alone_key)
            if control:
                own = own | {"shuffle_teacher": True}
                self.add("shuffled", self.script, own, setting, trained, alone=alone_key)

    def add_teacher(self, flags: dict, teacher: dict) -> str:
        """Adds the training of a teacher; returns its key."""
        script = ALONE[self.script]
        teacher = {
            name: flags.get(name) if value == SAME else value for name, value in teacher.items()
        }
        fixed = without(self.fixed, "data_seed")
        shared = {ALONE_NAMES.get(name, name): value for name, value in fixed.items()}
        own = self.flags_of(script, shared) | select(flags, COMMON)
        own |= {"seed": self.seeds[0]} | teacher
        return self.add("teacher", script, own, teacher)

    def flags_of(self, script: str, flags: dict) -> dict:
        """The flags that a script has."""
        return {name: value for name, value in flags.items() if self.parser(script).option(name)}

    def add(
        self,
        role: str,
        script: str,
        flags: dict,
        setting: dict,
        teachers: tuple[str, ...] = (),
        **keys: str,
    ) -> str:
        needed: dict = {
            name: identity(value)
            for name, value in flags.items()
            if isinstance(value, str) and value in self.runs
        }
        if len(teachers) > 1:
            needed["teacher"] = [identity(key) for key in teachers]
        key = run_key(role, setting, script, flags | needed)
        key = f"{RECORDING}s/{key}" if role == RECORDING else key
        older = identity(run_key(role, setting, script, flags))  # of studies of earlier versions
        key = self.made.get(older) or self.made.setdefault(identity(key), key)
        run = PlannedRun(key, role, script, flags, setting, flags["seed"], teachers, **keys)
        self.runs.setdefault(key, run)
        return key

    # ---------------------------------------------------------------- commands and jobs

    def arguments(self, key: str) -> Namespace:
        """The arguments of a run, as its script reads them."""
        run = self.runs[key]
        return self.load_script(run.script).parse(self.command_line(run))

    def command_line(self, run: PlannedRun) -> list[str]:
        """The words after the name of the script."""
        flags = run.seeded_flags | self.paths_of(run)
        flags |= self.flags_of(run.script, self.shared_flags)
        return self.parser(run.script).words_of(flags, f"study, run {run.key}")

    def paths_of(self, run: PlannedRun) -> dict:
        """The flags that say where a run writes, and what it reads of others."""
        paths = {"results": str(self.folder / run.key), "run_name": run.key}
        return paths | flag_of_teachers(tuple(map(self.checkpoint, run.teachers)))

    def checkpoint(self, key: str) -> str:
        return str(self.folder / key / "runs" / key / "best.pth")

    def jobs(self) -> list[list[str]]:
        """The keys of the runs of each job.

        Runs that differ in the seed alone are one job where --data_seed gives them the same
        images in the same order.
        """
        groups: dict[str, list[str]] = {}
        for run in sorted(self.runs.values(), key=lambda run: run.role not in FIRST):
            together = "data_seed" in run.flags and run.role not in FIRST
            groups.setdefault(seedless_key(run) if together else run.key, []).append(run.key)
        return list(groups.values())


def build_study(
    text: dict,
    name: str,
    results: Path,
    load_script: Callable[[str], ModuleType],
    shared_flags: dict,
    check: bool = True,
    made: dict[str, str] | None = None,
) -> tuple[Study, Plan]:
    """All runs of a study; with `check`, every command line is parsed by its script.

    `made` are the runs that have a folder, by default those that have one now.
    """
    from study.recorded import RecordedPlan

    kind = RecordedPlan if RECORDING in text else Plan
    folder = inside(results / "sweeps", name)
    made = made_runs(folder) if made is None else made
    plan = kind(text, folder, load_script, shared_flags, made)
    plan.add_runs()
    kinds = {seedless_key(run): run for run in plan.runs.values()} if check else {}
    for run in kinds.values():
        plan.arguments(run.key)
    limit = text.get("limit_test")
    limit = None if limit is None else whole_number(limit, "limit_test", 1)
    test = flags_in(text, "test")
    if unknown := [in_a_line(flag) for flag in test if flag not in OF_TEST]:
        raise UserError(f"study: test {', '.join(unknown)}: it has only {', '.join(OF_TEST)}")
    return Study(name, text, plan.folder, plan.runs, plan.jobs(), limit, test), plan


def with_shared(teacher: dict, shared: dict) -> dict:
    """A teacher of a grid with the flags of all; one that is untrained has its word alone."""
    if UNTRAINED in shared and teacher and UNTRAINED not in teacher:
        raise UserError(
            f"study: the teacher above the grid is {UNTRAINED}, and that of a grid has "
            f"{in_a_line(', '.join(teacher))}: say '{UNTRAINED}' in each grid that means it"
        )
    return teacher if UNTRAINED in teacher else shared | teacher


def setting_of_teachers(teachers: tuple[dict, ...], names: list[str]) -> dict:
    """What differs of a student's teachers: a value, or a list with that of each."""
    setting = {}
    for name in names:
        values = [teacher.get(name) for teacher in teachers]
        if any(name in teacher for teacher in teachers):
            setting[f"teacher {name}"] = values[0] if len(teachers) == 1 else values
    return setting


def flag_of_teachers(keys: tuple[str, ...]) -> dict:
    """The flag --teacher, for the keys or the files of teachers."""
    if not keys:
        return {}
    return {"teacher": keys[0] if len(keys) == 1 else [*keys]}


def untrained_flags(teacher: dict, flags: dict) -> dict:
    """The flags of a student whose teacher is not trained; none where it is."""
    if UNTRAINED not in teacher:
        return {}
    ratio = flags.get("cr") if teacher.get("cr") == SAME else teacher.get("cr")
    return {"teacher": teacher[UNTRAINED]} | ({} if ratio is None else {"cr_teacher": ratio})


def check_flags(flags: dict, reserved: tuple[str, ...]) -> None:
    """Refuses reserved flags, and values that no command line can have."""
    for name, value in flags.items():
        if name in reserved:
            raise UserError(f"study: {name}: a study sets this flag itself")
        if any(isinstance(part, dict | set) for part in as_list(value)):
            raise UserError(
                f"study: {in_a_line(name)} {in_a_line(str(value))}: "
                "the value of a flag is one value or a list of values"
            )


def name_alone(flag: str) -> str:
    """The name of a flag in the script that trains the student alone."""
    return ALONE_NAMES.get(flag, flag.removeprefix("student_"))


def run_key(role: str, setting: dict, script: str, flags: dict) -> str:
    """The name of a run's folder: what varies, in words, and a hash of all that it is.

    Words name what varies in this study. The hash does not depend on them: of a run that this one
    needs, `flags` have the identity.
    """
    content = json.dumps([role, script, flags], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    words = "_".join([role, *map(format_value, setting.values())])
    words = re.sub(r"[^\w.+-]+", "_", words)[:80]
    return f"{words}_seed_{flags.get('seed')}_{digest}"


def identity(key: str) -> str:
    """What a run is, without the words of its key: its seed and its hash."""
    return key.rpartition("_seed_")[2]


def made_runs(folder: Path) -> dict[str, str]:
    """The keys of the runs that have a folder, by what they are; of two the one with results."""
    paths = [*folder.glob("*_seed_*"), *folder.glob(f"{RECORDING}s/*_seed_*")]
    results = ("scores.csv", "lab.npz")
    paths.sort(key=lambda path: (any((path / name).is_file() for name in results), path))
    keys = [path.relative_to(folder).as_posix() for path in paths]
    return {identity(key): key for key in keys}


def seedless_key(run: PlannedRun) -> str:
    """What a run is, except for its seed."""
    content = [run.role, run.script, without(run.flags, "seed")]
    return json.dumps(content, sort_keys=True, default=str)
