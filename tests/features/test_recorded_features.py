"""analyze_features.py on recordings: every network sees its own part of the same values, and no truth is needed."""

import csv
from pathlib import Path

import pytest
import torch
from scipy.linalg import hadamard
from test_recorded_parts import LAB, RESNET, UNET, record, saved
from test_scripts import call

import analyze_features
import test_UNet
from checkpoints import checkpoint
from core.errors import UserError
from recordings.file import Recording

FEW = ["--limit_test", "7", "--batch_size", "3", "--measures", "std", "--channels", "2"]


def back_projections(recording: Recording, frames: list[int], m: int) -> torch.Tensor:
    """Of the first m values of some frames, by the rows of the Hadamard matrix itself."""
    order = recording.patterns.flatten().numpy().argsort()[:m]
    rows = torch.tensor(hadamard(256)[order] / 16, dtype=torch.float32)
    return (recording.values[frames, :, :m] @ rows).view(-1, 1, 16, 16)


def frames_that_are_scored(path: str) -> list[int]:
    """The numbers of the test frames that test_UNet.py takes, in its order."""
    call(test_UNet, "--checkpoint", path, *LAB, "--limit_test", "7", "--save_batches", "0")
    with open(Path("results/test") / Path(path).stem / "per_frame.csv", newline="") as file:
        return [int(row["frame"].removeprefix("frame ")) for row in csv.DictReader(file)]


def test_each_network_sees_the_first_part_of_the_recorded_values(capsys):
    recording, teacher, student = record(), saved("half", cr=0.5), saved("eighth", cr=0.125)
    frames = frames_that_are_scored(teacher)
    Path("lab_truth.npz").write_bytes(b"nothing that can be read")
    capsys.readouterr()
    result = call(analyze_features, teacher, student, *LAB, *FEW)
    assert "7 test frames of lab.npz\na: half; spc, xy" in capsys.readouterr().out
    features = {}
    for path, m in ((teacher, 128), (student, 32)):
        with torch.no_grad():
            network = checkpoint.restore(path).network
            features[Path(path).stem] = network.features(back_projections(recording, frames, m))
    means = {(row["checkpoint"], row["layer"]): row["mean"] for row in result["measures"]}
    assert len(means) == 10
    for (name, layer), mean in means.items():
        expected = features[name][layer].flatten(2).std(2, correction=0).mean().item()
        assert mean == pytest.approx(expected, rel=1e-4), (name, layer)
    for row in result["channels"]:
        a, b = (features[name][row["layer"]][:, row["channel"]] for name in ("half", "eighth"))
        if a.any():
            assert row["change"] == pytest.approx(((b - a).norm() / a.norm()).item(), rel=1e-3)


def test_the_maps_are_of_the_frame_whose_back_projection_varies_most(monkeypatch):
    recording, teacher, student = record(), saved("quarter", cr=0.25), saved("eighth", cr=0.125)
    drawn = []
    monkeypatch.setattr("features.figures.draw_channels", lambda *args: drawn.append(args))
    call(analyze_features, teacher, student, *LAB, "--measures", "std")
    test = [*range(6, 18)]
    by_all, by_teacher = (
        int(back_projections(recording, test, m).flatten(1).std(1).argmax()) for m in (128, 64)
    )
    assert by_all != by_teacher, "or the test says nothing"
    with torch.no_grad():
        x0 = back_projections(recording, [test[by_all]], 64)
        expected = checkpoint.restore(teacher).network.features(x0)["latent"][0]
    (layers,) = [args[1] for args in drawn if args[0] == "latent"]
    torch.testing.assert_close(layers[0]["latent"].maps, expected, atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_the_recording_is_refused():
    record(labelled=False)
    known, greedy = saved("known", cr=0.25), saved("greedy", cr=0.75)
    classifiers = [saved("large", RESNET, cr=0.5), saved("small", RESNET, cr=0.25)]
    files = {*Path().iterdir()}
    for words, message in (
        ([known, greedy], r"greedy.pth measures 192 values .* not all among the 128"),
        ([known, saved("other", ordering="strip")], r"other.pth measures 64 values by .*'strip'"),
        ([known, saved("mixed", cr=[0.25, 0.5])], "mixed.pth .* of several ratios"),
        ([known, saved("noisy", UNET), "--sigma", "5"], "a recording brings its own noise"),
        (classifiers, "lab.npz has no labels, which a classifier needs"),
    ):
        with pytest.raises(UserError, match=message):
            call(analyze_features, *words, *LAB, *FEW)
    added = {Path(f"{name}.pth") for name in ("other", "mixed", "noisy")}
    assert {*Path().iterdir()} == files | added, "nothing is written"
    with pytest.raises(SystemExit):
        analyze_features.parse([known, greedy, *LAB, "--photons", "5"])


def test_classifiers_see_recordings_with_labels():
    record()
    large, small = saved("large", RESNET, cr=0.5), saved("small", RESNET, cr=0.25)
    result = call(analyze_features, large, small, *LAB, *FEW)
    assert {row["layer"] for row in result["cka"]} >= {"enc1", "latent", "pool", "output"}
    assert {row["values"] for row in result["measures"]} == {7 * 2, 7 * 4, 7 * 8}
