"""The mean over mirror images: what the mirrored scene would give, measured again."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import skip_training
from test_scripts import TINY, call

import main_unet
import main_unet_dist
import predict
import test_UNet
from algo_functions import build_physics
from checkpoints.checkpoint import restore
from cli import flags
from core.errors import UserError
from distill.task import Teacher
from models import build_network
from models.self_ensemble import MIRRORS, SelfEnsemble
from physics.mosaic import Mosaic
from preparation.adapted import args_of
from preparation.mirrored import self_ensemble

N = 16
CAMERA = {
    "name": "spc", "n": N, "c": 1, "cr": 0.3, "ordering": "xy", "x0": "adjoint",
    "awgn_snr": None, "noise": None, "photons": None,
}  # fmt: skip
NETWORKS = (
    {"name": "unet", "width": 2},
    {"name": "drunet", "width": 2, "blocks": 1},
    {"name": "unrolled", "n": N, "stages": 2, "channels": 4},
    {"name": "unet", "width": 2, "consistency": "range", "n": N},
)


def network_of(config: dict, c: int):
    torch.manual_seed(0)
    network = build_network(config | {"c": c}).eval()
    for weight in network.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return network


def measured_again(network, physics, x):
    """The mean over scenes that are mirrored before anything is measured."""
    answers = [network(physics.observe(x.flip(sides))).flip(sides) for sides in MIRRORS]
    return sum(answers) / len(MIRRORS)


@pytest.mark.parametrize("ordering", ["xy", "strip", "cake_cutting"])
@pytest.mark.parametrize("config", NETWORKS)
@pytest.mark.parametrize("c", [1, 3])
@torch.no_grad()
def test_it_is_the_mean_over_scenes_that_are_mirrored_before_they_are_measured(config, c, ordering):
    network = network_of(config, c)
    camera = CAMERA | {"c": c, "ordering": ordering, "measurements": network.reads_measurements}
    physics, x = build_physics(camera), torch.rand(2, c, N, N)
    found = self_ensemble(network, physics, "it")(physics.observe(x))
    torch.testing.assert_close(found, measured_again(network, physics, x), atol=1e-5, rtol=1e-4)
    assert (found - network(physics.observe(x))).abs().max() > 1e-3


@pytest.mark.parametrize("config", NETWORKS[2:])
@torch.no_grad()
def test_larger_images_are_mirrored_with_their_blocks(config):
    network = network_of(config, 1)
    physics = Mosaic(build_physics(CAMERA | {"measurements": True}))
    x = torch.rand(2, 1, 2 * N, 3 * N)
    found = self_ensemble(network, physics, "it")(physics.observe(x))
    torch.testing.assert_close(found, measured_again(network, physics, x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"name": "sr", "factor": 2, "kernel": "bicubic"},
        {"name": "blur", "kernel": "gaussian", "blur_width": 1.5},
        {"name": "denoise", "sigma": 0.0},
    ],
)
@torch.no_grad()
def test_measured_images_are_mirrored_too(config):
    network = network_of(NETWORKS[0], 1)
    physics = build_physics({"n": N, "c": 1, "x0": "adjoint", "awgn_snr": None} | config)
    x = torch.rand(2, 1, N, N)
    found = self_ensemble(network, physics, "it")(physics.observe(x))
    torch.testing.assert_close(found, measured_again(network, physics, x), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_variance_of_a_value_stays_with_its_pattern_and_moves_with_its_block():
    physics = build_physics(CAMERA | {"photons": 20.0, "measurements": True})
    network = network_of(NETWORKS[2], 1)
    x = torch.rand(2, 1, N, 3 * N) * torch.tensor([0.1, 0.5, 1.0]).repeat_interleave(N)
    x0 = Mosaic(physics).observe(x, torch.Generator().manual_seed(0))
    mirrored = SelfEnsemble(network, N).mirrored(x0, (-1,))
    blocks, others = (image.split(N, dim=-1) for image in (x0, mirrored))
    for block, other in zip(blocks, reversed(others), strict=True):
        torch.testing.assert_close(other[:, -2:], block[:, -2:])  # variances, and the mask
        torch.testing.assert_close(other[:, -3].abs(), block[:, -3].abs(), atol=1e-4, rtol=1e-4)
        assert (other[:, -3] - block[:, -3]).abs().max() > 0.1
    assert (blocks[0][:, -2] - blocks[2][:, -2]).abs().max() > 1e-3, "the light differs"


@torch.no_grad()
def test_values_are_mirrored_in_32_bits_and_the_image_itself_is_not_touched():
    physics = build_physics(CAMERA | {"measurements": True})
    ensemble = SelfEnsemble(network_of(NETWORKS[2], 1), N)
    x0 = physics.observe(torch.rand(2, 1, N, N))
    with torch.autocast("cpu", torch.bfloat16):
        found = ensemble.mirrored(x0, (-1, -2))
    torch.testing.assert_close(found, ensemble.mirrored(x0, (-1, -2)), atol=0, rtol=0)
    assert ensemble.mirrored(x0, ()) is x0, "its answer may be kept already"


LINEAR = {"n": N, "c": 1, "x0": "adjoint", "awgn_snr": None}


@pytest.mark.parametrize(
    "config, message",
    [
        (
            CAMERA | {"ordering": "random", "measurements": False},
            "of a mirrored image is not known",
        ),
        (LINEAR | {"name": "blur", "kernel": "motion", "blur_width": 5}, "blur without motion"),
        (LINEAR | {"name": "mri", "acceleration": 4, "mask_type": "gaussian"}, "not known"),
        (CAMERA | {"x0": "lmmse", "measurements": False}, "x0 lmmse, which is fitted"),
    ],
)
def test_what_cannot_be_known_of_the_mirror_is_refused(config, message):
    physics = build_physics(config, images=lambda: torch.rand(9, 1, N, N))
    with pytest.raises(UserError, match=message):
        self_ensemble(network_of(NETWORKS[0], 1), physics, "teacher.pth")


def test_a_student_learns_from_its_teachers_mean_and_a_test_scores_it(monkeypatch):
    teacher = call(main_unet, "--cr", "0.5", *TINY)["export"]
    words = ["--cr", "0.25", "--teacher", teacher, "--type_dist", "output", *TINY]
    tested = ["--dataset", "digits", "--limit_test", "8", "--checkpoint", teacher]
    plain, mean = (call(test_UNet, *tested, *more) for more in ([], ["--self_ensemble"]))
    with open("results/test/psnr_results.csv", newline="") as file:
        assert [row["Self-ensemble"] for row in csv.DictReader(file)] == ["False", "True"]
    one, other = (call(main_unet_dist, *words, *more) for more in ([], ["--self_ensemble"]))
    assert one["checkpoint"] != other["checkpoint"], "it is part of what a run is"
    assert mean["rows"][-1]["estimate"].startswith("self_ensemble_UNET")
    assert abs(mean["psnr"] - plain["psnr"]) > 1e-4
    saved = restore(teacher)
    tasks = skip_training(monkeypatch)
    call(main_unet_dist, *words, "--self_ensemble", "--seed", "3")
    network = tasks[0].teachers[0].network
    assert isinstance(network, SelfEnsemble)
    x0 = saved.physics.observe(torch.rand(2, 1, N, N))
    with torch.no_grad():
        expected = sum(saved.network(x0.flip(sides)).flip(sides) for sides in MIRRORS) / 4
        torch.testing.assert_close(network(x0), expected)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "--type_dist output_latent compares others; give --type_dist output"),
        (["--cr_teacher", "0.5", "--online"], "with --online the teacher learns too"),
        (["--ordering", "random", "--type_dist", "output"], "spc with Hadamard patterns"),
    ],
)
def test_what_has_no_mean_is_refused_in_words(words, message):
    ordering = ["--ordering", "random"] * ("random" in words)
    teacher = call(main_unet, "--cr", "0.5", *ordering, *TINY)["export"]
    named = [] if "--online" in words else ["--teacher", teacher]
    with pytest.raises((UserError, SystemExit), match=message):
        call(main_unet_dist, "--cr", "0.25", *named, "--self_ensemble", *TINY, *words)


def test_measured_values_are_restored_by_the_mean(capsys):
    path = call(main_unet, "--cr", "0.5", *TINY)["export"]
    saved = restore(path)
    y = saved.physics.measure(torch.rand(3, 1, N, N))
    np.save("y.npy", saved.physics.values(y)[:, 0].numpy())
    words = ["--checkpoint", path, "--measurements", "y.npy", "--self_ensemble"]
    found = np.load(call(predict, *words)["folder"] + "/reconstructions.npy")
    x0 = saved.physics.first_image(y)
    with torch.no_grad():
        expected = sum(saved.network(x0.flip(sides)).flip(sides) for sides in MIRRORS) / 4
        assert np.allclose(found, expected, atol=1e-5)
        assert not np.allclose(found, saved.network(x0), atol=1e-5)
    with pytest.raises(SystemExit):
        call(predict, "--checkpoint", path, "--export", "onnx", "--self_ensemble")
    assert "an exported network answers once" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"classifier_student\.pth classifies"):
        call(predict, "--checkpoint", "zoo:classifier_student", "y.npy", "--self_ensemble")


def test_labels_that_ask_no_teacher_refuse_it():
    recorded = ["--dataset", "recorded", "--data_root", "lab.npz", "--teacher", "t.pth"]
    for name in ("lab.npz", "t.pth"):
        Path(name).touch()
    with pytest.raises(UserError, match="labels sure ask no teacher, so nothing would change"):
        main_unet_dist.parse([*recorded, "--cr", "0.1", "--labels", "sure", "--self_ensemble"])


def test_a_run_without_it_is_what_it_was_and_a_teacher_learns_once(monkeypatch):
    words = ["--cr", "0.25", "--teacher", "tv", "--type_dist", "output", *TINY]
    plain, mean = (main_unet_dist.parse([*words, *more]) for more in ([], ["--self_ensemble"]))
    assert "self_ensemble" not in flags.identity(plain)
    assert flags.identity(mean)["self_ensemble"] is True
    mean.labels = plain.labels = "adapted"
    physics = build_physics(CAMERA)
    teacher = Teacher(network_of(NETWORKS[0], 1), physics, {"name": "unet", "width": 2})
    own = [flags.identity(args_of(args, teacher)) for args in (plain, mean)]
    assert own[0] == own[1]
