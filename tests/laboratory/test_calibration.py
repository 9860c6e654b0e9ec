"""The calibration of a detector: simulated ones, coverage of the intervals, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from test_scripts import TINY, call

import calibrate
import main_unet
from checkpoints import checkpoint
from core.errors import UserError
from core.inputs import read_calibration
from laboratory.calibration import calibrate as estimate

DETECTOR = {"dark": 80.0, "dark_noise": 3.0, "gain": 2.5}


def record(repeats=100, light=(30, 100, 400), black=None, seed=0, dark=80.0, noise=3.0, gain=2.5):
    """Black and white counts, (exposures, repeats)."""
    rng = np.random.default_rng(seed)
    dim = dark + noise * rng.standard_normal((black or len(light), repeats))
    photons = rng.poisson(np.array(light)[:, None], (len(light), repeats))
    bright = gain * photons + dark + noise * rng.standard_normal(photons.shape)
    return dim, bright


@pytest.mark.parametrize("black", [None, 1])
def test_intervals_hold_the_true_values_as_often_as_they_say(black):
    hits = np.zeros(3)
    for seed in range(400):
        found = estimate(*record(60, black=black, seed=seed))
        intervals = (found.dark, found.dark_noise, found.gain)
        pairs = zip(intervals, DETECTOR.values(), strict=True)
        hits += [low <= true <= high for (_, low, high), true in pairs]
    assert np.all(abs(hits / 400 - 0.95) < 0.035)  # 3 deviations of a share of 400


def test_many_repeats_give_the_detector_and_the_slope_is_that_of_least_squares():
    dim, bright = record(100_000)
    found = estimate(dim, bright)
    assert abs(found.dark.value - 80) < 0.05 and abs(found.dark_noise.value - 3) < 0.02
    assert abs(found.gain.value - 2.5) < 0.02 and not found.notes
    light = bright.mean(1) - dim.mean(1)
    variance = bright.var(1, ddof=1) - dim.var(1, ddof=1)
    slope = np.linalg.lstsq(light[:, None], variance, rcond=None)[0][0]
    assert np.isclose(found.gain.value, slope, rtol=0.01)
    assert np.allclose(found.transfer.variance, variance)


def test_a_photon_counter_has_no_dark():
    dim, bright = record(1000, (1, 2, 5, 10), dark=0.0, noise=0.0, gain=1.0)
    found = estimate(dim, bright)
    assert found.dark == (0, 0, 0) and found.dark_noise == (0, 0, 0)
    assert found.gain.low < 1 < found.gain.high


def test_what_the_model_does_not_explain_is_named():
    dim, bright = record(2000)
    dim[0] += 5  # another exposure time
    assert "the offset is not the same" in " ".join(estimate(dim, bright).notes)
    dim, bright = record(2000)
    bright[2] *= np.linspace(0.8, 1.2, 2000)  # a lamp that warms up
    assert "do not lie on a line" in " ".join(estimate(dim, bright).notes)


def wrong(change):
    dim, bright = record()
    return change(dim, bright)


def poked(array, value):
    array[1, 3] = value
    return array


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b, w: (b, poked(w, np.nan)), "white exposure 2 holds values that are not finite"),
        (lambda b, w: (poked(b, -1), w), "black exposure 2 holds negative counts"),
        (lambda b, w: (b, w[:1]), "one white exposure has no slope"),
        (lambda b, w: (b[:2], w), "2 black exposures for 3 white ones"),
        (lambda b, w: (b, np.minimum(w, 300)), "white exposure 2 is saturated"),
        (lambda b, w: (b, np.minimum(w, 100)), "is saturated"),
        (lambda b, w: (b, b + 100), "almost the same light"),
        (lambda b, w: (b, b + np.array([[10], [100], [400]])), "there is no slope"),
        (lambda b, w: (w, b), "is not brighter than the black one"),
        (lambda b, w: (b[:, :2], w), "black exposure 1 has 2 repeats"),
    ],
)
def test_recordings_of_no_detector_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        estimate(*wrong(change))


def test_unsaturated_counts_of_few_photons_are_not_taken_for_saturated_ones():
    for seed in range(200):
        estimate(*record(100, (1, 4), seed=seed, dark=10.0, noise=0.3, gain=1.0))


class TestScript:
    def test_all_forms_of_a_file_give_one_calibration_that_scripts_take(self):
        dim, bright = (array.round() for array in record())
        np.save("b.npy", dim.astype(np.uint16))
        np.save("w.npy", bright.astype(np.uint16))
        np.savetxt("w.csv", bright, fmt="%d", delimiter=",")
        np.savez("w.npz", *bright)
        for k, row in enumerate(bright):
            np.save(f"w{k}.npy", row)
        results = [
            call(calibrate, *words, "--output", "a/c.json")
            for words in (
                ["b.npy", "w.npy"],
                ["b.npy", "w.csv"],
                ["--black", "b.npy", "--white", "w.npz"],
                ["--black", "b.npy", "--white", "w0.npy", "w1.npy", "w2.npy"],
            )
        ]
        assert all(result["gain"] == results[0]["gain"] for result in results)
        assert Path("a/c.png").is_file()
        assert read_calibration("a/c.json")["gain"] == results[0]["gain"]
        words = ["--cr", "0.25", *TINY, "--photons", "9", "--calibration", "a/c.json"]
        config = checkpoint.restore(call(main_unet, *words)["export"]).physics.config
        assert all(config[name] == results[0][name] for name in DETECTOR)
        with pytest.raises(UserError, match="gain 7 contradicts --calibration a/c"):
            main_unet.parse([*words, "--gain", "7"])

    @pytest.mark.parametrize(
        "words, message",
        [
            ([], "give a black and a white recording"),
            (["b.npy"], "recordings b.npy: give a black one and a white one"),
            (["b.npy", "--white", "w.npy"], "not both"),
            (["b.npy", "text.npy"], "is not an .npy array of numbers"),
            (["b.npy", "text.npz"], "cannot be read"),
            (["b.npy", "text.txt"], "has no numbers"),
            (["b.npy", "text.doc"], r"files that end in .npy, .csv, .* are read"),
            (["b.npy", "ragged.csv"], "line 2 has 2 numbers, but line 1 has 3"),
            (["b.npy", "words.npy"], "not real numbers"),
            (["b.npy", "words.npz"], "counts are numbers"),
            (["b.npy", "cube.npy"], "has shape"),
            (["b.npy", "two.mat"], "has black, white: save the one of the counts alone, or all as"),
            (["b.npy", "w.npy", "--output", "c.txt"], "ends in .json"),
        ],
    )
    def test_wrong_recordings_are_refused_and_nothing_is_written(self, words, message):
        np.save("b.npy", record()[0])
        np.save("w.npy", record()[1])
        for name in ("text.npy", "text.npz", "text.txt", "text.doc"):
            Path(name).write_text("text")
        Path("ragged.csv").write_text("1,2,3\n1,2\n")
        np.save("words.npy", np.array(["a"]))
        np.savez("words.npz", np.array(["a"]))
        np.save("cube.npy", np.ones((2, 2, 2)))
        savemat("two.mat", {"black": np.ones((2, 9)), "white": np.ones((2, 9))})
        before = sorted(Path().rglob("*"))
        with pytest.raises(UserError, match=message):
            call(calibrate, *words)
        assert sorted(Path().rglob("*")) == before

    @pytest.mark.parametrize(
        "content",
        [
            "{}",
            "[]",
            "no JSON",
            '{"dark": 1, "dark_noise": -1, "gain": 1}',
            '{"dark": 1, "dark_noise": "a", "gain": 1}',
            '{"dark": NaN, "dark_noise": 1, "gain": 1}',
        ],
    )
    def test_a_file_that_is_no_calibration_is_refused(self, content):
        Path("c.json").write_text(content)
        with pytest.raises(UserError, match="calibration c"):
            main_unet.parse(["--cr", "0.1", "--photons", "9", "--calibration", "c.json"])
