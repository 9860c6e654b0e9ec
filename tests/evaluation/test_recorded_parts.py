"""Networks on recordings: whoever needs values that were not recorded is refused, wherever frames are scored."""

from pathlib import Path

import pytest
import torch
from conftest import CONFIG
from test_scripts import call

import compare_models
import test_classify
import test_UNet
from algo_functions import build_physics
from checkpoints import checkpoint
from core.errors import UserError
from models import build_network
from recordings.file import Recording, truth_path, write_recording, write_truth

UNET = {"name": "unet", "c": 1, "scales": 2, "width": 4, "batch_norm": "off", "padding": "zeros"}
CLASSES = ["one", "two"]
RESNET = {"name": "resnet8", "c": 1, "classes": CLASSES, "side": 16, "width": 2}
LAB = ["--dataset", "recorded", "--data_root", "lab.npz"]
TRUTH = ["--truth", "lab_truth.npz"]


def record(labelled: bool = True) -> Recording:
    """Writes a recording of 18 noise images, the last 12 of them for tests, and its truth."""
    camera, generator = build_physics(CONFIG | {"cr": 0.5}), torch.Generator().manual_seed(0)
    x = torch.rand(18, 1, 16, 16, generator=generator)
    values = camera.values(camera.measure(x))
    values += 0.1 * torch.randn(values.shape, generator=generator)
    variance = torch.full((18, 1, 1), 0.01)
    split = torch.tensor([0, 0, 0, 0, 1, 1, *[2] * 12], dtype=torch.uint8)
    names = tuple(f"frame {k}" for k in range(18))
    labels = {"labels": torch.arange(18) % 2, "classes": tuple(CLASSES)} if labelled else {}
    recording = Recording(camera.config, camera.patterns, values, variance, split, names, **labels)
    write_recording(Path("lab.npz"), recording)
    write_truth(truth_path("lab.npz"), x, recording)
    return recording


def saved(name: str, network: dict = UNET, **physics) -> str:
    """The file of a network that has learnt nothing."""
    torch.manual_seed(len(name))
    path = Path(f"{name}.pth")
    content = checkpoint.pack(build_network(network), network, build_physics(CONFIG | physics), {})
    checkpoint.write(path, content)
    return str(path)


EVALUATIONS = [
    (test_UNet, UNET, ["--checkpoint"], ["--save_batches", "0"]),
    (test_UNet, UNET, ["--checkpoint"], [*TRUTH, "--save_batches", "0"]),
    (compare_models, UNET, [], [*TRUTH, "--runs", "1", "--batches", "1"]),
    (test_classify, RESNET, ["--checkpoint"], []),
]


@pytest.mark.parametrize("script, network, before, after", EVALUATIONS)
def test_a_network_sees_only_what_was_recorded(script, network, before, after):
    record()
    greedy, other = saved("greedy", network, cr=0.75), saved("other", network, ordering="strip")
    mixed = saved("mixed", network, cr=[0.25, 0.5])
    files = {*Path().iterdir()}
    for path, message in (
        (greedy, r"greedy.* measures 192 values .* not all among the 128 recorded ones"),
        (other, r"other.* by ordering 'strip' .* not all among the 128 recorded ones"),
        (mixed, r"mixed.* of several ratios or another camera: .* of one ratio"),
    ):
        with pytest.raises(UserError, match=message):
            call(script, *before, path, *LAB, *after)
    with pytest.raises(UserError, match="a recording brings its own noise"):
        call(script, *before, saved("known", network), *LAB, *after, "--sigma", "5")
    assert {*Path().iterdir()} == files | {Path("known.pth")}, "nothing is written"
    assert call(script, *before, "known.pth", *LAB, *after)["rows"]
