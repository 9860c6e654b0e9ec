"""analyze_features.py: measures of known signals, similarity by other formulas, and what changed between networks."""

import csv
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from test_paired import NET, flags_of, make
from test_scripts import DATA, TINY, call
from torch import nn

import analyze_features
import main_classify
import main_unet
import main_unet_dist
from checkpoints import checkpoint
from core.errors import UserError
from core.registry import FEATURE_MEASURES, look_up
from data_loader import Request, build_splits
from features import measures as feature_measures
from features.report import folder_name, merge_names
from features.statistics import (
    LayerStatistics,
    cka,
    compute_grams,
    relative_change,
    weight_changes,
    weight_matrices,
)

LOOK = ["--dataset", "digits", "--limit_test", "12", "--batch_size", "5", "--channels", "2"]
SHARES = ("wavelet", "high_frequency", "low_pass_residual")
SIDE = 16
ROWS, COLUMNS = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")


def of(name, f):
    """A measure of one map (H, W)."""
    return look_up(FEATURE_MEASURES, name, "measure")(
        torch.as_tensor(f).double()[None, None]
    ).item()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------- measures


@pytest.mark.parametrize("name", FEATURE_MEASURES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (5, 3), (8, 8), (31, 16)], ids=str)
def test_a_measure_is_one_number_of_each_image_and_channel_alone(name, shape):
    f = noise(3, 4, *shape) + 0.3
    f[0, 0], f[1, 2], f[2, 3] = 0, 0.1, -0.7  # maps that do not vary
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = look_up(FEATURE_MEASURES, name, "measure")(f)
    assert found.shape == (3, 4) and not found.isinf().any()
    for i in range(3):
        for k in range(4):
            assert of(name, f[i, k]) == pytest.approx(
                found[i, k].item(), rel=1e-9, abs=1e-12, nan_ok=True
            )
    varies = math.prod(shape) > 1
    assert found[1, 0].isnan() == (
        not varies and name in ("spectral_entropy", "skewness", "kurtosis")
    )


@pytest.mark.parametrize("name", FEATURE_MEASURES)
def test_a_measure_is_reported_by_its_formula_alone(name):
    assert look_up(FEATURE_MEASURES, name, "measure").__doc__.count("\n") == 0


@pytest.mark.parametrize("level", [0.1, 1.0, -3e5, 1e-20])
@pytest.mark.parametrize("shape", [(8, 8), (7, 5)], ids=str)
def test_a_constant_has_no_detail_no_spread_and_no_shape(level, shape):
    f = torch.full(shape, level)
    for name in (*SHARES, "spectral_entropy"):
        assert of(name, f) == pytest.approx(0, abs=1e-12), name
    assert of("std", f) == pytest.approx(0, abs=1e-12 * abs(level)) and of("iqr", f) == 0
    assert of("variation", f) == pytest.approx(0, abs=1e-12)
    assert math.isnan(of("skewness", f)) and math.isnan(of("kurtosis", f))


def test_nothing_is_shared_in_a_map_of_zeros():
    undefined = {name for name in FEATURE_MEASURES if math.isnan(of(name, torch.zeros(8, 8)))}
    assert undefined == {*SHARES, "spectral_entropy", "skewness", "kurtosis", "variation"}
    assert of("std", torch.zeros(8, 8)) == of("iqr", torch.zeros(8, 8)) == 0


def test_a_checkerboard_is_all_detail_and_one_frequency():
    f = (-1.0) ** (ROWS + COLUMNS)
    for name in SHARES:
        assert of(name, f) == pytest.approx(1), name
    assert of("spectral_entropy", f) == pytest.approx(0, abs=1e-12)
    assert (
        of("std", f) == pytest.approx(1)
        and of("kurtosis", f) == pytest.approx(1)
        and of("iqr", f) == pytest.approx(2)
    )
    assert math.isnan(of("variation", f)), "a mean of zero divides nothing"
    assert of("high_frequency", f + 1) == pytest.approx(0.5), (
        "the mean is energy too, and lies in the middle"
    )


@pytest.mark.parametrize("cycles", range(1, SIDE // 2))
def test_a_sinusoid_is_two_places_of_the_spectrum_on_their_side_of_the_border(cycles):
    f = torch.cos(2 * math.pi * cycles * COLUMNS.double() / SIDE + 0.4)
    assert of("spectral_entropy", f) == pytest.approx(1 / math.log2(SIDE**2))  # one bit
    assert of("high_frequency", f) == pytest.approx(float(cycles > SIDE / 4), abs=1e-9)
    passed = (1 + math.cos(2 * math.pi * cycles / SIDE)) / 2  # by (1, 2, 1) / 4
    assert of("low_pass_residual", f) == pytest.approx((1 - passed) ** 2)
    assert of("std", f) == pytest.approx(math.sqrt(0.5)) and math.isnan(of("variation", f)), (
        "a mean that is rounding is none"
    )


def test_a_point_has_a_white_spectrum():
    f = torch.zeros(SIDE, SIDE)
    f[3, 5] = 2
    assert of("spectral_entropy", f) == pytest.approx(1)
    steps = np.fft.fftfreq(SIDE)
    assert of("high_frequency", f) == pytest.approx(np.mean(np.hypot(steps[:, None], steps) > 0.25))
    assert of("wavelet", f) == pytest.approx(3 / 4)


@pytest.mark.parametrize("shape", [(8, 8), (6, 10)], ids=str)
def test_haar_details_are_those_of_its_matrix(shape):
    f = noise(*shape).numpy()

    def haar(n):
        low, high = (
            np.kron(np.eye(n // 2), [1, 1]) / np.sqrt(2),
            np.kron(np.eye(n // 2), [1, -1]) / np.sqrt(2),
        )
        return np.vstack((low, high))

    transformed = haar(shape[0]) @ f @ haar(shape[1]).T
    coarse = transformed[: shape[0] // 2, : shape[1] // 2]
    assert of("wavelet", f) == pytest.approx(1 - (coarse**2).sum() / (f**2).sum())
    assert of("wavelet", np.pad(f, ((0, 1), (0, 1)), mode="edge")[:-1]) == pytest.approx(
        of("wavelet", np.pad(f, ((0, 0), (0, 2)), mode="edge"))
    )


@pytest.mark.parametrize("shape", [(1, 1), (9, 4), (16, 16)], ids=str)
def test_the_low_pass_is_scipys_convolution_on_the_torus(shape):
    f = noise(*shape).numpy()
    low = scipy.ndimage.convolve(f, np.outer([1, 2, 1], [1, 2, 1]) / 16, mode="wrap")
    assert of("low_pass_residual", f) == pytest.approx(
        ((f - low) ** 2).sum() / (f**2).sum(), abs=1e-12
    )


@pytest.mark.parametrize("shape", [(1, 2), (9, 4), (16, 16), (5, 5)], ids=str)
@pytest.mark.parametrize("skewed", [False, True], ids=["symmetric", "skewed"])
def test_moments_and_quartiles_are_scipys(shape, skewed):
    f = noise(2, 3, *shape)
    f = f.exp() if skewed else f + 0.2
    flat = f.flatten(2).numpy()
    oracles = {
        "std": flat.std(2),
        "skewness": scipy.stats.skew(flat, axis=2),
        "kurtosis": scipy.stats.kurtosis(flat, axis=2, fisher=False),
        "iqr": scipy.stats.iqr(flat, axis=2),
        "variation": scipy.stats.variation(flat, axis=2),
    }
    for name, expected in oracles.items():
        assert np.allclose(look_up(FEATURE_MEASURES, name, "measure")(f), expected, rtol=1e-9), name


def test_gaussian_noise_has_kurtosis_three_no_skewness_and_a_flat_spectrum():
    f = noise(400, 400)
    assert of("kurtosis", f) == pytest.approx(3, abs=0.05) and of("skewness", f) == pytest.approx(
        0, abs=0.03
    )
    assert of("wavelet", f) == pytest.approx(3 / 4, abs=0.01) and of("spectral_entropy", f) > 0.95
    assert of("high_frequency", f) == pytest.approx(
        1 - math.pi / 16, abs=0.01
    )  # outside of a disk of radius 1/4 in the unit square


# ---------------------------------------------------------------- similarity


def gram(x):
    return x.flatten(1) @ x.flatten(1).T


def similarity(x, y):
    return cka([gram(x)], [gram(y)]).item()


def test_cka_is_that_of_hsic_and_of_cross_covariances():
    x, y = noise(30, 12) + 5, noise(30, 40, seed=1) + noise(30, 12) @ noise(12, 40, seed=2)
    centring = np.eye(30) - 1 / 30
    k, l = (centring @ gram(z).numpy() @ centring for z in (x, y))  # noqa: E741
    hsic = np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))
    x, y = ((z - z.mean(0)).numpy() for z in (x, y))
    cross = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    (q_x, r_x), (q_y, r_y) = np.linalg.qr(x), np.linalg.qr(y)
    by_qr = (
        np.linalg.norm((q_y @ r_y).T @ (q_x @ r_x)) ** 2
        / np.linalg.norm(r_x @ r_x.T)
        / np.linalg.norm(r_y @ r_y.T)
    )
    assert (
        similarity(torch.from_numpy(x), torch.from_numpy(y))
        == pytest.approx(hsic)
        == pytest.approx(cross)
        == pytest.approx(by_qr)
    )
    assert 0.1 < hsic < 0.9


def test_cka_knows_no_rotation_scale_or_shift_but_every_stretch():
    x, y = noise(20, 6), noise(20, 9, seed=1)
    rotation = torch.linalg.qr(noise(6, 6, seed=2))[0]
    assert similarity(x, x) == pytest.approx(1) and similarity(
        x, -3 * x @ rotation + 7
    ) == pytest.approx(1)
    assert (
        similarity(x @ rotation, y)
        == pytest.approx(similarity(x, y))
        == pytest.approx(similarity(y, x))
    )
    assert similarity(x, x * torch.tensor([9.0, 1, 1, 1, 1, 1])) < 0.9


def test_independent_features_are_not_similar():
    assert similarity(noise(2000, 5), noise(2000, 3, 2, 2, seed=1)) < 0.02


def test_the_matrix_has_a_row_for_every_layer_and_features_that_never_change_have_no_similarity():
    layers = [noise(10, k + 1, seed=k) for k in range(3)]
    matrix = cka(
        [gram(x) for x in layers],
        [gram(x) for x in [*layers, torch.full((10, 4), 0.1, dtype=torch.float64)]],
    )
    assert matrix.shape == (3, 4) and torch.allclose(
        matrix[:, :3].diagonal(), torch.ones(3, dtype=torch.float64)
    )
    assert (
        matrix[0, 1].item() == pytest.approx(similarity(layers[0], layers[1]))
        and matrix[:, 3].isnan().all()
    )


@pytest.mark.parametrize("room, passes", [(2**30, 1), (2 * 2 * (8 + 3) * 8, 3), (0.5, 5)])
def test_grams_are_whole_however_few_features_are_held(room, passes):
    x, y, went = noise(10, 4, 1, 2), noise(10, 3, seed=1), []

    def batches(start=0):
        went.append(start)
        for place in range(0, 10, 2):
            if place >= start:
                yield place, None, [{"a": x[place : place + 2]}, {"b": y[place : place + 2]}]

    (first,), (second,) = (products.values() for products in compute_grams(batches, 10, room))
    assert (
        torch.allclose(first, gram(x)) and torch.allclose(second, gram(y)) and len(went) == passes
    )


# ---------------------------------------------------------------- changes


def test_changes_are_relative_and_defined_where_nothing_was():
    squares = torch.tensor([[0.0, 0.0, 4.0, 9.0], [0.0, 2.0, 0.0, 1.0]])
    assert relative_change(squares).tolist() == [0, 0, math.inf, 3]


def test_a_layer_sums_what_all_batches_hold():
    a, b = noise(7, 3, 4, 4), noise(7, 3, 4, 4, seed=1)
    b[:, 1] = 0  # a silent channel has no skewness
    layer = LayerStatistics(
        {"skewness": feature_measures.skewness, "std": feature_measures.std}, seed=0
    )
    for some in torch.arange(7).split(3):
        layer.add(b[some], a[some], 1)
    assert torch.allclose(
        relative_change(layer.change),
        (b - a).transpose(0, 1).flatten(1).norm(dim=1) / a.transpose(0, 1).flatten(1).norm(dim=1),
    )
    assert layer.sums["skewness"][0].tolist() == [7, 0, 7]
    assert torch.allclose(layer.sums["std"][1], feature_measures.std(b).sum(0)) and torch.equal(
        layer.example, b[1]
    )
    assert np.isin(torch.cat(layer.samples).numpy(), b.numpy()).all()
    other = LayerStatistics({}, seed=0)
    other.add(b, a[:, :2], 0)
    assert other.change is None, "other shapes have no channels in common"


def test_weights_have_a_row_for_every_output_channel():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 5, 2), nn.BatchNorm2d(5))
    assert [len(rows) for rows in weight_matrices(network).values()] == [3, 3, 5, 5, 5, 5]
    other = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 5, 2), nn.BatchNorm2d(5))
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        other[0].weight[1] *= 3
        other[1].weight[:, 4] *= -1
    changes = {
        name: relative_change(squares) for name, squares in weight_changes(other, network).items()
    }
    assert torch.allclose(changes.pop("0.weight"), torch.tensor([0, 2, 0]).double())
    assert torch.allclose(changes.pop("1.weight"), torch.tensor([0, 0, 0, 0, 2]).double())
    assert not any(change.any() for change in changes.values())
    assert weight_changes(nn.Sequential(nn.Conv2d(2, 4, 3)), network) is None


def test_names_of_folders_end_and_differ():
    short, long = ["a", "b"], ["t" * 100, "s" * 100]
    assert folder_name(short) == "a_and_b" and len(folder_name(long)) <= 120
    assert folder_name(long) != folder_name([long[0], "s" * 101])


def test_layers_stand_in_the_order_of_the_deepest_network():
    deep = ["enc1", "enc2", "latent", "dec2", "dec1"]
    assert merge_names([["enc1", "latent", "dec1"], deep, ["block"]]) == [*deep, "block"]


# ---------------------------------------------------------------- the script


def rows_of(result, name):
    with open(result["folder"] / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.pictures
def test_teacher_and_student_are_held_against_each_other(capsys):
    teacher = call(main_unet, "--cr", "0.5", *TINY)["export"]
    student = call(main_unet_dist, "--cr", "0.25", "--cr_teacher", "0.5", *TINY)["export"]
    capsys.readouterr()
    result = call(analyze_features, teacher, student, *LOOK, "--channels", "3")
    reported = capsys.readouterr().out
    assert (
        "12 test images of digits\na: UNET_cr_0.5; " in reported
        and "Largest changes from a to b" in reported
        and "not compared" not in reported
    )
    restored = [checkpoint.restore(path) for path in (teacher, student)]
    images = build_splits(Request("digits", 16, limit_test=12))["test"].stack()
    with torch.no_grad():
        a, b = (found.network.features(found.physics.observe(images)) for found in restored)
    table = {
        (row["checkpoint"], row["layer"], row["measure"]): row
        for row in rows_of(result, "measures")
    }
    assert len(table) == 2 * len(a) * len(FEATURE_MEASURES)
    for name, layers in (("UNET_cr_0.5", a), (Path(student).stem, b)):
        for layer, f in layers.items():
            values = feature_measures.kurtosis(f.double()).numpy()
            row = table[name, layer, "kurtosis"]
            assert float(row["mean"]) == pytest.approx(np.nanmean(values), rel=1e-4, nan_ok=True)
            assert float(row["std"]) == pytest.approx(
                np.nanstd(values), rel=1e-3, abs=1e-6, nan_ok=True
            )
            assert int(row["values"]) == np.isfinite(values).sum()
    similar = {
        (row["reference layer"], row["layer"]): float(row["cka"]) for row in rows_of(result, "cka")
    }
    assert len(similar) == len(a) * len(b)
    for (theirs, mine), value in similar.items():
        assert value == pytest.approx(similarity(a[theirs].double(), b[mine].double()), abs=1e-4), (
            theirs,
            mine,
        )
    assert not np.isclose(similar["enc1", "dec1"], similar["dec1", "enc1"], atol=1e-4), (
        "rows are the first network's"
    )
    changed = {(row["layer"], int(row["channel"])): row for row in rows_of(result, "channels")}
    assert changed.keys() == {(layer, k) for layer, f in a.items() for k in range(f.shape[1])}
    d = (b["latent"][:, 2] - a["latent"][:, 2]).norm() / a["latent"][:, 2].norm()
    assert float(changed["latent", 2]["change"]) == pytest.approx(d.item(), rel=1e-3)
    gained = (
        (feature_measures.std(b["latent"]) - feature_measures.std(a["latent"])).mean(0)[2].item()
    )
    assert float(changed["latent", 2]["std difference"]) == pytest.approx(
        gained, rel=1e-3, abs=1e-6
    )
    layers = {
        (row["layer"], row["channel"]): float(row["change"])
        for row in rows_of(result, "layers")
        if row["kind"] == "parameter"
    }
    w_a, w_b = (found.network.state_dict()["Conv1.0.weight"] for found in restored)
    assert layers["Conv1.0.weight", ""] == pytest.approx(
        ((w_b - w_a).norm() / w_a.norm()).item(), rel=1e-4
    )
    assert layers["Conv1.0.weight", "3"] == pytest.approx(
        ((w_b - w_a)[3].norm() / w_a[3].norm()).item(), rel=1e-4
    )
    for name in ("layers", "channels"):
        order = [float(row["change"]) for row in rows_of(result, name)]
        assert order == sorted(order, reverse=True), name
    pictures = {path.name for path in result["folder"].glob("*.png")}
    assert pictures == {
        "measures.png",
        "histograms.png",
        "cka.png",
        *(f"{kind}_{layer}.png" for kind in ("maps", "fourier") for layer in a),
    }


def test_equal_networks_are_similar_and_did_not_change():
    path = call(main_unet, "--cr", "0.5", *TINY)["export"]
    Path("copy.pth").write_bytes(Path(path).read_bytes())
    result = call(
        analyze_features,
        path,
        "copy.pth",
        *LOOK,
        "--awgn_snr",
        "20",
        "--measures",
        "std",
        "iqr",
    )
    alike = [row["cka"] for row in result["cka"] if row["layer"] == row["reference layer"]]
    assert np.allclose(alike, 1) and len(alike) == 5, "both see the same noise"
    assert {row["change"] for row in result["layers"] + result["channels"]} == {0}
    assert {row["measure"] for row in result["measures"]} == {"std", "iqr"}
    assert list(rows_of(result, "channels")[0]) == [
        "checkpoint",
        "layer",
        "channel",
        "change",
        "std difference",
        "iqr difference",
    ]


def test_other_shapes_have_no_channels_in_common_and_that_is_said(capsys):
    teacher = call(main_unet, "--cr", "0.5", *TINY)["export"]
    student = call(
        main_unet,
        "--cr",
        "0.5",
        "--network",
        "dncnn",
        "--channels",
        "3",
        "--blocks",
        "1",
        *DATA,
        "--epochs",
        "1",
    )["export"]
    words = [teacher, student, *LOOK, "--channels", "5"]
    result = call(analyze_features, *words)
    reported = capsys.readouterr().out
    assert "b has another architecture than a, so their weights are not compared." in reported
    assert (
        "a has no layers of the same shape as b's enc1, latent: these are not compared." in reported
    )
    assert {row["layer"] for row in result["channels"]} == {"head", "output"} and {
        row["kind"] for row in result["layers"]
    } == {"features"}
    maps = {path.name for path in result["folder"].glob("maps_*.png")}
    assert maps == {f"maps_{layer}.png" for layer in ("enc1", "latent", "dec1", "head", "output")}
    (result["folder"] / "maps_gone.png").touch()
    call(analyze_features, *words, "--measures", "std")
    assert {path.name for path in result["folder"].glob("maps_*.png")} == maps


def test_one_network_is_held_against_itself_at_other_noise_and_ratios():
    mixed = call(main_unet, "--crs_expert", "0.5", "0.25", *TINY)["export"]
    result = call(analyze_features, mixed, *LOOK, "--measures", "std", "--awgn_snr", "none", "0")
    names = list(dict.fromkeys(row["checkpoint"] for row in result["measures"]))
    assert names == [
        f"UNET_crs_0.25_0.5_cr_{camera}" for camera in ("0.25", "0.5", "0.25_snr_0", "0.5_snr_0")
    ]
    spread = {
        row["checkpoint"]: row["mean"] for row in result["measures"] if row["layer"] == "output"
    }
    assert spread[names[2]] > spread[names[0]]


def test_classifiers_of_large_and_small_images_are_held_against_each_other(capsys):
    data = [
        "--dataset",
        "digits",
        "--n",
        "16",
        "--limit_train",
        "40",
        "--limit_val",
        "20",
        "--epochs",
        "1",
        "--model",
        "resnet8",
    ]
    large = call(main_classify, *data, "--width", "4")["export"]
    small = call(main_classify, *data, "--width", "3", "--lessen_ratio", "2")["export"]
    result = call(analyze_features, large, small, *LOOK)
    assert {row["layer"] for row in result["measures"]} == {"enc1", "stage1", "stage2", "latent"}, (
        "vectors have no maps"
    )
    assert {row["layer"] for row in result["cka"]} == {
        "enc1",
        "stage1",
        "stage2",
        "latent",
        "pool",
        "output",
    }
    assert {row["layer"] for row in result["channels"]} == {"output"}
    restorer = call(main_unet, "--cr", "0.5", *TINY)["export"]
    with pytest.raises(
        UserError, match=r"restores images, .* classifies: only networks of one task"
    ):
        call(analyze_features, large, restorer, *LOOK)
    with pytest.raises(UserError, match="unknown dataset 'photos': choose from digits"):
        call(analyze_features, large, small)
    with pytest.raises(
        UserError, match="has crop center, which contradicts the crop none that was asked for"
    ):
        call(analyze_features, large, small, *LOOK, "--crop", "none")


def test_of_pairs_the_degraded_pictures_are_what_networks_see(tmp_path):
    pairs = make(tmp_path)
    wide, narrow = (
        call(
            main_unet,
            *flags_of(pairs),
            "--physics",
            "given",
            *NET,
            "--channels",
            k,
            "--results",
            str(k),
        )["export"]
        for k in (4, 3)
    )
    result = call(
        analyze_features, wide, narrow, *flags_of(pairs), "--measures", "std", "--channels", "1"
    )
    test = build_splits(pairs)["test"]
    with torch.no_grad():
        output = checkpoint.restore(wide).network(
            torch.stack([test[i]["degraded"] for i in range(len(test))])
        )
    found = next(row for row in result["measures"] if row["layer"] == "output")
    assert found["mean"] == pytest.approx(
        feature_measures.std(output).mean().item(), rel=1e-4
    ) and found["values"] == len(test)


def test_what_cannot_be_compared_is_refused(capsys):
    small, large = (
        call(main_unet, "--physics", "denoise", "--sigma", "25", *TINY, "--n", n, "--results", n)[
            "export"
        ]
        for n in ("8", "16")
    )
    with pytest.raises(UserError, match="takes images of 16 pixels and 1 channels"):
        call(analyze_features, small, large, *LOOK)
    with pytest.raises(UserError, match="1 networks with their physics: 2 to 26 can be compared"):
        call(analyze_features, small, *LOOK)
    with pytest.raises(UserError, match="1 test images: 2 to 4096 can be compared"):
        call(analyze_features, small, *LOOK, "--sigma", "5", "50", "--limit_test", "1")
    Path("other").mkdir()
    copy = Path("other") / Path(small).name
    copy.write_bytes(Path(small).read_bytes())
    with pytest.raises(UserError, match="the same checkpoint is listed twice"):
        call(analyze_features, small, copy, *LOOK)
    content = checkpoint.read(small)
    content["weights"]["Conv1.0.weight"].fill_(3e38)  # sums of products of it are infinite
    checkpoint.write(Path("broken.pth"), content)
    with pytest.raises(UserError, match="layer enc1 of broken is not finite"):
        call(analyze_features, small, "broken.pth", *LOOK)
    for words, message in {
        (small, large, small): f"{small} is given 2 times",
        (small, large, "--measures", "mean"): "unknown measure 'mean': choose from wavelet",
        (small, large, "--channels", "0"): "0 is outside [1, 32]",
    }.items():
        with pytest.raises(SystemExit) as end:
            analyze_features.parse(words)
        assert end.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same():
    large, small = (call(main_unet, "--cr", cr, *TINY)["export"] for cr in ("0.5", "0.25"))
    here, there = (
        call(analyze_features, large, small, *LOOK, "--device", device)
        for device in ("cpu", "cuda")
    )
    for mine, theirs in zip(here["cka"], there["cka"], strict=True):
        assert mine["cka"] == pytest.approx(theirs["cka"], abs=1e-3)
