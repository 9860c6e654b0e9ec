"""Studies of students that are adapted to recordings, whose clean images they do not see.

A cell is a campaign: a kind of scenes, its light, and the number of its frames. In every cell a
student that was trained in simulation is adapted by each setting of the grid, and compared with
itself before. A seed is that of the campaign and of the adaptation; what was trained in simulation
is shared.
"""

import itertools
from collections.abc import Iterator

from core.errors import UserError, in_a_line
from core.registry import LABELS, NETWORKS, PHYSICS
from study.planning import (
    ADAPTED,
    RECORDING,
    RESERVED,
    SAME,
    TEACHER_THERE,
    Plan,
    PlannedRun,
    check_flags,
    flag_of_teachers,
    name_alone,
    run_key,
    setting_of_teachers,
    untrained_flags,
)
from study.question import (
    as_list,
    check_distinct,
    combinations,
    flags_in,
    select,
    varying_flags,
)

SET_HERE = ("dataset", "data_root", "truth", "init_student", "data_seed")
OF_RECORDINGS = ("labels", "measurement_weight", "measurement_part")  # not of a simulation
SIZE = ("n", "c")  # of the images, everywhere
LENGTH = ("epochs", "steps")  # of a training: a section that has one of them means it alone
SIMULATOR, RECORDER, SCORER = "main_unet", "acquire", "test_UNet"  # scripts
OF_STUDENTS = {  # flags of a student's network and physics, which it has in simulation too
    "network", "model", "cr_student", *SIZE, *PHYSICS["spc"].flags,
    *(flag for network in NETWORKS.values() for flag in network.flags),
}  # fmt: skip


class RecordedPlan(Plan):
    """The runs of a study with a section `recording`."""

    def __init__(self, text: dict, *arguments):
        self.sections = [
            flags_in({RECORDING: part}, RECORDING) for part in as_list(text[RECORDING])
        ]
        self.student = flags_in(text, "student")
        super().__init__(text, *arguments)

    def check(self) -> None:
        super().check()
        if self.script != "main_unet_dist":
            raise UserError(
                f"study: a section 'recording' is for main_unet_dist.py, not {self.script}.py"
            )
        if self.text.get("shuffled", "none") not in ("every", "none"):
            raise UserError(
                f"study: shuffled '{in_a_line(str(self.text['shuffled']))}': every or none"
            )
        for flags in (self.fixed, *(grid for grid, _ in self.grids)):
            check_flags(flags, SET_HERE)
        if self.own_teachers:
            raise UserError(
                f"study: teacher seed {SAME}: teacher and student of the simulation are trained "
                "once, for all recordings; give the teacher a seed of its own"
            )
        check_flags(self.student, (*RESERVED, "train_again"))
        for section in self.sections:
            check_flags(section, ("seed", "output", "overwrite", "config"))
        for section in (*self.sections, self.student):
            for name, value in section.items():
                check_distinct(as_list(value), in_a_line(name))
                if value == []:
                    raise UserError(f"study: {in_a_line(name)} lists no value")

    # ---------------------------------------------------------------- runs

    def add_runs(self) -> None:
        scenes = [scene for section in self.sections for scene in combinations(section)]
        points = [*self.points()]
        for scene, student in itertools.product(scenes, [*combinations(self.student)]):
            for point, (teacher,) in points:
                self.add_campaigns(scene, student, point, teacher)

    def add_campaigns(self, scene: dict, student: dict, point: dict, teacher: dict) -> None:
        """Adds one setting in one cell, with every seed."""
        flags = self.fixed | point
        of_network = {name: point[name] for name in point if name_alone(name) in OF_STUDENTS}
        place = dict(self.varied_of_scene(scene))
        cell = place | prefixed("student", student, varying_flags([self.student]))
        cell |= select(of_network, self.varying)
        differing = self.differing_of_teachers()
        of_teacher = setting_of_teachers((teacher,), differing)
        setting = cell | select(point, self.varying) | of_teacher
        scene = select(flags, SIZE) | settle(scene, flags)
        known = flags | scene
        taught = untrained_flags(teacher, known)
        of_it = select(flags, SIZE), settle(teacher, known)
        trained = () if taught else (self.add_simulated("teacher", *of_it),)
        named = {name_alone(name): value for name, value in of_network.items()}
        student_key = self.add_simulated("student", named, settle(student, known))
        for seed in self.seeds:
            recording = self.add(RECORDING, RECORDER, scene | {"seed": seed}, place)
            there = {
                "dataset": "recorded",
                "data_root": run_key(RECORDING, {}, RECORDER, scene),  # the same for all seeds
                "seed": seed,
            }
            keys = {"student": student_key, "recording": recording}
            before = there | {"checkpoint": student_key}
            alone = self.add("alone", SCORER, before, cell, (), network=student_key, **keys)
            for key in trained:
                self.add(
                    TEACHER_THERE,
                    SCORER,
                    there | {"checkpoint": key},
                    place | of_teacher,
                    teachers=(key,),
                    network=key,
                    recording=recording,
                )
            own = flags | there | {"init_student": student_key} | taught | flag_of_teachers(trained)
            self.add(ADAPTED, self.script, own, setting, trained, alone=alone, **keys)
            taught_there = has_teachers_labels(flags) or flags.get("loss_distill")
            if self.text.get("shuffled") == "every" and taught_there:
                own = own | {"shuffle_teacher": True}
                self.add("shuffled", self.script, own, setting, trained, alone=alone, **keys)

    def varied_of_scene(self, scene: dict) -> Iterator[tuple[str, object]]:
        """What varies of the recordings, by names that no flag of the grid has."""
        scenes = [scene for section in self.sections for scene in combinations(section)]
        places = {(scene.get("dataset"), scene.get("data_root")) for scene in scenes}
        unique = len(places) == len({dataset for dataset, _ in places})
        files = ("download", "data_root") if unique else ("download",)
        for name in varying_flags(self.sections):
            if name not in files:  # where the images of a dataset are
                yield f"{RECORDING} {name}" if name in self.varying else name, scene.get(name)

    def add_simulated(self, role: str, own: dict, section: dict) -> str:
        """A network that is trained in simulation, by the shared flags and those of its section."""
        fixed = {name_alone(name): value for name, value in self.fixed.items()}
        left_out = OF_RECORDINGS + (LENGTH if section.keys() & {*LENGTH} else ())
        shared = {name: value for name, value in fixed.items() if name not in left_out}
        flags = self.flags_of(SIMULATOR, shared) | own | {"seed": self.seeds[0]} | section
        return self.add(role, SIMULATOR, flags, section)

    # ---------------------------------------------------------------- commands

    def command_line(self, run: PlannedRun) -> list[str]:
        words = super().command_line(run)
        return ["simulate", *words] if run.role == RECORDING else words

    def paths_of(self, run: PlannedRun) -> dict:
        if run.role == RECORDING:
            return {"output": str(self.folder / run.key / "lab.npz"), "overwrite": True}
        if run.recording is None:
            return super().paths_of(run)
        files = self.folder / run.recording
        paths = {"data_root": str(files / "lab.npz")}
        truth = {"truth": str(files / "lab_truth.npz")}
        if run.network is not None:
            results = str(self.folder / run.key)
            return paths | truth | {"checkpoint": self.checkpoint(run.network), "results": results}
        assert run.student is not None, "an adapted student was trained in simulation before"
        paths |= super().paths_of(run) | {"init_student": self.checkpoint(run.student)}
        return paths | (truth if run.flags.get("labels") == "oracle" else {})


def has_teachers_labels(flags: dict) -> bool:
    labels = str(flags.get("labels", "both"))
    return labels in LABELS and LABELS[labels].has_teacher


def settle(section: dict, flags: dict) -> dict:
    """A section whose value `same` is that of the same flag elsewhere."""
    return {name: flags.get(name) if value == SAME else value for name, value in section.items()}


def prefixed(owner: str, section: dict, names: list[str]) -> dict:
    return {f"{owner} {name}": value for name, value in select(section, names).items()}
