"""Pairs of clean and degraded pictures: cut and turned alike, in one split, and seen as they are by every network."""

import csv

import numpy as np
import pytest
import torch
from doubles import batch_of, skip_training
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from test_scripts import call

import compare_models
import main_unet
import main_unet_dist
import test_UNet
from algo_functions import build_physics
from checkpoints import checkpoint
from core.errors import UserError
from data.batches import build_loader
from data_loader import Request, build_splits
from distill.feature import mse
from distill.task import Supervised
from models import build_network
from models.base import FirstImage
from physics.paired import Given

NET = [
    "--network",
    "dncnn",
    "--channels",
    "4",
    "--blocks",
    "2",
    "--n",
    "16",
    "--epochs",
    "1",
    "--batch_size",
    "8",
    "--lr",
    "0.02",
]


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def degraded(array):
    return 255 - array // 2


def make(root, count=20, prefix="", size=(22, 27), seed=0):
    """`count` pairs, lq a pointwise function of gt, and as many clean pictures of other content."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        array = rng.integers(0, 256, size, dtype=np.uint8)
        write(root / "gt" / f"{prefix}{k:02d}.png", array)
        write(root / "lq" / f"{prefix}{k:02d}.png", degraded(array))
        write(root / "more" / f"{prefix}{k:02d}.png", rng.integers(0, 256, size, dtype=np.uint8))
    return Request("paired", 16, 1, gt=str(root / "gt"), lq=str(root / "lq"))


@pytest.fixture
def pairs(tmp_path):
    return make(tmp_path)


def is_degraded(item):
    clean = (item["image"] * 255).round().numpy().astype(np.uint8)
    return np.array_equal(
        (item["degraded"] * 255).round().numpy().astype(np.uint8), degraded(clean)
    )


def gets(splits, split, epoch=0):
    splits[split].epoch = epoch
    return [splits[split][i] for i in range(len(splits[split]))]


def files(images):
    return {images.source.images[k].args[0].clean for k in range(len(images))}


def mixture(request, share=0.5, **more):
    return request._replace(
        dataset="hybrid", unpaired=str(request.gt).replace("gt", "more"), paired_share=share, **more
    )


class TestPieces:
    def test_are_cut_and_turned_alike_in_both_pictures(self, pairs):
        splits = build_splits(pairs, augment_seed=1)
        for split in splits:
            assert all(
                is_degraded(item) and item["paired"] and item["image"].shape == (1, 16, 16)
                for item in gets(splits, split)
            )

    def test_of_training_come_from_every_place_and_turn_and_the_epoch_decides(self, tmp_path):
        array = np.arange(18 * 18, dtype=np.uint16).reshape(18, 18)
        coded = np.stack([array // 256, array % 256, array * 0], axis=-1).astype(np.uint8)
        for k in range(10):
            write(tmp_path / "gt" / f"{k}.png", coded)
            write(tmp_path / "lq" / f"{k}.png", degraded(coded))
        train = build_splits(
            Request("paired", 16, 3, gt=str(tmp_path / "gt"), lq=str(tmp_path / "lq")),
            augment_seed=0,
        )
        passes = [gets(train, "train", epoch) for epoch in range(60)]
        assert all(is_degraded(item) for items in passes for item in items)
        code = [(255 * item["image"]).round().int() for items in passes for item in items]
        corners = {
            (
                256 * c[0, 0, 0] + c[1, 0, 0],
                256 * c[0, -1, -1] + c[1, -1, -1],
                256 * c[0, 0, -1] + c[1, 0, -1],
            )
            for c in code
        }
        corners = {tuple(int(v) for v in corner) for corner in corners}
        assert len(corners) == 9 * 8, "nine places, eight symmetries"
        again = gets(train, "train", 3)
        assert all(
            torch.equal(a["image"], b["image"]) for a, b in zip(again, passes[3], strict=True)
        )
        assert not all(
            torch.equal(a["image"], b["image"]) for a, b in zip(again, passes[4], strict=True)
        )

    def test_of_validation_and_test_are_the_central_ones(self, pairs):
        splits = build_splits(pairs, augment_seed=1)
        for split in ("val", "test"):
            for i, item in enumerate(gets(splits, split)):
                with Image.open(splits[split].source.images[i].args[0].clean) as image:
                    expected = np.asarray(image)[3:19, 5:21]
                assert np.array_equal((255 * item["image"][0]).round().numpy(), expected)


class TestSplits:
    @pytest.mark.parametrize("prefix", ["", "deep/"])
    def test_share_no_picture(self, tmp_path, prefix):
        found = [files(images) for images in build_splits(make(tmp_path, prefix=prefix)).values()]
        assert [len(names) for names in found] == [16, 2, 2] and len(set.union(*found)) == 20

    def test_keep_all_pairs_of_a_clean_picture_together(self, tmp_path, pairs):
        for k in range(20):
            write(tmp_path / "lq" / f"again_{k:02d}.png", np.zeros((22, 27), np.uint8))
        (tmp_path / "list.txt").write_text(
            "".join(f"{k:02d}.png, {k:02d}.png\n{k:02d}.png,again_{k:02d}.png\n" for k in range(20))
        )
        splits = build_splits(pairs._replace(pairs=str(tmp_path / "list.txt")))
        found = [files(images) for images in splits.values()]
        assert [len(images) for images in splits.values()] == [32, 4, 4] and len(
            set.union(*found)
        ) == sum(map(len, found)) == 20

    def test_named_folders_are_kept_and_validation_comes_out_of_training(self, tmp_path):
        make(tmp_path, 10, "train/")
        splits = build_splits(make(tmp_path, 3, "test/", seed=1))
        assert [len(images) for images in splits.values()] == [9, 1, 3]
        assert {path.parent.name for path in files(splits["test"])} == {"test"}

    def test_do_not_depend_on_the_seed(self, pairs):
        a, b = (build_splits(pairs, augment_seed=seed) for seed in (0, 1))
        assert all(torch.equal(a[split].stack(), b[split].stack()) for split in a)

    def test_a_list_says_which_pictures_belong_together(self, tmp_path, pairs):
        for k in range(20):
            (tmp_path / "lq" / f"{k:02d}.png").rename(tmp_path / "lq" / f"dark_{k:02d}.png")
        with pytest.raises(
            UserError, match=r"00\.png has no picture of the same name in .*; 0 pairs match"
        ):
            build_splits(pairs)
        (tmp_path / "list.txt").write_text(
            "\n" + "".join(f"{k:02d}.png, dark_{k:02d}.png\n" for k in range(12))
        )
        splits = build_splits(pairs._replace(pairs=str(tmp_path / "list.txt")))
        assert sum(len(images) for images in splits.values()) == 12 and all(
            is_degraded(item) for item in gets(splits, "train")
        )


class TestMixture:
    @pytest.mark.parametrize("share, total, paired", [(0.5, 40, 20), (0.2, 25, 5), (0.9, 200, 180)])
    def test_the_share_holds_and_pairs_are_repeated_evenly(self, pairs, share, total, paired):
        train = build_splits(mixture(pairs, share), augment_seed=0)["train"]
        items = [train[i] for i in range(len(train))]
        assert len(items) == total and sum(item["paired"] for item in items) == paired
        keys = [train.source.images[k].args[0] for k in range(total)]
        times = [
            sum(key.clean == path for key in keys)
            for path in {key.clean for key in keys if key.degraded}
        ]
        assert max(times) - min(times) <= 1 and sum(times) == paired
        assert len({key.clean for key in keys if not key.degraded}) == total - paired == 20
        assert all(
            is_degraded(item) if item["paired"] else not item["degraded"].any() for item in items
        )

    @pytest.mark.parametrize("limit", [4, 8, 12, 20])
    def test_the_share_holds_under_a_limit(self, pairs, limit):
        images = build_splits(mixture(pairs, 0.25, limit_train=limit))["train"]
        assert len(images) == len(images.source.images) == limit
        assert sum(images[i]["paired"] for i in range(limit)) == limit // 4

    def test_a_list_names_some_of_the_clean_pictures(self, tmp_path, pairs):
        """From its own folder on, or from the root; a comma is part of a name."""
        write(tmp_path / "more" / "a, b.png", np.zeros((22, 27), np.uint8))
        (tmp_path / "lists").mkdir()
        absolute = tmp_path / "more" / "07.png"
        lines = ["../more/03.png", "", " ../more/a, b.png ", str(absolute)]
        (tmp_path / "lists" / "some.txt").write_text("\n".join(lines))
        request = mixture(pairs)._replace(unpaired=str(tmp_path / "lists" / "some.txt"))
        train = build_splits(request)["train"]
        keys = [train.source.images[k].args[0] for k in range(len(train))]
        found = {key.clean.resolve() for key in keys if key.degraded is None}
        assert found == {tmp_path / "more" / name for name in ("03.png", "a, b.png", "07.png")}
        assert len(train) == 6

    def test_validation_and_test_are_pairs(self, pairs):
        splits, alone = build_splits(mixture(pairs)), build_splits(pairs)
        assert all(torch.equal(splits[s].stack(), alone[s].stack()) for s in ("val", "test"))
        assert all(is_degraded(item) for s in ("val", "test") for item in gets(splits, s))

    def test_a_held_out_picture_is_not_trained_on(self, pairs):
        with pytest.raises(UserError, match="is a validation or test picture"):
            build_splits(mixture(pairs)._replace(unpaired=pairs.gt))

    def test_a_network_sees_the_degraded_picture_or_what_the_camera_measures(self, pairs):
        camera = build_physics(
            {
                "name": "spc",
                "n": 16,
                "c": 1,
                "cr": 0.25,
                "ordering": "xy",
                "x0": "adjoint",
                "awgn_snr": None,
            }
        )
        batch = next(iter(build_loader(build_splits(mixture(pairs), augment_seed=0)["train"], 40)))
        x0, measured = camera.observe_batch(batch), camera.observe(batch.image)
        for i in range(40):
            assert torch.allclose(
                x0[i], batch.degraded[i] if batch.paired[i] else measured[i], atol=1e-6
            )
        task = Supervised(FirstImage(1), camera, mse)
        assert torch.isclose(task(batch)["loss"], (x0 - batch.image).square().mean())

    def test_a_camera_of_pairs_measures_nothing(self, images):
        for batch in (
            batch_of(images[:2]),
            batch_of(images[:2], degraded=images[:2], paired=torch.tensor([True, False])),
        ):
            with pytest.raises(UserError, match="measures nothing"):
                Given({"name": "given", "n": 16, "c": 1}).observe_batch(batch)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda root, r: r._replace(gt="nowhere"), "--gt nowhere: no such folder"),
        (lambda root, r: r._replace(lq=None), "which folder. give --lq DIR"),
        (lambda root, r: r._replace(n=23), r"gt/\d\d\.png is 27 x 22, smaller than n 23"),
        (lambda root, r: r._replace(crop="none"), "crop none: .* cut into pieces"),
        (
            lambda root, r: (root / "lq" / "07.png").unlink(),
            r"gt/07\.png has no picture of the same name in .*lq; 19 pairs match",
        ),
        (
            lambda root, r: (root / "gt" / "07.png").unlink(),
            r"lq/07\.png has no picture of the same name in .*gt; 19 pairs match",
        ),
        (
            lambda root, r: write(root / "gt" / "07.bmp", np.zeros((22, 27), np.uint8)),
            r"gt/07\.png and .*gt/07\.bmp have the same name",
        ),
        (
            lambda root, r: write(root / "lq" / "07.png", np.zeros((27, 22), np.uint8)),
            r"gt/07\.png is 27 x 22 and .*lq/07\.png is 22 x 27",
        ),
        (
            lambda root, r: (root / "lq" / "07.png").write_text("text"),
            r"07\.png is not a readable image",
        ),
        (
            lambda root, r: r._replace(gt=str(root / "void"), lq=str(root / "void")),
            "no pictures in .*void",
        ),
        (lambda root, r: r._replace(pairs="nowhere.txt"), r"--pairs nowhere\.txt: no such file"),
        (lambda root, r: r._replace(pairs=str(root / "void" / "empty.txt")), "lists no pairs"),
        (
            lambda root, r: r._replace(pairs=str(root / "void" / "three.txt")),
            r"line 1: 'a, b, c' is neither",
        ),
        (
            lambda root, r: r._replace(pairs=str(root / "void" / "missing.txt")),
            r"gt/99\.png does not exist",
        ),
        (
            lambda root, r: r._replace(pairs=str(root / "void" / "twice.txt")),
            r"03\.png is in 2 pairs",
        ),
        (
            lambda root, r: r._replace(dataset="hybrid", unpaired="nowhere"),
            "--unpaired nowhere: no such folder",
        ),
        (
            lambda root, r: r._replace(dataset="hybrid", unpaired=str(root / "void")),
            "no training pictures in --unpaired",
        ),
        (lambda root, r: mixture(r, 1.0), "paired_share 1: a mixture needs"),
        (
            lambda root, r: mixture(r)._replace(unpaired=str(root / "void" / "empty.txt")),
            r"--unpaired .*empty\.txt lists no pictures",
        ),
        (
            lambda root, r: mixture(r)._replace(unpaired=str(root / "void" / "missing.txt")),
            r"--unpaired .*missing\.txt: .*void/99\.png does not exist",
        ),
        (
            lambda root, r: mixture(r)._replace(unpaired=str(root / "void" / "again.txt")),
            r"--unpaired .*again\.txt: .*more/01\.png is listed 2 times",
        ),
        (
            lambda root, r: mixture(r)._replace(unpaired=str(root / "gt" / "00.png")),
            r"--unpaired .*00\.png cannot be read",
        ),
    ],
)
def test_wrong_inputs_are_named(tmp_path, pairs, spoil, message):
    (tmp_path / "void").mkdir()
    for name, text in (
        ("empty", "\n"),
        ("three", "a, b, c"),
        ("missing", "99.png"),
        ("again", "../more/01.png\n../void/../more/01.png"),
        ("twice", "01.png, 03.png\n03.png"),
    ):
        (tmp_path / "void" / f"{name}.txt").write_text(text)
    changed = spoil(tmp_path, pairs)
    with pytest.raises(UserError, match=message):
        build_splits(changed if isinstance(changed, Request) else pairs)


def flags_of(request, dataset="paired"):
    more = ["--unpaired", str(request.gt).replace("gt", "more")] if dataset == "hybrid" else []
    return ["--dataset", dataset, "--gt", request.gt, "--lq", request.lq, *more]


def oracle(request):
    """PSNR of the degraded test pictures, by another library."""
    test = build_splits(request)["test"]
    return np.mean(
        [
            peak_signal_noise_ratio(item["image"].numpy(), item["degraded"].numpy(), data_range=1)
            for item in (test[i] for i in range(len(test)))
        ]
    )


CAMERAS = {"paired": ["--physics", "given"], "hybrid": ["--cr", "0.25", "--awgn_snr", "30"]}


@pytest.mark.parametrize("dataset", CAMERAS)
def test_whole_command_lines(tmp_path, pairs, dataset):
    data = [*flags_of(pairs, dataset), *CAMERAS[dataset], *NET]
    teacher = call(main_unet, *data, "--epochs", "3")
    student = call(main_unet_dist, *data, "--teacher", teacher["checkpoint"], "--save_images", "2")
    for scores in (teacher, student):
        rows = call(test_UNet, "--checkpoint", scores["checkpoint"], *flags_of(pairs, dataset))[
            "rows"
        ]
        assert [row["estimate"] for row in rows[:-1]] == ["back-projection"] and rows[0][
            "physics"
        ] == "given"
        assert abs(rows[0]["PSNR"] - oracle(pairs)) < 1e-4
        assert rows[-1]["PSNR"] != rows[0]["PSNR"]
    compared = call(
        compare_models,
        teacher["checkpoint"],
        student["checkpoint"],
        *flags_of(pairs, dataset),
        "--runs",
        "2",
    )["rows"]
    assert abs(compared[1]["PSNR"] - rows[-1]["PSNR"]) < 1e-4
    with open("results/test/psnr_results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert all(
        abs(float(row["PSNR Back-projection"]) - oracle(pairs)) < 1e-4 and not row["PSNR LMMSE"]
        for row in table
    )
    assert teacher["val_psnr"] > oracle(pairs), "a network learns the pointwise function a little"


DRUNET = ["--network", "drunet", "--width", "2", "--n", "16", "--batch_size", "8", "--steps", "1"]
NOISY = ["--physics", "denoise", "--sigma", "10"]


@pytest.mark.parametrize(
    "dataset, words",
    [("hybrid", ["--physics", "given", *NET]), ("digits", ["--physics", "given", *NET])],
)
def test_a_camera_that_measures_nothing_goes_with_pairs_alone(pairs, tmp_path, dataset, words):
    with pytest.raises(
        UserError,
        match=f"dataset '{dataset}' with physics 'given': choose a physics that can measure its clean pictures",
    ):
        call(
            main_unet,
            *(flags_of(pairs, dataset) if dataset == "hybrid" else ["--dataset", dataset]),
            *words,
        )
    assert not (tmp_path / "results").exists()


def test_a_network_that_looks_at_the_noise_is_not_trained_on_pairs_whose_noise_is_unknown(
    pairs, tmp_path
):
    with pytest.raises(
        UserError, match="this network reads the noise level, which is unknown for pairs"
    ):
        call(main_unet, *flags_of(pairs, "hybrid"), *NOISY, *DRUNET)
    assert not (tmp_path / "results").exists()


def test_flags_that_do_not_go_with_the_data_are_one_line(pairs, capsys):
    for words, message in (
        (
            [*flags_of(pairs), "--cr", "0.1"],
            "dataset 'paired' has its own degraded pictures: it needs --physics given, not spc",
        ),
        ([*flags_of(pairs), *NOISY], "it needs --physics given, not denoise"),
        (
            ["--dataset", "digits", "--gt", "x", "--cr", "0.1"],
            "dataset 'digits' does not read --gt: it reads no flag of its own",
        ),
        (["--dataset", "paired", "--physics", "given", "--gt", "x"], "dataset 'paired' needs --lq"),
        (
            [*flags_of(pairs), "--physics", "given", "--paired_share", "0.5"],
            "dataset 'paired' does not read --paired_share",
        ),
    ):
        with pytest.raises(SystemExit) as end:
            main_unet.parse(words)
        error = capsys.readouterr().err
        assert end.value.code == 2 and message in error and error.count("\n") == 1


def test_what_learnt_from_pairs_alone_is_not_tested_and_does_not_teach_elsewhere(pairs):
    of_pairs = call(main_unet, *flags_of(pairs), "--physics", "given", *NET)["checkpoint"]
    with pytest.raises(UserError, match="it needs the pairs"):
        call(test_UNet, "--checkpoint", of_pairs, "--dataset", "digits")
    with pytest.raises(UserError, match="choose a physics that can measure"):
        call(main_unet_dist, "--dataset", "digits", "--cr", "0.1", "--teacher", of_pairs, *NET)


def test_a_denoiser_meets_pairs_as_they_are_and_teaches_on_them(pairs, monkeypatch):
    denoiser = call(main_unet, *flags_of(pairs, "hybrid"), *NOISY, *NET)["checkpoint"]
    rows = call(test_UNet, "--checkpoint", denoiser, *flags_of(pairs))["rows"]
    assert [row["physics"] for row in rows] == ["given", "given"] and abs(
        rows[0]["PSNR"] - oracle(pairs)
    ) < 1e-4
    network, test = checkpoint.restore(denoiser).network, build_splits(pairs)["test"]
    with torch.no_grad():
        outputs = network(torch.stack([item["degraded"] for item in gets({"test": test}, "test")]))
    expected = [
        peak_signal_noise_ratio(test[i]["image"].numpy(), outputs[i].numpy(), data_range=1)
        for i in range(len(test))
    ]
    assert abs(rows[1]["PSNR"] - np.mean(expected)) < 1e-4
    seen = skip_training(monkeypatch)
    call(main_unet_dist, *flags_of(pairs), "--physics", "given", "--teacher", denoiser, *NET)
    batch = next(iter(build_loader(build_splits(pairs, augment_seed=0)["train"], 4)))
    assert all(
        torch.equal(x0, batch.degraded)
        for x0 in (seen[0].observe(batch, None)[0], *seen[0].observe(batch, None)[1])
    )


def test_a_denoiser_that_looks_at_the_noise_neither_meets_pairs_nor_teaches_on_them(pairs):
    reported = call(
        main_unet, "--dataset", "digits", "--limit_train", "8", "--limit_val", "4", *NOISY, *DRUNET
    )["checkpoint"]
    for script, words in (
        (test_UNet, ["--checkpoint", reported]),
        (main_unet_dist, ["--physics", "given", "--teacher", reported, *NET]),
    ):
        with pytest.raises(
            UserError, match=r"^physics 'denoise': this network reads the noise level.*$"
        ):
            call(script, *flags_of(pairs), *words)


def test_basicsrs_large_network_is_tested_on_pairs(pairs):
    network = build_network(
        {"name": "rrdbnet", "c": 1, "channels": 4, "blocks": 1, "growth": 2, "residual": False}
    )
    torch.save({"params": network.state_dict()}, "large.pth")
    rows = call(test_UNet, "--checkpoint", "large.pth", "--n", "16", *flags_of(pairs))["rows"]
    assert [row["physics"] for row in rows] == ["given", "given"] and abs(
        rows[0]["PSNR"] - oracle(pairs)
    ) < 1e-4
