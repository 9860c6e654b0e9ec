"""Narrow networks train on every processor: channels innermost is used only where it is safe."""

import json
import os
import subprocess
import sys

import pytest
import torch
from test_house import ROOT
from torch import nn

from core.registry import CLASSIFIERS, NETWORKS
from models.base import memory_format

CPU = torch.device("cpu")
INSTRUCTIONS = {"as the machine is": {}, "without AVX-512": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}
REFUSED = {
    *(f"{name} {width}" for name in ("restormer", "restormer_large") for width in range(1, 17, 2)),
    *(f"resnext50 {width}" for width in range(1, 16)),
}


@pytest.mark.parametrize(
    "instructions, widths",
    [
        ("without AVX-512", range(3, 4)),
        *(
            pytest.param(name, range(first, first + 4), marks=pytest.mark.long)
            for first in range(1, 17, 4)
            for name in INSTRUCTIONS
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]} to {value[-1]}",
)
def test_every_network_trains_at_every_small_width(instructions, widths):
    widths = [str(width) for width in widths]
    run = subprocess.run(
        [sys.executable, "tests/models/every_network.py", *widths],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | INSTRUCTIONS[instructions],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    outcomes = json.loads(run.stdout)
    assert {case.split()[0] for case in outcomes} == {*NETWORKS, *CLASSIFIERS}
    expected = {case: "refused" if case in REFUSED else "fine" for case in outcomes}
    assert outcomes == expected


def layers(*convolutions: nn.Conv2d) -> nn.Module:
    return nn.Sequential(*convolutions)


@pytest.mark.parametrize(
    "network, expected",
    [
        (layers(nn.Conv2d(8, 16, 1, stride=2)), torch.channels_last),
        (layers(nn.Conv2d(4, 16, 3, stride=2)), torch.channels_last),
        (layers(nn.Conv2d(4, 16, 1)), torch.channels_last),
        (layers(nn.Conv2d(8, 16, 3), nn.Conv2d(7, 16, 1, stride=2)), torch.contiguous_format),
        (layers(nn.Conv2d(16, 16, 1, stride=(1, 2), groups=4)), torch.contiguous_format),
    ],
)
def test_a_strided_1x1_convolution_of_few_channels_keeps_the_whole_network_contiguous(
    network, expected
):
    assert memory_format(network, CPU) == expected
    assert memory_format(network, torch.device("cuda")) == torch.channels_last
