"""Simulated campaigns: the equations of the apparatus, by other means."""

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from scipy.ndimage import gaussian_filter

import acquire
from algo_functions import build_physics
from core.errors import UserError
from core.registry import LIGHT
from laboratory.simulate import Apparatus
from recordings.file import read_recording, read_truth

N = 16


def apparatus(ordering="xy", awgn_snr=None, photons=None, noise=None, **imperfections) -> Apparatus:
    config = {"name": "spc", "n": N, "c": 1, "cr": 0.5, "ordering": ordering, "x0": "adjoint"}
    config |= {"awgn_snr": awgn_snr, **LIGHT, "photons": photons, "noise": noise}
    return Apparatus(build_physics(config), **imperfections)


def scenes(count=3) -> torch.Tensor:
    return torch.rand(count, 1, N, N, generator=torch.Generator().manual_seed(1))


def record(one: Apparatus, x: torch.Tensor):
    return one.record(x, torch.Generator().manual_seed(0))


def matrix_of(one: Apparatus) -> np.ndarray:
    """The patterns as rows (m, n²), by scipy."""
    places = one.physics.patterns.flatten().numpy()
    return hadamard(N * N)[places.argsort()[: one.physics.m]] / N


def test_a_perfect_apparatus_measures_what_the_matrix_does():
    one, x = apparatus(), scenes()
    measured = record(one, x)
    expected = x.flatten(1).numpy() @ matrix_of(one).T
    np.testing.assert_allclose(measured.values[:, 0], expected, atol=1e-4)
    assert not measured.variance.any()


def test_blur_is_that_of_every_pattern():
    one, x = apparatus(blur=0.8), scenes()
    patterns = matrix_of(one).reshape(-1, N, N)
    blurred = gaussian_filter(patterns, 0.8, mode="constant", truncate=4, axes=(1, 2))
    expected = x.flatten(1).numpy() @ blurred.reshape(len(patterns), -1).T
    np.testing.assert_allclose(record(one, x).values[:, 0], expected, atol=2e-3)


def test_vignetting_takes_its_share_in_the_corners_and_nothing_in_the_middle():
    shaded = apparatus(vignetting=0.3).shade(torch.ones(1, 1, 33, 33))[0, 0]
    assert shaded[16, 16] == 1
    for corner in (shaded[0, 0], shaded[0, -1], shaded[-1, -1]):
        assert corner.item() == pytest.approx(0.7)
    assert shaded[0, 16].item() == pytest.approx(0.85)  # r² = 1/2


def test_drift_is_a_line_over_the_patterns_of_each_frame():
    x = scenes(50)
    clean, drifted = record(apparatus(), x), record(apparatus(drift=0.2), x)
    light = (drifted.values / clean.values)[:, 0]
    change = light[:, -1] - light[:, 0]
    assert (
        change.abs().max() <= 0.2 and change.abs().max() > 0.15 and change.min() < 0 < change.max()
    )
    middle = (light[:, 0] + light[:, -1]) / 2
    torch.testing.assert_close(middle, torch.ones(50), atol=1e-3, rtol=0)
    line = torch.linspace(-0.5, 0.5, light.shape[1])
    is_large = clean.values[:, 0].abs() > 0.1
    error = (light - 1 - change[:, None] * line)[is_large]
    assert error.abs().max() < 1e-2


@pytest.mark.parametrize("kind", [{"noise": 0.2}, {"awgn_snr": 20.0}, {"photons": 10.0}])
def test_the_recorded_variance_is_that_of_the_noise(kind):
    one, x = apparatus(**kind), scenes(1).expand(400, -1, -1, -1)
    measured = record(one, x)
    clean = record(apparatus(), x[:1]).values
    error = measured.values - clean
    assert measured.variance.mean().item() == pytest.approx(error.square().mean().item(), rel=0.02)
    assert abs(error.mean().item()) < 4 * error.std().item() / error.numel() ** 0.5


def test_photons_of_an_imperfect_apparatus_agree_with_its_expected_values():
    flaws = {"blur": 0.5, "vignetting": 0.2, "drift": 0.0}
    x = scenes(1).expand(600, -1, -1, -1)
    expected = record(apparatus(**flaws), x[:1]).values[0, 0]
    mean = record(apparatus(photons=20.0, **flaws), x).values[:, 0].mean(0)
    scatter = record(apparatus(photons=20.0, **flaws), x).values[:, 0].std(0) / 600**0.5
    assert ((mean - expected) / scatter).square().mean().item() == pytest.approx(1, abs=0.35)


# ---------------------------------------------------------------- the script


def simulate(tmp_path, *words) -> dict:
    output = ["--output", str(tmp_path / "lab.npz")]
    sizes = ["--dataset", "digits", "--n", "16", "--frames", "20", "--test_frames", "5"]
    return acquire.main(acquire.parse(["simulate", "--cr", "0.5", *sizes, *output, *words]))


def test_a_seed_is_another_campaign_with_the_same_test_scenes(tmp_path):
    truths = {}
    for seed, frames in ((0, "20"), (1, "20"), (0, "40")):
        simulate(tmp_path, "--seed", str(seed), "--frames", frames, "--overwrite")
        lab = read_recording(tmp_path / "lab.npz")
        truth = read_truth(tmp_path / "lab_truth.npz", lab)
        truths[seed, frames] = truth[: int(frames)], truth[int(frames) :]
    first, second, longer = truths.values()
    assert torch.equal(first[1], second[1]) and torch.equal(first[1], longer[1])
    assert not torch.equal(first[0], second[0])
    assert torch.equal(longer[0][:20], first[0]), "more frames hold the fewer ones"


def test_a_campaign_is_written_with_its_truth_beside_it(tmp_path, capsys):
    simulate(tmp_path, "--noise", "0.1")
    lab = read_recording(tmp_path / "lab.npz")
    truth = read_truth(tmp_path / "lab_truth.npz", lab)
    assert [len(lab.frames(name)) for name in ("train", "val", "test")] == [16, 4, 5]
    rows = hadamard(256)[lab.patterns.flatten().numpy().argsort()[: lab.m]] / 16
    error = lab.values[:, 0].numpy() - truth.flatten(1).numpy() @ rows.T
    assert error.std() == pytest.approx(0.1, rel=0.05)
    assert (
        "data" not in {*np.load(tmp_path / "lab.npz")}
        and len(capsys.readouterr().out.splitlines()) == 3
    )


def test_a_campaign_is_the_same_with_its_seed_only(tmp_path):
    digests = [
        simulate(tmp_path, "--photons", "5", "--overwrite", "--seed", seed)["digest"]
        for seed in ("1", "1", "2")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_classes_are_those_of_the_scenes(tmp_path):
    simulate(tmp_path, "--labels")
    lab = read_recording(tmp_path / "lab.npz")
    assert lab.classes == tuple("0123456789") and len(lab.labels) == 25
    simulate(tmp_path, "--overwrite")
    assert read_recording(tmp_path / "lab.npz").labels is None


@pytest.mark.parametrize(
    "words, message",
    [
        (["--frames", "100000"], "has 1294 training images"),
        (["--val_share", "0"], "leaves 0 for validation"),
        (["--noise", "0.1", "--photons", "3"], "models of the same noise"),
        (["--ordering", "variance"], "depends on the scenes"),
        (["--crs_expert", "0.1", "0.2"], "not allowed with"),
        (["--order", "natural"], "simulate does not read --order"),
        (["--dataset", "recorded"], "unknown dataset 'recorded'"),
        (["--drift", "2"], "outside"),
        (["--cr", "0.1", "0.5"], "a recording has one ratio"),
        (["--labels", "--dataset", "photos"], "labels: the images of dataset 'photos' have none"),
    ],
)
def test_a_wrong_campaign_is_one_line_and_writes_nothing(words, message, tmp_path, capsys):
    with pytest.raises((UserError, SystemExit)) as error:
        simulate(tmp_path, *words)
    assert message in f"{error.value} {capsys.readouterr().err}"
    assert not list(tmp_path.iterdir())


def test_a_recording_is_not_replaced_unasked(tmp_path):
    first = simulate(tmp_path)["digest"]
    with pytest.raises(UserError, match="exists"):
        simulate(tmp_path, "--noise", "1")
    assert read_recording(tmp_path / "lab.npz").digest == first
