"""compare_models.py: what is counted equals what can be counted by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from test_scripts import DATA, TINY, call
from torch import nn

import compare_models
import main_unet
import test_UNet
from core.errors import UserError
from evaluation.compare import count_pass_flops, peak_memory, time_passes, write_comparison
from models import build_network


def test_flops_are_two_a_multiplication():
    network = build_network({"name": "dncnn", "c": 1, "channels": 8, "blocks": 3})
    convolutions = 2 * 9 * (1 * 8 + 3 * 8 * 8 + 8 * 1) * 16 * 16
    assert count_pass_flops(network, torch.rand(1, 1, 16, 16)) == convolutions


def test_memory_is_what_lives_at_once():
    x = torch.rand(1, 4, 32, 32)
    chain = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(5)))
    assert (
        peak_memory(chain, x) == 2 * x.nbytes
    )  # one map goes in, another comes out; the first input is not counted

    class Keeps(nn.Module):
        def forward(self, x):
            return sum([x + k for k in range(5)])

    assert peak_memory(Keeps(), x) >= 6 * x.nbytes
    assert peak_memory(nn.Sequential(nn.ReLU(inplace=True)), x) == 0


def test_latencies_are_as_many_as_asked_and_grow_with_the_work():
    small, large = (nn.Conv2d(c, c, 3, padding=1) for c in (2, 64))
    a, b = (
        time_passes(small, torch.rand(1, 2, 16, 16), 11),
        time_passes(large, torch.rand(1, 64, 64, 64), 5),
    )
    assert len(a) == 11 and len(b) == 5 and (a > 0).all() and np.median(b) > np.median(a)


@pytest.mark.pictures
def test_models_are_compared_with_the_first():
    large = call(main_unet, "--physics", "denoise", "--sigma", "25", *TINY)
    light = call(
        main_unet,
        "--physics",
        "denoise",
        "--sigma",
        "25",
        "--network",
        "dncnn",
        "--channels",
        "3",
        "--blocks",
        "1",
        *DATA,
        "--epochs",
        "1",
    )
    words = ["--dataset", "digits", "--limit_test", "6", "--runs", "5", "--batches", "1", "4"]
    rows = call(compare_models, large["export"], light["export"], *words)["rows"]
    assert [row["model"] for row in rows] == ["UNET_denoise_sigma_25", "DNCNN_denoise_sigma_25"]
    assert rows[0]["x fewer parameters"] == rows[0]["x faster"] == 1 and rows[0]["PSNR gain"] == 0
    assert rows[1]["x fewer parameters"] == rows[0]["parameters"] / rows[1]["parameters"] > 1
    tested = call(
        test_UNet,
        "--checkpoint",
        light["export"],
        "--dataset",
        "digits",
        "--limit_test",
        "6",
        "--no-anchors",
    )
    assert np.isclose(rows[1]["PSNR"], tested["psnr"], atol=1e-4)
    with open("results/compare/models.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert Path("results/compare/models.png").stat().st_size > 1000


def test_noise_is_that_of_all_models_and_rows_name_the_camera():
    low, high = (
        call(main_unet, "--physics", "denoise", "--sigma", sigma, *TINY)["export"]
        for sigma in ("5", "50")
    )
    words = ["--dataset", "digits", "--limit_test", "6", "--runs", "2", "--batches", "1"]
    own, reported = (
        call(compare_models, low, high, *words, *more)["rows"] for more in ([], ["--sigma", "25"])
    )
    assert [row["physics"] for row in own] == ["denoise sigma 5", "denoise sigma 50"]
    assert [row["physics"] for row in reported] == ["denoise sigma 25"] * 2
    for path, row in zip((low, high), reported, strict=True):
        tested = call(test_UNet, "--checkpoint", path, *words[:4], "--sigma", "25", "--no-anchors")
        assert np.isclose(row["PSNR"], tested["psnr"], atol=1e-4)
    spc = call(main_unet, "--cr", "0.25", *TINY)["export"]
    with pytest.raises(UserError, match="the noise of physics 'spc' is set by --awgn_snr"):
        call(compare_models, low, spc, *words, "--sigma", "25")


def test_basicsrs_large_network_is_compared_where_size_and_noise_are_reported():
    network = build_network(
        {"name": "rrdbnet", "c": 1, "channels": 4, "blocks": 1, "growth": 2, "residual": False}
    )
    torch.save({"params": network.state_dict()}, "large.pth")
    light = call(main_unet, "--physics", "denoise", "--sigma", "25", *TINY)["export"]
    words = [
        "--n",
        "16",
        "--sigma",
        "25",
        "--dataset",
        "digits",
        "--limit_test",
        "4",
        "--runs",
        "2",
        "--batches",
        "1",
    ]
    rows = call(compare_models, "large.pth", light, *words)["rows"]
    assert [row["physics"] for row in rows] == ["denoise sigma 25"] * 2
    assert rows[0]["parameters"] == sum(w.numel() for w in network.parameters())


@pytest.mark.pictures
def test_names_of_models_are_drawn_as_they_are():
    write_comparison(
        [{"model": "$x{$", "parameters": 1, "ms, batch 1": 1.0, "PSNR": 30.0}], 1, Path("compare")
    )
    assert Path("compare/models.png").is_file()


def test_models_that_cannot_be_compared_are_refused(capsys):
    small, large = (
        call(main_unet, "--physics", "denoise", "--sigma", "25", *TINY, "--n", n, "--results", n)[
            "export"
        ]
        for n in ("8", "16")
    )
    with pytest.raises(
        UserError, match=r"takes images of 16 pixels and 1 channels, .* takes 8 pixels and 1"
    ):
        call(compare_models, small, large, "--dataset", "digits")
    with pytest.raises(SystemExit) as end:
        compare_models.parse([small, large, small])
    assert end.value.code == 2 and f"{small} is given 2 times" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_passes_on_a_gpu_are_waited_for():
    x = torch.rand(8, 64, 256, 256, device="cuda")
    network = nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1) for _ in range(8))).cuda()
    assert np.median(time_passes(network, x, 10)) > 1e-3
