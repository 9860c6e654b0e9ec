"""Recordings: what is written is what is read, and what does not fit is refused in one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from algo_functions import build_physics
from core.errors import UserError
from data.batches import build_loader
from data_loader import Request, build_splits
from recordings.file import Recording, read_recording, read_truth, write_recording, write_truth

N, FRAMES = 8, 10
SPLIT = torch.tensor([0] * 6 + [1] * 2 + [2] * 2, dtype=torch.uint8)


def record_config(**changes) -> dict:
    config = {"name": "spc", "n": N, "c": 1, "cr": 0.5, "ordering": "xy", "x0": "adjoint"}
    return config | {"awgn_snr": None} | changes


def record(ordering: str = "xy", **changes) -> tuple[Recording, torch.Tensor, torch.Tensor]:
    """A recording of noise images, its y as the physics has it, and the images."""
    config = record_config(ordering=ordering)
    physics = build_physics(config)
    images = torch.rand(FRAMES, 1, N, N, generator=torch.Generator().manual_seed(0))
    y = physics.measure(images)
    variance = torch.linspace(0.1, 0.2, FRAMES)[:, None, None]
    names = tuple(f"frame {i}" for i in range(FRAMES))
    recording = Recording(config, physics.patterns, physics.values(y), variance, SPLIT, names)
    return replace(recording, **changes), y, images


@pytest.mark.parametrize("ordering", ["xy", "strip", "random"])
def test_a_recording_is_read_as_it_was_written(ordering, tmp_path):
    path = tmp_path / "lab.npz"
    labels = torch.arange(FRAMES) % 2
    counts = torch.rand(FRAMES, 1, N * N // 2, 2)
    recording, y, _ = record(ordering, labels=labels, classes=("a", "b"), counts=counts)
    write_recording(path, recording)
    read = read_recording(path)
    assert read.digest == recording.digest
    assert read.config == recording.config and read.names == recording.names
    for name in ("patterns", "values", "variance", "split", "labels", "counts"):
        assert torch.equal(getattr(read, name), getattr(recording, name)), name
    values, variance = read.grid()
    assert torch.equal(values, y)
    assert torch.equal(variance != 0, (y != 0).expand_as(variance) if y.ndim == 4 else y == y)


def test_a_recording_gives_back_the_physics_that_made_it():
    recording, y, _ = record("strip")
    config = recording.config | {"ordering": "xy"}
    physics = build_physics(config, state=[{"patterns": recording.patterns}])
    assert torch.equal(physics.place_values(recording.values), y)
    assert torch.equal(physics.operator.mask[0, 0].bool(), recording.mask())


def test_batches_of_a_recording_have_values_and_no_images(tmp_path):
    path = tmp_path / "lab.npz"
    recording, y, images = record()
    write_recording(path, recording)
    write_truth(tmp_path / "lab_truth.npz", images, recording)
    request = Request(dataset="recorded", n=N, data_root=str(path))
    splits = build_splits(request, augment_seed=0)
    assert [len(split) for split in splits.values()] == [6, 2, 2]
    assert splits["train"].fixed and splits["val"].name(1) == "frame 7"
    for batch in build_loader(splits["test"], 2):
        assert batch.image is None and len(batch) == 2
        assert torch.equal(batch.recorded, y[8:])
        assert torch.allclose(batch.variance.amax((1, 2, 3)), recording.variance[8:, 0, 0])
    with pytest.raises(UserError, match="a recording has no clean images"):
        splits["train"].stack()
    truth = request._replace(truth=str(tmp_path / "lab_truth.npz"))
    for batch in build_loader(build_splits(truth)["test"], 2):
        assert torch.equal(batch.image, images[8:])


def test_a_subset_keeps_frames_and_values_together(tmp_path):
    path = tmp_path / "lab.npz"
    recording, y, _ = record()
    write_recording(path, recording)
    request = Request(dataset="recorded", n=N, data_root=str(path), limit_train=3)
    images = build_splits(request)["train"]
    for i in range(3):
        frame = recording.names.index(images.name(i))
        assert torch.equal(images[i]["recorded"], y[frame])


def test_classes_of_a_recording_are_labels(tmp_path):
    from core.registry import LABELLED

    path = tmp_path / "lab.npz"
    recording, _, _ = record(labels=torch.arange(FRAMES) % 2, classes=("a", "b"))
    write_recording(path, recording)
    request = Request(dataset="recorded", n=N, data_root=str(path), labelled=True)
    splits = build_splits(request, table=LABELLED)
    assert splits["test"].labels == [0, 1] and splits["test"].classes == ("a", "b")
    write_recording(path, record()[0])
    with pytest.raises(UserError, match="has no labels"):
        build_splits(request, table=LABELLED)


# ---------------------------------------------------------------- bad input


def change(path: Path, **arrays) -> None:
    """Changes arrays of an .npz file; `None` removes one."""
    with np.load(path) as file:
        content = dict(file) | arrays
    np.savez(path, **{name: value for name, value in content.items() if value is not None})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"values": np.zeros((FRAMES, 1, 32), np.float32)}, "was changed after it was written"),
        ({"digest": None}, "lacks digest: acquire.py makes recordings"),
        ({"format": np.array(2)}, "has format 2, but this version reads 1"),
        ({"names": np.array(["x"], object)}, "cannot be read"),
        ({"date": np.array("2020-01-01", "M8[D]")}, "an array 'date', which no recording has"),
        ({"values": np.array("2020-01-01", "M8[D]")}, "its values are datetime64"),
    ],
)
def test_a_changed_file_is_refused(changes, message, tmp_path):
    path = tmp_path / "lab.npz"
    write_recording(path, record()[0])
    change(path, **changes)
    with pytest.raises(UserError, match=message):
        read_recording(path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"values": torch.full((FRAMES, 1, 32), torch.nan)}, "values are not all finite"),
        ({"values": torch.zeros(FRAMES, 1, 20)}, "20 values of 64 pixels, but cr 0.5"),
        ({"values": torch.zeros(FRAMES, 3, 32)}, "for 10 frames of 1 channels"),
        ({"variance": -torch.ones(FRAMES, 1, 1)}, "variance is negative"),
        ({"variance": torch.ones(FRAMES, 1, 7)}, "its variance are"),
        ({"split": torch.full((FRAMES,), 3, dtype=torch.uint8)}, "split has 3"),
        ({"patterns": torch.zeros(N, N, dtype=torch.int64)}, "each place 0 .. 63 once"),
        ({"patterns": torch.zeros(20, N * N)}, "patterns have shape"),
        ({"labels": torch.arange(FRAMES), "classes": ("a",)}, "labels go from 0 to 9"),
        ({"names": ("a\nb",) * FRAMES}, "control characters"),
        ({"config": {"name": "spc"}}, "n in its config"),
        ({"patterns": torch.rand(N, N)}, "its patterns are torch.float32, not torch.int64"),
        ({"config": record_config(photons="many")}, "photons in its config is 'many'"),
        ({"config": record_config(cr=float("nan"))}, "but cr nan"),
        ({"config": record_config(photons=[None, 5.0])}, "photons in its config is"),
        ({"config": record_config(dark=None)}, "dark in its config is None, not a number"),
        ({"config": record_config(gain=None)}, "gain in its config is None, not a number"),
        ({"config": record_config(noise=[0.1, 0.2])}, "noise in its config is"),
        ({"config": record_config(x0="lmmse")}, "x0 in its config is 'lmmse', not adjoint"),
        ({"config": record_config(block=4)}, "has block 4, which no recording has"),
        ({"config": record_config(cr_range=[0.1, 0.2])}, "has cr_range"),
        ({"config": record_config(measurements=True)}, "has measurements True"),
        (
            {"config": {k: v for k, v in record_config().items() if k != "awgn_snr"}},
            "its config lacks awgn_snr",
        ),
    ],
)
def test_a_recording_whose_parts_do_not_fit_is_not_written(changes, message, tmp_path):
    path = tmp_path / "lab.npz"
    with pytest.raises(UserError, match=message):
        write_recording(path, record(**changes)[0])
    assert not list(tmp_path.iterdir())


def test_truth_and_recording_are_not_taken_for_each_other(tmp_path):
    lab, truth, other = (tmp_path / name for name in ("lab.npz", "truth.npz", "other.npz"))
    recording, _, images = record()
    write_recording(lab, recording)
    write_truth(truth, images, recording)
    assert torch.equal(read_truth(truth, read_recording(lab)), images)
    with pytest.raises(UserError, match="holds the truth of a recording"):
        read_recording(truth)
    with pytest.raises(UserError, match="is a recording itself"):
        read_truth(lab, recording)
    write_truth(other, images, record("strip")[0])
    with pytest.raises(UserError, match="belongs to recording"):
        read_truth(other, recording)
