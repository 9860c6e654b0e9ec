"""Ladders, redistilled students and hybrids on a recording, whose truth nobody opens."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

import progressive_distill
import test_UNet
from algo_functions import build_physics
from checkpoints import checkpoint
from cli import flags
from core.registry import UNET
from data.batches import Batch
from models import build_network
from preparation import setup
from recordings.file import read_recording, truth_path
from tests.doubles import CAMERA

FAST = ["--width", "2", "--batch_size", "8", "--epochs", "1"]


@pytest.fixture
def lab(laboratory) -> dict[str, str]:
    """The files of the laboratory, without a truth that could be read."""
    shutil.copy(laboratory / "lab.npz", "lab.npz")
    truth_path("lab.npz").write_bytes(b"nothing that can be read")
    trained = laboratory / "trained_models"
    names = {"teacher": "UNET_cr_0.5_photons_20", "student": "UNET_cr_0.125_photons_20"}
    return {name: str(trained / f"{file}.pth") for name, file in names.items()}


def words(*more: str) -> list[str]:
    return ["--dataset", "recorded", "--data_root", "lab.npz", *FAST, *more]


def distilled(*more: str) -> dict:
    return progressive_distill.main(progressive_distill.parse(words(*more)))


@pytest.fixture
def tasks(monkeypatch) -> list:
    """The tasks of all trainings, which take place, each with the student's first weights."""
    seen, fit_of = [], setup.fit_of

    def kept(task, *arguments, **more):
        first = {name: w.clone() for name, w in task.student.state_dict().items()}
        seen.append((task, first))
        return fit_of(task, *arguments, **more)

    monkeypatch.setattr(setup, "fit_of", kept)
    return seen


def check_values(physics, x0: torch.Tensor) -> None:
    """A first image of three frames is that of the first m recorded values, with their noise."""
    recording = read_recording("lab.npz")
    frames = recording.frames("train")[:3]
    values = recording.values[frames][..., : physics.m]
    torch.testing.assert_close(physics.values(physics.operator.A(x0[:, :1])), values)
    level = recording.variance[frames].mean((1, 2)).sqrt()
    torch.testing.assert_close(x0[:, 1, 0, 0], level)


def check_parts(task) -> tuple[int, int]:
    """Student and teacher see the first part of the same values; gives back of how many."""
    recording = read_recording("lab.npz")
    frames = recording.frames("train")[:3]
    recorded, variance = (values[frames] for values in recording.grid())
    batch = Batch(image=None, index=torch.arange(3), recorded=recorded, variance=variance)
    batch = task.add_observations(batch)
    (teacher,) = task.teachers
    check_values(task.physics, batch.x0)
    check_values(teacher.physics, batch.teacher_x0[0])
    return task.physics.m, teacher.physics.m


def is_equal(weights: dict, path: str) -> bool:
    others = checkpoint.read(path)["weights"]
    return all(torch.equal(weights[name], others[name]) for name in others)


def test_each_rung_sees_the_first_part_of_the_values_of_its_teacher(lab, tasks, capsys):
    flags = ["--ladder", "0.25", "0.125", "--teacher", lab["teacher"]]
    result = distilled(*flags)
    (first, begun), (second, begun_second) = tasks
    assert check_parts(first) == (64, 128) and check_parts(second) == (32, 64)
    upper, lower = (rung["checkpoint"] for rung in result["rungs"])
    assert is_equal(second.teachers[0].network.state_dict(), upper)
    assert is_equal(begun, lab["teacher"]) and is_equal(begun_second, upper)
    scored = test_UNet.parse(["--checkpoint", lower, *words()[:4], "--batch_size", "8"])
    assert result["rows"][2:] == test_UNet.main(scored)["rows"] and len(result["rows"]) == 4
    capsys.readouterr()
    assert distilled(*flags)["rungs"] == result["rungs"]
    assert capsys.readouterr().out.count("is finished") == 2
    assert checkpoint.restore(lower, {}).training_config["labels"] == "both"


def test_rungs_on_recordings_begin_with_their_teachers_weights_unless_refused(lab):
    ladder = ["--ladder", "0.25", "0.125", "--teacher", lab["teacher"]]
    assert progressive_distill.parse(words(*ladder)).warm_start
    assert not progressive_distill.parse(words(*ladder, "--no_warm_start")).warm_start
    assert not progressive_distill.parse(["--dataset", "digits", *ladder]).warm_start
    again = ["--redistill", lab["student"], "--teacher", lab["teacher"]]
    assert not progressive_distill.parse(words(*again)).warm_start


@pytest.mark.long
def test_without_a_teacher_the_first_rung_learns_from_the_values_alone(lab, tasks):
    rungs = distilled("--ladder", "0.5", "0.125", "--labels", "sure")["rungs"]
    (first, _), (second, begun) = tasks
    assert not first.teachers and first.physics.m == 128 and first.recorded.loss is not None
    assert check_parts(second) == (32, 128) and is_equal(begun, rungs[0]["checkpoint"])


def test_a_redistilled_student_begins_as_it_was_and_keeps_its_camera(lab, tasks):
    again = ["--redistill", lab["student"], "--teacher", lab["teacher"]]
    (rung,) = distilled(*again, "--labels", "teacher")["rungs"]
    ((task, begun),) = tasks
    assert check_parts(task) == (32, 128) and is_equal(begun, lab["student"])
    assert task.recorded.target == "teacher" and task.recorded.loss is None
    new, old = (checkpoint.restore(path, {}) for path in (rung["checkpoint"], lab["student"]))
    assert new.physics.config == old.physics.config
    assert new.training_config["recording"] == checkpoint.digest("lab.npz")
    assert "val_recorded_error" in rung


def test_the_settings_of_a_redistilled_run_make_it_again(lab, capsys):
    done = distilled("--teacher", lab["teacher"], "--redistill", lab["student"])
    config = str(Path(done["rungs"][0]["run"]) / "config.json")
    again = progressive_distill.main(progressive_distill.parse(["--config", config]))
    assert again == done and "is finished" in capsys.readouterr().out


@pytest.mark.long
def test_a_student_is_redistilled_by_the_best_labels(lab, tasks):
    again = ["--redistill", lab["student"], "--teacher", lab["teacher"], "--labels", "best"]
    (rung,) = distilled(*again)["rungs"]
    assert rung["chosen"] and len(tasks) == 8, "with the teacher that is adapted first"
    students = [begun for task, begun in tasks if task.physics.m == 32]
    assert len(students) == 7 and all(is_equal(begun, lab["student"]) for begun in students)
    assert distilled(*again)["rungs"] == [rung] and len(tasks) == 8, "finished"


@pytest.mark.parametrize("labels", ["both", "sure"])
def test_a_hybrid_learns_from_a_recording_with_and_without_a_teacher(labels, lab, tasks):
    parts = ["--encoder_from", lab["student"], "--decoder_from", lab["teacher"]]
    teacher = ["--teacher", lab["teacher"]] if labels == "both" else []
    frozen = ["--freeze", "decoder", "--labels", labels, *teacher]
    (rung,) = distilled(*parts, *frozen)["rungs"]
    ((task, _),) = tasks
    assert len(task.teachers) == len(teacher) // 2 and task.physics.m == 32
    assert "val_recorded_error" in rung
    new, old = (checkpoint.read(path)["weights"] for path in (rung["checkpoint"], lab["teacher"]))
    decoder = [name for name in new if name.startswith(("Up", "Conv_1x1"))]
    assert decoder and all(torch.equal(new[name], old[name]) for name in decoder)


def untrained(**config) -> str:
    """The file of a student behind another physics."""
    network_config = {"name": "unet", "c": 1, **UNET, "width": 2}
    physics = build_physics(CAMERA | {"n": 16, "cr": 0.125} | config)
    content = checkpoint.pack(build_network(network_config), network_config, physics, {})
    checkpoint.write(Path("other.pth"), content)
    return "other.pth"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--ladder", "0.75", "0.25", "--teacher", "TEACHER"], "which are not all among the 128"),
        (["--ladder", "0.75", "0.25", "--labels", "sure"], "which are not all among the 128"),
        (["--ladder", "0.25", "0.125"], "labels 'both' need a teacher"),
        (["--ladder", "0.25", "--teacher", "TEACHER", "--width", "3"], "width 2, not 3"),
        (["--ladder", "0.25", "--teacher", "TEACHER", "--photons", "20"], "leave out --photons"),
        (
            ["--ladder", "0.25", "--teacher", "TEACHER", "--truth", "lab_truth.npz"],
            "--labels oracle",
        ),
        (["--redistill", "STUDENT"], "redistill: which teacher?"),
        (["--redistill", "STRIP", "--teacher", "TEACHER"], "by ordering 'strip' at cr 0.5"),
        (["--redistill", "DENOISER", "--teacher", "TEACHER"], "the network has physics 'denoise'"),
        (
            ["--redistill", "SMALLER", "--teacher", "TEACHER"],
            "other.pth has n 8, which contradicts the n 16",
        ),
        (["--redistill", "STUDENT", "--teacher", "STRIP"], "a teacher measures 128 values"),
        (
            ["--encoder_from", "STUDENT", "--decoder_from", "TEACHER", "--labels", "teacher"],
            "labels 'teacher' need a teacher: give --teacher PATH, or choose among those",
        ),
        (
            ["--encoder_from", "STRIP", "--decoder_from", "TEACHER", "--labels", "sure"],
            "by ordering 'strip' at cr 0.5",
        ),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(argv, message, lab, monkeypatch, capsys):
    others = {
        "STRIP": {"ordering": "strip", "cr": 0.5},
        "DENOISER": {"name": "denoise", "sigma": 5.0},
        "SMALLER": {"n": 8},
    }
    files = {name: untrained(**others[name]) for name in others if name in argv}
    files |= {"TEACHER": lab["teacher"], "STUDENT": lab["student"]}
    before = sorted(map(str, Path().rglob("*")))
    replaced = [files.get(word, word) for word in argv]
    monkeypatch.setattr(sys, "argv", ["progressive_distill.py", *words(*replaced)])
    with pytest.raises(SystemExit) as end:
        flags.run(progressive_distill.parse, progressive_distill.main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and message in error, error
    assert sorted(map(str, Path().rglob("*"))) == before


@pytest.mark.parametrize("labels", ["both", "best"])
def test_a_dry_run_writes_nothing(labels, lab, capsys):
    before = sorted(map(str, Path().rglob("*")))
    teacher = ["--teacher", lab["teacher"], "--labels", labels, "--dry_run"]
    assert not distilled("--ladder", "0.25", "0.125", *teacher)
    assert not distilled("--redistill", lab["student"], *teacher)
    printed = capsys.readouterr().out
    assert "results/runs/student_" in printed and "results/runs/redistilled_" in printed
    assert sorted(map(str, Path().rglob("*"))) == before
