"""predict.py: the laboratory's round trip, tiles, scales, and what it refuses."""

import csv
import itertools
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from skimage.metrics import peak_signal_noise_ratio
from test_scripts import DATA, TINY, call

import main_unet
import predict
import visualize_mask_spc
from algo_functions import build_physics
from checkpoints import checkpoint
from core.errors import UserError
from core.registry import EXPORTS, LIGHT
from evaluation import export
from evaluation import predict as prediction
from evaluation.predict import GRID, apply_in_tiles, tile_starts
from models import build_network
from models.base import FirstImage


def scene(height=16, width=16, seed=0):
    rng = np.random.default_rng(seed)
    rough = torch.from_numpy(rng.random((1, 1, 5, 5), dtype=np.float32))
    return (
        (
            torch.nn.functional.interpolate(rough, (height, width), mode="bicubic")
            .clamp(0, 1)[0, 0]
            .numpy()
            * 255
        )
        .round()
        .astype(np.uint8)
    )


@pytest.mark.parametrize(
    "length, tile, overlap", [(10, 16, 4), (16, 16, 4), (17, 16, 4), (100, 16, 0), (100, 16, 5)]
)
def test_tiles_cover_everything_and_blend_to_one(length, tile, overlap):
    places = tile_starts(length, tile, overlap)
    assert places[0] == 0 and max(places) + min(tile, length) == length
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(places))
    x = torch.rand(2, 3, length, length + 7)
    assert torch.allclose(apply_in_tiles(lambda part: 2 * part, x, tile, overlap), 2 * x, atol=1e-6)


@pytest.mark.parametrize("x0", ["adjoint", "lmmse"])
@pytest.mark.parametrize("form", ["pairs", "values", "one frame"])
def test_the_exported_patterns_bring_the_direct_reconstruction_back(x0, form):
    scores = call(main_unet, "--cr", "0.25", "--x0", x0, *TINY)
    call(
        visualize_mask_spc,
        "--cr",
        "0.25",
        "--n",
        "16",
        "--dataset",
        "digits",
        "--export",
        "patterns",
        "--limit_train",
        "30",
    )
    manifest = json.loads(Path("patterns/manifest.json").read_text())
    with open("patterns/patterns.csv", newline="") as file:
        names = [
            name for row in csv.DictReader(file) for name in (row["positive"], row["negative"])
        ]
    mirrors = np.stack(
        [np.asarray(Image.open(f"patterns/{name}"), dtype=np.float64) for name in names]
    )
    images = np.stack([scene(seed=seed) / 255 for seed in range(3)])
    detector = np.einsum(
        "khw,fhw->fk", mirrors, images
    )  # (frames, 2 m): the light of the mirrors that are 1
    values = {
        "pairs": detector,
        "values": manifest["scale"] * (detector[:, 0::2] - detector[:, 1::2]),
        "one frame": detector[0],
    }[form]
    np.save("y.npy", values)
    result = call(predict, "--checkpoint", scores["export"], "--measurements", "y.npy")
    restored = checkpoint.restore(scores["export"])
    with torch.no_grad():
        direct = restored.network(
            restored.physics.observe(torch.from_numpy(images).float()[:, None])
        )
    again = np.load(f"{result['folder']}/reconstructions.npy")
    assert len(again) == (1 if form == "one frame" else 3) and np.allclose(
        again, direct[: len(again)], atol=1e-5
    )
    assert len(list(Path(result["folder"]).glob("frame_*.png"))) == len(again)


def test_an_unknown_gain_is_found_and_a_known_one_applied():
    scores = call(main_unet, "--cr", "0.5", *TINY)
    physics = checkpoint.restore(scores["export"]).physics
    image = torch.from_numpy(scene()).float()[None, None] / 255
    values = physics.values(physics.measure(image))[0].numpy()
    frames = []
    for gain, scale in ((1, None), (40, "0.025"), (1, "auto"), (1234, "auto")):
        np.save("y.npy", gain * values)
        words = ["--scale", scale] if scale else []
        frames.append(
            np.load(
                call(predict, "--checkpoint", scores["export"], "--measurements", "y.npy", *words)[
                    "folder"
                ]
                + "/reconstructions.npy"
            )
        )
    assert np.allclose(frames[0], frames[1], atol=1e-5) and np.allclose(
        frames[2], frames[3], atol=1e-5
    )
    assert not np.allclose(frames[0], frames[2], atol=1e-3)


@pytest.mark.pictures
@pytest.mark.parametrize("words", [["denoise", "--sigma", "25"], ["sr", "--factor", "2"], ["blur"]])
def test_pictures_of_any_size_are_restored_tiled_or_whole(words):
    scores = call(
        main_unet,
        "--physics",
        *words,
        "--network",
        "dncnn",
        "--channels",
        "4",
        "--blocks",
        "2",
        *DATA,
        "--epochs",
        "1",
    )
    factor = 2 if words[0] == "sr" else 1
    Path("in").mkdir()
    Image.fromarray(scene(30, 41)).save("in/a.png")
    Image.fromarray(scene(60, 82) if factor == 2 else scene(30, 41, 1)).save("truth.png")
    whole = call(predict, "--checkpoint", scores["export"], "in", "--truth", "truth.png")
    result = np.asarray(Image.open(f"{whole['folder']}/a.png"))
    assert (
        result.shape == (30 * factor, 41 * factor)
        and Path(f"{whole['folder']}/a_before_after.png").is_file()
    )
    expected = peak_signal_noise_ratio(np.asarray(Image.open("truth.png")), result)
    assert (
        abs(whole["psnr"]["a"]["after"] - expected) < 0.5
    )  # that of the picture, rounded and clipped
    call(
        predict,
        "--checkpoint",
        scores["export"],
        "in",
        "--truth",
        "truth.png",
        "--tile",
        "24",
        "--overlap",
        "12",
    )
    tiles = np.asarray(Image.open(f"{whole['folder']}/a.png"))
    assert np.abs(tiles.astype(int) - result.astype(int)).max() <= 8


def test_a_single_pixel_camera_looks_at_a_scene_tile_by_tile_each_pixel_once(capsys):
    scores = call(main_unet, "--cr", "1", *TINY)
    Image.fromarray(scene(40, 24)).save("scene.png")
    result = call(predict, "--checkpoint", scores["export"], "scene.png")
    assert result["psnr"]["scene"]["before"] > 60  # full sampling gives the scene back
    assert "simulated 6 tiles of 16 x 16 pixels: " in capsys.readouterr().out


def test_a_tile_beyond_the_border_measures_no_pixel_again():
    camera = build_physics({"name": "spc", "n": 16, "c": 1, "cr": 0.25, "ordering": "xy"} | LIGHT
                           | {"x0": "adjoint", "awgn_snr": None})  # fmt: skip
    flags = {"simulate": False, "sigma": None, "overlap": None, "tile": None, "truth": None}
    args = Namespace(**flags, seed=0)
    x = torch.rand(1, 1, 40, 24, generator=torch.Generator().manual_seed(0))
    network = FirstImage(1)
    first, output = prediction.restore_image(network, camera, x, args)
    assert first.shape == output.shape == x.shape
    padded = np.pad(x[0, 0].numpy(), ((0, 8), (0, 8)), mode="edge")
    for top in (0, 16, 32):
        for left in (0, 16):
            part = padded[top : top + 16, left : left + 16]
            alone = camera.observe(torch.from_numpy(part)[None, None])[0, 0]
            seen = output[0, 0, top : top + 16, left : left + 16]
            torch.testing.assert_close(seen, alone[: len(seen), : seen.shape[1]])


def test_what_cannot_be_is_refused():
    reported = [
        "--physics",
        "denoise",
        "--sigma",
        "5",
        "50",
        "--network",
        "drunet",
        "--width",
        "2",
        *DATA,
        "--steps",
        "1",
    ]
    spc, noisy = (
        call(main_unet, *words)["export"] for words in (["--cr", "0.25", *TINY], reported)
    )
    Image.fromarray(scene()).save("a.png")
    for array, message in (
        (np.zeros(63), "a frame has 64 values, or 128 of complementary pairs"),
        (np.zeros((2, 3, 64)), "3 channels, the physics 1"),
    ):
        np.save("y.npy", array)
        with pytest.raises(UserError, match=message):
            call(predict, "--checkpoint", spc, "--measurements", "y.npy")
    np.save("y.npy", np.zeros(64))
    with pytest.raises(UserError, match="no bright pixel"):
        call(predict, "--checkpoint", spc, "--measurements", "y.npy", "--scale", "auto")
    np.save("y.npy", np.full(64, np.nan))
    with pytest.raises(UserError, match="finite numbers"):
        call(predict, "--checkpoint", spc, "--measurements", "y.npy")
    with pytest.raises(UserError, match="by --sigma"):
        call(predict, "--checkpoint", noisy, "a.png")
    assert call(predict, "--checkpoint", noisy, "a.png", "--sigma", "10")["psnr"] == {}
    with pytest.raises(UserError, match="smaller than the tile"):
        call(
            predict,
            "--checkpoint",
            noisy,
            "a.png",
            "--sigma",
            "10",
            "--tile",
            "16",
            "--overlap",
            "16",
        )
    np.save("y.npy", np.zeros((0, 64)))
    with pytest.raises(UserError, match=r"shape \(0, 64\): a frame has 64 values"):
        call(predict, "--checkpoint", spc, "--measurements", "y.npy")
    for words in ([], ["a.png", "--measurements", "y.npy"], ["a.png", "--export", "onnx"]):
        with pytest.raises(SystemExit):
            predict.parse(["--checkpoint", spc, *words])


@pytest.mark.parametrize(
    "what", [["a.png"], ["--measurements", "y.npy"], ["--export", "safetensors"]], ids=" ".join
)
@pytest.mark.parametrize(
    "flag",
    [
        ["--simulate"],
        ["--truth", "a.png"],
        ["--sigma", "0"],
        ["--tile", "32"],
        ["--overlap", "0"],
        ["--scale", "2"],
        ["--live"],
    ],
)
def test_a_flag_is_read_with_what_it_belongs_to_and_else_refused(what, flag, capsys):
    reader = "--measurements" if flag[0] in ("--scale", "--live") else "images"
    if (what[0] if what[0].startswith("--") else "images") == reader:
        assert predict.parse(["--checkpoint", "x", *what, *flag])
    else:
        with pytest.raises(SystemExit) as end:
            predict.parse(["--checkpoint", "x", *what, *flag])
        error = capsys.readouterr().err
        assert (
            end.value.code == 2
            and error.count("\n") == 1
            and flag[0] in error
            and f"it is read with {reader}, not with" in error
        )


def test_what_a_simulated_camera_or_a_network_would_not_read_is_refused():
    Image.fromarray(scene()).save("a.png")
    spc, noisy = (
        call(main_unet, *words, *TINY)["export"]
        for words in (["--cr", "0.25"], ["--physics", "denoise", "--sigma", "25"])
    )
    for path, words, message in (
        (spc, ["--truth", "a.png"], "truth a.png: a simulation measures clean images"),
        (spc, ["--tile", "32"], "tile 32: a simulation measures clean images"),
        (noisy, ["--simulate", "--truth", "a.png"], "truth a.png: a simulation"),
        (noisy, ["--simulate", "--tile", "32"], "tile 32: a simulation"),
        (
            noisy,
            ["--sigma", "10"],
            "sigma 10: neither this network nor its physics, 'denoise_sigma_25', takes a noise level",
        ),
        (spc, ["--sigma", "10"], "sigma 10: neither this network nor its physics, 'cr_0.25'"),
    ):
        with pytest.raises(UserError, match=message):
            call(predict, "--checkpoint", path, "a.png", *words)


def test_simulated_noise_has_the_level_that_is_asked_for():
    noisy = call(main_unet, "--physics", "denoise", "--sigma", "5", "10", *TINY)["export"]
    Image.fromarray(scene(160, 160)).save("a.png")
    for sigma in (5, 50):
        before = call(predict, "--checkpoint", noisy, "a.png", "--simulate", "--sigma", sigma)[
            "psnr"
        ]["a"]["before"]
        assert abs(before - 20 * np.log10(255 / sigma)) < 0.2


def test_one_camera_of_a_mixture_is_named_and_used():
    mixed = call(main_unet, "--crs_expert", "0.25", "0.5", *TINY)["export"]
    Image.fromarray(scene()).save("a.png")
    np.save("y.npy", np.ones((2, 64)))
    for words in (["a.png"], ["--measurements", "y.npy"]):
        with pytest.raises(UserError, match=r"several ratios: give --cr, one of 0\.25, 0\.5"):
            call(predict, "--checkpoint", mixed, *words)
    restored = checkpoint.restore(mixed)
    image = torch.from_numpy(scene()).float()[None, None] / 255
    for part in restored.physics.parts:
        words, y = ["--checkpoint", mixed, "--cr", part.config["cr"]], part.measure(image)
        before = call(predict, *words, "a.png")["psnr"]["a"]["before"]
        assert np.isclose(
            before,
            peak_signal_noise_ratio(image.numpy(), part.back_projection(y).numpy(), data_range=1),
            atol=1e-4,
        )
        np.save("y.npy", part.values(y)[0].numpy())
        again = np.load(
            call(predict, *words, "--measurements", "y.npy")["folder"] + "/reconstructions.npy"
        )
        assert np.allclose(again, restored.network(part.first_image(y)).detach(), atol=1e-5)


def test_basicsrs_large_network_restores_a_picture():
    network = build_network(
        {"name": "rrdbnet", "c": 1, "channels": 4, "blocks": 1, "growth": 2, "residual": False}
    ).eval()
    torch.save({"params_ema": network.state_dict()}, "large.pth")
    Image.fromarray(scene(30, 41)).save("a.png")
    result = np.asarray(
        Image.open(call(predict, "--checkpoint", "large.pth", "a.png")["folder"] + "/a.png")
    )
    with torch.no_grad():
        expected = (
            network(torch.from_numpy(scene(30, 41)).float()[None, None] / 255).clamp(0, 1)[0, 0]
            * 255
        )
    assert np.abs(result - expected.numpy()).max() <= 0.51


def test_tiles_that_begin_on_the_grid_give_what_the_whole_picture_gives():
    torch.manual_seed(0)
    network = build_network({"name": "unet", "scales": 3, "width": 4}).eval()
    torch.nn.init.normal_(network.Conv_1x1.weight)
    camera = build_physics({"name": "denoise", "n": 16, "c": 1, "sigma": 25.0, "x0": "adjoint"})
    x = torch.rand(1, 1, 321, 417)
    flags = {"simulate": False, "sigma": None, "overlap": None, "seed": 0}
    whole, tiles = (
        prediction.restore_image(network, camera, x, Namespace(tile=tile, **flags))[1]
        for tile in (512, 128)
    )
    reach = (
        5 * 1 + 5 * 2 + 2 * 4 + 1 + 2
    )  # pixels: 3 x 3 convolutions at each resolution, and two poolings
    deep = []
    for length in x.shape[-2:]:  # where no tile's border within the picture is in reach
        deep.append(torch.ones(length, dtype=torch.bool))
        for start in tile_starts(length, 128, 32, GRID):
            deep[-1][start : start + reach] &= start == 0
            deep[-1][start + 128 - reach : start + 128] &= start + 128 >= length
    inside = torch.outer(*deep)
    assert inside[-1, -1] and inside.float().mean() > 0.2
    assert (whole - tiles)[0, 0, inside].abs().max() < 1e-5 * whole.abs().max()


NETWORK_WORDS = [
    ["unet", "--width", "4", "--scales", "3"],
    ["unet", "--width", "4", "--batch_norm", "on", "--padding", "circular"],
    ["dncnn", "--channels", "4", "--blocks", "2"],
    ["rrdbnet", "--channels", "4", "--blocks", "1", "--growth", "2"],
]


@pytest.mark.parametrize(
    "words",
    [NETWORK_WORDS[0], *(pytest.param(w, marks=pytest.mark.long) for w in NETWORK_WORDS[1:])],
    ids=" ".join,
)
def test_exports_give_the_same_images(words):
    camera = ["--physics", "denoise", "--sigma", "25"]
    scores = call(
        main_unet, *camera, "--network", *words, *DATA, "--epochs", "1", "--limit_train", "10"
    )
    done = call(predict, "--checkpoint", scores["export"], "--export", *EXPORTS)["exports"]
    assert set(done) == set(EXPORTS) and all(
        result["distance"] <= 1e-5 and Path(result["path"]).is_file() for result in done.values()
    )
    with safe_open(done["safetensors"]["path"], "pt") as file:
        assert (
            json.loads(file.metadata()["network"])["name"] == words[0]
            and json.loads(file.metadata()["physics"])["sigma"] == 25
        )


def test_a_network_of_pairs_is_exported_though_its_camera_measures_nothing():
    torch.save(
        {
            "params": build_network(
                {"name": "rrdbnet", "c": 3, "channels": 4, "blocks": 1, "growth": 2}
            ).state_dict()
        },
        "large.pth",
    )
    done = call(predict, "--checkpoint", "large.pth", "--export", "safetensors")["exports"][
        "safetensors"
    ]
    assert done["distance"] == 0 and Path(done["path"]).is_file()


def test_an_export_that_gives_other_images_is_refused_and_leaves_no_file(monkeypatch):
    scores = call(main_unet, "--cr", "0.25", *TINY)
    monkeypatch.setattr(
        export,
        "as_safetensors",
        lambda restored, example, path: (path.write_text("") and None) or (lambda x: x + 1),
    )
    with pytest.raises(UserError, match="output differs by up to"):
        call(predict, "--checkpoint", scores["export"], "--export", "safetensors")
    assert not [path for path in Path("results/predict").rglob("*") if path.is_file()]


@pytest.mark.parametrize("network", ["unet", "drunet"])
def test_counts_of_pairs_bring_their_noise_level_with_them(network, tmp_path):
    words = ["--cr", "0.25", "--photons", "20", "--dark", "5", "--dark_noise", "2", "--gain", "3"]
    scores = call(main_unet, *words, *TINY, "--network", network)
    opened = checkpoint.restore(scores["export"])
    x = torch.from_numpy(np.stack([scene(seed=seed) / 255 for seed in range(2)])).float()[:, None]
    counts, alpha = opened.physics.count_photons(x, torch.Generator().manual_seed(0))
    values, variance = opened.physics.values_of_counts(counts, alpha)
    y = opened.physics.place_values(values.float(), variance.float())
    with torch.no_grad():
        direct = opened.network(opened.physics.first_image(y))

    def restored(array, *words):
        np.save("y.npy", array)
        words = ["--checkpoint", scores["export"], "--measurements", "y.npy", *words]
        return np.load(call(predict, *words)["folder"] + "/reconstructions.npy")

    pairs = counts[:, 0].flatten(1).numpy()  # y+ y- y+ y- ...
    assert np.allclose(restored(pairs), direct, atol=1e-5)
    calibration = {"dark": 5.0, "dark_noise": 2.0, "gain": 6.0}  # of twice the gain
    Path("c.json").write_text(json.dumps(calibration))
    doubled = 2 * (counts - 5) + 5
    doubled = restored(doubled[:, 0].flatten(1).numpy(), "--calibration", "c.json")
    assert np.allclose(doubled, direct, atol=0.02)  # but for the share of the dark noise
    if network == "drunet":
        with pytest.raises(UserError, match="give the counts of pairs"):
            restored(values[:, 0].numpy())
    else:
        assert np.allclose(restored(values[:, 0].numpy()), direct, atol=1e-5)
