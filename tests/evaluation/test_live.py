"""Live images: each is that of a batch, and predict.py --live writes the same files."""

import re

import numpy as np
import pytest
import torch
from test_measurements import CPU, FRAMES, N, physics_of, record, restore
from test_scripts import TINY, call

import main_classify
import main_unet
import predict
from core.errors import UserError
from core.hadamard import hadamard_2d, matrix
from evaluation.live import Live, percentile_99
from models import build_network

UNET = {"name": "unet", "c": 1, "width": 2}
UNROLLED = {"name": "unrolled", "c": 1, "n": N, "stages": 2, "channels": 2}
DRUNET = {"name": "drunet", "c": 1, "width": 2, "blocks": 1}
PHOTONS = {"photons": 20.0}
PAIRS = [
    (UNET, {}),
    (UNET, {"noise": 0.1}),
    (UNET, PHOTONS),
    (UNROLLED, {"measurements": True}),
    (UNROLLED, {"measurements": True, "noise": 0.1}),
    (UNROLLED, {"measurements": True, "awgn_snr": 20.0}),
    (UNROLLED, {"measurements": True} | PHOTONS),
    (DRUNET, PHOTONS),
]


def network_of(config: dict):
    """A network none of whose layers starts at zero."""
    network = build_network(config)
    for k, weight in enumerate(network.parameters()):
        weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(k))
    return network.eval()


def measured(physics) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The values of some frames, and the variances of their noise where photons are counted."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(FRAMES, 1, N, N, generator=generator)
    if physics.light is None:
        return physics.values(physics.measure(x, generator)), None
    values, variance = physics.values_of_counts(*physics.count_photons(x, generator))
    return values.float(), variance.float()


@pytest.mark.parametrize("config, changes", PAIRS, ids=str)
def test_a_live_image_is_that_of_a_batch(config, changes):
    network, physics = network_of(config), physics_of(0.25, **changes)
    values, variance = measured(physics)
    with torch.no_grad():
        expected = network(physics.first_image(physics.place_values(values, variance)))
    live = Live(network, physics, CPU)
    stream = [*values] if variance is None else [*zip(values.numpy(), variance, strict=True)]
    images = torch.stack([*live.reconstruct(stream)])
    assert images.shape == (FRAMES, 1, N, N)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_a_vector_without_channels_and_of_numpy_gives_the_same_image():
    physics = physics_of(0.25)
    live, values = Live(network_of(UNET), physics, CPU), measured(physics)[0]
    image = live(values[0])
    assert torch.equal(live(values[0, 0].double().numpy()), image)
    with pytest.raises(UserError, match=r"values of shape \(1, 15\): .* 1 channels of 16 values"):
        live(values[0, :, 1:])
    with pytest.raises(UserError, match=r"variances of shape \(3,\)"):
        live(values[0], np.ones(3))


@pytest.mark.parametrize("config", [DRUNET, UNROLLED], ids=str)
def test_a_network_that_reads_the_noise_level_needs_the_variances(config):
    physics = physics_of(0.25, **PHOTONS, measurements=config is UNROLLED)
    with pytest.raises(UserError, match="give the variances"):
        Live(network_of(config), physics, CPU)(measured(physics)[0][0])


def test_trainings_go_on_with_what_a_live_image_left_in_caches():
    matrix.cache_clear()
    physics = physics_of(0.25)
    Live(network_of(UNET), physics, CPU)(measured(physics)[0][0])
    x = torch.ones(1, 1, N, N, requires_grad=True)
    hadamard_2d(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_the_latency_of_most_frames_is_below_the_99th_percentile():
    assert percentile_99([k / 100 for k in range(101)]) == pytest.approx(0.99)


def test_a_recording_goes_through_frame_by_frame(tmp_path, capsys):
    record(tmp_path / "lab.npz")
    images = []
    for live in (False, True):
        restore(tmp_path, physics_of(0.25), live=live)
        with np.load(tmp_path / "out" / "reconstructions.npz") as file:
            images.append(file["reconstructions"])
    np.testing.assert_allclose(*images, atol=1e-5)
    assert re.search(
        r"^5 frames, one at a time: median [\d.]+ ms, 99th percentile [\d.]+ ms, \d+ frames a second$",
        capsys.readouterr().out,
        re.MULTILINE,
    )


def test_an_array_goes_through_the_script_frame_by_frame():
    words = ["--checkpoint", call(main_unet, "--cr", "0.25", *TINY)["export"]]
    np.save("y.npy", np.random.default_rng(0).random((3, 128)))  # pairs
    images = []
    for more in ([], ["--live"]):
        folder = call(predict, *words, "--measurements", "y.npy", *more)["folder"]
        images.append(np.load(f"{folder}/reconstructions.npy"))
    np.testing.assert_allclose(*images, atol=1e-5)


def test_a_classifier_has_no_live_images():
    digits = ["--physics", "spc", "--cr", "0.25", "--n", "16", "--dataset", "digits"]
    short = ["--epochs", "1", "--limit_train", "20", "--width", "2", "--model", "resnet8"]
    path = call(main_classify, *digits, *short)["export"]
    np.save("y.npy", np.ones((1, 64)))
    with pytest.raises(UserError, match="a classifier returns a class, not an image"):
        call(predict, "--checkpoint", path, "--measurements", "y.npy", "--live")
