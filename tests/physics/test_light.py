"""Photon counts of pairs of patterns, against the closed form with scipy's Hadamard matrix."""

import numpy as np
import pytest
import torch
from conftest import CONFIG
from scipy.linalg import hadamard

from algo_functions import build_physics
from core.errors import UserError
from models.base import FirstImage
from physics.lmmse import LMMSE

DRAWS = 100_000
DETECTORS = {
    "ideal": {},
    "dark noise": {"dark": 20.0, "dark_noise": 3.0},
    "gain": {"dark": 100.0, "dark_noise": 4.0, "gain": 2.5},
}


def camera(images=None, **changes):
    return build_physics(CONFIG | {"n": 4, "cr": 0.5} | changes, images=lambda: images)


def closed_form(x, patterns, alpha, detector):
    """Mean and variance of H x, for patterns (m, n²) of entries in [-1, 1]."""
    g, sigma = detector.get("gain", 1.0), detector.get("dark_noise", 0.0)
    return patterns @ x, abs(patterns) @ x / alpha + 2 * sigma**2 / (g * alpha) ** 2


def own_matrix(tmp_path):
    matrix = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)
    matrix *= np.logspace(-1, 1, 8, dtype=np.float32)[:, None]
    np.save(tmp_path / "own.npy", matrix)
    return f"file:{tmp_path / 'own.npy'}", matrix.astype(np.float64)


@pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS)
@pytest.mark.parametrize("budget, shared", [("pattern", 1), ("frame", 8)])
@pytest.mark.parametrize("ordering", ["strip", "random", "own"])
def test_draws_have_the_mean_and_variance_of_the_closed_form(
    ordering, budget, shared, detector, tmp_path
):
    name, matrix = own_matrix(tmp_path)
    physics = camera(
        ordering=name if ordering == "own" else ordering,
        photons=40.0 * shared,
        photon_budget=budget,
        **detector,
    )
    if ordering == "strip":
        natural = np.kron(hadamard(4), hadamard(4))
        patterns, rows = natural[physics.index], np.full(8, 0.25)
    else:
        matrix = matrix if ordering == "own" else 4 * physics.rows().double().numpy()
        rows = abs(matrix).max(1) * (1 if ordering == "own" else 0.25)
        patterns = matrix / abs(matrix).max(1, keepdims=True)
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.2
    mean, variance = closed_form(image.flatten().double().numpy(), patterns, 40.0, detector)

    generator = torch.Generator().manual_seed(1)
    counts, alpha = physics.count_photons(image.expand(DRAWS, -1, -1, -1), generator)
    values, estimated = physics.values_of_counts(counts, alpha)
    draws = values[:, 0].numpy()
    largest = abs(rows * mean).max()
    assert alpha.unique().item() == 40.0 and counts.shape == (DRAWS, 1, 8, 2)
    assert np.allclose(draws.mean(0), rows * mean, atol=0.01 * largest)
    assert np.allclose(draws.var(0), rows**2 * variance, rtol=0.02)
    assert np.isclose((draws.var(0) / rows**2 / variance).mean(), 1, atol=0.01)
    assert np.allclose(estimated.mean((0, 1)), rows**2 * variance, rtol=0.01)
    assert np.allclose(physics.expected_variance(image)[0], rows**2 * variance, rtol=1e-5)


def test_back_projection_has_the_noise_that_the_budget_promises():
    """Noise variance per pixel = (M / n²) (mean(x) / alpha + 2 sigma² / (n g alpha)²)."""
    for m, n in ((64, 16), (256, 16)):
        physics = camera(n=n, cr=m / n**2, photons=5.0, dark_noise=1.5, gain=0.5)
        x = torch.rand(1, 1, n, n).expand(4000, -1, -1, -1)
        noise = physics.back_projection(physics.measure(x)) - physics.project(x)
        expected = m / n**2 * (x.mean() / 5 + 2 * 1.5**2 / (n * 2.5) ** 2)
        assert torch.isclose(noise.var(), expected, rtol=0.01)


def test_each_pattern_of_the_first_pair_is_counted():
    physics = camera(photons=50.0, dark=7.0)
    counts, _ = physics.count_photons(torch.ones(2000, 1, 4, 4))
    first = (physics.index == 0).nonzero().item()
    assert abs(counts[:, 0, first, 0].mean() - 807) < 3  # 16 pixels of 50 photons
    assert torch.all(counts[:, 0, first, 1] == 7)  # the empty pattern


def test_the_noise_level_is_that_of_a_value_and_only_networks_that_read_it_get_it(images):
    physics = camera(n=16, cr=0.5, c=3, photons=8.0, dark_noise=2.0)
    x = images[:64].expand(-1, 3, -1, -1)
    y = physics.measure(x, torch.Generator().manual_seed(0))
    noise = physics.values(y) - physics.values(physics.operator.A(x))
    x0 = physics.first_image(y)
    level = x0[:, 3]
    assert physics.appends_noise_level and x0.shape == (64, 4, 16, 16)
    assert torch.equal(level, level[:, :1, :1].expand_as(level))
    assert torch.allclose(level[:, 0, 0].square(), noise.square().mean((1, 2)), rtol=0.35)
    assert torch.isclose(level.square().mean(), noise.square().mean(), rtol=0.02)
    assert torch.equal(FirstImage(3)(x0), x0[:, :3])
    assert physics.back_projection(y).shape == (64, 3, 16, 16)
    assert physics.example(torch.device("cpu")).shape == (1, 4, 16, 16)


@pytest.mark.parametrize("ordering", ["xy", "random"])
def test_one_seed_gives_one_measurement_and_another_another(ordering, images):
    physics = camera(n=16, ordering=ordering, photons=[2.0, 50.0], dark_noise=1.0)
    first, again, other = (
        physics.measure(images[:4], torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_each_image_gets_its_own_light_of_a_range():
    physics = camera(photons=[2.0, 200.0])
    alpha = physics.count_photons(torch.rand(4000, 1, 4, 4))[1].flatten().log()
    low, high = np.log(2), np.log(200)
    assert alpha.min() >= low and alpha.max() <= high
    quarters = torch.histc(alpha, 4, low, high) / 4000
    assert torch.allclose(quarters, torch.full_like(quarters, 0.25), atol=0.03)


def test_the_expected_variance_of_a_range_is_the_mean_over_it(images):
    physics = camera(n=16, photons=[2.0, 50.0], dark_noise=3.0, gain=0.7)
    x = images.repeat(20, 1, 1, 1)
    noise = physics.values(physics.measure(x, torch.Generator().manual_seed(0)))
    noise = noise - physics.values(physics.operator.A(x))
    expected = physics.expected_variance(x)
    assert torch.isclose(noise.double().square().mean(), expected.mean(), rtol=0.03)


class TestLMMSE:
    def test_one_variance_of_each_value_errs_no_more_than_a_common_one(self, images, tmp_path):
        rows = np.random.default_rng(0).normal(size=(64, 256)) / 16
        rows *= np.logspace(-1.5, 1, 64)[:, None]
        np.save(tmp_path / "own.npy", rows.astype(np.float32))
        ordering = f"file:{tmp_path / 'own.npy'}"
        physics = camera(images[:400], n=16, cr=0.25, ordering=ordering, x0="lmmse", photons=5.0)
        common = physics.expected_variance(images[:400]).mean().item()
        other = LMMSE(1, 16, 64).fit(physics.rows(), images[:400], common)
        test = images[400:].repeat(10, 1, 1, 1)
        values = physics.values(physics.measure(test, torch.Generator().manual_seed(0)))
        errors = [(f(values) - test).square().mean() for f in (physics.lmmse, other)]
        assert errors[0] < 0.8 * errors[1]

    def test_equal_variances_are_a_common_one(self, images):
        rows = camera(n=16).rows()
        fits = [LMMSE(1, 16, len(rows)) for _ in range(2)]
        fits[0].fit(rows, images, 0.3)
        fits[1].fit(rows, images, torch.full((1, len(rows)), 0.3, dtype=torch.float64))
        assert torch.equal(fits[0].gain, fits[1].gain)

    def test_little_light_makes_it_smoother_and_a_checkpoint_rebuilds_it(self, images):
        dim, bright = (camera(images, n=16, x0="lmmse", photons=a) for a in (1.0, 1e5))
        assert dim.lmmse.gain.norm() < 0.6 * bright.lmmse.gain.norm()
        again = build_physics(dim.config, state=dim.state())
        seen, same = (p.observe(images[:3], torch.Generator().manual_seed(0)) for p in (dim, again))
        assert torch.equal(seen, same) and seen.shape == (3, 2, 16, 16)


class TestConfig:
    def test_an_older_config_is_that_of_a_camera_without_photons(self):
        older, present = camera(), camera(photons=None, dark=0.0)
        assert older.same_first_image_as(present) and older.config["gain"] == 1
        assert older.condition == older.label == "cr_0.5"
        assert not older.appends_noise_level
        assert camera(awgn_snr=20.0).condition == "cr_0.5_snr_20"

    def test_names_and_words_tell_the_light(self):
        physics = camera(photons=10.0)
        assert physics.condition == physics.label == "cr_0.5_photons_10"
        assert "10 photons a pattern" in physics.describe()
        physics = camera(cr=[0.25, 0.5], photons=[2.0, 50.0], photon_budget="frame")
        assert physics.parts[0].condition == "cr_0.25_photons_2_50_frame"
        assert physics.appends_noise_level and "2 to 50 photons a frame" in physics.describe()

    def test_another_light_replaces_the_noise(self):
        physics = camera(awgn_snr=20.0).at_noise(photons=10.0)
        assert physics.config["photons"] == 10 and physics.config["awgn_snr"] is None
        assert physics.at_noise(awgn_snr=5.0).config["photons"] is None
        assert not physics.at_noise(photons=None).appends_noise_level
        mixture = camera(cr=[0.25, 0.5]).at_noise(photons=3.0)
        assert [part.config["photons"] for part in mixture.parts] == [3, 3]
        assert not mixture.same_measurements_as(camera(cr=[0.25, 0.5]))

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"photons": 0.0}, "photons 0 is outside"),
            ({"photons": -3.0}, "photons -3 is outside"),
            ({"photons": float("nan")}, "photons nan is outside"),
            ({"photons": [5.0, 2.0]}, "begins with its smaller end"),
            ({"photons": [1.0, 2.0, 3.0]}, "two ends of a range"),
            ({"photons": [1.0]}, "two ends of a range"),
            ({"photons": []}, "two ends of a range"),
            ({"photons": 5.0, "gain": 0.0}, "gain 0 is outside"),
            ({"photons": 5.0, "dark_noise": -1.0}, "dark_noise -1 is outside"),
            ({"photons": 5.0, "photon_budget": "second"}, "unknown photon_budget 'second'"),
            (
                {"photons": 5.0, "awgn_snr": 20.0},
                "awgn_snr and photons are 2 models of the same noise",
            ),
        ],
    )
    def test_impossible_light_is_refused(self, changes, message):
        with pytest.raises(UserError, match=message):
            camera(**changes)
