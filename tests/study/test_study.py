"""Studies: what is planned, done once, scored, compared and reported."""

import csv
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import jobs
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import yaml
from browser import checked
from conftest import CONFIG
from doubles import own_code_forgotten
from scipy import stats

import sweep
from algo_functions import build_physics
from algo_functions import score as scores_of
from cli import flags
from core.errors import UserError
from core.files import lock, write_csv
from core.registry import TRAINING
from core.versions import code_version
from data_loader import Request, build_splits
from findings import answer, figures, report, tables
from findings.results import Results
from findings.tables import format_parts
from models.base import FirstImage
from report.statistics import (
    detectable,
    first_of_best,
    gap_closed,
    holm,
    paired,
    summarize,
    verdict,
)
from runners.pool import Pool, places
from study import costs, planning, question, status
from study import jobs as jobs_of_study
from study.scoring import decompose_error, score_images
from study.status import run_folder

ROOT = Path(__file__).parents[2]
READY = [path for path in sorted((ROOT / "studies").glob("*.yml")) if path.stem != "atlas"]
FIXED = {
    "dataset": "digits",
    "n": 16,
    "limit_train": 30,
    "limit_val": 10,
    "batch_size": 10,
    "width": 4,
    "epochs": 1,
}
MINI = {
    "script": "main_unet_dist.py",
    "seeds": [0, 1],
    "fixed": FIXED | {"data_seed": 0},
    "teacher": {"cr": 0.5},
    "grid": {"cr": 0.1, "loss_distill": ["mse", "mae"], "type_dist": ["output", "latent"]},
    "shuffled": "loss_distill",
    "limit_test": 12,
}


def planned(**changes):
    text = {name: value for name, value in (MINI | changes).items() if value is not None}
    return planning.build_study(text, "s", Path("results"), sweep.load_script, {})


def roles(found) -> dict[str, int]:
    return {
        role: len(found.with_role(role))
        for role in ("teacher", "alone", "distilled", "shuffled", "trained")
        if found.with_role(role)
    }


def subsets_of(plan, run) -> tuple[int, int]:
    """The seed and the subset that a run's script reads."""
    args = plan.load_script(run.script).parse(plan.command_line(run))
    return args.seed, args.subset_seed


class TestPlan:
    def test_subsets_and_teachers_follow_the_seed_where_a_study_says_so(self):
        changes = {"fixed": FIXED | {"subset_seed": "seed"}, "shuffled": "none", "seeds": [3, 7]}
        found, plan = planned(teacher={"cr": 0.5, "seed": "same"}, **changes)
        assert roles(found) == {"teacher": 2, "alone": 2, "distilled": 8}
        for run in found.with_role("distilled"):
            (teacher,) = run.teachers
            those = run, found.runs[teacher], found.runs[run.alone]
            assert {subsets_of(plan, one) for one in those} == {(run.seed, run.seed)}
        groups = Counter(planning.seedless_key(run) for run in found.with_role("distilled"))
        assert set(groups.values()) == {2}, "the seeds of a setting are one row"
        assert all(len(keys) == 1 for keys in found.jobs), "nothing is shared between seeds"

        found, plan = planned(teacher={"cr": 0.5, "subset_seed": 0}, **changes)
        assert roles(found)["teacher"] == 1
        assert {subsets_of(plan, run) for run in found.with_role("teacher")} == {(3, 0)}
        assert {subsets_of(plan, run) for run in found.with_role("alone")} == {(3, 3), (7, 7)}

    def test_subsets_may_follow_the_seed_where_no_teacher_is_trained(self):
        changes = {"fixed": FIXED | {"subset_seed": "seed"}, "seeds": [3]}
        tv = {"teacher": {"untrained": "tv"}, "shuffled": "none"}
        tv |= {"grid": {"cr": 0.1, "type_dist": "output"}}
        alone = {"script": "main_unet.py", "teacher": None, "shuffled": None, "grid": {"cr": 0.1}}
        for others in (tv, alone):
            found, plan = planned(**changes, **others)
            assert {subsets_of(plan, run) for run in found.runs.values()} == {(3, 3)}

    def test_flags_with_hyphens_reach_every_run_as_those_with_underscores(self):
        plain, _ = planned(fixed=FIXED | {"loss_gt": "l2", "data_seed": 0})
        hyphens, plan = planned(fixed=FIXED | {"loss-gt": "l2", "data-seed": 0})
        assert hyphens.runs == plain.runs and hyphens.jobs == plain.jobs
        args = [plan.arguments(run.key) for run in hyphens.with_role("alone")]
        assert {one.loss for one in args} == {"l2"}

    def test_two_spellings_of_a_flag_are_refused(self):
        with pytest.raises(UserError, match="fixed lists loss_gt 2 times"):
            planned(fixed=FIXED | {"loss-gt": "l2", "loss_gt": "mae"})

    def test_a_change_of_the_command_line_may_have_hyphens(self, tmp_path):
        path = tmp_path / "mini.yml"
        path.write_text(yaml.safe_dump(MINI))
        words = [str(path), "--fixed", "loss-gt=l2", "--teacher", "batch-size=5"]
        found, plan = sweep.build_plan(sweep.parse([*words, "--results", str(tmp_path)]))
        assert {plan.arguments(run.key).loss for run in found.with_role("alone")} == {"l2"}
        teachers = [plan.arguments(run.key) for run in found.with_role("teacher")]
        assert {teacher.batch_size for teacher in teachers} == {5}

    @pytest.mark.parametrize("own", [True, False])
    def test_the_report_says_whether_all_seeds_have_the_same_teacher(self, own, monkeypatch):
        notes = []
        monkeypatch.setattr(report, "settings_section", lambda *args: notes.append(args[-1]))
        monkeypatch.setattr(report.figures, "plot_heat_maps", lambda results: None)
        monkeypatch.setattr(report.figures, "plot_gain_lines", lambda results: {})
        changes = {"fixed": FIXED, "teacher": {"cr": 0.5} | ({"seed": "same"} if own else {})}
        _, plan = planned(**changes)
        report.gain_sections(None, plan, [])
        assert (report.SAME_TEACHERS in notes[0]) is not own
        assert report.SOME_TEACHERS not in notes[0]

    def test_the_report_says_that_some_teachers_are_the_same_for_all_seeds(self, monkeypatch):
        notes = []
        monkeypatch.setattr(report, "settings_section", lambda *args: notes.append(args[-1]))
        monkeypatch.setattr(report.figures, "plot_heat_maps", lambda results: None)
        monkeypatch.setattr(report.figures, "plot_gain_lines", lambda results: {})
        parts = [{"cr": 0.1, "teacher": {"seed": seed}} for seed in ("same", 5)]
        _, plan = planned(fixed=FIXED, grid=parts, shuffled="none")
        report.gain_sections(None, plan, [])
        assert report.SOME_TEACHERS in notes[0]

    def test_every_setting_has_its_controls_once(self):
        found, plan = planned()
        assert roles(found) == {"teacher": 1, "alone": 2, "distilled": 8, "shuffled": 4}
        for run in found.with_role("distilled"):
            alone = found.runs[run.alone]
            assert alone.seed == run.seed and alone.script == "main_unet"
            theirs, ours = (
                plan.load_script(one.script).parse(plan.command_line(one)) for one in (alone, run)
            )
            shared = vars(theirs).keys() & vars(ours).keys() - {"results", "run_name"}
            assert {"epochs", "lr", "cr", "width", "data_seed"} <= shared
            assert all(getattr(theirs, name) == getattr(ours, name) for name in shared), (
                "the same student, data and budget"
            )
        assert {run.setting["loss_distill"] for run in found.with_role("shuffled")} == {
            "mse",
            "mae",
        }
        assert all(
            plan.load_script(run.script).parse(plan.command_line(run)).shuffle_teacher
            for run in found.with_role("shuffled")
        )

    def test_the_student_alone_is_the_same_by_whatever_name_its_flags_are_given(self):
        fixed = {name: value for name, value in FIXED.items() if name != "width"} | {
            "init_student": "begin.pth",
            "loss_gt": "mse",
        }
        found, plan = planned(
            fixed=fixed, grid={"cr_student": 0.1, "student_width": [4, 6]}, shuffled="none"
        )
        for run in found.with_role("distilled"):
            alone = plan.load_script("main_unet").parse(plan.command_line(found.runs[run.alone]))
            assert (alone.width, alone.train_again, alone.loss, alone.cr) == (
                run.flags["student_width"],
                "begin.pth",
                "mse",
                0.1,
            )

    def test_a_teacher_learns_on_the_students_images(self):
        found, plan = planned(
            fixed={"width": 4},
            grid={"cr": 0.1, "dataset": ["digits", "photos"], "n": [16, 32]},
            shuffled="none",
        )
        assert len(found.with_role("teacher")) == 4
        for run in found.with_role("distilled"):
            theirs, ours = (
                plan.load_script(one.script).parse(plan.command_line(one))
                for one in (found.runs[run.teachers[0]], run)
            )
            assert (theirs.dataset, theirs.n) == (ours.dataset, ours.n)

    @pytest.mark.parametrize(
        "shuffled, count", [("every", 8), ("none", 0), ("loss_distill", 4), ("type_dist", 4)]
    )
    def test_teachers_are_shuffled_as_often_as_asked(self, shuffled, count):
        assert len(planned(shuffled=shuffled)[0].with_role("shuffled")) == count

    def test_seeds_with_one_data_seed_are_one_job_and_teachers_come_first(self):
        found, _ = planned()
        assert [len(keys) for keys in found.jobs] == [1] + [2] * 7 and found.teacher_jobs == 1
        single_process, _ = planned(fixed=FIXED)
        assert (
            all(len(keys) == 1 for keys in single_process.jobs)
            and sum(map(len, found.jobs)) == len(single_process.jobs) == 15
        )

    def test_a_teachers_flags_may_vary_or_be_the_students(self):
        found, _ = planned(
            teacher={"cr": [0.5, 0.9]}, grid={"cr": 0.1, "loss_distill": "mse"}, shuffled="none"
        )
        assert {run.setting["teacher cr"] for run in found.with_role("distilled")} == {
            0.5,
            0.9,
        } and len(found.with_role("teacher")) == 2
        assert len(found.with_role("alone")) == 2, "one student alone for both"
        found, _ = planned(
            teacher={"cr": 0.5, "ordering": "same"},
            grid={"cr": 0.1, "ordering": ["xy", "zig_zag"]},
            shuffled="none",
        )
        for run in found.with_role("distilled"):
            assert (
                found.runs[run.teachers[0]].flags["ordering"] == run.flags["ordering"]
                and "teacher ordering" not in run.setting
            )

    def test_teacher_and_student_alone_learn_by_the_students_task_loss(self):
        found, plan = planned(fixed=FIXED | {"loss_gt": "mse"})
        for run in found.with_role("teacher", "alone"):
            assert plan.load_script(run.script).parse(plan.command_line(run)).loss == "mse"

    def test_students_alone_are_distinguished_by_what_varies_of_them(self):
        found, _ = planned(
            grid={"cr": 0.1, "loss_gt": ["mse", "mae"], "student_width": [4, 6]}, shuffled="none"
        )
        assert (
            len({tuple(run.setting.items()) for run in found.with_role("alone")})
            == 4
            == len(found.with_role("alone")) / 2
        )

    def test_a_grid_may_have_parts_with_teachers_of_their_own(self):
        grid = [{"cr": 0.1, "teacher": {"cr": [0.3, 0.9]}}, {"cr": 0.5, "teacher": {"cr": 0.9}}]
        found, _ = planned(teacher=None, grid=grid, shuffled="none", seeds=[0])
        assert sorted(
            (run.setting["cr"], run.setting["teacher cr"]) for run in found.with_role("distilled")
        ) == [(0.1, 0.3), (0.1, 0.9), (0.5, 0.9)]

    def test_a_list_of_teachers_teaches_one_student(self):
        teachers = [{"seed": 0}, {"seed": 1}, {"lessen_ratio": 2, "seed": 0}]
        found, plan = planned(
            script="main_classify_dist.py",
            fixed={"dataset": "digits", "lessen_ratio": 4, "epochs": 1},
            teacher={"lessen_ratio": 1},
            grid=[{"loss_distill": "kd", "teacher": teachers[0]}, {"teacher": teachers}],
            shuffled="none",
        )
        assert roles(found) == {"teacher": 3, "alone": 2, "distilled": 4}
        single, team = (
            [run for run in found.with_role("distilled") if len(run.teachers) == count]
            for count in (1, 3)
        )
        assert [run.setting["teacher seed"] for run in single] == [0, 0]
        for run in team:
            assert run.setting["teacher seed"] == [0, 1, 0]
            assert run.setting["teacher lessen_ratio"] == [1, 1, 2]
            files = plan.load_script(run.script).parse(plan.command_line(run)).teacher
            assert files == [plan.checkpoint(key) for key in run.teachers]
            assert [key for role, key in run.needs if role == "teacher"] == [*run.teachers]
        again, _ = planned(
            script="main_classify_dist.py",
            fixed={"dataset": "digits", "lessen_ratio": 4, "epochs": 1},
            teacher={"lessen_ratio": 1, "model": "resnet20"},
            grid={"teacher": teachers},
            shuffled="none",
        )
        keys = {run.key.rpartition("_")[2] for run in again.with_role("distilled")}
        assert keys.isdisjoint(run.key.rpartition("_")[2] for run in team), "by what teachers are"

    @pytest.mark.parametrize(
        "script, teachers, message",
        [
            ("main_unet_dist.py", [{"cr": 0.5}, {"cr": 0.9}], "main_unet_dist.py has one"),
            ("main_classify_dist.py", [{"seed": 0}, {"seed": 1}, {"seed": 0}], "teacher twice"),
            ("main_classify_dist.py", [{"seed": [0, 1]}, {"seed": [1, 2]}], "teacher twice"),
            ("main_classify_dist.py", [{"model": "resnet8"}, {"model": "same"}], "teacher twice"),
            ("main_classify_dist.py", [{"seed": 0}, {"model": "resnet8"}], "teacher twice"),
            ("main_classify_dist.py", [{"untrained": "tv"}, {"seed": 0}], "teaches alone"),
            ("main_classify_dist.py", [{"seed": 0}, {"untrained": "tv"}], "teaches alone"),
            ("main_classify_dist.py", [{"seed": 0}, 3], "teacher must hold flags"),
        ],
    )
    def test_a_list_of_teachers_that_cannot_be_is_refused(self, script, teachers, message):
        with pytest.raises(UserError, match=message):
            planned(
                script=script,
                fixed={"model": "resnet8"} if script == "main_classify_dist.py" else {},
                teacher=None,
                grid={"teacher": teachers, "loss_distill": "mse"},
            )

    def test_teams_that_differ_have_settings_that_differ(self):
        teams = [
            [{"seed": 0, "lessen_ratio": 2}, {"seed": 1}],
            [{"seed": 0}, {"seed": 1, "lessen_ratio": 2}],
        ]
        found, _ = planned(
            script="main_classify_dist.py",
            fixed={"dataset": "digits", "lessen_ratio": 4, "epochs": 1},
            teacher=None,
            grid=[{"teacher": team} for team in teams],
            shuffled="none",
            seeds=[0],
        )
        settings = [run.setting["teacher lessen_ratio"] for run in found.with_role("distilled")]
        assert settings == [[2, None], [None, 2]]

    def test_a_list_of_teachers_above_the_grid_is_sent_there(self):
        with pytest.raises(UserError, match="belongs into the grid"):
            planned(script="main_classify_dist.py", fixed={}, teacher=[{"seed": 0}, {"seed": 1}])

    def test_a_teacher_that_nobody_trains_is_a_word_and_may_measure_more(self):
        teacher = {"untrained": ["tv", "tv:0.5"], "cr": [0.5, "same"]}
        grid = [{"cr": 0.1, "type_dist": "output", "teacher": teacher}]
        found, plan = planned(grid=grid, shuffled="none")
        taught = found.with_role("distilled")
        args = [plan.load_script(run.script).parse(plan.command_line(run)) for run in taught]
        assert {one.teacher for one in args} == {"tv", "tv:0.5"}
        assert {one.cr_teacher for one in args} == {0.5, 0.1}
        settings = {tuple(run.setting.items()) for run in taught}
        assert len(settings) * 2 == len(taught) == 8, "a setting has a run of each seed"
        assert {run.setting["teacher untrained"] for run in taught} == {"tv", "tv:0.5"}
        assert not found.with_role("teacher") and found.with_role("alone")

    def test_a_script_that_distils_nothing_is_swept_too(self):
        found, plan = planned(
            script="main_unet.py", teacher=None, grid={"cr": [0.1, 0.5]}, shuffled=None
        )
        assert roles(found) == {"trained": 4} and [label.split("_")[1] for label in found.runs] == [
            "0.1",
            "0.1",
            "0.5",
            "0.5",
        ]
        assert plan.command_line(found.with_role("trained")[0])[-4] == "--results"

    def test_a_name_tells_all_of_a_run(self):
        a, b = planned()[0], planned(fixed=FIXED | {"data_seed": 0, "lr": 1e-3})[0]
        assert not a.runs.keys() & b.runs.keys() and a.runs.keys() == planned()[0].runs.keys()

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"sseeds": [1]}, "unknown sseeds: the keys are question, script"),
            ({"seeds": [0.5]}, "seed 0.5 is not a whole number"),
            ({"grid": {"cr": []}}, "its grid is empty"),
            ({"fixed": "digits"}, "fixed must hold flags"),
            ({"script": "demo.py"}, "unknown script 'demo': choose from main_unet.py"),
            ({"seeds": []}, "it has no seeds"),
            ({"seeds": [0, 1, 0]}, "study: seeds lists 0 2 times"),
            ({"grid": {"cr": [0.1, 0.2, 1e-1]}}, "study: the grid's cr lists 0.1 2 times"),
            ({"grid": [{"cr": 0.1}, {"cr": ["0.1", 0.1]}]}, "the grid's cr lists 0.1 2 times"),
            (
                {"grid": {"cr": 0.1, "loss_distill": [["mse", "cs"], "mse", ["mse", "cs"]]}},
                "the grid's loss_distill lists mse cs 2 times",
            ),
            ({"teacher": {"cr": [0.5, 0.5, 0.5]}}, "study: the teacher's cr lists 0.5 3 times"),
            (
                {"teacher": None},
                "study: main_unet_dist.py needs a teacher: describe its training",
            ),
            ({"teacher": {}}, "main_unet_dist.py needs a teacher"),
            (
                {"teacher": None, "grid": [{"cr": 0.1, "teacher": {"cr": 0.5}}, {"cr": 0.2}]},
                "main_unet_dist.py needs a teacher",
            ),
            ({"tiny": 3}, "tiny must hold flags 'name: value', not 3"),
            ({"tiny": {"fixed": [1]}}, "fixed must hold flags 'name: value', not [1]"),
            ({"limit_test": 0}, "limit_test 0 is not a whole number of at least 1"),
            (
                {"fixed": {"cr": {1: "a", "b": 2}}},
                "cr {1: 'a', 'b': 2}: the value of a flag is one value",
            ),
            (
                {"fixed": FIXED | {"data_seed": 0, "subset_seed": "seed"}},
                "leave it out where subset_seed follows the seed",
            ),
            (
                {"teacher": {"cr": 0.5, "seed": "same"}},
                "leave it out where the teacher follows the seed",
            ),
            (
                {"fixed": FIXED | {"subset_seed": "seed"}},
                "subset_seed follows the seed of each student: give its teachers 'seed: same'",
            ),
            (
                {
                    "fixed": FIXED | {"subset_seed": "seed"},
                    "teacher": {"cr": 0.5, "seed": 7, "subset_seed": "same"},
                },
                "subset_seed follows the seed of each student: give its teachers 'seed: same'",
            ),
            ({"fixed": FIXED | {"seed": 3}}, "seed: a study sets this flag itself"),
            (
                {"fixed": FIXED | {"shuffle_teacher": True}},
                "shuffle_teacher: a study sets this flag itself",
            ),
            ({"grid": {"cr": 0.1, "dry-run": True}}, "dry_run: a study sets this flag itself"),
            ({"teacher": {"cr": 0.5, "run_name": "t"}}, "run_name: a study sets this flag itself"),
            (
                {"script": "main_unet.py", "shuffled": None, "grid": {"cr": 0.1}},
                "main_unet.py has no teacher",
            ),
            (
                {"script": "main_unet.py", "teacher": None, "grid": {"cr": 0.1}},
                "main_unet.py has no teacher",
            ),
            (
                {"grid": {"cr": 0.1, "teacher": {"untrained": "tv", "width": 4}}},
                "width: an untrained teacher has no training to describe",
            ),
            (
                {"teacher": {"untrained": "tv"}, "grid": {"cr": 0.1, "teacher": {"cr": 0.5}}},
                "say 'untrained' in each grid that means it",
            ),
            (
                {
                    "script": "main_classify_dist.py",
                    "fixed": {"dataset": "digits", "limit_labels": 20, "epochs": 2},
                    "teacher": {"seed": 0},
                    "grid": {"loss_distill": "kd"},
                },
                "give steps and val_every, so that it trains as long as the others",
            ),
            (
                {"shuffled": "lr"},
                "shuffled 'lr': every, none, or a flag of the grid (cr, loss_distill, type_dist)",
            ),
        ],
    )
    def test_a_wrong_study_is_one_line(self, changes, message):
        with pytest.raises(UserError, match=re.escape(message)):
            text = question.resolve_tiny(
                {name: value for name, value in (MINI | changes).items() if value is not None},
                "tiny" in changes,
            )
            planning.build_study(text, "s", Path("results"), sweep.load_script, {})

    @pytest.mark.parametrize(
        "grid",
        [{"cr": 2}, {"cr": 0.1, "los_distill": "mse"}, {"cr": 0.1, "loss_distill": "nonsense"}],
    )
    def test_a_wrong_flag_is_the_scripts_to_refuse_before_anything_is_trained(self, grid, capsys):
        with pytest.raises(SystemExit) as error:
            planned(grid=grid, shuffled="none")
        assert error.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1

    @pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
    @pytest.mark.parametrize("tiny", [False, True])
    def test_the_ready_studies_can_be_read(self, path, tiny, monkeypatch):
        monkeypatch.chdir(ROOT)  # one names a file of examples/
        with own_code_forgotten(monkeypatch):
            args = sweep.parse([str(path), *["--tiny"] * tiny])
            found, _ = sweep.build_plan(args)
        assert args.text["question"].endswith("?")
        assert found.with_role("distilled", "trained", "adapted")
        if tiny:
            assert len(found.runs) <= 120, "it is to be done in a quarter of an hour"

    def test_the_tiny_distillpool_asks_all_selections_and_losses(self):
        found, _ = sweep.build_plan(
            sweep.parse([str(ROOT / "studies" / "distillpool.yml"), "--tiny"])
        )
        asked = {
            (run.setting["type_dist"], run.setting["loss_distill"])
            for run in found.with_role("distilled")
        }
        assert {selection for selection, loss in asked if loss == "mse"} == set(study_selections())
        assert {loss for selection, loss in asked if selection == "output_latent"} == {
            "mse",
            "mae",
            "l1",
            "cs",
            "l2",
            "linf",
            "comb_matrix",
        }
        assert {run.setting["loss_distill"] for run in found.with_role("shuffled")} == {
            "mse",
            "mae",
            "l1",
            "cs",
            "l2",
            "linf",
            "comb_matrix",
        }
        assert len({run.seed for run in found.with_role("distilled")}) == 3

    def test_flags_make_a_study_up_and_change_one(self):
        words = [
            "--script",
            "main_unet_dist.py",
            "--vary",
            "loss_distill=mse,cs",
            "cr=0.1",
            "--fixed",
            "dataset=digits",
            "--teacher",
            "cr=0.5",
        ]
        found, _ = sweep.build_plan(sweep.parse([*words, "--seeds", "3", "--shuffled", "none"]))
        assert found.name == "study" and roles(found) == {"teacher": 1, "alone": 1, "distilled": 2}
        path = str(ROOT / "studies" / "distillpool.yml")
        found, plan = sweep.build_plan(
            sweep.parse(
                [path, "--tiny", "--fixed", "dataset=digits", "--seeds", "7", "--name", "other"]
            )
        )
        assert (
            found.folder == Path("results/sweeps/other")
            and plan.fixed["dataset"] == "digits"
            and plan.fixed["n"] == 32
        )
        assert {run.seed for run in found.runs.values()} == {7}

    def test_assignments_add_up(self):
        args = sweep.parse(
            [
                "--fixed",
                "n=16",
                "--fixed",
                "width=4",
                "cr=0.1",
                "--vary",
                "lr=1,2",
                "--vary",
                "alpha=0,1",
            ]
        )
        assert dict(args.fixed) == {"n": 16, "width": 4, "cr": 0.1} and dict(args.vary) == {
            "lr": [1, 2],
            "alpha": [0, 1],
        }

    @pytest.mark.parametrize(
        "words, message",
        [
            (
                ["--fixed", "loss_distill=cs"],
                "--fixed loss_distill: the grid sets it; give --vary loss_distill=VALUE",
            ),
            (["--teacher", "awgn_snr=20"], "--teacher awgn_snr: the grid sets it"),
        ],
    )
    def test_a_flag_that_the_grid_would_overrule_is_refused(self, words, message):
        path = ROOT / "studies" / ("noise.yml" if "--teacher" in words else "distillpool.yml")
        with pytest.raises(UserError, match=re.escape(message)):
            sweep.build_plan(sweep.parse([str(path), *words]))

    @pytest.mark.parametrize(
        "words, message",
        [
            (
                ["--cluster", "slurm", "--time", "01:00:00", "--status"],
                "--status does not go with --cluster",
            ),
            (["--dry_run", "--task", "0"], "--task does not go with --dry_run"),
            (["my study.yml"], "study my study.yml: 'my study' is not a name: letters, digits"),
            (["--fixed", "lr=!!float ''"], "is not YAML"),
        ],
    )
    def test_a_wrong_command_line_is_one_line(self, words, message, capsys):
        with pytest.raises(SystemExit) as error:
            sweep.parse(words)
        reported = capsys.readouterr().err
        assert error.value.code == 2 and message in reported and len(reported.splitlines()) == 1


def study_selections():
    from core.registry import SELECTIONS

    return SELECTIONS


class TestStatistics:
    def test_intervals_and_tests_are_scipys(self):
        rng = np.random.default_rng(0)
        a, b = rng.normal(0.3, 1, 12), rng.normal(0, 1, 12)
        found = paired(a, b)
        theirs = stats.ttest_rel(a, b)
        assert math.isclose(found.p, theirs.pvalue) and np.allclose(
            (found.low, found.high), theirs.confidence_interval(0.95)
        )
        assert math.isclose(found.std, np.std(a - b, ddof=1)) and found.n == 12
        assert math.isclose(
            paired(a, b, "wilcoxon").p, stats.wilcoxon(a, b, zero_method="zsplit").pvalue
        )

    def test_an_interval_holds_the_mean_as_often_as_it_says(self):
        rng = np.random.default_rng(1)
        inside = [
            printed.low <= 1 <= printed.high
            for printed in (summarize(rng.normal(1, 2, 3)) for _ in range(2000))
        ]
        assert 0.935 < np.mean(inside) < 0.965

    @pytest.mark.parametrize("n", [2, 3, 5, 10])
    def test_a_detectable_gain_is_found_in_four_of_five_studies(self, n):
        """By simulated studies, which test with scipy."""
        gain = detectable(0.2, n)
        draws = np.random.default_rng(0).normal(gain, 0.2, size=(20_000, n))
        found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
        assert abs(found.mean() - 0.8) < 0.01
        shift, critical = gain / 0.2 * n**0.5, stats.t.ppf(0.975, n - 1)
        assert stats.nct.sf(critical, n - 1, shift) == pytest.approx(0.8, abs=0.002)
        assert detectable(0.4, n) == pytest.approx(2 * gain)
        many = detectable(0.2, n, tests=10)
        draws = np.random.default_rng(0).normal(many, 0.2, size=(20_000, n))
        found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.005
        assert many > gain and abs(found.mean() - 0.8) < 0.01
        assert math.isnan(detectable(0.0, n)) and math.isnan(detectable(0.2, 1))

    def test_one_value_has_no_interval_and_no_test(self):
        found = paired([1.0], [0.5])
        assert (
            found.mean == 0.5
            and math.isnan(found.p)
            and "no interval" in str(found)
            and verdict(found, found.p) == "not tested"
        )

    def test_equal_samples_do_not_differ(self):
        assert (
            paired([1, 2, 3], [1, 2, 3]).p == 1 and paired([1, 2, 3], [1, 2, 3], "wilcoxon").p == 1
        )

    def test_differences_without_any_deviation_are_no_evidence(self):
        same = paired(
            [88.9, 77.8], [77.8, 66.7]
        )  # one more of nine images is right, with both seeds
        assert math.isnan(same.p) and verdict(same, holm([same.p])[0]) == "not tested"

    def test_ranks_do_not_hang_on_the_last_bit(self):
        third = 100 / 3
        a, b = [2 * third, third, third, 0.0, 100.0], [third, 0.0, 2 * third, third, third]
        exact = [1.0, 1.0, -1.0, -1.0, 2.0]
        assert paired(a, b, "wilcoxon").p == paired(exact, [0] * 5, "wilcoxon").p

    def test_the_first_is_the_best_until_another_is_clearly_better(self):
        generator, chosen = np.random.default_rng(0), []
        for _ in range(40):
            first = generator.normal(size=30)
            second = first - 0.3 + generator.normal(size=30)
            chosen.append(first_of_best(["a", "b"], [first, second]))
            assert chosen[-1] == int(stats.ttest_rel(first, second).statistic > 2)
        assert set(chosen) == {0, 1}
        assert first_of_best(["a", "b", "a"], [[3.0, 4.0], [2.0, 2.5], [2.0, 2.6]]) == 2
        assert first_of_best(["a", "b"], [[1.0], [0.9]]) == 1, "of one frame nothing is known"
        noisy = generator.normal(size=30)
        errors = [noisy - noisy.mean(), noisy * 0 + 0.01, noisy * 0 - 0.01]
        assert first_of_best(["a", "b", "c"], errors) == 0, "compared with the lowest alone"

    def test_holm_is_the_closed_test_of_bonferroni(self):
        p = [0.01, 0.04, 0.03, float("nan"), 0.5]
        expected = [
            max(min(1, q * sum(r >= q for r in p)) for q in p if q <= mine)
            for mine in p
            if not math.isnan(mine)
        ]
        found = holm(p)
        assert np.allclose(
            [value for value in found if not math.isnan(value)], expected
        ) and math.isnan(found[3])
        assert (
            all(a >= b for a, b in zip(found, p, strict=True) if not math.isnan(a))
            and holm([]) == []
        )

    def test_many_true_nulls_are_seldom_called_gains(self):
        rng = np.random.default_rng(2)
        wrong = 0
        for _ in range(300):
            printed = [paired(rng.normal(size=5), rng.normal(size=5)) for _ in range(10)]
            wrong += any(
                verdict(one, p) != "no difference shown"
                for one, p in zip(printed, holm([one.p for one in printed]), strict=True)
            )
        assert wrong / 300 < 0.09

    def test_a_verdict_needs_the_corrected_probability(self):
        gain = paired([1.0, 1.1, 0.9], [0.0, 0.0, 0.0])
        assert [verdict(gain, p) for p in (0.01, 0.2, float("nan"))] == [
            "helps",
            "no difference shown",
            "not tested",
        ]
        assert verdict(paired([0.0, 0.0, 0.0], [1.0, 1.1, 0.9]), 0.01) == "harms"

    def test_the_share_of_the_gap(self):
        gain = paired([2.0, 2.2, 1.8], [1.0, 1.0, 1.0])
        share, low, high = gap_closed(gain, 1.0, 5.0)
        assert (
            math.isclose(share, 25)
            and low < share < high
            and math.isnan(gap_closed(gain, 1.0, 0.5)[0])
        )


class TestLedger:
    @pytest.mark.parametrize("changes", [{}, {"ordering": "random"}, {"x0": "lmmse"}], ids=str)
    def test_the_parts_of_an_error_add_up_and_are_where_they_are_said_to_be(self, changes):
        camera = build_physics(
            CONFIG | {"cr": 0.25} | changes, images=lambda: torch.rand(20, 1, 16, 16)
        )
        error = torch.randn(3, 1, 16, 16)
        parts = decompose_error(camera, error)
        assert torch.allclose(
            parts["measured"] + parts["unmeasured"], error.square().mean((1, 2, 3)), rtol=1e-4
        )
        assert torch.allclose(
            parts["measured"].mean() / error.square().mean(), torch.tensor(0.25), atol=0.08
        )
        unseen = error - camera.back_projection(camera.operator.A(error))
        assert decompose_error(camera, unseen)["measured"].max() < 1e-8 and torch.allclose(
            decompose_error(camera, unseen)["unmeasured"], parts["unmeasured"], rtol=1e-4
        )

    @pytest.mark.parametrize(
        "config",
        [
            {"name": "sr", "factor": 2, "kernel": "bicubic"},
            {"name": "sr", "factor": 4, "kernel": "gaussian"},
            {"name": "mri", "acceleration": 4, "mask_type": "gaussian"},
            {"name": "mri", "acceleration": 4, "mask_type": "random"},
            {"name": "spc", "cr": 0.2, "ordering": "random"},
        ],
        ids=str,
    )
    def test_the_measured_part_is_the_projection_on_the_patterns(self, config):
        camera = build_physics({"n": 16, "c": 1, "x0": "adjoint", "awgn_snr": None} | config)
        error, matrix = torch.randn(3, 1, 16, 16), camera.rows().double()
        expected = (
            error.flatten(1).double() @ torch.linalg.pinv(matrix, rtol=1e-5) @ matrix
        ).view_as(error)
        parts = decompose_error(camera, error)
        assert torch.allclose(
            parts["measured"].double(), expected.square().mean((1, 2, 3)), rtol=1e-3
        )
        assert torch.allclose(sum(parts.values()), error.square().mean((1, 2, 3)), rtol=1e-3)

    def test_a_blur_has_no_line_between_what_it_measures_and_what_not(self):
        camera = build_physics(
            {
                "name": "blur",
                "n": 16,
                "c": 1,
                "kernel": "gaussian",
                "blur_width": 1.5,
                "x0": "adjoint",
                "awgn_snr": None,
            }
        )
        assert decompose_error(camera, torch.randn(2, 1, 16, 16)) == {}

    def test_small_errors_keep_their_digits(self):
        camera = build_physics(CONFIG | {"cr": 1.0})
        images = build_splits(Request(dataset="digits", n=16, limit_test=2), ("test",))["test"]
        exact = scores_of(camera.observe(images.stack()), images.stack())["mse"]
        rows = score_images(FirstImage(1), camera, images, torch.device("cpu"))
        assert 0 < exact.max() < 1e-10
        assert np.allclose([row["mse"] for row in rows], exact, rtol=1e-6, atol=0)
        assert (
            format_parts({"measured": 1.23456e-9, "unmeasured": 0})["measured (1e-4)"] == 1.235e-5
        )

    def test_a_denoiser_measures_all(self):
        camera = build_physics({"name": "denoise", "n": 16, "c": 1, "sigma": 25.0, "x0": "adjoint"})
        assert decompose_error(camera, torch.randn(2, 1, 16, 16))["unmeasured"].max() < 1e-10


def call(*words, pool_type=Pool):
    """sweep.py as its user calls it: how it ends, and what it says."""
    printed, code = {"stdout": io.StringIO(), "stderr": io.StringIO()}, 0
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(printed["stdout"]),
        redirect_stderr(printed["stderr"]),
    ):
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(sweep, "serve", jobs.serve_blank)
        patch.setattr("runners.pool.Pool", pool_type)
        try:
            flags.run(lambda: sweep.parse([str(word) for word in words]), sweep.main)
        except SystemExit as end:
            code = end.code
    return SimpleNamespace(
        returncode=code, **{name: stream.getvalue() for name, stream in printed.items()}
    )


def made_up(text: dict, folder: Path, keep=lambda run: True) -> tuple:
    """A study whose runs are all done, with scores that are drawn."""
    found, plan = planning.build_study(text, "s", folder, sweep.load_script, {})
    rng = np.random.default_rng(0)
    for key in (key for key, run in found.runs.items() if keep(run)):
        rows = [{"image": i, "psnr": 20 + rng.random(), "ssim": 0.5, "mse": 0.01} for i in range(9)]
        inside = found.folder / key / "runs" / key
        write_csv(found.folder / key / "scores.csv", rows)
        (inside / "best.pth").parent.mkdir(parents=True)
        (inside / "best.pth").write_text("")
        (inside / "run.json").write_text("{}")
        (inside / "metrics.json").write_text(
            json.dumps([{"epoch": epoch, "val_psnr": rng.random()} for epoch in (1, 2)])
        )
        status.write_status(
            found,
            key,
            status.DONE,
            run=key,
            parameters=5,
            seconds=1.0,
            baselines=[],
            limit_test=found.limit_test,
        )
    return Results(found), plan


class TestReport:
    @pytest.mark.parametrize(
        "changes, drawn",
        [
            (
                {"grid": {"cr": [0.2, 0.1], "lr": ["1e-3", 0.01]}},
                ["cr", "lr"],
            ),  # YAML reads 1e-3 as a word
            ({"grid": {"cr": 0.1, "awgn_snr": [20, None, 10]}}, ["awgn_snr"]),
            ({"grid": {"cr": 0.1}, "teacher": {"cr": [0.5, "same", 0.9]}}, ["teacher cr"]),
            ({"grid": {"cr": [0.1, 0.2]}, "seeds": [0]}, []),  # no interval, no gain
        ],
    )
    def test_gains_are_drawn_over_what_is_a_number_and_only_with_intervals(
        self, changes, drawn, tmp_path
    ):
        found, _ = made_up(MINI | {"shuffled": "none"} | changes, tmp_path)
        plotted = figures.plot_gain_lines(found)
        assert list(plotted) == drawn and (figures.plot_heat_maps(found) is None)
        for figure in plotted.values():
            for line in figure.axes[0].lines:
                assert list(line.get_xdata()) == sorted(line.get_xdata())

    def test_students_of_different_ratios_have_panels_and_bars_stand_beside_each_other(
        self, tmp_path
    ):
        grid = {"grid": {"cr": [0.1, 0.2]}, "teacher": {"cr": [0.5, 0.9]}, "shuffled": "none"}
        found, _ = made_up(MINI | grid, tmp_path)
        drawn = figures.plot_gain_lines(found) | {"curves": figures.plot_curves(found)}
        for name in ("teacher cr", "curves"):
            titles = [axis.get_title() for axis in drawn[name].axes]
            assert titles == ["student: cr 0.1", "student: cr 0.2"], name
        assert len({axis.get_ylim() for axis in drawn["teacher cr"].axes}) == 1
        for axis in drawn["curves"].axes:
            labels = axis.get_legend_handles_labels()[1]
            assert labels[0] == "student alone"
            assert {label[-14:] for label in labels[1:]} == {"teacher cr 0.5", "teacher cr 0.9"}
        (axis,) = drawn["cr"].axes
        places = [bars.lines[0].get_xdata() for bars in axis.containers]
        assert len(places) == 2 and not set(places[0]) & set(places[1])
        assert [label.get_text() for label in axis.get_xticklabels()] == ["0.1", "0.2"]
        for figure in drawn.values():
            plt.close(figure)

    def test_no_name_of_a_line_is_wider_than_its_panel(self, tmp_path):
        long = {"cr": [0.5, 0.9], "ordering": ["xy", "random"], "loss": ["mse", "smooth_l1"]}
        changes = {"grid": [{"cr": 0.1, "teacher": long}, {"cr": 0.2}], "shuffled": "none"}
        found, _ = made_up(MINI | {"teacher": {"cr": 0.5}} | changes, tmp_path)
        drawn = figures.plot_gain_lines(found) | {"curves": figures.plot_curves(found)}
        for figure in drawn.values():
            figure.draw_without_rendering()
            for axis in figure.axes:
                if axis.get_legend():
                    assert axis.get_legend().get_window_extent().width < axis.bbox.width
            plt.close(figure)
        named = [text.get_text() for text in drawn["curves"].texts]
        assert any("teacher ordering" in text and text.startswith("line 1: ") for text in named)
        limits = {axis.get_ylim() for axis in drawn["teacher cr"].axes}
        assert len(limits) == 1, "one scale of gains, whatever the legends hold"

    def test_the_picture_shows_the_student_that_gains_most_not_the_one_that_measures_most(
        self, tmp_path
    ):
        grid = {"grid": {"cr": [0.1, 0.2]}, "teacher": {"cr": 0.5}, "shuffled": "none"}
        found, _ = made_up(MINI | grid, tmp_path)
        scores = {("distilled", 0.1): 22, ("alone", 0.1): 20, ("distilled", 0.2): 30}
        for key, run in found.done.items():
            score = scores.get((run.role, run.setting.get("cr")), 29.5)
            path = run_folder(found.study, key) / "metrics.json"
            path.write_text(json.dumps([{"epoch": 1, "val_psnr": score}]))
        assert figures.best_run(found).setting["cr"] == 0.1

    def test_gain_and_verdict_are_beside_the_setting_in_a_table_that_may_be_wider_than_the_page(
        self, tmp_path
    ):
        grid = {"grid": {"cr": [0.1, 0.2]}, "teacher": {"cr": [0.5, 0.9]}, "shuffled": "every"}
        found, _ = made_up(MINI | grid, tmp_path)
        rows = found.join_settings(tables.settings_table(found))
        assert list(rows[0])[:3] == ["setting", "gain, by seed (dB)", "verdict"]
        assert rows[0]["setting"] == "cr 0.1, teacher cr 0.5"
        assert (
            list(found.join_settings(tables.controls_table(found))[0])[1] == "shuffled - alone (dB)"
        )
        assert (
            found.join_settings(tables.references_table(found))[0]["setting"] == "teacher, cr 0.5"
        )

    def test_the_error_decomposition_holds_the_cameras_that_have_one(self, tmp_path):
        found, _ = made_up(MINI | {"grid": {"cr": [0.1, 0.2]}, "shuffled": "none"}, tmp_path)
        for key, run in found.done.items():
            if run.setting["cr"] == 0.1:
                for row in found.scores[key]:
                    row |= {"measured": 0.004, "unmeasured": 0.006}
        assert [(row[""], row["cr"]) for row in tables.error_decomposition_table(found)] == [
            ("alone", 0.1),
            ("distilled", 0.1),
        ]

    @pytest.mark.parametrize("scores, warns", [((15, 24), False), ((19, 24), True)])
    def test_a_mixture_is_compared_with_first_images_of_all_its_cameras(
        self, scores, warns, tmp_path
    ):
        found, _ = made_up(MINI, tmp_path)
        run = next(run for run in found.done.values() if run.role == "alone")
        found.baselines[run.key] = {
            f"LMMSE, cr {cr}": [{"image": 0, "psnr": score}]
            for cr, score in zip((0.1, 0.3), scores, strict=True)
        }
        assert ("LMMSE reaches 21.50 dB" in answer.warn_of_baselines(found)) == warns

    @pytest.mark.parametrize("name", ["baseline", "anchor"])
    def test_baselines_are_read_as_this_version_and_the_ones_before_wrote_them(
        self, name, tmp_path
    ):
        found, _ = made_up(MINI, tmp_path)
        key, rows = next(iter(found.done)), [{"image": "0", "psnr": 21.5}]
        status.write_status(found.study, key, status.DONE, run=key, **{f"{name}s": ["LMMSE"]})
        write_csv(found.study.folder / key / f"{name}_LMMSE.csv", rows)
        assert status.read_baselines(found.study, key) == {"LMMSE": rows}

    @pytest.mark.parametrize("teachers", [-5.0, 99.0])
    def test_a_teacher_that_is_no_better_is_reported(self, teachers, tmp_path):
        found, _ = made_up(MINI, tmp_path)
        for run in found.done.values():
            if run.role == "teacher":
                found.scores[run.key] = [row | {"psnr": teachers} for row in found.scores[run.key]]
        assert ("Check the teacher" in answer.write_answer(found)) == (teachers < 0)

    def test_the_gap_is_that_of_the_teachers_of_all_seeds(self, tmp_path):
        own = {"fixed": FIXED, "teacher": {"cr": 0.5, "seed": "same"}, "shuffled": "none"}
        found, _ = made_up(MINI | own | {"grid": {"cr": 0.1}}, tmp_path)
        scores = {"teacher": (60.0, 90.0), "alone": (50.0, 50.0), "distilled": (55.0, 60.0)}
        for key, run in found.done.items():
            score = scores[run.role][run.seed]
            found.scores[key] = [row | {"psnr": score} for row in found.scores[key]]
        (row,) = tables.settings_table(found)
        assert row["gap closed (%)"].startswith("+30.0 ["), "7.5 of 25"
        assert "Check the teacher" not in answer.write_answer(found)

    def test_what_could_have_been_seen_counts_the_tests_that_were_made(self, tmp_path):
        def keep(run):
            return run.role != "alone" or run.setting["cr"] == 0.1

        grid = {"grid": {"cr": [0.1, 0.2]}, "shuffled": "none", "seeds": [0, 1, 2]}
        found, _ = made_up(MINI | grid, tmp_path, keep)
        tested = found.gain(found.groups("distilled")[0])
        rows = tables.settings_table(found)
        assert [row.get("p (t)") == row.get("p (Holm)") for row in rows] == [True, True]
        seen = [row.get("could have seen (dB)") for row in rows]
        assert seen == [f"{detectable(tested.std, 3, 1):.3f}", None]

    def test_numbers_keep_the_side_of_the_images(self, tmp_path):
        grid = {"grid": {"cr": 0.1, "n": [16, 32]}, "shuffled": "none"}
        found, _ = made_up(MINI | {"fixed": {"dataset": "digits"}} | grid, tmp_path)
        rows = [row for row in tables.numbers_table(found) if row[""] == "distilled"]
        assert [(row["n"], row["seeds"]) for row in rows] == [(16, 2), (32, 2)]

    def test_tables_of_an_earlier_question_are_removed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(report, "build_page", lambda *args: "")
        found, plan = made_up(MINI, tmp_path)
        report.write_report(found.study, plan)
        controls = found.study.folder / "tables" / "controls.csv"
        assert controls.is_file()
        text = MINI | {"shuffled": "none"}
        report.write_report(*planning.build_study(text, "s", tmp_path, sweep.load_script, {}))
        left = {path.name for path in controls.parent.iterdir()}
        assert "settings.csv" in left and not any("controls" in name for name in left)

    def test_one_seed_has_no_map_of_gains(self, tmp_path):
        assert figures.plot_heat_maps(made_up(MINI, tmp_path / "a")[0]) is not None
        assert figures.plot_heat_maps(made_up(MINI | {"seeds": [0]}, tmp_path / "b")[0]) is None

    def test_what_could_not_be_tested_is_not_said_to_be_alike(self, tmp_path):
        assert "could be tested" in answer.write_answer(
            made_up(MINI | {"seeds": [0]}, tmp_path / "one")[0]
        )
        begun = made_up(MINI, tmp_path / "begun", lambda run: run.role in ("teacher", "alone"))[0]
        assert (
            answer.write_answer(begun)
            == "None of the 8 runs of students with a teacher is done yet."
        )
        single = answer.write_answer(
            made_up(MINI | {"grid": {"cr": 0.1}, "shuffled": "none"}, tmp_path / "single")[0]
        )
        assert "Of 1 setting, " in single and "()" not in single and "smallest" not in single


class TestQueue:
    def test_jobs_that_are_not_done_are_queued_by_numbers_that_a_later_question_does_not_change(
        self, tmp_path, monkeypatch
    ):
        bins, path = tmp_path / "bin", tmp_path / "mini.yml"
        bins.mkdir()
        (bins / "sbatch").write_text('#!/bin/sh\necho "$@" >> ../../../asked\necho 7\n')
        (bins / "sbatch").chmod(0o755)
        monkeypatch.setenv("PATH", f"{bins}:{os.environ['PATH']}")
        path.write_text(yaml.safe_dump(MINI))
        words = [
            str(path),
            "--results",
            str(tmp_path / "r"),
            "--cluster",
            "slurm",
            "--time",
            "01:00:00",
        ]
        assert sweep.main(sweep.parse(words)) == {"ids": ["7", "7"]}
        first, second = (tmp_path / "asked").read_text().splitlines()
        assert (
            "--array=0 " in first
            and "--array=1-7 " in second
            and "--dependency=afterany:7 " in second
        )
        folder = tmp_path / "r" / "sweeps" / "mini"
        line = next(
            line for line in (folder / "job.slurm").read_text().splitlines() if "--task" in line
        )
        queued = shlex.split(line.partition(" --task")[0])[2:]
        before = sweep.build_plan(sweep.parse(queued))[0].jobs
        sweep.main(
            sweep.parse([*words, "--seeds", "0", "1", "2", "--shuffled", "none"])
        )  # asked meanwhile, in the same folder
        assert sweep.build_plan(sweep.parse(queued))[0].jobs == before


class TestPool:
    def test_jobs_that_are_elsewhere_come_last_and_a_process_that_dies_takes_only_its_own_with_it(
        self,
    ):
        reported = {}
        with Pool(1, jobs.serve, ()) as pool:
            pool.run(
                [["elsewhere"], ["a", "b"], ["dies"], ["full"], ["c"]],
                lambda keys, result: reported.update(result),
            )
        assert list(reported) == ["a", "b", "dies", "full", "c", "elsewhere"]
        assert reported.pop(
            "dies"
        ) == "its process ended with code 9" and "No space left" in reported.pop("full")
        assert set(reported.values()) == {status.DONE}

    def test_a_process_that_died_has_failed_and_what_it_had_done_is_done(self, tmp_path):
        found, _ = planning.build_study(MINI, "s", tmp_path, sweep.load_script, {})
        keys = found.jobs[1]
        status.write_status(found, keys[0], status.RUNNING)
        jobs_of_study.Progress(found, 1)(
            keys, dict.fromkeys(keys, "its process ended with code -9")
        )
        assert status.failures(found) == dict.fromkeys(keys, "its process ended with code -9")

    @pytest.mark.long
    def test_students_wait_for_a_teacher_that_another_process_trains(self, tmp_path):
        path = tmp_path / "mini.yml"
        path.write_text(
            yaml.safe_dump(
                MINI
                | {
                    "seeds": [0],
                    "grid": {"cr": 0.1, "loss_distill": "mse", "type_dist": "output"},
                    "shuffled": "none",
                }
            )
        )
        found, _ = sweep.build_plan(sweep.parse([str(path), "--results", str(tmp_path / "r")]))
        teacher = found.jobs[0][0]
        held = lock(found.folder / teacher / ".job.lock")
        waited = []

        def release():
            deadline = time.time() + 120
            while not (found.folder / "study.yml").is_file() and time.time() < deadline:
                time.sleep(0.1)
            time.sleep(8)
            waited.append(not (found.folder / teacher / "status.json").exists())
            held.lock.release()

        thread = Thread(target=release)
        thread.start()
        ended = call(path, "--results", tmp_path / "r", "--jobs", "1")
        assert waited == [True] and ended.returncode == 0
        thread.join()
        assert set(status.states(found).values()) == {"done"}


def scores_of_done_runs(results: Path, pattern: str) -> dict[Path, int]:
    """When the scores were written, of the runs whose status says done: it is written last."""
    return {
        path.with_name("scores.csv"): path.with_name("scores.csv").stat().st_mtime_ns
        for path in results.glob(f"sweeps/mini/{pattern}/status.json")
        if json.loads(path.read_text())["state"] == status.DONE
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that was killed in the middle and called again, and the same one undisturbed."""
    folder = tmp_path_factory.mktemp("studies")
    path = folder / "mini.yml"
    path.write_text(yaml.safe_dump(MINI | {"question": "Does it <help>?"}))
    with subprocess.Popen(
        [sys.executable, "sweep.py", path, "--results", folder / "a", "--jobs", "2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ) as killed:
        deadline = time.time() + 240
        while len(scores_of_done_runs(folder / "a", "distilled*")) < 2 and time.time() < deadline:
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    before = scores_of_done_runs(folder / "a", "*")
    torch.set_num_threads(len(places(2)[0]["cores"]))  # as each of two processes
    again, whole = (
        call(path, "--results", folder / name, "--jobs", "2", pool_type=jobs.Here) for name in "ab"
    )
    torch.set_num_threads(1)
    return {"folder": folder, "path": path, "before": before, "again": again, "whole": whole}


class TestWork:
    def test_a_study_that_was_killed_ends_with_the_same_tables(self, finished):
        assert finished["again"].returncode == finished["whole"].returncode == 0, (
            finished["again"].stderr + finished["whole"].stderr
        )
        a, b = (finished["folder"] / name / "sweeps" / "mini" for name in "ab")
        tables = sorted(file.name for file in (a / "tables").iterdir())
        assert {
            "settings.csv",
            "settings.md",
            "settings.tex",
            "controls.csv",
            "references.csv",
            "error_decomposition.csv",
            "numbers.csv",
        } <= set(tables)
        for name in tables:
            assert (a / "tables" / name).read_text() == (b / "tables" / name).read_text(), name

    def test_what_was_finished_is_not_done_again(self, finished):
        assert 2 <= len(finished["before"]) < 15
        assert all(file.stat().st_mtime_ns == then for file, then in finished["before"].items())
        third = call(finished["path"], "--results", finished["folder"] / "a")
        assert "0 of them to do" in third.stdout and third.returncode == 0

    def test_every_run_is_an_ordinary_one(self, finished):
        folder = finished["folder"] / "a" / "sweeps" / "mini"
        for key in (path.parent.name for path in folder.glob("*/scores.csv")):
            assert (folder / key / "runs" / key / "run.json").is_file() and list(
                (folder / key / "trained_models").glob("*.pth")
            )

    def test_a_finished_study_may_be_moved_and_is_scored_again_on_other_test_images(
        self, finished, tmp_path
    ):
        shutil.copytree(finished["folder"] / "b", tmp_path / "moved")
        words = [finished["path"], "--results", tmp_path / "moved"]
        assert call(*words, "--collect").returncode == 0

        def reported(*more) -> Counter:
            return Counter(
                status.states(sweep.build_plan(sweep.parse([*map(str, words), *more]))[0]).values()
            )

        teacher = next((tmp_path / "moved" / "sweeps" / "mini").glob("teacher*"))
        assert reported() == {"done": 15} and reported("--limit_test", "7") == {"waiting": 15}
        assert "1 of 1 done" in call(*words, "--limit_test", 7, "--task", 0).stdout
        assert len(status.read_scores(teacher / "scores.csv")) == 7 and reported(
            "--limit_test", "7"
        ) == {"done": 1, "waiting": 14}
        next(teacher.glob("runs/*/best.pth")).unlink()
        assert reported("--limit_test", "7") == {"waiting": 15}

    @pytest.mark.pictures  # the report is that of the tests below
    def test_status_and_collect_read_the_files_alone(self, finished):
        status = call(finished["path"], "--results", finished["folder"] / "a", "--status")
        assert "15 done of 15 runs in 8 jobs" in status.stdout
        report = finished["folder"] / "a" / "sweeps" / "mini" / "report.html"
        report.unlink()
        assert (
            call(finished["path"], "--results", finished["folder"] / "a", "--collect").returncode
            == 0
            and report.is_file()
        )
        empty = call(finished["path"], "--results", finished["folder"] / "none", "--collect")
        assert (
            empty.returncode == 2
            and "no run is done yet" in empty.stderr
            and len(empty.stderr.splitlines()) == 1
        )

    def test_gains_are_printed_with_their_intervals(self, finished):
        with open(
            finished["folder"] / "a" / "sweeps" / "mini" / "tables" / "settings.csv", newline=""
        ) as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 4
        for row in rows:
            for name in row:
                if name.startswith("gain") or name.startswith("gap"):
                    assert re.fullmatch(r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]", row[name]), row
            assert row["verdict"] in ("helps", "harms", "no difference shown")

    def test_the_report_holds_everything_in_one_file(self, finished):
        text = (finished["folder"] / "a" / "sweeps" / "mini" / "report.html").read_text()
        assert "Does it &lt;help&gt;?" in text and "<help>" not in text
        headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
        for heading in (
            "Settings",
            "Selection and loss",
            "Is it knowledge?",
            "References",
            "Error decomposition",
            "Curves",
            "Test images",
            "Costs",
            "Reproduction",
        ):
            assert heading in headings
        assert (
            text.count("data:image/") >= 3
            and "python main_unet_dist.py" in re.sub(r"<[^>]+>", "", text)
            and "http:" not in text
            and "https:" not in text
        )
        HTMLParser().feed(text)

    def test_the_report_is_read_on_a_phone_and_its_tables_sort(self, finished):
        text = (finished["folder"] / "a" / "sweeps" / "mini" / "report.html").read_text()
        sorting = """
            const table = document.querySelector("table"), place = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.startsWith("PSNR"));
            const column = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[place].textContent));
            const button = table.tHead.rows[0].cells[place].querySelector("button"), seen = [];
            for (const _ of [1, 2]) { button.click(); seen.push(column()); }
            return seen;
        """
        seen = checked(text, sorting, width=400)
        up, down = seen.result
        assert up == sorted(up) and down == up[::-1] and len(up) == 4
        assert not seen.console and seen.needed <= 400

    def test_a_run_knows_its_own_command_and_the_code_that_trained_it(self, finished):
        words = [str(finished["path"]), "--results", str(finished["folder"] / "b")]
        found, plan = sweep.build_plan(sweep.parse(words))
        for key, run in found.runs.items():
            record = json.loads((run_folder(found, key) / "run.json").read_text())
            assert record["command"] == [f"{run.script}.py", *plan.command_line(run)]
            assert record["versions"].items() >= code_version().items()

    def test_costs_are_reported_before_anything_is_trained(self, finished):
        reported = call(finished["path"], "--results", finished["folder"] / "c", "--dry_run")
        assert (
            reported.returncode == 0
            and "15 runs in 8 jobs, 15 not done" in reported.stdout
            and not (finished["folder"] / "c").exists()
        )

    def test_costs_are_reported_where_subsets_and_teachers_follow_the_seed(self, tmp_path):
        path = tmp_path / "following.yml"
        following = {
            "fixed": FIXED | {"subset_seed": "seed"},
            "teacher": {"cr": 0.5, "seed": "same"},
            "grid": {"cr": 0.1, "loss_distill": "mse", "type_dist": "output"},
        }
        path.write_text(yaml.safe_dump(MINI | following))
        reported = call(path, "--results", tmp_path / "r", "--dry_run")
        assert reported.returncode == 0 and "8 runs in 8 jobs, 8 not done" in reported.stdout

    def test_a_run_whose_cost_cannot_be_estimated_says_why(self, monkeypatch):
        def refuse(*args):
            print("usage: main_unet.py\nmain_unet.py: error: n 1 is too small", file=sys.stderr)
            raise SystemExit(2)

        monkeypatch.setattr(costs, "time_run", refuse)
        found, plan = planned()
        with pytest.raises(UserError, match=r"study, run teacher.*n 1 is too small"):
            costs.estimate_seconds(found, plan, 1)

    def test_a_run_that_fails_is_reported_and_the_others_go_on(self, tmp_path):
        path = tmp_path / "bad.yml"
        bad = MINI | {
            "grid": {"cr": 0.1, "loss_distill": ["mse", "perceptual"], "type_dist": "output"},
            "shuffled": "none",
            "seeds": [0],
        }
        path.write_text(yaml.safe_dump(bad))  # perceptual has no weights here
        ended = call(path, "--results", tmp_path / "r", "--jobs", "1", pool_type=jobs.Here)
        assert (
            ended.returncode == 2
            and "1 of 4 runs failed" in ended.stderr
            and len(ended.stderr.splitlines()) == 1
        )
        assert "Failed runs" in (tmp_path / "r" / "sweeps" / "bad" / "report.html").read_text()
        found, _ = sweep.build_plan(sweep.parse([str(path), "--results", str(tmp_path / "r")]))
        assert sorted(status.states(found).values()) == ["done", "done", "done", "failed"]

    @pytest.mark.long
    def test_a_signal_saves_what_is_being_trained(self, tmp_path):
        path = tmp_path / "long.yml"
        path.write_text(yaml.safe_dump(MINI | {"fixed": FIXED | {"epochs": 100_000}}))
        with subprocess.Popen(
            [sys.executable, "sweep.py", path, "--results", tmp_path / "r", "--jobs", "1"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            deadline = time.time() + 120
            while (
                not list((tmp_path / "r").glob("sweeps/long/*/runs/*/last.pth"))
                and time.time() < deadline
            ):
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 75
            assert "the same command resumes them" in process.stderr.read()
        found, _ = sweep.build_plan(sweep.parse([str(path), "--results", str(tmp_path / "r")]))
        assert (
            "interrupted" in status.states(found).values()
            and "running" not in status.states(found).values()
        )

    def test_a_job_may_be_done_alone_once_its_teacher_is(self, tmp_path):
        path = tmp_path / "mini.yml"
        path.write_text(yaml.safe_dump(MINI))
        words = [path, "--results", tmp_path / "r"]
        early = call(*words, "--task", 3)
        assert (
            early.returncode == 2
            and "its teacher" in early.stderr
            and "waiting" in early.stderr
            and len(early.stderr.splitlines()) == 1
        )
        assert (
            "1 of 1 done" in call(*words, "--task", 0).stdout
            and "2 of 2 done" in call(*words, "--task", 3).stdout
        )
        assert "the study has jobs 0 to 7" in call(*words, "--task", 8).stderr


@pytest.mark.parametrize("script", TRAINING)
def test_every_training_script_gives_its_parser(script):

    assert sweep.load_script(script).build_parser().option("seed") == "--seed"
