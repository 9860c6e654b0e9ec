"""Training from a recording: the same values for all, no truth, and the choice among labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import acquire
import main_classify
import main_classify_dist
import main_unet
import main_unet_dist
import test_UNet
from checkpoints import checkpoint
from core.errors import UserError
from core.registry import CANDIDATES, LABELS
from data.batches import Batch
from preparation.choice import candidates_of, held_out_errors
from recordings.file import read_recording, truth_path
from report.statistics import first_of_best
from tests.doubles import interrupt_where, skip_training

CPU = torch.device("cpu")
FAST = ["--width", "2", "--batch_size", "8", "--epochs", "2", "--cr", "0.125"]


def networks(folder: Path) -> list[str]:
    trained = folder / "trained_models"
    teacher, student = (trained / f"UNET_cr_{cr}_photons_20.pth" for cr in ("0.5", "0.125"))
    return ["--teacher", str(teacher), "--init_student", str(student)]


def parsed(folder: Path, *more: str):
    recording = ["--dataset", "recorded", "--data_root", str(folder / "lab.npz")]
    return main_unet_dist.parse([*recording, *networks(folder), *FAST, *more])


def distilled(folder: Path, *more: str) -> dict:
    return main_unet_dist.main(parsed(folder, *more))


def test_the_student_sees_the_first_part_of_the_values_that_the_teacher_sees(
    laboratory, monkeypatch
):
    tasks = skip_training(monkeypatch)
    distilled(laboratory)
    (task,) = tasks
    recording = read_recording(laboratory / "lab.npz")
    frames = recording.frames("train")[:3]
    batch = {"recorded": recording.grid()[0][frames], "variance": recording.grid()[1][frames]}
    batch = task.add_observations(Batch(image=None, index=torch.arange(3), **batch))
    m, (teacher,) = task.physics.m, task.teachers
    for physics, x0 in ((task.physics, batch.x0), (teacher.physics, batch.teacher_x0[0])):
        values = recording.values[frames][..., : physics.m]
        level = recording.variance[frames].mean((1, 2)).sqrt()
        torch.testing.assert_close(physics.values(physics.operator.A(x0[:, :1])), values)
        torch.testing.assert_close(x0[:, 1, 0, 0], level)
    assert m == 32 and teacher.physics.m == 128


@pytest.mark.parametrize("labels", [name for name in LABELS if name != "oracle"])
def test_every_label_trains_without_the_truth(labels, laboratory):
    hidden = truth_path(laboratory / "lab.npz")
    content = hidden.read_bytes()
    hidden.write_bytes(b"nothing that can be read")
    try:
        scores = distilled(laboratory, "--labels", labels)
    finally:
        hidden.write_bytes(content)
    rows = json.loads((Path(scores["run"]) / "metrics.json").read_text())
    terms = {name for name in rows[-1] if name.startswith("share_")}
    spec = LABELS[labels]
    expected = {"share_task"} if spec.target else set()
    assert terms == expected | ({"share_recorded"} if spec.loss else set())
    assert not any("psnr" in name and "recorded" not in name for name in rows[-1])


def test_the_oracle_alone_reads_the_truth(laboratory, capsys):
    truth = str(truth_path(laboratory / "lab.npz"))
    assert distilled(laboratory, "--labels", "oracle", "--truth", truth)["val_recorded_error"]
    for wrong in (
        ["--labels", "oracle"],
        ["--truth", truth],
        ["--labels", "raw", "--truth", truth],
    ):
        with pytest.raises(SystemExit):
            parsed(laboratory, *wrong)
        assert "--labels oracle and --truth FILE go together" in capsys.readouterr().err


def test_the_network_before_training_is_a_candidate(laboratory):
    scores = distilled(laboratory, "--lr", "1", "--labels", "raw")
    assert scores["best_epoch"] == 0
    best, before = (
        checkpoint.read(path)["weights"] for path in (scores["checkpoint"], networks(laboratory)[3])
    )
    assert all(torch.equal(best[name], before[name]) for name in before)


def test_a_stopped_training_resumes_bit_by_bit(laboratory, monkeypatch):
    flags = ["--labels", "sure", "--epochs", "3"]
    whole = distilled(laboratory, *flags, "--run_name", "whole")
    undo = interrupt_where(monkeypatch, lambda fit: fit.steps > 4)
    with pytest.raises(KeyboardInterrupt):
        distilled(laboratory, *flags, "--run_name", "parts")
    undo()
    parts = distilled(laboratory, *flags, "--run_name", "parts")
    first, second = (checkpoint.read(scores["checkpoint"])["weights"] for scores in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole["val_recorded_error"] == parts["val_recorded_error"]


def test_best_is_the_first_that_is_not_clearly_worse_on_held_out_frames(laboratory, capsys):
    scores = distilled(laboratory, "--labels", "best", "--run_name", "best")
    table = capsys.readouterr().out
    folder = Path(scores["run"]).parent
    others = {
        path.parent.name: json.loads(path.read_text())["scores"]
        for path in folder.glob("best_*/run.json")
    }
    names = {f"best_both_{weight}" for weight in ("0.25", "1", "4")} | {"best_adapted_teacher"}
    names |= {f"best_{labels}" for labels in CANDIDATES if labels != "both"}
    assert others.keys() == names
    del others["best_adapted_teacher"]  # which is none of the students
    order = sorted(others, key=lambda name: CANDIDATES.index(name.split("_")[1]))
    paths = [folder / name / "best.pth" for name in order]
    errors = held_out_errors(paths, parsed(laboratory, "--labels", "both"), CPU)
    for name, error in zip(order, errors, strict=True):
        assert np.mean(error) == pytest.approx(others[name]["val_recorded_error"], rel=1e-5)
    chosen = order[first_of_best([name.split("_")[1] for name in order], errors)]
    assert scores["val_recorded_error"] == others[chosen]["val_recorded_error"]
    assert all(word in table for word in ("both (weight", "teacher", "measurements", "raw"))
    assert checkpoint.restore(scores["export"], {}).network
    assert distilled(laboratory, "--labels", "best", "--run_name", "best") == scores, "finished"


def state(run: str | Path) -> dict:
    """The weights of a run after its last step."""
    return checkpoint.read(Path(run) / "last.pth")["resume"]["task"]


def assert_equal_weights(first: dict, second: dict) -> None:
    assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.parametrize("labels", ["adapted", "teacher"])
def test_a_candidate_of_best_is_trained_as_it_would_be_alone(labels, laboratory, tmp_path):
    where = ["--results", str(tmp_path), "--lr", "0.01", "--measurement_weight", "1"]
    best = distilled(laboratory, *where, "--labels", "best", "--run_name", "best")
    alone = distilled(laboratory, *where[:-2], "--labels", labels, "--run_name", "alone")
    assert_equal_weights(state(Path(best["run"]).with_name(f"best_{labels}")), state(alone["run"]))


def test_every_seed_learns_from_the_teacher_that_its_own_seed_adapted(laboratory):
    words = ["--labels", "adapted", "--lr", "0.01", "--data_seed", "3"]
    together = distilled(laboratory, *words, "--seeds", "0", "1")["runs"]
    for seed, run in zip("01", together, strict=True):
        alone = distilled(laboratory, *words, "--seed", seed, "--results", "alone")
        assert_equal_weights(state(run["run"]), state(alone["run"]))


def test_a_typed_weight_is_the_only_one_that_best_tries(laboratory):
    args = parsed(laboratory, "--labels", "best", "--measurement_weight", "1")
    tried = [(one.labels, one.measurement_weight) for one in candidates_of(args, True)]
    without = [("teacher", None), ("measurements", 1), ("raw", None)]
    assert tried == [("adapted", None), ("both", 1), *without]


def test_best_without_a_teacher_tries_sure_which_is_the_default(laboratory):
    words = ["--dataset", "recorded", "--data_root", str(laboratory / "lab.npz"), "--cr", "0.1"]
    assert main_unet.parse(words).labels == "sure"
    args = main_unet.parse([*words, "--labels", "best"])
    tried = [(one.labels, one.measurement_weight) for one in candidates_of(args, False)]
    assert tried == [("sure", 1), ("measurements", 1), ("raw", None)]


def test_best_of_a_teacher_that_cannot_learn_leaves_out_the_labels_for_which_it_would(laboratory):
    words = ["--labels", "best", "--teacher", "tv", "--type_dist", "output"]
    tried = [one.labels for one in candidates_of(parsed(laboratory, *words), True)]
    assert list(dict.fromkeys(tried)) == ["both", "teacher", "measurements", "raw"]
    assert distilled(laboratory, *words, "--epochs", "1")["chosen"]


def test_an_adapted_teacher_is_one_that_is_distilled_from_itself(laboratory, capsys):
    first = distilled(laboratory, "--labels", "adapted", "--run_name", "first")
    assert "the teacher learns from the recording first" in capsys.readouterr().out
    folder = Path(first["run"]).with_name("first_teacher")
    teacher = networks(laboratory)[1]
    again = distilled(laboratory, "--cr", "0.5", "--init_student", teacher, "--labels", "anchored")
    ours, theirs, before = (
        checkpoint.read(path)["weights"]
        for path in (folder / "best.pth", again["checkpoint"], teacher)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not all(torch.equal(ours[name], before[name]) for name in before)


def test_students_share_an_adapted_teacher_which_teaches_them(laboratory, tmp_path, monkeypatch):
    where = ["--labels", "adapted", "--results", str(tmp_path)]
    undo = interrupt_where(monkeypatch, lambda fit: "student" in fit.run.name and fit.steps > 4)
    with pytest.raises(KeyboardInterrupt):
        distilled(laboratory, *where, "--epochs", "3")
    undo()
    folder, *more = tmp_path.glob("runs/adapted_teacher*")
    best = folder / "best.pth"
    written = best.stat().st_mtime_ns
    distilled(laboratory, *where, "--epochs", "3")
    tasks = skip_training(monkeypatch)
    distilled(laboratory, *where, "--epochs", "3", "--type_dist", "latent", "--loss_distill", "mse")
    assert not more and best.stat().st_mtime_ns == written
    weights = checkpoint.read(best)["weights"]
    ours = tasks[0].teachers[0].network.state_dict()
    assert all(torch.equal(ours[name], weights[name]) for name in weights)


def test_without_a_teacher_the_labels_are_the_rivals(laboratory, capsys):
    recording = ["--dataset", "recorded", "--data_root", str(laboratory / "lab.npz"), *FAST]
    start = ["--train_again", networks(laboratory)[3]]
    scores = main_unet.main(main_unet.parse([*recording, *start, "--labels", "best"]))
    assert scores["chosen"]
    with pytest.raises(SystemExit):
        main_unet.parse([*recording, "--labels", "both"])
    assert "unknown labels 'both': choose from raw, measurements" in capsys.readouterr().err


def test_a_changed_recording_is_another_run(laboratory, tmp_path):
    copy = tmp_path / "lab.npz"
    copy.write_bytes((laboratory / "lab.npz").read_bytes())
    recording = ["--dataset", "recorded", "--data_root", str(copy), *networks(laboratory), *FAST]
    argv = [*recording, "--run_name", "same", "--labels", "raw"]
    main_unet_dist.main(main_unet_dist.parse(argv))
    arguments = ["simulate", "--dataset", "digits", "--n", "16", "--cr", "0.5", "--seed", "7"]
    sizes = ["--frames", "40", "--test_frames", "12", "--val_share", "0.25", "--overwrite"]
    acquire.main(acquire.parse([*arguments, *sizes, "--output", str(copy)]))
    with pytest.raises(UserError, match=r"another configuration .*recording"):
        main_unet_dist.main(main_unet_dist.parse(argv))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sup_loss", "1"], "a recording has no clean images"),
        (["--ordering", "xy"], "a recording brings its own patterns and noise"),
        (["--photons", "3"], "a recording brings its own patterns and noise"),
        (["--labels", "raw", "--measurement_weight", "1"], "does not read --measurement_weight"),
        (["--labels", "r2r", "--measurement_part", "all"], "does not read --measurement_part"),
        (["--crs_expert", "0.1", "0.2"], "not allowed with argument"),
        (["--online"], "a teacher that learns too needs clean images"),
        (["--labels", "nonsense"], "unknown labels 'nonsense'"),
    ],
)
def test_what_has_no_meaning_is_refused(flags, message, laboratory, capsys):
    with pytest.raises((SystemExit, UserError)) as error:
        parsed(laboratory, *flags)
    assert message in capsys.readouterr().err + str(error.value)


@pytest.mark.parametrize("labels", ["both", "best"])
def test_a_loss_on_what_the_student_does_not_see_needs_such_values(labels, laboratory, tmp_path):
    words = ["--labels", labels, "--measurement_part", "unmeasured", "--results", str(tmp_path)]
    words += ["--init_student", networks(laboratory)[1]]
    with pytest.raises(UserError, match="unmeasured: the network sees all 128 recorded values"):
        distilled(laboratory, *words, "--cr", "0.5")
    assert not list(tmp_path.glob("runs/*/*.pth"))


def test_labels_are_for_recordings(capsys):
    with pytest.raises(SystemExit):
        main_unet_dist.parse(["--dataset", "digits", "--cr", "0.1", "--labels", "raw"])
    assert "--labels is for --dataset recorded" in capsys.readouterr().err


def test_a_ratio_beyond_the_recording_is_refused(laboratory):
    with pytest.raises(
        UserError, match=r"the network measures 192 values .* not all among the 128"
    ):
        distilled(laboratory, "--cr", "0.75")


def test_classifiers_learn_from_recordings_with_labels(laboratory, tmp_path):
    scenes = ["--dataset", "digits", "--n", "16", "--cr", "0.5", "--noise", "0.1", "--labels"]
    sizes = ["--frames", "40", "--test_frames", "12", "--val_share", "0.25"]
    path = str(tmp_path / "digits.npz")
    acquire.main(acquire.parse(["simulate", *scenes, *sizes, "--output", path]))
    recording = ["--dataset", "recorded", "--data_root", path, "--physics", "spc"]
    small = ["--model", "resnet8", "--width", "2", "--epochs", "1", "--batch_size", "8"]
    teacher = main_classify.main(main_classify.parse([*recording, *small, "--cr", "0.5"]))
    argv = [*recording, *small, "--cr", "0.125", "--teacher", teacher["checkpoint"]]
    student = main_classify_dist.main(main_classify_dist.parse(argv))
    assert checkpoint.restore(student["checkpoint"], {}).physics.m == 32
    unlabelled = [*recording[:3], str(laboratory / "lab.npz"), *recording[4:], *small]
    with pytest.raises(UserError, match="has no labels, which a classifier needs"):
        main_classify.main(main_classify.parse([*unlabelled, "--cr", "0.5"]))


def test_frames_are_scored_with_and_without_their_truth(laboratory):
    recording = ["--dataset", "recorded", "--data_root", str(laboratory / "lab.npz")]
    argv = ["--checkpoint", networks(laboratory)[3], *recording]
    blind = test_UNet.main(test_UNet.parse(argv))
    truth = np.load(truth_path(laboratory / "lab.npz"))["images"]
    seen = test_UNet.main(
        test_UNet.parse([*argv, "--truth", str(truth_path(laboratory / "lab.npz"))])
    )
    assert blind["rows"][-1]["frames"] == 12 and len(truth) == 52
    assert seen["rows"][-1]["images"] == 12 and seen["psnr"] != seen["rows"][0]["PSNR"]
