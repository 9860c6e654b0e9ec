"""Networks that read measurements, and teachers that are not trained, through the scripts."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from test_scripts import DATA, TINY, call

import main_unet
import main_unet_dist
import predict
import progressive_distill
import test_UNet
from checkpoints import checkpoint
from core.errors import UserError
from core.registry import EXPORTS
from evaluation.measurements import read_measurements
from models.consistent import Consistent
from models.untrained import PlugAndPlay, TotalVariation
from physics.single_pixel import SinglePixel
from tests.doubles import skip_training
from training.answers import Remembered

TESTED = ["--dataset", "digits", "--limit_test", "8"]
UNROLLED = [*DATA, "--epochs", "1", "--network", "unrolled", "--stages", "2", "--channels", "4"]
DRUNET = [*DATA, "--epochs", "1", "--physics", "denoise", "--network", "drunet", "--width", "4"]


@pytest.mark.parametrize("noise", [[], ["--photons", "10"]])
def test_an_unrolled_student_learns_from_a_teacher_and_is_evaluated(
    noise,
):
    teacher = call(main_unet, "--cr", "0.5", *noise, *TINY)["export"]
    words = ["--teacher", teacher, "--type_dist", "output", "--consistency", "range"]
    student = call(main_unet_dist, "--cr", "0.25", *noise, *words, *UNROLLED)["export"]
    restored = checkpoint.restore(student)
    assert isinstance(restored.network, Consistent) and restored.physics.config["measurements"]
    rows = call(test_UNet, "--checkpoint", student, *TESTED)["rows"]
    names = [row["estimate"] for row in rows]
    assert names[:3] == ["back-projection", "LMMSE", "TV"]
    np.save("y.npy", 40 * np.random.default_rng(0).random((2, 128 if noise else 64)))
    assert call(predict, "--checkpoint", student, "--measurements", "y.npy")


@pytest.mark.parametrize("kind", EXPORTS)
@pytest.mark.parametrize("words", [[*UNROLLED], [*TINY, "--consistency", "range"]])
def test_they_are_exported_with_the_step_towards_the_measurements(kind, words):
    path = call(main_unet, "--cr", "0.25", *words)["export"]
    exported = call(predict, "--checkpoint", path, "--export", kind)["exports"]
    assert exported[kind]["distance"] <= 1e-5


def test_a_consistent_unet_is_grafted_like_any_other():
    words = ["--consistency", "range", *TINY]
    paths = [call(main_unet, "--cr", cr, *words)["export"] for cr in ("0.5", "0.25")]
    beginning = ["--encoder_from", paths[0], "--decoder_from", paths[1], "--freeze", "encoder"]
    joined = call(progressive_distill, *beginning, *TINY)["rungs"][0]["checkpoint"]
    encoder, hybrid = (checkpoint.restore(path).network.state_dict() for path in (paths[0], joined))
    assert torch.equal(hybrid["network.Conv1.0.weight"], encoder["network.Conv1.0.weight"])


def test_a_hybrid_of_unrolled_networks_is_refused():
    path = call(main_unet, "--cr", "0.5", *UNROLLED)["export"]
    with pytest.raises(UserError, match="made of two U-Nets, not of network 'unrolled'"):
        call(progressive_distill, "--encoder_from", path, "--decoder_from", path, *DATA)


def teacher_of(monkeypatch, *words: str):
    tasks = skip_training(monkeypatch)
    main_unet_dist.main(main_unet_dist.parse([*words, "--type_dist", "output"]))
    return tasks[0].teachers[0], tasks[0]


def test_total_variation_teaches_from_the_students_values_with_their_noise(monkeypatch):
    teacher, task = teacher_of(
        monkeypatch, "--cr", "0.25", "--noise", "0.2", "--teacher", "tv", *TINY
    )
    assert isinstance(teacher.network, TotalVariation)
    assert task.same_measurements == [True]
    assert teacher.physics.config["noise"] == 0.2


def test_it_may_have_more_values_and_a_weight_of_ones_own(monkeypatch):
    words = ["--cr", "0.25", "--noise", "0.2", "--teacher", "tv:0.3", "--cr_teacher", "0.5"]
    teacher, _ = teacher_of(monkeypatch, *words, *TINY)
    assert isinstance(teacher.network, Remembered)
    assert teacher.network.network.weight == 0.3
    assert teacher.physics.config["cr"] == 0.5 and teacher.physics.config["noise"] is None


def test_of_a_recording_it_sees_all_values(laboratory, monkeypatch):
    words = ["--dataset", "recorded", "--data_root", str(laboratory / "lab.npz"), "--cr", "0.125"]
    teacher, _ = teacher_of(monkeypatch, *words, "--width", "2", "--teacher", "tv", "--epochs", "1")
    assert isinstance(teacher.physics, SinglePixel) and teacher.physics.config["cr"] == 0.5


def test_two_weights_are_two_runs_and_a_denoiser_can_be_plugged_in(monkeypatch):
    words = ["--cr", "0.25", "--type_dist", "output", *TINY]
    one, other = (call(main_unet_dist, *words, "--teacher", t) for t in ("tv:0.3", "tv:0.4"))
    assert one["checkpoint"] != other["checkpoint"]
    denoiser = call(main_unet, *DRUNET, "--sigma", "0", "50")["export"]
    teacher, _ = teacher_of(monkeypatch, "--cr", "0.25", "--teacher", f"pnp:{denoiser}", *TINY)
    assert isinstance(teacher.network, Remembered)
    assert isinstance(teacher.network.network, PlugAndPlay)
    rows = call(test_UNet, "--checkpoint", one["export"], "--denoiser", denoiser, *TESTED)["rows"]
    assert "plug-and-play" in [row["estimate"] for row in rows]
    with pytest.raises(UserError, match="was trained for 'spc' with network 'unet'"):
        call(main_unet_dist, *words, "--teacher", f"pnp:{one['export']}")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--teacher", "tv:no"], "the weight 'no' is not a number"),
        (["--teacher", "pnp"], "which denoiser"),
        (["--teacher", "tv", "--awgn_teacher", "--noise", "0.1"], "leave out --awgn_teacher"),
        (["--teacher", "tv", "--ordering", "random"], "on the grid of the Hadamard"),
        (["--teacher", "tv", "--dist_part", "unmeasured", "--cr", "1"], "measures everything"),
        (["--teacher", "tv", "--online"], "nothing to learn; leave out --online"),
        (
            ["--teacher", "tv", "--dist_part", "unmeasured", "--type_dist", "latent"],
            "share no layer",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words(words, message):
    with pytest.raises((UserError, SystemExit)) as error:
        call(main_unet_dist, "--cr", "0.25", *TINY, *words)
    assert message in str(error.value)


def test_a_ladder_from_a_teacher_that_is_not_trained_is_refused():
    with pytest.raises(UserError, match=r"only main_unet_dist\.py takes such a teacher"):
        progressive_distill.parse(["--ladder", "0.5", "0.25", "--teacher", "tv:x", *TINY])


def test_labels_that_change_the_values_behind_the_networks_back_are_refused(laboratory, capsys):
    recorded = ["--dataset", "recorded", "--data_root", str(laboratory / "lab.npz")]
    with pytest.raises(SystemExit):
        call(main_unet, *recorded, "--cr", "0.25", "--network", "unrolled", "--labels", "splitting")
    assert "--labels splitting changes the values behind the back" in capsys.readouterr().err


def test_values_of_a_file_are_as_noisy_as_the_network_learned():
    words = [*UNROLLED, "--consistency", "range", "--noise", "0.2"]
    restored = checkpoint.restore(call(main_unet, "--cr", "0.25", *words)["export"])
    physics = restored.physics
    np.save("y.npy", physics.values(physics.measure(torch.rand(2, 1, 16, 16)))[:, 0].numpy())
    args = Namespace(
        measurements="y.npy", calibration=None, scale=None, split=None, one_sided=False
    )
    frames = read_measurements(restored.network, physics, args, torch.device("cpu"))
    (y,) = frames.batches(physics, torch.device("cpu"))
    torch.testing.assert_close(physics.values(y[:, -1:]), torch.full((2, 1, 64), 0.04))
