"""The LMMSE estimate of large images: against its formula with matrices, and where it is used."""

import pytest
import torch

import physics.base
from algo_functions import build_physics
from physics.lmmse import LMMSE
from physics.stationary import StationaryLMMSE

N = 16
CAMERA = {"name": "spc", "n": N, "c": 1, "cr": 0.3, "ordering": "xy", "awgn_snr": None}
CONDITIONS = (
    {},
    {"noise": 0.2},
    {"awgn_snr": 20.0},
    {"photons": 10.0},
    {"ordering": "random", "noise": 0.2},
    {"c": 3},
)


def smooth_images(count: int, c: int = 1, n: int = N) -> torch.Tensor:
    """Images of a stationary process with the spectrum of natural images, and a grey level."""
    generator = torch.Generator().manual_seed(0)
    radius = torch.hypot(torch.fft.fftfreq(n)[:, None], torch.fft.fftfreq(n)[None]) + 0.5 / n
    white = torch.randn(count, c, n, n, generator=generator)
    return torch.fft.ifft2(torch.fft.fft2(white) / radius).real * 0.02 + 0.5


@pytest.fixture
def always_stationary(monkeypatch):
    monkeypatch.setattr(physics.base, "LARGEST_LMMSE", 8)


def fitted(images, **config):
    camera = build_physics(CAMERA | {"x0": "lmmse"} | config, images=lambda: images)
    assert isinstance(camera.lmmse, StationaryLMMSE)
    return camera


def covariance(lmmse: StationaryLMMSE, k: int) -> torch.Tensor:
    """C of a channel as a matrix: the inverse transform of the spectrum, shifted to every pixel."""
    kernel = torch.fft.ifft2(lmmse.spectrum[k].double()).real
    n = len(kernel)
    columns = [kernel.roll((i, j), (0, 1)).flatten() for i in range(n) for j in range(n)]
    return torch.stack(columns, dim=1)


@pytest.mark.usefixtures("always_stationary")
@pytest.mark.parametrize("condition", CONDITIONS)
def test_it_is_its_formula_with_matrices(condition):
    images = smooth_images(40, condition.get("c", 1))
    camera = fitted(images, **condition)
    lmmse, x = camera.lmmse, smooth_images(44, condition.get("c", 1))[40:]
    y = camera.measure(x, torch.Generator().manual_seed(1))
    found, rows = camera.first_image(y)[:, : x.shape[1]], camera.rows().double()
    values = camera.values(y).double()
    for k in range(x.shape[1]):
        c, level = covariance(lmmse, k), lmmse.level[k].double().item()
        noise = torch.diag(lmmse.variance[k].double())
        gain = c @ rows.T @ torch.linalg.inv(rows @ c @ rows.T + noise)
        expected = level + (values[:, k] - level * rows.sum(1)) @ gain.T
        torch.testing.assert_close(found[:, k].flatten(1).double(), expected, atol=2e-3, rtol=0)


@pytest.mark.usefixtures("always_stationary")
def test_the_spectrum_is_the_covariance_of_a_stationary_process():
    images = smooth_images(4000)
    lmmse = fitted(images).lmmse
    pixels = (images - images.mean()).flatten(1).double()
    sample = pixels.T @ pixels / len(pixels)
    c = covariance(lmmse, 0)
    assert (c - sample).norm() < 0.1 * sample.norm()


@pytest.mark.usefixtures("always_stationary")
def test_every_image_is_the_same_alone_and_in_a_batch():
    camera = fitted(smooth_images(40), photons=10.0)
    y = camera.measure(smooth_images(44)[40:], torch.Generator().manual_seed(1))
    alone = torch.cat([camera.first_image(one[None]) for one in y])
    torch.testing.assert_close(camera.first_image(y), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("always_stationary")
@pytest.mark.parametrize("condition", [{}, {"noise": 0.5}])
def test_for_a_stationary_process_it_is_as_good_as_the_full_covariance(condition, monkeypatch):
    images, test = smooth_images(2000), smooth_images(2100)[2000:]
    camera = fitted(images, **condition)
    y = camera.measure(test, torch.Generator().manual_seed(1))
    monkeypatch.setattr(physics.base, "LARGEST_LMMSE", 64)
    full = build_physics(CAMERA | {"x0": "lmmse"} | condition, images=lambda: images)
    assert isinstance(full.lmmse, LMMSE)
    errors = [(one.first_image(y) - test).square().mean().item() for one in (camera, full)]
    adjoint = (camera.back_projection(y) - test).square().mean().item()
    assert errors[0] < 1.05 * errors[1] and errors[0] < 0.95 * adjoint


@pytest.mark.usefixtures("always_stationary")
def test_a_checkpoint_keeps_it():
    camera = fitted(smooth_images(40), noise=0.2)
    again = build_physics(camera.config, state=camera.state())
    y = camera.measure(smooth_images(44)[40:], torch.Generator().manual_seed(1))
    assert torch.equal(again.first_image(y), camera.first_image(y))


@pytest.mark.parametrize("name", ["spc", "denoise", "blur", "sr", "mri"])
def test_images_of_128_pixels_have_an_lmmse_baseline(name):
    """Better than back-projection for every linear physics, with the noise that it was fitted to."""
    flags = {"denoise": {"sigma": 50.0}, "blur": {"kernel": "gaussian", "blur_width": 2.0}}
    flags |= {"mri": {"acceleration": 4, "mask_type": "gaussian"}}
    flags |= {"sr": {"factor": 2, "kernel": "bicubic"}, "spc": {"cr": 0.1, "ordering": "xy"}}
    noise = {} if name == "denoise" else {"awgn_snr": 20.0}
    config = {"name": name, "n": 128, "c": 1, "x0": "adjoint"} | flags[name] | noise
    images = smooth_images(24, n=128)
    baselines = build_physics(config).baselines(lambda: images[:20])
    errors = []
    for baseline in baselines.values():
        x0 = baseline.observe(images[20:], torch.Generator().manual_seed(1))[:, :1]
        errors.append((x0 - images[20:]).square().mean().item())
    back_projection, lmmse = errors
    assert lmmse < 0.9 * back_projection


def test_images_without_high_frequencies_keep_their_measured_values():
    """The system is nearly singular there, and the steps do not solve it to the end."""
    coarse = torch.rand(24, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=128, mode="bicubic")
    camera = build_physics(CAMERA | {"n": 128, "cr": 0.25, "x0": "adjoint"})
    camera = camera.with_first_image(camera.fit_lmmse(images[:20]))
    y = camera.measure(images[20:])
    x0 = camera.first_image(y)
    values, found = camera.values(y), camera.clean_values(x0)
    assert (found - values).norm() < 0.05 * values.norm()
    back_projection = (camera.back_projection(y) - images[20:]).square().mean()
    assert (x0 - images[20:]).square().mean() < 0.5 * back_projection
