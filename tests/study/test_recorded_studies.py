"""Studies of students that are adapted to recordings."""

import json
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

import sweep
import test_UNet
from core.errors import UserError
from findings import report
from findings.results import Results
from recordings.file import read_recording
from study import costs, planning, status
from study.jobs import do_job

TEXT = {
    "script": "main_unet_dist.py",
    "seeds": [0, 1],
    "fixed": {"n": 16, "cr": 0.1, "width": 2, "batch_size": 8, "steps": 2},
    "teacher": {"dataset": "digits", "cr": 0.5, "photons": "same", "epochs": 1},
    "student": {"dataset": "digits", "photons": "same", "epochs": 1},
    "recording": {
        "dataset": "digits",
        "cr": 0.5,
        "photons": [None, 10],
        "frames": [10, 20],
        "test_frames": 6,
    },
    "grid": {"labels": ["both", "raw", "oracle"]},
}


def planned(folder=Path("results"), **changes):
    text = {name: value for name, value in (TEXT | changes).items() if value is not None}
    return planning.build_study(text, "s", folder, sweep.load_script, {})


def arguments_of(plan, run):
    return plan.load_script(run.script).parse(plan.command_line(run))


class TestPlan:
    def test_a_campaign_is_recorded_once_a_seed_and_the_simulation_is_shared(self):
        found, _ = planned()
        counts = {
            role: len(found.with_role(role)) for role in {r.role for r in found.runs.values()}
        }
        assert counts == {
            "teacher": 2,  # one for each light
            "student": 2,
            "recording": 8,  # 2 lights, 2 numbers of frames, 2 seeds
            "alone": 8,
            "recorded_teacher": 8,
            "adapted": 24,
        }
        first = [found.runs[keys[0]].role for keys in found.jobs[: found.teacher_jobs]]
        assert sorted(first) == ["recording"] * 8 + ["student"] * 2 + ["teacher"] * 2

    def test_an_adapted_student_reads_what_the_other_runs_write(self):
        found, plan = planned()
        for run in found.with_role("adapted"):
            args = arguments_of(plan, run)
            recording = arguments_of(plan, found.runs[run.recording])
            alone = arguments_of(plan, found.runs[run.alone])
            assert args.data_root == recording.output == alone.data_root
            assert recording.seed == args.seed == run.seed
            assert args.init_student == alone.checkpoint[0], "the reference is where it began"
            assert args.teacher.startswith(str(found.folder / run.teachers[0]))
            truth = str(Path(recording.output).with_name("lab_truth.npz"))
            assert args.truth == (truth if run.flags["labels"] == "oracle" else None)
            assert alone.truth == truth and args.dataset == alone.dataset == "recorded"

    def test_the_simulation_has_the_light_of_the_recording_and_the_size_of_the_student(self):
        found, plan = planned(grid={"labels": "both", "width": [2, 3]})
        assert len(found.with_role("student")) == 4 and len(found.with_role("teacher")) == 2
        for run in found.with_role("adapted"):
            student = arguments_of(plan, found.runs[run.student])
            recording = arguments_of(plan, found.runs[run.recording])
            assert student.width == run.flags["width"] and student.cr == 0.1
            assert student.photons == recording.photons
            assert (student.epochs, student.steps) == (1, None), "not the steps of the adaptation"
            assert student.n == recording.n == 16

    def test_a_teacher_that_nobody_trains_is_a_word(self):
        """It has no run of its own, and the settings of trained teachers keep their names."""
        grid = [
            {"labels": "teacher", "type_dist": "output", "teacher": {"untrained": "tv"}},
            {"labels": ["adapted", "sure"]},
        ]
        found, plan = planned(grid=grid)
        slow = [run for run in found.with_role("adapted") if run.flags["labels"] == "teacher"]
        assert {arguments_of(plan, run).teacher for run in slow} == {"tv"}
        assert {run.teachers for run in slow} == {()}
        assert {run.setting["teacher untrained"] for run in slow} == {"tv"}
        rest = [run for run in found.with_role("adapted") if run not in slow]
        assert all(run.teachers[0] in found.runs for run in rest)
        assert not any(name.startswith("teacher") for run in rest for name in run.setting)
        assert len(found.with_role("teacher")) == 2

    def test_seeds_of_a_setting_are_one_group_though_their_recordings_differ(self):
        found, _ = planned()
        keys = {planning.seedless_key(run) for run in found.with_role("adapted", "alone")}
        assert len(keys) == 4 * 4

    def test_recordings_may_have_parts(self):
        parts = [
            {"dataset": "digits", "cr": 0.5},
            {"dataset": "text", "cr": 0.5, "noise": [None, 0.2]},
        ]
        found, _ = planned(recording=parts, teacher={"cr": 0.5}, student=None, seeds=[0])
        cells = {tuple(run.setting.items()) for run in found.with_role("alone")}
        assert cells == {
            (("dataset", "digits"), ("noise", None)),
            (("dataset", "text"), ("noise", None)),
            (("dataset", "text"), ("noise", 0.2)),
        }

    def test_a_part_of_a_study_that_was_made_first_is_taken_over_by_the_whole(self, tmp_path):
        part, _ = planned(
            tmp_path, recording=TEXT["recording"] | {"photons": 10}, grid={"labels": "both"}
        )
        for key in part.runs:
            (part.folder / key).mkdir(parents=True)
        whole, _ = planned(tmp_path)
        assert part.runs.keys() <= whole.runs.keys()
        for key, run in part.runs.items():
            same = whole.runs[key]
            assert (same.role, same.flags, same.needs) == (run.role, run.flags, run.needs)
        assert len(whole.runs) == len(planned()[0].runs)

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"recording": None}, "give a section 'recording' too"),
            ({"fixed": TEXT["fixed"] | {"dataset": "digits"}}, "a study sets this flag itself"),
            ({"fixed": TEXT["fixed"] | {"data_seed": 0}}, "a study sets this flag itself"),
            ({"grid": {"truth": "x.npz"}}, "truth: a study sets this flag itself"),
            ({"script": "main_unet.py", "teacher": None}, "is for main_unet_dist.py"),
            ({"recording": {"dataset": "digits", "seed": 3}}, "seed: a study sets this flag"),
            ({"recording": {"dataset": []}}, "dataset lists no value"),
            ({"recording": {"photons": [10, 10]}}, "photons lists 10 2 times"),
            ({"recording": 3}, "recording must hold flags"),
            ({"student": 3}, "student must hold flags"),
            ({"shuffled": "labels"}, "shuffled 'labels': every or none"),
            ({"script": "acquire.py"}, "unknown script 'acquire'"),
        ],
    )
    def test_what_is_wrong_is_said_in_a_line(self, changes, message):
        with pytest.raises(UserError, match=message):
            planned(**changes)

    def test_only_labels_of_a_teacher_have_a_shuffled_control(self):
        found, _ = planned(shuffled="every")
        shuffled = found.with_role("shuffled")
        assert {run.flags["labels"] for run in shuffled} == {"both"} and len(shuffled) == 8

    def test_other_labels_have_a_shuffled_control_where_a_teacher_distils_beside_them(self):
        grid = [
            {"labels": "sure"},
            {"labels": "sure", "loss_distill": "mse", "type_dist": "output"},
        ]
        found, plan = planned(shuffled="every", grid=grid)
        shuffled = found.with_role("shuffled")
        assert {arguments_of(plan, run).shuffle_teacher for run in shuffled} == {True}
        assert len(shuffled) == 8 and all("loss_distill" in run.flags for run in shuffled)

    def test_a_study_of_which_only_the_recordings_are_done_says_why(self, tmp_path):
        found, plan = planned(tmp_path, seeds=[0])
        for run in found.with_role("recording"):
            status.write_status(found, run.key, status.DONE, seconds=1.0, digest="")
            for name in ("lab.npz", "lab_truth.npz"):
                (found.folder / run.key / name).touch()
        teacher = found.with_role("teacher")[0]
        status.write_status(found, teacher.key, status.FAILED, error="the disk is full")
        with pytest.raises(UserError, match=r"no run is done yet; .*the disk is full"):
            report.write_report(found, plan)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of one campaign, all runs in this process."""
    folder = tmp_path_factory.mktemp("study")
    recording = TEXT["recording"] | {"photons": 10, "frames": 10}
    fixed = TEXT["fixed"] | {"device": "cpu"}
    found, plan = planned(folder, seeds=[0], recording=recording, fixed=fixed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        states = [do_job(found, plan, keys) for keys in found.jobs]
    return found, plan, states


def test_the_cost_of_a_teacher_that_learns_first_is_foreseen_without_its_training(monkeypatch):
    fixed = TEXT["fixed"] | {"steps": 10**6, "val_every": 10**5}
    recording = TEXT["recording"] | {"photons": None, "frames": 10}
    found, plan = planned(
        fixed=fixed, recording=recording, seeds=[0], grid={"labels": ["teacher", "adapted"]}
    )
    monkeypatch.setattr(costs, "time_fit", lambda fit: fit.total)
    steps = costs.estimate_seconds(found, plan, 1)
    of_labels = {run.flags["labels"]: steps[key] for key, run in found.runs.items()
                 if run.role == "adapted"}  # fmt: skip
    assert of_labels == {"teacher": 10**6, "adapted": 2 * 10**6}


class TestWork:
    def test_every_run_is_done_and_no_truth_was_read_but_by_the_oracle(self, finished):
        found, _, states = finished
        assert {state for result in states for state in result.values()} == {"done"}
        for run in found.with_role("adapted"):
            record = json.loads((status.run_folder(found, run.key) / "run.json").read_text())
            assert ("truth_file" in record["identity"]) == (run.flags["labels"] == "oracle")

    def test_scores_are_those_of_the_truth_of_the_recorded_frames(self, finished):
        found, plan, _ = finished
        for run in found.with_role("adapted", "alone", "recorded_teacher"):
            args = arguments_of(plan, found.runs[run.alone] if run.alone else run)
            args.checkpoint = [str(status.run_folder(found, run.key) / "best.pth")]
            args.baselines = False
            rows = status.read_scores(found.folder / run.key / "scores.csv")
            expected = test_UNet.main(args)["psnr"]
            assert mean(row["psnr"] for row in rows) == pytest.approx(expected, abs=1e-3)
            assert len(rows) == 6

    def test_lmmse_knows_the_noise_of_the_recording(self, finished):
        found, _, _ = finished
        (alone,) = found.with_role("alone")
        baselines = status.read_baselines(found, alone.key)
        scores = {name: mean(row["psnr"] for row in rows) for name, rows in baselines.items()}
        assert scores["LMMSE"] > scores["back-projection"] + 1

    def test_what_is_done_is_not_done_again_and_a_lost_recording_is_made_again(self, finished):
        found, plan, _ = finished
        assert all(status.is_done(found, key) for key in found.runs)
        (recording,) = found.with_role("recording")
        path = found.folder / recording.key / "lab.npz"
        before = read_recording(path)
        path.unlink()
        assert not status.is_done(found, recording.key)
        assert do_job(found, plan, [recording.key]) == {recording.key: "done"}
        assert read_recording(path).digest == before.digest

    def test_the_report_compares_with_the_student_that_is_not_adapted(self, finished, capsys):
        found, plan, _ = finished
        written = report.write_report(found, plan)
        results = Results(found)
        (columns,) = results.adaptations().values()
        assert list(columns) == ["both", "raw", "oracle"]
        (alone,) = found.with_role("alone")
        for run in found.with_role("adapted"):
            ours = columns[run.flags["labels"]].runs[0]
            assert ours.score == pytest.approx(np.mean(results.images(run.key)))
            assert ours.alone == pytest.approx(np.mean(results.images(alone.key)))
            assert ours.held_out is not None
        page = Path(written["report"]).read_text()
        for heading in ("not adapted", "Validation without truth", "best rival"):
            assert heading in page
        assert (found.folder / "tables" / "gains.csv").is_file()
        assert "at least two seeds" in capsys.readouterr().out
