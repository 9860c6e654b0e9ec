"""Cameras that are not single pixels, against formulas of others."""

import numpy as np
import pytest
import torch
from doubles import batch_of
from scipy.ndimage import correlate
from test_models import tiny
from torch.nn import functional as F

from algo_functions import build_physics
from core.errors import UserError
from core.registry import KERNELS, MASK_TYPES, NETWORKS, READ_MEASUREMENTS, RESTORED, label_of
from models import build_network
from physics.restoration import Resized

LINEAR = {
    "denoise": {"name": "denoise", "sigma": 25.0},
    "denoise range": {"name": "denoise", "sigma": [5.0, 50.0]},
    **{f"sr {k}": {"name": "sr", "factor": 2, "kernel": k} for k in KERNELS if k != "motion"},
    "blur gaussian": {"name": "blur", "kernel": "gaussian", "blur_width": 1.2},
    "blur box": {"name": "blur", "kernel": "box", "blur_width": 3.0},
    "blur motion": {"name": "blur", "kernel": "motion", "blur_width": 5.0},
    **{f"mri {k}": {"name": "mri", "acceleration": 4, "mask_type": k} for k in MASK_TYPES},
}


def camera(config, images=None, **changes):
    return build_physics(
        {"n": 16, "c": 1, "x0": "adjoint", "awgn_snr": None} | config | changes,
        images=lambda: images,
    )


@pytest.mark.parametrize("config", LINEAR.values(), ids=LINEAR)
class TestEveryLinearCamera:
    @pytest.mark.parametrize("c", [1, 3])
    def test_adjoint_is_the_adjoint_on_what_is_measured(self, config, c):
        physics = camera(config, c=c)
        x = torch.randn(2, c, 16, 16)
        y = physics.operator.A(x)
        v = torch.zeros_like(y).flatten(2)
        v[..., physics.index] = torch.randn(2, c, physics.m)
        v = v.view_as(y)
        assert torch.isclose(
            (y * v).sum(), (x * physics.operator.A_adjoint(v)).sum(), rtol=1e-5, atol=1e-4
        )

    def test_rows_measure_what_the_operator_measures(self, config, images):
        physics = camera(config)
        values = physics.values(physics.operator.A(images[:3]))
        assert physics.rows().shape == (physics.m, 256)
        assert torch.allclose(images[:3].flatten(2) @ physics.rows().T, values, atol=1e-4)

    def test_lmmse_beats_back_projection_and_a_checkpoint_rebuilds_the_camera(self, config, images):
        physics = camera(config, images, x0="lmmse")
        again = build_physics(physics.config, state=physics.state())
        seen, same = (
            p.observe(images[:50], torch.Generator().manual_seed(0)) for p in (physics, again)
        )
        plain = camera(config).observe(images[:50], torch.Generator().manual_seed(0))
        assert torch.equal(seen, same) and seen.shape == plain.shape
        assert (seen[:, :1] - images[:50]).square().mean() < (
            plain[:, :1] - images[:50]
        ).square().mean()

    def test_the_label_names_the_camera(self, config):
        label = label_of(config)
        assert (
            label.startswith(config["name"]) and "{" not in label and label == camera(config).label
        )


@pytest.mark.parametrize("config", [r for name, r in LINEAR.items() if "denoise" not in name])
def test_noise_has_the_asked_snr_on_measured_values_only(config, images):
    noisy, clean = camera(config, awgn_snr=20.0), camera(config)
    noise = noisy.measure(images, torch.Generator().manual_seed(0)) - clean.measure(images)
    power, variance = (
        clean.values(y).square().mean((1, 2)) for y in (clean.measure(images), noise)
    )
    assert abs(-10 * torch.log10((variance / power).mean()) - 20) < 0.1
    assert noise.count_nonzero() <= clean.m * len(images)


def test_denoising_has_the_asked_level_and_tells_it():
    x = torch.full((40, 1, 64, 64), 0.5)
    y = camera(LINEAR["denoise"], n=64).observe(x, torch.Generator().manual_seed(0))
    assert abs(y[:, :1].std().item() * 255 - 25) < 0.2 and torch.all(y[:, 1:] == 25 / 255)
    y = camera(LINEAR["denoise range"], n=64).observe(x, torch.Generator().manual_seed(0))
    measured, reported = (y[:, :1] - x).std((1, 2, 3)) * 255, y[:, 1, 0, 0] * 255
    assert torch.allclose(measured, reported, rtol=0.06)
    assert (
        reported.min() < 12 and reported.max() > 43 and reported.min() >= 5 and reported.max() <= 50
    )


@pytest.mark.parametrize("factor", [2, 4])
def test_super_resolution_resizes_as_torch_does(factor):
    x = torch.rand(2, 1, 32, 32)
    for kernel in ("bicubic", "bilinear"):
        expected = F.interpolate(x, scale_factor=1 / factor, mode=kernel, antialias=True)
        assert torch.allclose(Resized(factor, kernel).A(x), expected, atol=1e-5)
    assert torch.allclose(Resized(factor, "box").A(x), F.avg_pool2d(x, factor), atol=1e-6)
    physics = camera({"name": "sr", "factor": factor, "kernel": "bicubic"}, n=32)
    small = physics.measure(x)
    assert torch.allclose(
        physics.first_image(small),
        F.interpolate(small, 32, mode="bicubic", antialias=True),
        atol=1e-5,
    )


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k != "motion"])
def test_resizing_keeps_flat_images_and_does_not_shift(kernel):
    ramp = torch.arange(32.0)
    small = Resized(4, kernel).down(32, torch.device("cpu"))
    assert torch.allclose(small.sum(1), torch.ones(8), atol=1e-6)
    assert torch.allclose((small @ ramp)[2:-2], ramp.view(8, 4).mean(1)[2:-2], atol=1e-4)


def test_blur_is_scipys_correlation_mirrored_at_the_border(images):
    y = camera(LINEAR["blur box"]).measure(images[:1])
    assert np.allclose(
        y[0, 0], correlate(images[0, 0].numpy(), np.full((3, 3), 1 / 9), mode="mirror"), atol=1e-5
    )


@pytest.mark.parametrize("mask_type", MASK_TYPES)
def test_mri_measures_a_quarter_of_the_fourier_lines(mask_type):
    physics = camera(LINEAR[f"mri {mask_type}"], n=64)
    x = torch.rand(1, 1, 64, 64)
    y = torch.view_as_complex(physics.measure(x)[0, 0].movedim(0, -1).contiguous())
    full = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x[0, 0]), norm="ortho"))
    assert torch.allclose(y, full * physics.mask, atol=1e-4)
    assert abs(physics.mask.mean().item() - 0.25) < 0.05 and physics.mask[:, 32].all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "sr", "factor": 3, "kernel": "bicubic"}, "must be a larger multiple"),
        ({"name": "sr", "factor": 2, "kernel": "motion"}, "super-resolution takes bicubic"),
        ({"name": "blur", "kernel": "bicubic", "blur_width": 2.0}, "blur takes gaussian"),
        ({"name": "blur", "kernel": "box", "blur_width": 4.0}, "odd number of pixels"),
        ({"name": "blur", "kernel": "box", "blur_width": 17.0}, "larger than the image"),
        ({"name": "mri", "acceleration": 64, "mask_type": "gaussian"}, "^acceleration 64 .*16"),
        ({"name": "mri", "acceleration": 64, "mask_type": "uniform"}, "^acceleration 64 .*16"),
        ({"name": "denoise", "sigma": [1.0, 2.0, 3.0]}, "the two ends of a range"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_impossible_cameras_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as error:
        camera(changes, torch.rand(5, 1, 16, 16))
    assert "\n" not in str(error.value)


def test_every_physics_that_images_are_restored_from_is_tested_here_or_with_the_orderings():
    assert {config["name"] for config in LINEAR.values()} | {
        "spc",
        "cs",
        "degrade",
        "given",
    } == set(RESTORED)


ASKED = {"cr": 0.25, "sigma": 25.0, "factor": 2, "acceleration": 4}


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in READ_MEASUREMENTS])
def test_every_network_makes_images_of_what_every_camera_sees(name, c):
    network = build_network({"name": name, "c": c} | tiny(name)).eval()
    batch = batch_of(torch.rand(2, c, 16, 16), degraded=torch.rand(2, c, 16, 16))
    for physics, line in RESTORED.items():
        seeing = camera(
            {"name": physics}
            | {flag: ASKED.get(flag, value) for flag, value in line.flags.items()},
            c=c,
        )
        x0 = seeing.first_image(seeing.measure_batch(batch, torch.Generator().manual_seed(0)))
        assert x0.shape == (2, c + seeing.appends_noise_level, 16, 16), physics
        assert network(x0).shape == (2, c, 16, 16) == network(x0[:, :c]).shape, physics
