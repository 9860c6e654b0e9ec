"""What a light gives: expected errors against simulated ones, and evaluations at another light."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIG
from test_scripts import TINY, call

import compare_models
import main_unet
import test_UNet
import visualize_mask_spc
from algo_functions import build_physics
from core.errors import UserError
from evaluation.light_budget import outcomes_of
from physics.light import Light


@pytest.mark.parametrize("budget", ["pattern", "frame"])
def test_expected_errors_are_those_of_simulated_back_projections(budget, images):
    light = Light(400.0 if budget == "frame" else 6.0, budget, dark_noise=2.0, gain=0.5)
    (outcome,) = outcomes_of(build_physics(CONFIG), images, [light])
    for m in (1, 40, 256):
        physics = build_physics(
            CONFIG
            | {"cr": m / 256, "photons": light.photons, "photon_budget": budget}
            | {"dark_noise": 2.0, "gain": 0.5}
        )
        x = images.repeat(5, 1, 1, 1)
        back = physics.back_projection(physics.measure(x, torch.Generator().manual_seed(0)))
        assert np.isclose(outcome.error[m - 1], (back - x).square().mean(), rtol=0.02)
    assert outcome.error[outcome.best - 1] == outcome.error.min()


def test_the_picture_of_a_light_comes_with_its_numbers():
    words = ["--cr", "0.25", "--n", "16", "--dataset", "digits", "--limit_train", "40"]
    result = call(visualize_mask_spc, *words, "--photons", "5", "50", "--photon_budget", "frame")
    best = result["best_ratios"]
    assert 0 < best[0] < best[1] <= 1
    folder = Path("results/masks/xy_cr_0.25_n_16")
    with open(folder / "light.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 512 and (folder / "light.png").is_file()
    for photons, ratio in zip(("5.0", "50.0"), best, strict=True):
        of_light = [row for row in rows if row["photons"] == photons]
        highest = max(of_light, key=lambda row: float(row["PSNR (dB)"]))
        assert np.isclose(float(highest["ratio"]), ratio)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--ordering", "random", "--photons", "5"], "no Hadamard patterns"),
        (["--dark_noise", "3"], "belongs to a camera that counts photons"),
        (["--photons", "5", "--calibration", "none.json"], "no such file"),
    ],
)
def test_a_picture_of_no_light_is_refused(words, message):
    start = ["--cr", "0.25", "--n", "16", "--dataset", "digits"]
    with pytest.raises(UserError, match=message):
        call(visualize_mask_spc, *start, *words)
    assert not Path("results").exists()


class TestEvaluation:
    @pytest.fixture
    def network(self) -> str:
        return call(main_unet, "--cr", "0.25", "--photons", "20", *TINY)["export"]

    def test_a_checkpoint_is_tested_at_other_lights(self, network):
        words = ["--checkpoint", network, "--dataset", "digits", "--limit_test", "20"]
        levels = ["--photons", "1", "1000", "none", "--awgn_snr", "0"]
        rows = call(test_UNet, *words, *levels)["rows"]
        psnr = {row["physics"]: row["PSNR"] for row in rows if row["estimate"].startswith("UNET")}
        names = ["cr 0.25", "cr 0.25 photons 1", "cr 0.25 photons 1000"]
        assert sorted(psnr) == names and psnr[names[1]] < psnr[names[2]] - 1
        with open("results/test/psnr_results.csv", newline="") as file:
            cameras = [row["Camera"] for row in csv.DictReader(file)]
        assert cameras == ["cr_0.25", "cr_0.25_photons_1", "cr_0.25_photons_1000", "cr_0.25"]

    def test_a_calibration_replaces_the_detector(self, network):
        Path("c.json").write_text(json.dumps({"dark": 9.0, "dark_noise": 50.0, "gain": 2.0}))
        words = ["--checkpoint", network, "--dataset", "digits", "--limit_test", "20"]
        plain, noisy = (
            call(test_UNet, *words, *more)["rows"][-1]["PSNR"]
            for more in ([], ["--calibration", "c.json"])
        )
        assert noisy < plain - 1
        with pytest.raises(UserError, match="counts no photons"):
            call(test_UNet, *words, "--calibration", "c.json", "--photons", "none")

    def test_networks_are_compared_at_one_noise(self, network):
        words = [network, "--dataset", "digits", "--limit_test", "20", "--runs", "1"]
        with pytest.raises(UserError, match="2 models of the same noise"):
            call(compare_models, *words, "--photons", "5", "--awgn_snr", "20")
