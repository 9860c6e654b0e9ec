"""The mean over mirror images: whatever the scene, measured again, mirrored, would give."""

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
from core.errors import UserError
from models import build_network
from models.self_ensemble import MIRRORS, SelfEnsemble
from physics.mosaic import Mosaic
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


@torch.no_grad()
def test_the_variance_of_a_value_stays_with_its_pattern():
    physics = build_physics(CAMERA | {"photons": [2.0, 50.0], "measurements": True})
    network = network_of(NETWORKS[2], 1)
    x0 = physics.observe(torch.rand(3, 1, N, N), torch.Generator().manual_seed(0))
    mirrored = SelfEnsemble(network, N).mirrored(x0, (-1,))
    torch.testing.assert_close(mirrored[:, -2:], x0[:, -2:])
    sizes = mirrored[:, -3].abs(), x0[:, -3].abs()
    torch.testing.assert_close(*sizes, atol=1e-4, rtol=1e-4)
    assert (mirrored[:, -3] - x0[:, -3]).abs().max() > 0.1


@pytest.mark.parametrize(
    "config",
    [
        CAMERA | {"ordering": "random"},
        {
            "name": "blur",
            "n": N,
            "c": 1,
            "kernel": "motion",
            "blur_width": 5,
            "x0": "adjoint",
            "awgn_snr": None,
        },
        {"name": "image", "n": N, "c": 1, "lessen_ratio": 2, "resize": "bilinear"},
    ],
)
def test_what_is_measured_otherwise_in_the_mirror_is_refused(config):
    physics = build_physics(config | ({"measurements": False} if "cr" in config else {}))
    with pytest.raises(UserError, match="does not measure a mirrored image as it measures"):
        self_ensemble(network_of(NETWORKS[0], 1), physics, "teacher.pth")


def test_a_student_learns_from_its_teachers_mean_and_a_test_scores_it(monkeypatch):
    teacher = call(main_unet, "--cr", "0.5", *TINY)["export"]
    words = ["--cr", "0.25", "--teacher", teacher, "--type_dist", "output", *TINY]
    tested = ["--dataset", "digits", "--limit_test", "8", "--checkpoint", teacher]
    plain, mean = (call(test_UNet, *tested, *more) for more in ([], ["--self_ensemble"]))
    one, other = (call(main_unet_dist, *words, *more) for more in ([], ["--self_ensemble"]))
    assert one["checkpoint"] != other["checkpoint"], "it is part of what a run is"
    assert mean["rows"][-1]["estimate"].endswith("self_ensemble")
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
        (["--type_dist", "latent"], "share no layer of --type_dist latent"),
        (["--cr_teacher", "0.5", "--online"], "with --online the teacher learns too"),
        (["--ordering", "random"], "spc with Hadamard patterns"),
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
