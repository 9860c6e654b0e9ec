"""Imports of other people's files: orders, pairs and scales against matrices of scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.linalg import hadamard

import acquire
from core.errors import UserError
from recordings.file import read_recording

N, FRAMES = 8, 6
PIXELS = N * N


def natural_rows() -> np.ndarray:
    return hadamard(PIXELS)


def walsh_rows() -> np.ndarray:
    """As spyrit defines them: the Kronecker square of the matrix whose rows are sorted by sign changes."""
    h = hadamard(N)
    changes = (np.diff(h, axis=1) != 0).sum(1)
    w = h[np.argsort(changes)]
    return np.kron(w, w)


def scenes() -> np.ndarray:
    """Images (frames, n²) in [0, 1], of which one pixel is 1."""
    x = np.random.default_rng(0).uniform(0.1, 0.6, (FRAMES, PIXELS))
    x[:, 5] = 1
    return x


def counts_of(
    rows: np.ndarray, x: np.ndarray, light: float = 100.0
) -> tuple[np.ndarray, np.ndarray]:
    """y+ and y- (frames, m) behind the 0/1 patterns of ±1 rows."""
    return light * x @ ((1 + rows) / 2).T, light * x @ ((1 - rows) / 2).T


def arrange(positive: np.ndarray, negative: np.ndarray, pairs: str) -> np.ndarray:
    if pairs == "none":
        return positive - negative
    if pairs == "stacked":
        return np.concatenate((positive, negative), axis=1)
    return np.stack((positive, negative), axis=2).reshape(len(positive), -1)


def call(tmp_path: Path, *words) -> dict:
    output = ["--output", str(tmp_path / "lab.npz"), "--overwrite"]
    return acquire.main(acquire.parse(["import", *map(str, words), *output]))


def imported(tmp_path: Path, *words):
    call(tmp_path, *words)
    return read_recording(tmp_path / "lab.npz")


def images_of(lab) -> np.ndarray:
    """What the recording says of the images, by the natural matrix of scipy: (frames, n²)."""
    n = lab.config["n"]
    return lab.grid()[0][:, 0].flatten(1).numpy() @ hadamard(n * n) / n


@pytest.mark.parametrize("pairs", ["interleaved", "stacked", "none"])
@pytest.mark.parametrize("order", ["natural", "walsh", "listed"])
def test_orders_and_pairs_give_the_scenes_back(order, pairs, tmp_path):
    rows, x = natural_rows(), scenes()
    if order == "walsh":
        rows = walsh_rows()
    if order == "listed":
        numbers = np.random.default_rng(1).permutation(PIXELS)
        rows = rows[numbers]
        np.savetxt(tmp_path / "numbers.txt", numbers, fmt="%d")
        order = f"listed:{tmp_path / 'numbers.txt'}"
    np.save(tmp_path / "counts.npy", arrange(*counts_of(rows, x), pairs))
    lab = imported(
        tmp_path, "--input", tmp_path / "counts.npy", "--order", order, "--pairs", pairs,
        "--scale", 0.01,
    )  # fmt: skip
    np.testing.assert_allclose(images_of(lab), x, atol=1e-5)
    assert lab.config["cr"] == 1 and lab.m == PIXELS
    assert (lab.counts is None) == (pairs == "none")


def test_an_ordering_of_ours_is_an_order_too(tmp_path):
    from physics.orderings import xy_places

    numbers = xy_places(N).flatten().argsort().numpy()[:20]
    x = scenes()
    np.save(tmp_path / "counts.npy", 100 * x @ natural_rows()[numbers].T)
    lab = imported(
        tmp_path, "--input", tmp_path / "counts.npy", "--order", "xy", "--n", N, "--scale", 0.01
    )
    projection = x @ natural_rows()[numbers].T @ natural_rows()[numbers] / PIXELS
    np.testing.assert_allclose(images_of(lab), projection, atol=1e-5)


@pytest.mark.parametrize("kind", ["npy", "csv", "columns", "german", "mat", "folder"])
def test_kinds_of_files_hold_the_same(kind, tmp_path):
    values, more = 100 * scenes() @ natural_rows().T, []
    path = tmp_path / f"values.{kind}"
    if kind == "npy":
        np.save(path, values)
    elif kind == "csv":
        np.savetxt(path, values, delimiter=",", header="a,b c,d", comments="")
    elif kind == "columns":
        path = tmp_path / "values.csv"
        table = np.column_stack((np.arange(1, PIXELS + 1), values.T))
        np.savetxt(path, table, delimiter=",", header="Number,Frame 1,Frame 2", comments="")
        more = ["--frames_in", "columns"]
    elif kind == "german":
        path = tmp_path / "values.csv"
        path.write_text(
            "\n".join(";".join(map(repr, row)) for row in values.tolist()).replace(".", ",")
        )
    elif kind == "mat":
        savemat(path, {"y": values, "gain": 3.0, "other": np.ones((2, 2))})
        more = ["--key", "y"]
    else:
        path.mkdir()
        for k, row in enumerate(values):
            np.save(path / f"frame_{k}.npy", row)
    lab = imported(tmp_path, "--input", path, "--order", "natural", "--scale", "0.01", *more)
    np.testing.assert_allclose(images_of(lab), scenes(), atol=1e-5)
    assert len(set(lab.names)) == FRAMES


def test_own_rows_and_three_channels(tmp_path):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(40, PIXELS)).astype(np.float32)
    x = rng.uniform(size=(4, 3, PIXELS))
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "y.npy", x @ rows.T)
    lab = imported(
        tmp_path, "--input", tmp_path / "y.npy", "--order", f"file:{tmp_path / 'rows.npy'}",
        "--n", N, "--scale", 1,
    )  # fmt: skip
    assert lab.config["c"] == 3
    np.testing.assert_allclose(lab.values, x @ rows.T, rtol=1e-4, atol=1e-4)


def test_pairs_of_own_rows_have_their_own_amplitudes_and_noise(tmp_path):
    """y± = light (1 ± p) / 2 x for p = row / max |row|; the noise of a value grows with max |row|."""
    rng = np.random.default_rng(2)
    rows = (rng.normal(size=(40, PIXELS)) * np.linspace(1, 3, 40)[:, None]).astype(np.float32)
    amplitude = np.abs(rows).max(1)
    x = np.repeat(scenes()[:1], 300, 0)
    pair = [y + rng.normal(size=y.shape) for y in counts_of(rows / amplitude[:, None], x)]
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "y.npy", arrange(*pair, "stacked"))
    lab = imported(
        tmp_path, "--input", tmp_path / "y.npy", "--order", f"file:{tmp_path / 'rows.npy'}",
        "--n", N, "--scale", 0.01, "--pairs", "stacked",
    )  # fmt: skip
    values = lab.values[:, 0].numpy()
    scatter = values.std(0) / 300**0.5
    assert np.abs((values.mean(0) - x[0] @ rows.T) / scatter).max() < 5
    np.testing.assert_allclose(lab.variance.mean(0)[0], values.var(0), rtol=0.4)


@pytest.mark.parametrize("grey", [True, False])
def test_the_image_in_the_sums_of_grey_pairs_is_not_taken_for_noise(grey, tmp_path, capsys):
    """y± = light p± x for the positive and the negative part of p = row / max |row|: no noise."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(40, PIXELS))
    rows = rows if grey else np.sign(rows)
    shown = (rows / np.abs(rows).max(1, keepdims=True)).astype(np.float32)
    np.save(tmp_path / "rows.npy", shown)
    pair = [100 * scenes() @ part.clip(0).T for part in (shown, -shown)]
    np.save(tmp_path / "y.npy", arrange(*pair, "interleaved"))
    lab = imported(
        tmp_path, "--input", tmp_path / "y.npy", "--order", f"file:{tmp_path / 'rows.npy'}",
        "--n", N, "--scale", 0.01, "--pairs", "interleaved",
    )  # fmt: skip
    noise, signal = lab.variance.mean(), lab.values.square().mean()
    printed = capsys.readouterr().out
    if grey:
        assert noise < signal and "not compared, as behind grey patterns" in printed
        assert "the smaller of them" in lab.calibration["noise_from"]
    else:
        assert noise < 1e-6 * signal and "they spread by 0.00%" in printed


def test_scales_make_white_one(tmp_path):
    dimmer = scenes() * np.linspace(1, 0.5, FRAMES)[:, None]
    np.save(tmp_path / "y.npy", 77 * dimmer @ natural_rows().T)
    flags = ["--input", tmp_path / "y.npy", "--order", "natural"]
    x = images_of(imported(tmp_path, *flags, "--scale", "frame"))
    np.testing.assert_allclose(x.max(1), 1, atol=1e-4)
    x = images_of(imported(tmp_path, *flags))
    np.testing.assert_allclose(x, dimmer, rtol=0.05)  # the brightest but for one in a thousand


# ---------------------------------------------------------------- noise


def photon_counts(light: float = 50.0, dark: float = 20.0, sigma: float = 3.0, gain: float = 2.0):
    rng = np.random.default_rng(3)
    x = np.repeat(scenes()[:1], 200, 0)
    rows = natural_rows()
    pair = [gain * rng.poisson(y / 100 * light) + dark + sigma * rng.normal(size=y.shape)
            for y in counts_of(rows, x)]  # fmt: skip
    return x, *pair


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_variance_of_counted_photons_is_that_of_repeated_recordings(calibrated, tmp_path):
    x, positive, negative = photon_counts()
    np.save(tmp_path / "y.npy", arrange(positive, negative, "stacked"))
    flags = ["--input", tmp_path / "y.npy", "--order", "natural", "--pairs", "stacked"]
    if calibrated:
        camera = {"dark": 20.0, "dark_noise": 3.0, "gain": 2.0}
        (tmp_path / "camera.json").write_text(json.dumps(camera))
        flags += ["--calibration", tmp_path / "camera.json"]
    lab = imported(tmp_path, *flags, "--scale", 1 / (50 * 2))
    np.testing.assert_allclose(lab.values.mean(0)[0], x[0] @ natural_rows().T / N, atol=0.1)
    assert lab.variance.mean().item() == pytest.approx(lab.values.var(0).mean().item(), rel=0.03)
    source = lab.calibration["noise_from"]
    assert source == ("calibration and counts" if calibrated else "spread of the sums of pairs")


def test_the_spread_of_pairs_is_not_fooled_by_a_drift(tmp_path):
    _, positive, negative = photon_counts()
    light = np.linspace(0.9, 1.1, PIXELS)
    np.save(tmp_path / "y.npy", arrange(light * positive, light * negative, "interleaved"))
    lab = imported(
        tmp_path, "--input", tmp_path / "y.npy", "--order", "natural", "--pairs", "interleaved",
        "--scale", 0.01,
    )  # fmt: skip
    spread = lab.values.var(0).mean().item()
    assert lab.variance.mean().item() == pytest.approx(spread, rel=0.1)


def test_a_drift_is_named(tmp_path, capsys):
    positive, negative = counts_of(natural_rows(), scenes())
    light = np.linspace(0.95, 1.05, PIXELS)
    np.save(tmp_path / "y.npy", arrange(light * positive, light * negative, "interleaved"))
    call(tmp_path, "--input", tmp_path / "y.npy", "--order", "natural", "--pairs", "interleaved")
    assert "the light changes by 10.00 %".replace(" %", "%") in capsys.readouterr().out


def test_noise_without_pairs_is_that_of_the_last_coefficients(tmp_path):
    n = 32
    smooth = np.outer(np.hanning(n), np.hanning(n)).ravel()
    y = smooth[None] @ hadamard(n * n).T / n + np.random.default_rng(4).normal(0, 0.3, (5, n * n))
    np.save(tmp_path / "y.npy", y * n)
    lab = imported(tmp_path, "--input", tmp_path / "y.npy", "--order", "natural", "--scale", 1)
    assert lab.variance.sqrt().mean().item() == pytest.approx(0.3, rel=0.1)
    assert "highest sequency" in lab.calibration["noise_from"]


# ---------------------------------------------------------------- SPAS


def write_spas(
    folder: Path, text: str | None = None, shots: int | None = None, **changes
) -> np.ndarray:
    """A folder as SPAS writes it, with 6 wavelengths, and the images of its three pairs."""
    folder.mkdir(exist_ok=True)
    order = np.random.default_rng(5).permutation(PIXELS)
    x = scenes()  # one of each wavelength
    positive, negative = counts_of(walsh_rows()[order], x)
    data = arrange(positive, negative, "interleaved").T.round()
    np.savez(folder / "cat_spectraldata.npz", spectral_data=data[:shots].astype(np.uint16))
    patterns = [int(k) for number in order for k in (2 * number, 2 * number + 1)]
    acquisition = {
        "class_description": "Acquisition parameters",
        "pattern_dimension_x": N,
        "pattern_dimension_y": N,
        "patterns": str(patterns),
        "wavelengths": str([500.0 + 40 * k for k in range(6)]),
    } | changes
    parts = [{"class_description": "Metadata", "patterns": "no"}, acquisition]
    (folder / "cat_metadata.json").write_text(text or json.dumps(parts))
    return x


def test_a_folder_of_spas_gives_a_frame_for_each_bin(tmp_path):
    x = write_spas(tmp_path / "cat")
    lab = imported(tmp_path, "--input", tmp_path / "cat", "--band_count", 3, "--scale", 0.005)
    np.testing.assert_allclose(images_of(lab), (x[0::2] + x[1::2]) / 2, atol=0.02)
    assert lab.names == ("cat_500_540_nm", "cat_580_620_nm", "cat_660_700_nm")
    lab = imported(tmp_path, "--input", tmp_path / "cat", "--bands", 530, 600, "--scale", 0.005)
    np.testing.assert_allclose(images_of(lab), (x[1:2] + x[2:3]) / 2, atol=0.02)


def test_numbers_that_numpy_printed_are_read(tmp_path):
    x = write_spas(tmp_path / "cat")
    manifest = tmp_path / "cat" / "cat_metadata.json"
    parts = json.loads(manifest.read_text())
    numbers = json.loads(parts[1]["patterns"])
    parts[1]["patterns"] = "[" + ", ".join(f"np.int32({k})" for k in numbers) + "]"
    manifest.write_text(json.dumps(parts))
    lab = imported(tmp_path, "--input", tmp_path / "cat", "--scale", 1 / 600)
    np.testing.assert_allclose(images_of(lab)[0], x.mean(0), atol=0.02)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text": "{"}, "is not JSON"),
        ({"text": "[]"}, "has 0 parts of class_description"),
        ({"patterns": "[0, 1, 2]"}, "are not pairs 2k, 2k \\+ 1"),
        ({"patterns": "[1, 0]"}, "are not pairs 2k, 2k \\+ 1"),
        ({"patterns": "[0, 1]"}, "has 128 shots, but .* lists 2 patterns"),
        ({"patterns": "[0, 1, 0, 1]"}, "not different ones"),
        ({"patterns": "[0, 1, 400, 401]"}, "not different ones of the 64"),
        ({"patterns": "__import__('os')"}, "not a list of numbers"),
        ({"patterns": None}, "not a list of numbers"),
        ({"pattern_dimension_x": 7}, "7 x 8; squares whose side is a power of two"),
        ({"wavelengths": "[1, 2]"}, "lists 2 wavelengths, but the counts have 6"),
        ({"mask_index": "[1.0, 2.0]"}, "region of any shape"),
        ({"shots": 100}, "has 100 shots, but"),
    ],
)
def test_a_broken_folder_of_spas_is_refused(changes, message, tmp_path):
    write_spas(tmp_path / "cat", **changes)
    with pytest.raises(UserError, match=message):
        call(tmp_path, "--input", tmp_path / "cat")
    assert not (tmp_path / "lab.npz").exists()


def test_a_folder_of_spas_needs_its_manifest_and_says_its_own_order(tmp_path):
    write_spas(tmp_path / "cat")
    with pytest.raises(UserError, match="leave out --order"):
        call(tmp_path, "--input", tmp_path / "cat", "--order", "natural")
    with pytest.raises(UserError, match="has 2 wavelengths from 530 to 600"):
        call(tmp_path, "--input", tmp_path / "cat", "--bands", 530, 600, "--band_count", 3)
    (tmp_path / "cat" / "cat_metadata.json").unlink()
    with pytest.raises(UserError, match="is missing: it lists the patterns"):
        call(tmp_path, "--input", tmp_path / "cat")


# ---------------------------------------------------------------- wrong values


def spoiled(kind: str) -> np.ndarray:
    """Interleaved counts of which frame 2 is wrong."""
    y = arrange(*counts_of(natural_rows(), scenes()), "interleaved")
    if kind == "nan":
        y[2, 7] = np.nan
    elif kind == "dead":
        y[2] = 0
    elif kind == "saturated":
        y[2] = y[2].clip(max=np.sort(y[2])[-30])
    elif kind == "negative":
        y[2, :4] = -50
    elif kind == "order":
        y[2] = np.roll(y[2], 10)
    elif kind == "larger":
        y[2, 2:4] = 1.5 * y[2, 0:2]
    return y


@pytest.mark.parametrize(
    "kind, message, can_be_kept",
    [
        ("nan", "1 values are not finite", False),
        ("dead", "dead: all its values are 0", False),
        ("saturated", "saturated: 30 of its values are the maximum", True),
        ("negative", "4 negative counts, lowest -50", True),
        ("order", "the all-ones pattern \\(value 0\\) gives -69.23", True),
        ("larger", "value 1 is .*, more than .* of the all-ones pattern", True),
    ],
)
def test_a_wrong_frame_is_named_left_out_or_kept(kind, message, can_be_kept, tmp_path):
    np.save(tmp_path / "y.npy", spoiled(kind))
    flags = ["--input", tmp_path / "y.npy", "--order", "natural", "--pairs", "interleaved"]
    with pytest.raises(UserError, match=f"frame 2 \\(y_00002\\): {message}"):
        call(tmp_path, *flags)
    assert not (tmp_path / "lab.npz").exists()
    lab = imported(tmp_path, *flags, "--on_bad_frame", "skip")
    assert lab.names == tuple(f"y_{k:05d}" for k in (0, 1, 3, 4, 5))
    if can_be_kept:
        assert len(imported(tmp_path, *flags, "--on_bad_frame", "keep")) == FRAMES
    else:
        with pytest.raises(UserError, match="cannot be kept"):
            call(tmp_path, *flags, "--on_bad_frame", "keep")


@pytest.mark.parametrize(
    "shape, words, message",
    [
        ((3, 60), ["--order", "natural"], "60 values, which is no square of a power of two"),
        ((3, 63), ["--order", "natural", "--pairs", "stacked"], "63 values, an odd number"),
        ((3, 100), ["--order", "natural", "--n", "8"], "100 values, but 8 x 8 pixels have 64"),
        ((3, 64), [], "which order do the patterns have"),
        ((3, 64), ["--order", "listed:nothing.txt"], "no such file"),
        ((3, 64), ["--order", "variance"], "depends on images"),
        ((3, 64), ["--order", "natural", "--band_count", "2"], "only SPAS folders"),
        ((3, 64), ["--order", "natural", "--key", "y"], "only .mat, .h5, .hdf5 have several arrays"),
        ((2, 3, 4, 64), ["--order", "natural"], "has shape"),
        ((3, 64), ["--order", "natural", "--calibration", "c.json"], "noise of pairs of counts"),
        ((3, 50), ["--order", "natural", "--n", "10"], "power of two"),
        ((3, 64), ["--order", "natural", "--val_share", "0.5", "--test_share", "0.5"], "leave none"),
    ],
)  # fmt: skip
def test_wrong_counts_and_orders_are_refused(shape, words, message, tmp_path):
    y = np.random.default_rng(0).uniform(1, 2, shape)
    y[..., 0] = 1000
    np.save(tmp_path / "y.npy", y)
    with pytest.raises(UserError, match=message):
        call(tmp_path, "--input", tmp_path / "y.npy", *words)
    assert not (tmp_path / "lab.npz").exists()


def test_the_other_arrangement_of_pairs_is_noticed(tmp_path):
    np.save(tmp_path / "y.npy", arrange(*counts_of(natural_rows(), scenes()), "stacked"))
    with pytest.raises(UserError, match="give --pairs stacked"):
        call(
            tmp_path, "--input", tmp_path / "y.npy", "--order", "natural", "--pairs", "interleaved"
        )


@pytest.mark.parametrize("name", ["frames", "a_spectraldata.npz"])
def test_only_a_table_has_frames_in_columns(name, tmp_path):
    path = tmp_path / name
    if name == "frames":
        path.mkdir()
        np.savetxt(path / "a.csv", scenes()[:3] @ natural_rows().T, delimiter=",")
    else:
        np.savez(path, spectral_data=np.ones((2, 2)))
    words = ["--order", "natural"] if name == "frames" else []
    with pytest.raises(UserError, match="frames_in columns: only one table"):
        call(tmp_path, "--input", path, "--frames_in", "columns", *words)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["0", "1", "1"], "lists a pattern twice"),
        (["0", "1"], "lists 2 patterns for 3 values"),
        (["0", "1", "64"], "have the numbers 0 to 63"),
        (["0", "1", "2.5"], "have the numbers 0 to 63"),
        (["0", "1", "x"], "line 3: 'x' is not a number"),
    ],
)
def test_a_wrong_list_of_patterns_is_refused(lines, message, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    np.save(tmp_path / "y.npy", np.array([[9.0, 2.0, 1.0]]))
    order = f"listed:{tmp_path / 'list.txt'}"
    with pytest.raises(UserError, match=message):
        call(tmp_path, "--input", tmp_path / "y.npy", "--order", order, "--n", N)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("y.npy", b"nothing", "is not an .npy array"),
        ("y.csv", b"a,b\n", "has no numbers"),
        ("y.csv", b"1,2\n3\n", "line 2 has 1 numbers, but line 1 has 2"),
        ("y.csv", b"\xff\xfe\x00", "is not a text file"),
        ("y.mat", b"nothing", "is not a readable .mat file"),
        ("y.xls", b"1", "files that end in"),
        ("y.npy", None, "no such file"),
    ],
)
def test_files_that_are_no_measurements_are_refused(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        call(tmp_path, "--input", tmp_path / name, "--order", "natural")


def test_one_frame_is_for_the_test(tmp_path, capsys):
    np.save(tmp_path / "y.npy", scenes()[0] @ natural_rows().T)
    lab = imported(tmp_path, "--input", tmp_path / "y.npy", "--order", "natural")
    assert lab.frames("test").tolist() == [0]
    assert "predict.py" in capsys.readouterr().out.splitlines()[-1]
    assert torch.is_tensor(lab.values)
