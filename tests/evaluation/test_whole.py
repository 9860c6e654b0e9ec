"""Test sets of whole pictures: own sizes, cameras that look block by block, borders and luma."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio
from test_scripts import TINY, call

import compare_models
import main_unet
import test_UNet
from algo_functions import Meter, build_physics, score
from core.blocks import assemble_blocks, split_blocks
from core.errors import UserError
from evaluation.piecewise import Piecewise
from models import build_network
from physics.mosaic import Mosaic


def picture(height, width, c=1, seed=0):
    coarse = torch.rand(1, c, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = (image[0] * 255).round().byte().movedim(0, -1).squeeze(-1).numpy()
    Image.fromarray(array).save(path)


@pytest.fixture
def folder():
    for k, (height, width) in enumerate([(40, 33), (32, 48), (16, 17)]):
        save(picture(height, width, seed=k), Path("set") / f"picture{k}.png")
    return ["--dataset", "folder", "--data_root", "set", "--crop", "whole"]


def test_blocks_are_slices_row_by_row_and_come_together_again():
    x = torch.rand(2, 3, 8, 12)
    cut = split_blocks(x, 4)
    expected = [x[b, :, i : i + 4, j : j + 4] for b in range(2) for i in (0, 4) for j in (0, 4, 8)]
    assert torch.equal(cut, torch.stack(expected))
    assert torch.equal(assemble_blocks(cut, 2, 3), x)
    assert torch.equal(assemble_blocks(F.avg_pool2d(cut, 2), 2, 3), F.avg_pool2d(x, 2))


@pytest.mark.parametrize("x0", ["adjoint", "lmmse"])
def test_a_mosaic_is_the_camera_and_network_of_every_block(x0, images):
    camera = build_physics(
        {"name": "spc", "n": 16, "c": 1, "cr": 0.25, "ordering": "xy", "x0": x0, "awgn_snr": None},
        images=lambda: images,
    )
    network = build_network({"name": "unet", "width": 4}).eval()
    torch.nn.init.normal_(network.Conv_1x1.weight)
    x, whole = picture(32, 48), Mosaic(camera)
    y = whole.measure(x)
    output = Piecewise(network, 16)(whole.first_image(y))
    for i in (0, 16):
        for j in (0, 16, 32):
            place = (..., slice(i, i + 16), slice(j, j + 16))
            part = camera.measure(x[place])
            assert torch.allclose(
                whole.back_projection(y)[place], camera.back_projection(part), atol=1e-6
            )
            assert torch.allclose(output[place], network(camera.first_image(part)), atol=1e-5)


def test_super_resolution_of_any_size_is_torchs_antialiased_resize():
    camera, x = (
        build_physics(
            {
                "name": "sr",
                "n": 32,
                "c": 1,
                "factor": 4,
                "kernel": "bilinear",
                "x0": "adjoint",
                "awgn_snr": None,
            }
        ),
        picture(24, 52),
    )
    expected = F.interpolate(x, (6, 13), mode="bilinear", antialias=True)
    assert torch.allclose(camera.measure(x), expected, atol=1e-5) and camera.step == 4
    assert camera.first_image(camera.measure(x)).shape == x.shape


@pytest.mark.parametrize("degradation", ["real_esrgan", "mild"])
def test_blind_degradation_keeps_any_shape(degradation):
    camera, x = (
        build_physics({"name": "degrade", "n": 16, "c": 1, "degradation": degradation}),
        picture(24, 52),
    )
    seen = torch.cat([camera.observe(x, torch.Generator().manual_seed(k)) for k in range(20)])
    assert seen.shape == (20, 1, 24, 52) and 0.05 > (seen - x).square().mean() > 1e-5


def test_borders_and_luma_are_scored_as_scikit_image_does():
    target, output = (
        picture(30, 40, 3),
        picture(30, 40, 3)
        + 0.1 * torch.randn(1, 3, 30, 40, generator=torch.Generator().manual_seed(1)),
    )
    a, b = (
        rgb2ycbcr(image[0].movedim(0, -1).double().numpy())[4:-4, 4:-4] / 255
        for image in (target, output.clamp(0, 1))
    )
    expected = peak_signal_noise_ratio(a[..., 0], b[..., 0], data_range=1)
    found = score(output, target, border=4, luma=True)
    assert abs(found["psnr_clipped"].item() - expected) < 1e-3
    inner = score(output[..., 4:-4, 4:-4], target[..., 4:-4, 4:-4])
    assert all(
        torch.equal(value, inner[name]) for name, value in score(output, target, border=4).items()
    )
    with pytest.raises(
        UserError, match="crop_border 15: nothing is left of an image of 30 x 40 pixels"
    ):
        Meter(border=15).add(output, target)
    with pytest.raises(UserError, match="y_channel: only RGB"):
        Meter(luma=True).add(output[:, :1], target[:, :1])


def rows(name):
    with open(next(Path("results/test").glob(f"{name}*/per_image.csv")), newline="") as file:
        return list(csv.DictReader(file))


def test_a_test_set_at_three_noise_levels_in_one_command(folder):
    scores = call(main_unet, "--physics", "denoise", "--sigma", "25", *TINY)
    result = call(test_UNet, "--checkpoint", scores["export"], *folder, "--sigma", "15", "25", "50")
    assert [
        (row["estimate"] == "back-projection", row["physics"], row["images"])
        for row in result["rows"]
    ] == [(first, f"denoise sigma {sigma}", 3) for sigma in (15, 25, 50) for first in (True, False)]
    for row, sigma in zip(result["rows"][::2], (15, 25, 50), strict=True):
        assert abs(row["PSNR"] - 20 * np.log10(255 / sigma)) < 0.5  # of the noise itself
    assert {row["image"] for row in rows("UNET_denoise")} == {"picture0", "picture1", "picture2"}
    originals = sorted(Path("results/test").glob("UNET_denoise*/denoise_sigma_15/originals/*.png"))
    assert [Image.open(path).size for path in originals] == [(33, 40)]
    with open("results/test/psnr_results.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["Image Dim"], row["Batch Size"], row["Images"]) == ("whole", "1", "3")


def test_a_single_pixel_camera_looks_at_a_test_set_block_by_block(folder, capsys):
    scores = call(main_unet, "--cr", "0.25", *TINY)
    result = call(test_UNet, "--checkpoint", scores["export"], *folder, "--crop_border", "2")
    printed = capsys.readouterr().out
    assert (
        "2 of 3 pictures are cropped to multiples of 16 pixels" in printed
        and "in blocks of 16 x 16" in printed
    )
    estimates = ["back-projection", "LMMSE", "TV", "UNET_cr_0.25"]
    assert [row["estimate"] for row in result["rows"]] == estimates
    compared = call(
        compare_models,
        scores["export"],
        *folder,
        "--crop_border",
        "2",
        "--runs",
        "3",
        "--batches",
        "1",
    )
    assert compared["rows"][0]["PSNR"] == pytest.approx(result["psnr"])


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--dataset", "digits", "--crop", "whole"],
            "only the pictures of dataset 'folder' keep their own size, not those of 'digits'",
        ),
        (
            ["--dataset", "folder", "--data_root", "small", "--crop", "whole"],
            "tiny.png is 15 x 20, smaller than n 16",
        ),
        (
            ["--dataset", "folder", "--data_root", "set", "--crop", "whole", "--y_channel"],
            "y_channel: only RGB images",
        ),
        (
            ["--dataset", "folder", "--data_root", "set", "--crop", "whole", "--crop_border", "20"],
            "crop_border 20: nothing is left",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(words, message, folder):
    scores = call(main_unet, "--cr", "0.25", *TINY)
    save(picture(20, 15), Path("small/tiny.png"))
    with pytest.raises(UserError, match=message):
        call(test_UNet, "--checkpoint", scores["export"], *words)


@pytest.mark.parametrize(
    "name, count",
    [("set11", 11), ("set12", 12), pytest.param("bsd68", 68, marks=pytest.mark.long)],
)
def test_the_fields_test_sets(name, count, shared):
    scores = call(main_unet, "--physics", "denoise", "--sigma", "25", *TINY)
    result = call(
        test_UNet,
        "--checkpoint",
        scores["export"],
        "--dataset",
        "folder",
        "--data_root",
        str(shared / name),
        "--crop",
        "whole",
    )
    noisy, restored = result["rows"]
    assert noisy["images"] == restored["images"] == count
    assert abs(noisy["PSNR"] - 20.17) < 0.02  # 20 log10(255 / 25)
