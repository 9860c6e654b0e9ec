"""Reconstructions of recordings: which values a network gets, and what is written."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import hadamard

import predict
from algo_functions import build_physics
from core.errors import UserError
from core.registry import LIGHT
from evaluation.measurements import restore_measurements
from models.base import FirstImage
from recordings.file import Recording, write_recording

N, FRAMES = 8, 5
SPLIT = torch.tensor([0, 0, 1, 2, 2], dtype=torch.uint8)
CPU = torch.device("cpu")


def physics_of(cr: float, ordering: str = "xy", **changes):
    config = {"name": "spc", "n": N, "c": 1, "cr": cr, "ordering": ordering, "x0": "adjoint"}
    return build_physics(config | {"awgn_snr": None, **LIGHT} | changes)


def record(path: Path, names=tuple("abcde")) -> torch.Tensor:
    """Writes a recording of noise images at cr 0.5, and returns the images."""
    camera = physics_of(0.5)
    x = torch.rand(FRAMES, 1, N, N, generator=torch.Generator().manual_seed(0))
    values, variance = camera.values(camera.measure(x)), torch.full((FRAMES, 1, 1), 0.04)
    recording = Recording(camera.config, camera.patterns, values, variance, SPLIT, names)
    write_recording(path, recording)
    return x


def restore(tmp_path: Path, physics, **flags) -> dict:
    args = Namespace(measurements=str(tmp_path / "lab.npz"), cr=None, split=None, scale=None)
    args = Namespace(
        **vars(args) | {"calibration": None, "live": False, "one_sided": False} | flags
    )
    network = FirstImage(1)
    return restore_measurements(network, physics, args, tmp_path / "out", CPU)


@pytest.mark.parametrize("split, frames", [(None, range(5)), ("test", (3, 4)), ("val", (2,))])
def test_a_network_gets_its_own_values_of_a_recording(split, frames, tmp_path):
    x, physics = record(tmp_path / "lab.npz"), physics_of(0.25)
    assert restore(tmp_path, physics, split=split)["frames"] == len(frames)
    rows = hadamard(N * N)[physics.patterns.flatten().numpy().argsort()[: physics.m]] / N
    expected = x[list(frames)].flatten(1).numpy() @ rows.T @ rows
    with np.load(tmp_path / "out" / "reconstructions.npz") as file:
        np.testing.assert_allclose(
            file["reconstructions"].reshape(len(expected), -1), expected, atol=1e-5
        )
        assert [*file["names"]] == ["abcde"[k] for k in frames]
    for k in frames:
        assert Image.open(tmp_path / "out" / f"{'abcde'[k]}.png").size == (N, N)
        assert Image.open(tmp_path / "out" / f"{'abcde'[k]}_before_after.png").size == (2 * N, N)


def test_a_network_that_reads_the_noise_gets_that_of_the_recording(tmp_path):
    record(tmp_path / "lab.npz")
    physics, levels = physics_of(0.25, photons=10.0), []

    class Reader(FirstImage):
        def forward(self, x):
            levels.append(x[:, 1:])
            return super().forward(x)

    args = Namespace(measurements=str(tmp_path / "lab.npz"), cr=None, split=None)
    args = Namespace(
        **vars(args) | {"scale": None, "calibration": None, "live": False, "one_sided": False}
    )
    restore_measurements(Reader(1), physics, args, tmp_path / "out", CPU)
    torch.testing.assert_close(levels[0], torch.full((FRAMES, 1, N, N), 0.2))


def test_names_that_no_files_can_have_become_numbers(tmp_path):
    record(tmp_path / "lab.npz", names=("../a", "b", "b", "c", "d"))
    restore(tmp_path, physics_of(0.25))
    assert {path.name for path in tmp_path.iterdir()} == {"lab.npz", "out"}
    assert (tmp_path / "out" / "frame_00004.png").is_file()


@pytest.mark.parametrize(
    "physics, flags, message",
    [
        (physics_of(0.6), {}, "not all among the 32 recorded ones"),
        (physics_of(0.5, "strip"), {}, "not all among the 32 recorded ones"),
        (physics_of(0.25, n=16), {}, "n 16, and the recording has n 8"),
        (physics_of(0.25), {"scale": 2.0}, "in its units already"),
        (physics_of(0.25), {"calibration": "camera.json"}, "in its units already"),
    ],
)
def test_what_does_not_belong_to_a_recording_is_refused(physics, flags, message, tmp_path):
    record(tmp_path / "lab.npz")
    with pytest.raises(UserError, match=message):
        restore(tmp_path, physics, **flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recorded_as_rows", [False, True])
def test_the_same_patterns_in_another_form_are_refused(recorded_as_rows, tmp_path):
    hadamard_grid = physics_of(0.5)
    np.save(tmp_path / "rows.npy", hadamard_grid.rows().numpy())
    as_rows = physics_of(0.5, f"file:{tmp_path}/rows.npy")
    torch.testing.assert_close(as_rows.rows(), hadamard_grid.rows())
    recorder, network = (as_rows, hadamard_grid) if recorded_as_rows else (hadamard_grid, as_rows)
    with pytest.raises(UserError, match="train the network with the ordering of the recording"):
        recorder.check_part(network, "the network")
    recorder.check_part(recorder, "the network")


def test_an_array_has_no_splits(tmp_path):
    np.save(tmp_path / "lab.npy", np.ones((2, 16)))
    with pytest.raises(UserError, match="only a recording has splits"):
        restore(tmp_path, physics_of(0.25), measurements=str(tmp_path / "lab.npy"), split="val")
    with pytest.raises(SystemExit):
        predict.parse(["--checkpoint", "x", "a.png", "--split", "val"])


def test_a_single_number_is_no_measurement(tmp_path):
    np.save(tmp_path / "y.npy", 3.0)
    with pytest.raises(UserError, match=r"has shape \(\): a frame has 16 values"):
        restore(tmp_path, physics_of(0.25), measurements=str(tmp_path / "y.npy"))


@pytest.mark.parametrize("pairs", [False, True])
def test_a_table_of_text_has_a_frame_in_each_line(pairs, tmp_path):
    physics = physics_of(0.25)
    values = np.random.default_rng(0).random((3, (1 + pairs) * physics.m))
    np.save(tmp_path / "y.npy", values)
    lines = [";".join(f"{value:.17g}".replace(".", ",") for value in row) for row in values]
    (tmp_path / "y.csv").write_text("\n".join(lines))
    images = []
    for suffix in ("npy", "csv"):
        path = str(tmp_path / f"y.{suffix}")
        assert restore(tmp_path, physics, measurements=path)["frames"] == 3
        images.append(np.load(tmp_path / "out" / "reconstructions.npy"))
    assert np.array_equal(*images)
    (tmp_path / "y.csv").write_text("1, 2, x")
    with pytest.raises(UserError, match="line 1: 'x' is not a number"):
        restore(tmp_path, physics, measurements=str(tmp_path / "y.csv"))
