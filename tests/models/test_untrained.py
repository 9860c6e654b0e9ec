"""Total variation and plug-and-play: against other solvers, and by what they must fulfil."""

import pytest
import torch
from deepinv.optim import L2, PGD
from deepinv.optim.prior import TVPrior
from skimage.restoration import denoise_tv_chambolle
from torch import nn

from algo_functions import build_physics
from models.base import Restorer
from models.untrained import Gradient, PlugAndPlay, TotalVariation
from physics.mosaic import Mosaic
from preparation.baselines import WEIGHTS, baselines_of, total_variation

N = 16
CAMERA = {"name": "spc", "n": N, "c": 1, "cr": 0.25, "ordering": "xy", "x0": "adjoint"}


def camera(**config):
    levels = {"awgn_snr": None, "noise": None, "photons": None}
    return build_physics(CAMERA | levels | {"measurements": True} | config)


def blocks(count: int = 3, c: int = 1, n: int = N) -> torch.Tensor:
    """Images of few grey levels, which total variation suits, off the grid of the patterns."""
    coarse = torch.rand(count, c, 4, 4, generator=torch.Generator().manual_seed(0))
    return coarse.repeat_interleave(n // 4, 2).repeat_interleave(n // 4, 3).roll((1, 1), (2, 3))


def length(x: torch.Tensor) -> float:
    return Gradient.of(x).lengths().sum().item()


def test_the_adjoint_is_that_of_the_differences():
    x, u = torch.rand(2, 3, 5, 7), Gradient(torch.rand(2, 3, 4, 7), torch.rand(2, 3, 5, 6))
    found = Gradient.of(x)
    product = (found.down * u.down).sum() + (found.right * u.right).sum()
    torch.testing.assert_close(product, (x * u.adjoint()).sum())


def test_denoising_is_skimages():
    """At ratio 1 it is the denoising of Rudin, Osher and Fatemi, which skimage solves nearly."""
    physics, x = camera(cr=1.0, noise=0.1), blocks()

    def objective(image, noisy):
        return (image - noisy).square().sum() / 2 + 0.15 * length(image)

    y = physics.measure(x, torch.Generator().manual_seed(1))
    noisy = physics.back_projection(y)
    found = TotalVariation(1, N, weight=1.5, iterations=1000)(physics.first_image(y))
    for image, own in zip(noisy, found, strict=True):
        other = denoise_tv_chambolle(image[0].numpy(), weight=0.15, eps=1e-9, max_num_iter=5000)
        other = torch.from_numpy(other)[None]
        assert 0.995 * objective(other, image) < objective(own, image) < objective(other, image)
        assert (own - other).abs().max() < 0.02


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_the_objective_is_that_of_deepinvs_solver(noise):
    physics, x = camera(noise=noise), blocks()
    y = physics.measure(x, torch.Generator().manual_seed(1))
    values, weight = physics.values(y), 1.0
    solver = PGD(
        prior=TVPrior(n_it_max=100),
        data_fidelity=L2(),
        stepsize=1.0,
        lambda_reg=weight * noise,
        max_iter=100,
        early_stop=False,
    )
    other = solver(y[:, :1], physics.operator)
    own = TotalVariation(1, N, weight, iterations=500)(physics.first_image(y))

    def objective(image):
        misfit = physics.clean_values(image) - values
        return misfit.square().sum().item() / 2 + weight * noise * length(image)

    assert objective(own) <= objective(other) * (1 + 1e-3)
    assert objective(own) >= objective(other) * (1 - 1e-2)


@pytest.mark.parametrize("c", [1, 3])
def test_without_noise_the_values_are_kept_and_the_variation_is_less(c):
    physics, x = camera(c=c), blocks(c=c)
    y = physics.measure(x)
    x0 = physics.first_image(y)
    image = TotalVariation(c, N)(x0)
    torch.testing.assert_close(physics.clean_values(image), physics.values(y), atol=1e-4, rtol=0)
    assert length(image) < length(x0[:, :c])
    assert (image - x).square().mean() < 0.5 * (x0[:, :c] - x).square().mean()


@pytest.mark.parametrize("noise", [{}, {"noise": 0.2}, {"photons": [2.0, 50.0]}])
def test_every_image_is_the_same_alone_and_in_a_batch(noise):
    physics = camera(**noise)
    x0 = physics.observe(blocks(), torch.Generator().manual_seed(1))
    for network in (TotalVariation(1, N), PlugAndPlay(Blur(), N)):
        alone = torch.cat([network(one[None]) for one in x0])
        torch.testing.assert_close(network(x0), alone, atol=1e-5, rtol=1e-5)


def test_a_large_image_is_one_image_of_many_measured_blocks():
    mosaic, x = Mosaic(camera()), blocks(2, n=2 * N)
    x0 = mosaic.observe(x)
    image = TotalVariation(1, N)(x0)
    assert image.shape == x.shape
    assert (image - x).square().mean() < 0.5 * (x0[:, :1] - x).square().mean()


class Blur(Restorer):
    """Stands for a denoiser: the mean over a neighbourhood, more of it at a higher level."""

    reads_noise_level = True

    def __init__(self):
        super().__init__(1)
        self.levels = []

    def features(self, x):
        image, level = x[:, :1], x[:, 1:]
        self.levels.append(level[:, 0, 0, 0])
        mean = nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
        return {"output": image + 2 * level * (mean - image)}


class Truth(Restorer):
    def __init__(self, x):
        super().__init__(1)
        self.x = x

    def features(self, x):
        return {"output": self.x}


def test_plug_and_play_asks_for_less_and_less_down_to_the_noise():
    denoiser, physics = Blur(), camera(noise=0.1)
    PlugAndPlay(denoiser, N, iterations=4)(physics.observe(blocks()))
    levels = torch.stack(denoiser.levels)  # (iterations, B)
    assert torch.allclose(levels[0], torch.tensor(49 / 255))
    assert (levels[1:] < levels[:-1]).all() and (levels[-1] >= 0.1 - 1e-6).all()


def test_with_a_denoiser_that_knows_the_truth_plug_and_play_finds_it():
    physics, x = camera(), blocks()
    torch.testing.assert_close(PlugAndPlay(Truth(x), N)(physics.observe(x)), x, atol=1e-5, rtol=0)


def test_without_noise_plug_and_play_keeps_the_values():
    physics, x = camera(), blocks()
    image = PlugAndPlay(Blur(), N)(physics.observe(x))
    expected = physics.values(physics.measure(x))
    torch.testing.assert_close(physics.clean_values(image), expected, atol=1e-5, rtol=0)


def test_the_weight_is_the_best_on_training_images():
    physics, x = camera(noise=0.3), blocks(8)
    chosen = total_variation(physics, lambda: x)
    x0 = physics.observe(x, torch.Generator().manual_seed(0))
    errors = {w: (TotalVariation(1, N, w)(x0) - x).square().mean() for w in WEIGHTS}
    assert chosen.weight == min(errors, key=errors.get)


def test_it_is_a_baseline_where_patterns_are_hadamard():
    names = {
        ordering: list(baselines_of(camera(ordering=ordering, measurements=False), None))
        for ordering in ("xy", "random")
    }
    assert names == {"xy": ["back-projection", "TV"], "random": ["back-projection"]}


def test_of_large_images_the_weight_is_chosen_too():
    x = blocks(8)
    physics = camera(noise=0.3)
    assert (
        total_variation(Mosaic(physics), lambda: x).weight
        == total_variation(physics, lambda: x).weight
        < 1
    )
