"""Cameras that look at blocks, and networks for a range of ratios."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_scripts import call

import main_unet
import main_unet_dist
import predict
import test_UNet
from algo_functions import build_physics
from checkpoints.checkpoint import restore
from core.errors import UserError
from preparation.baselines import baselines_of

N, BLOCK = 32, 16
CONFIG = {"name": "spc", "n": N, "c": 1, "cr": 0.25, "ordering": "xy", "x0": "adjoint"}
TINY = ["--n", "32", "--epochs", "1", "--limit_train", "20", "--limit_val", "4"]
UNROLLED = ["--network", "unrolled", "--stages", "2", "--channels", "4"]


def camera(images=None, **config):
    return build_physics(CONFIG | {"awgn_snr": None} | config, images)


def pictures(count=3, n=N):
    return torch.rand(count, 1, n, n, generator=torch.Generator().manual_seed(count))


def blocks_of(x):
    for i in range(0, x.shape[-2], BLOCK):
        for j in range(0, x.shape[-1], BLOCK):
            yield (..., slice(i, i + BLOCK), slice(j, j + BLOCK))


@pytest.mark.parametrize("size", [(N, N), (BLOCK, 3 * BLOCK)])
@pytest.mark.parametrize("x0", ["adjoint", "lmmse"])
def test_every_block_is_measured_like_a_small_image(size, x0):
    train = pictures(40)
    x = torch.rand(2, 1, *size)
    whole = camera(lambda: train, block=BLOCK, x0=x0)
    small = camera(lambda: torch.cat([train[place] for place in blocks_of(train)]), n=BLOCK, x0=x0)
    first = whole.observe(x)
    for place in blocks_of(x):
        torch.testing.assert_close(first[place], small.observe(x[place]), atol=1e-4, rtol=1e-3)
    error = torch.rand_like(x)
    for place in blocks_of(x):
        part = small.project(error[place])
        torch.testing.assert_close(whole.project(error)[place], part, atol=1e-5, rtol=1e-4)


def test_blocks_have_the_noise_of_the_flags_and_their_baselines_fit_whole_pictures():
    x = torch.full((8, 1, N, N), 0.5)
    noisy = camera(block=BLOCK).at_noise(noise=0.1)
    deviation = (noisy.observe(x) - camera(block=BLOCK).observe(x)).square().mean().sqrt()
    # A quarter of the values has noise, and Aᵀ spreads it over all pixels.
    assert deviation.item() == pytest.approx(0.1 * 0.25**0.5, rel=0.05)
    train, wide = pictures(40), torch.rand(2, 1, BLOCK, 2 * BLOCK)
    found = baselines_of(camera(block=BLOCK), lambda: train)
    assert list(found) == ["back-projection", "LMMSE", "TV"]
    errors = {
        name: (network(physics.observe(wide)) - wide).square().mean()
        for name, (network, physics) in found.items()
    }
    assert all(torch.isfinite(error) for error in errors.values())
    kept = camera(block=BLOCK)
    image = found["TV"].network(found["TV"].physics.observe(wide))
    torch.testing.assert_close(kept.observe(image), kept.observe(wide), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("level", [{}, {"noise": 0.1}, {"photons": 20.0}, {"measurements": True}])
def test_fewer_patterns_of_a_camera_are_the_camera_of_that_ratio(level):
    x, wide = pictures(), camera(cr=0.5, **level)
    for cr in (0.5, 0.2, 0.01):
        own, fewer = camera(cr=cr, **level), wide.at_ratio(cr)
        images = [p.observe(x, torch.Generator().manual_seed(1)) for p in (own, fewer)]
        assert torch.equal(*images) and own.m == fewer.m
    assert wide.m == 512  # unchanged


def test_ratios_are_log_uniform_and_every_batch_has_one():
    physics = camera(cr=[0.02, 0.5], cr_range=[0.02, 0.5], measurements=True)
    generator = torch.Generator().manual_seed(0)
    ratios = [physics.sample_part(generator).config["cr"] for _ in range(2000)]
    assert 0.02 <= min(ratios) < 0.021 and 0.48 < max(ratios) <= 0.5
    below = np.mean([cr < 0.1 for cr in ratios])  # the geometric mean of the ends
    assert abs(below - 0.5) < 0.04
    shares = physics.observe(pictures(), torch.Generator().manual_seed(3))[:, -1].mean((1, 2))
    assert shares.unique().numel() == 1 and shares[0] not in (0.02, 0.5)


def test_a_network_for_a_range_in_blocks_is_trained_tested_and_taught():
    Path("set").mkdir()
    noise = np.random.default_rng(0)
    for k, side in enumerate(((48, 64), (32, 32))):
        array = noise.integers(0, 255, side, dtype=np.uint8)
        Image.fromarray(array).save(f"set/{k}.png")
    words = ["--cr_range", "0.05", "0.5", "--block", str(BLOCK), *UNROLLED, *TINY]
    scores = call(main_unet, *words)
    assert Path(scores["export"]).name == "UNROLLED_cr_0.05_to_0.5_block_16.pth"
    physics = restore(scores["export"], {}).physics
    assert [part.config["cr"] for part in physics.parts] == [0.05, 0.079, 0.13, 0.2, 0.32, 0.5]
    x = pictures(n=2 * N)
    generators = [torch.Generator().manual_seed(2) for _ in range(2)]
    again = build_physics(physics.config, state=physics.state())
    assert torch.equal(
        *(p.observe(x, g) for p, g in zip((physics, again), generators, strict=True))
    )
    whole = ["--dataset", "folder", "--data_root", "set", "--crop", "whole"]
    result = call(test_UNet, "--checkpoint", scores["export"], *whole)
    labels = [f"cr {cr} block 16" for cr in ("0.05", "0.079", "0.13", "0.2", "0.32", "0.5")]
    names = ["back-projection", "LMMSE", "TV", Path(scores["export"]).stem]
    found = [(row["physics"], row["estimate"]) for row in result["rows"]]
    assert found == [(label, name) for label in labels for name in names]
    with pytest.raises(UserError, match="--n 32 --block 16, or give one"):
        call(main_unet_dist, *words, "--cr_teacher", "0.5", "--type_dist", "output")
    one = call(main_unet, "--cr", "0.5", "--block", str(BLOCK), "--width", "4", *TINY)
    np.save("y.npy", np.zeros((1, 64)))
    with pytest.raises(UserError, match="measures images in blocks of 16 x 16"):
        call(predict, "--checkpoint", one["export"], "--measurements", "y.npy")
    taught = call(main_unet_dist, *words, "--cr_teacher", "0.5", "--type_dist", "output")
    assert "crs_0.05_to_0.5_block_16_crt_0.5_block_16" in taught["export"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--cr", "0.1", "--block", "24"], "block 24: n 32 must be a larger multiple of it"),
        (["--cr", "0.1", "--block", "32"], "block 32: n 32 must be a larger multiple of it"),
        (["--cr_range", "0.5", "0.1"], "give a lower ratio and a higher one"),
        (["--cr_range", "0.1", "0.5", "--cr", "0.2"], "0.2 is not allowed|one alone is not"),
        (["--cr_range", "0.1", "0.5", "--x0", "lmmse"], "x0 lmmse is fitted to one ratio"),
        (["--cr_range", "0.1", "0.5", "--ordering", "random"], "needs Hadamard patterns"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, message, capsys):
    try:
        call(main_unet, *words, *TINY)
    except UserError as error:
        text = str(error)
    except SystemExit:
        text = capsys.readouterr().err
    assert any(part in text for part in message.split("|"))
