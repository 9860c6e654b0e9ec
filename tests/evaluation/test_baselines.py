"""What networks are tested beside: the LMMSE estimate, fitted to the images that the network learnt from."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIG
from skimage.metrics import peak_signal_noise_ratio
from test_scripts import call
from test_whole import picture, save

import test_UNet
from algo_functions import build_physics
from checkpoints import checkpoint
from data_loader import Request, build_splits
from models import build_network
from physics import lmmse
from tests.doubles import gaussian_of

DIGITS = ["--dataset", "digits", "--limit_test", "3"]


def learnt(trained_with: dict, **camera) -> str:
    """The file of a network that its configuration says has learnt."""
    config = {"name": "unet", "c": 1, "scales": 2, "width": 4, "batch_norm": "off"}
    config |= {"padding": "zeros"}
    camera = build_physics(CONFIG | camera)
    content = checkpoint.pack(build_network(config), config, camera, trained_with)
    checkpoint.write(Path("network.pth"), content)
    return "network.pth"


def scored(path: str, *words: str) -> tuple[dict | None, dict]:
    """The row of LMMSE, if there is one, and the last row of the results."""
    rows = call(test_UNet, "--checkpoint", path, "--save_batches", "0", *words)["rows"]
    with open("results/test/psnr_results.csv", newline="") as file:
        *_, last = csv.DictReader(file)
    return next((row for row in rows if row["estimate"] == "LMMSE"), None), last


def by_formula(count: int) -> float:
    """Mean PSNR of E[x] + C Aᵀ (A C Aᵀ)⁻¹ (y - A E[x]) of three test digits, from so many training digits."""
    request = Request(dataset="digits", n=16, limit_train=count, limit_test=3)
    splits = build_splits(request, ("train", "test"))
    train, test = (splits[name].stack().flatten(1).double().numpy() for name in ("train", "test"))
    a = build_physics(CONFIG).rows().double().numpy()
    mean, covariance = gaussian_of(train, share=0.3)
    gain = np.linalg.lstsq(a @ covariance @ a.T, a @ covariance, rcond=None)[0].T
    scores = [
        peak_signal_noise_ratio(x, mean + gain @ (a @ (x - mean)), data_range=1) for x in test
    ]
    return float(np.mean(scores))


def test_lmmse_is_fitted_to_the_images_that_the_network_learnt_from(capsys, monkeypatch):
    monkeypatch.setattr(lmmse, "SHARES", (0.3,))
    path = learnt({"dataset": "digits", "data_root": "data", "crop": "center", "limit_train": 60})
    row, last = scored(path, *DIGITS)
    assert row["LMMSE images"] == 60 and last["LMMSE Images"] == "60"
    assert row["PSNR"] == pytest.approx(by_formula(60), abs=0.02)
    assert float(last["PSNR LMMSE"]) == pytest.approx(row["PSNR"])
    printed = "LMMSE is fitted to 60 training images of 'digits' (the network was trained on them)"
    assert printed in capsys.readouterr().out
    assert abs(by_formula(60) - by_formula(500)) > 0.1


@pytest.mark.parametrize(
    "trained_with, words, count, whose",
    [
        ({"dataset": "digits", "limit_train": 60}, ["--limit_train", "30"], 30, "--limit_train 30"),
        ({}, ["--limit_train", "30"], 30, "the checkpoint does not name"),
        ({"dataset": "digits"}, [], 1294, "the network was trained on them"),
    ],
)
def test_another_number_of_images_is_one_that_the_command_line_asks_for(
    trained_with, words, count, whose, capsys
):
    row, _ = scored(learnt(trained_with), *DIGITS, *words)
    assert row["LMMSE images"] == count and f"of 'digits' ({whose}" in capsys.readouterr().out


def test_a_network_tested_on_other_images_keeps_its_own_lmmse():
    for k in range(30):
        save(picture(20, 20, seed=k), Path("mine") / f"{k}.png")
    path = learnt({"dataset": "folder", "data_root": "mine", "crop": "center", "limit_train": 20})
    row, last = scored(path, *DIGITS)
    assert row["LMMSE images"] == 20 and last["Dataset"] == "digits"
    save(picture(32, 48), Path("whole") / "a.png")
    row, _ = scored(path, "--dataset", "folder", "--data_root", "whole", "--crop", "whole")
    assert row["LMMSE images"] == 20  # block by block, as the camera looks
    Path("mine").rename("moved")
    row, last = scored(path, *DIGITS)
    assert row is None and not last["PSNR LMMSE"] and not last["LMMSE Images"]


@pytest.mark.parametrize(
    "trained_with, camera, words, why",
    [
        (
            {"dataset": "folder", "data_root": "gone"},
            {},
            DIGITS,
            "--data_root gone: no such folder",
        ),
        ({"dataset": "moon"}, {}, DIGITS, "unknown dataset 'moon'"),
        ({"dataset": "digits", "limit_train": 1}, {}, DIGITS, "was trained on 1"),
        ({"dataset": "digits", "limit_train": -4}, {}, DIGITS, "an impossible limit_train -4"),
        ({"dataset": "digits", "data_root": "a\nb"}, {}, DIGITS, "an impossible data_root 'a\\nb'"),
        ({"dataset": ["digits"]}, {}, DIGITS, "an impossible dataset ['digits']"),
    ],
)
def test_where_lmmse_cannot_be_fitted_a_line_says_why(trained_with, camera, words, why, capsys):
    row, last = scored(learnt(trained_with, **camera), *words)
    assert row is None and not last["LMMSE Images"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "no LMMSE baseline" in line]
    assert why in line


def test_a_denoiser_of_whole_pictures_has_no_lmmse(capsys):
    save(picture(20, 33), Path("whole") / "a.png")
    path = learnt({"dataset": "digits"}, name="denoise", sigma=25.0)
    row, _ = scored(path, "--dataset", "folder", "--data_root", "whole", "--crop", "whole")
    assert row is None
    assert "the test images have various sizes" in capsys.readouterr().out


def test_lmmse_of_many_images_is_fitted_to_the_first_ten_thousand(monkeypatch):
    from evaluation import restoration

    monkeypatch.setattr(restoration, "MOST_LMMSE", 50)
    row, last = scored(learnt({"dataset": "digits"}), *DIGITS)
    assert row["LMMSE images"] == 50 and last["LMMSE Images"] == "50"
    assert torch.isfinite(torch.tensor(row["PSNR"]))


def test_a_table_of_an_earlier_version_gets_the_new_columns():
    """It lacks the last ones, which are blank in its rows."""
    path = learnt({"dataset": "digits", "limit_train": 60})
    scored(path, *DIGITS)
    results = Path("results/test/psnr_results.csv")
    with open(results, newline="") as file:
        rows = [*csv.reader(file)]
        earlier = rows[0].index("PSNR TV")
        rows = [row[:earlier] for row in rows]
    with open(results, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    _, last = scored(path, *DIGITS)
    with open(results, newline="") as file:
        old, new = csv.DictReader(file)
    assert old["PSNR TV"] == "" and old["PSNR LMMSE"] == rows[1][rows[0].index("PSNR LMMSE")]
    assert float(new["PSNR TV"]) > 0 and last == new
