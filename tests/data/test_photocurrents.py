"""The example of real photocurrents: scenes stay in one split, and a camera shows one channel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import own_code_forgotten
from test_scripts import call

import main_classify
import main_classify_dist
import main_unet
from core import own
from core.errors import UserError

FILE = Path(__file__).parents[2] / "examples" / "photocurrents.py"
SESSIONS = ("exp_july17", "exp_july23", "exp_july31", "exp_aug1")
COUNT = 400  # scenes


@pytest.fixture(autouse=True)
def own_code(monkeypatch):
    with own_code_forgotten(monkeypatch):
        yield


@pytest.fixture
def recorded(tmp_path):
    """Scenes, each shown in two sessions of different light, and their nonlinear values."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, 28, 28)).astype(np.uint8)
    crystals = random.normal(size=(40, 784)) / 28
    values = np.exp(0.01 * (images.reshape(COUNT, -1) / 255) @ crystals.T)
    arrays = {"images": images, "images_id": np.arange(COUNT, dtype=np.uint16)}
    for k, session in enumerate(SESSIONS):
        shown = np.arange(COUNT)[k % 2 :: 2]
        arrays |= {
            f"{session}_y": (10**k * values[shown]).astype(np.float32),
            f"{session}_digit": (shown % 7).astype(np.uint8),
            f"{session}_image": shown.astype(np.uint16),
        }
    np.savez(tmp_path / "spi.npz", **arrays)
    return tmp_path / "spi.npz", arrays


def made(path, n=16):
    own.read_source(FILE)
    return own.load("photocurrents.py:recordings")(path, n)


def test_no_scene_is_in_two_splits_and_a_picture_is_its_scene(recorded):
    path, arrays = recorded
    pictures = made(path)
    splits = ("train", "val", "test")
    assert [len(pictures[f"x_{split}"]) for split in splits] == [560, 80, 160]
    scenes = [{x[..., 0].tobytes() for x in pictures[f"x_{split}"]} for split in splits]
    assert [len(found) for found in scenes] == [280, 40, 80], "each was recorded twice"
    assert not (scenes[0] & scenes[1] or scenes[0] & scenes[2] or scenes[1] & scenes[2])
    third = arrays["images"][4]  # the first of the training scenes in its session that is even
    padded = torch.nn.functional.pad(torch.tensor(third / 255.0)[None, None], (2, 2, 2, 2))
    expected = torch.nn.functional.avg_pool2d(padded, 2)[0, 0].numpy()
    assert np.abs(pictures["x_train"][0, ..., 0] - expected).max() < 1e-6
    assert pictures["y_train"][0] == 4


def test_the_estimates_are_linear_in_the_photocurrents_and_more_of_them_are_better(recorded):
    path, arrays = recorded
    train = made(path)["x_train"]
    values = []
    for session in SESSIONS:  # the same training scenes, in the same order
        logarithm = np.log(arrays[f"{session}_y"])
        kept = arrays[f"{session}_image"] % 10 > 2
        seen = logarithm[kept]
        values.append((seen - seen.mean(0)) / seen.std(0))
    y = np.concatenate(values)
    errors = []
    for channel, count in ((1, 40), (2, 10)):
        estimate = train[..., channel].reshape(len(train), -1)
        inside = ((estimate > 0) & (estimate < 1)).all(0)  # pixels that were never cut off
        design = np.hstack([y[:, :count], np.ones((len(y), 1))])
        fitted = design @ np.linalg.lstsq(design, estimate[:, inside], rcond=None)[0]
        assert inside.sum() > 50 and np.abs(fitted - estimate[:, inside]).max() < 1e-4
        errors.append(((estimate - train[..., 0].reshape(len(train), -1)) ** 2).mean())
    assert errors[0] < errors[1] < train[..., 0].var()


def test_nothing_that_is_learned_sees_what_is_held_out(recorded, tmp_path):
    path, arrays = recorded
    other, before = dict(arrays), made(path)
    held_out = np.arange(COUNT) % 10 < 3
    other["images"] = np.where(held_out[:, None, None], 255 - arrays["images"], arrays["images"])
    for session in SESSIONS:
        y, away = arrays[f"{session}_y"], held_out[arrays[f"{session}_image"]]
        other[f"{session}_y"] = np.where(away[:, None], y**2, y)
    np.savez(tmp_path / "other.npz", **other)
    after = made(tmp_path / "other.npz")
    assert np.array_equal(before["x_train"], after["x_train"])
    assert not np.array_equal(before["x_test"], after["x_test"])


@pytest.mark.parametrize("name, k", [("shown_scene", 0), ("all_currents", 1), ("few_currents", 2)])
def test_a_camera_shows_one_channel(name, k):
    own.read_source(FILE)
    camera = own.load(f"photocurrents.py:{name}")(16)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = camera.A(x)
    others = [channel for channel in range(3) if channel != k]
    assert torch.equal(y[:, k], x[:, k]) and not y[:, others].any()
    assert torch.equal(camera.A_adjoint(x), y)


def test_a_classifier_of_photocurrents_learns_from_one_of_scenes(recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", f"{FILE}:recordings", "--data_root", str(recorded[0]), "--n", "16"]
    words += ["--c", "3", "--width", "4", "--steps", "2", "--val_every", "1", "--no-augment"]
    teacher = call(main_classify, *words, "--physics", f"{FILE}:shown_scene")
    student = call(
        main_classify_dist, *words, "--physics", f"{FILE}:few_currents", "--limit_labels", "50",
        "--teacher", teacher["checkpoint"],
    )  # fmt: skip
    assert {"val_top1", "checkpoint"} <= student.keys()


def test_a_function_that_needs_no_file_gets_none():
    images = f"{FILE.with_name('my.py')}:my_images"
    with pytest.raises(UserError, match="no argument data_root, so leave out --data_root"):
        call(main_unet, "--cr", "0.5", "--dataset", images, "--data_root", "elsewhere")


def test_the_real_photocurrents_are_split_by_scene(shared):
    path = shared / "real" / "nonlinear_spi_digits" / "nonlinear_spi_digits.npz"
    pictures = made(path)
    counts = [len(pictures[f"x_{split}"]) for split in ("train", "val", "test")]
    assert counts == [6193, 600, 1200]
    splits = ("train", "val", "test")
    scenes = [{x[..., 0].tobytes() for x in pictures[f"x_{split}"]} for split in splits]
    assert sum(map(len, scenes)) == len(set.union(*scenes)), "no scene is in two splits"
