"""Broken pictures are named before anything is trained, or left out and counted; strange ones that are whole come out right."""

import gc
import gzip
import io
import multiprocessing
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_paired import make
from test_scripts import call

import main_classify
import main_unet
import predict
import progressive_distill
import visualize_mask_spc
from checkpoints import checkpoint
from cli import flags
from core.errors import UserError
from core.registry import LABELLED
from data import images
from data.batches import build_loader
from data.images import open_image, read_picture
from data_loader import Request, build_splits

SHORT = ["--n", "16", "--epochs", "1", "--batch_size", "8", "--width", "4"]


def noise(seed, size=(22, 27)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def cut_off(form):
    def write(path):
        noise(0).save(path, form)
        path.write_bytes(path.read_bytes()[:-200])

    return write


def bomb(path):
    """A PNG of a few bytes that says it has 60,000 x 60,000 pixels."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "cut PNG": cut_off("PNG"),
    "cut JPEG": cut_off("JPEG"),
    "cut TIFF": cut_off("TIFF"),
    "text": lambda path: path.write_text("this is text"),
    "bomb": bomb,
    "no scale": lambda path: Image.fromarray(np.zeros((22, 27), np.float32)).save(path, "TIFF"),
    "a folder": lambda path: path.mkdir(),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
}


def folder(root):
    for k in range(20):
        write(root / f"{k:02d}.png", k)
    return root / "07.png", main_unet, ["--dataset", "folder", "--data_root", root, "--cr", "0.25"]


def write(path, k):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(k).save(path)


def class_folder(root):
    for k in range(20):
        write(root / "train" / ("ant", "bee")[k % 2] / f"{k:02d}.png", k)
    return (
        root / "train" / "bee" / "07.png",
        main_classify,
        ["--dataset", "folder", "--data_root", root],
    )


def paired(root):
    request = make(root, size=(22, 27))
    return (
        root / "lq" / "07.png",
        main_unet,
        ["--dataset", "paired", "--gt", request.gt, "--lq", request.lq, "--physics", "given"],
    )


def hybrid(root):
    request = make(root, size=(22, 27))
    words = [
        "--dataset",
        "hybrid",
        "--gt",
        request.gt,
        "--lq",
        request.lq,
        "--unpaired",
        root / "more",
        "--cr",
        "0.25",
    ]
    return root / "more" / "07.png", main_unet, words


DATASETS = {f.__name__: f for f in (folder, class_folder, paired, hybrid)}


def ran(script, words, monkeypatch, capsys):
    """The exit code of a script's entry point, and its standard output and error."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, words)])
    code = 0
    try:
        flags.run(script.parse, script.main)
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_picture_is_named_and_stops_or_is_left_out_and_counted(
    dataset, kind, tmp_path, monkeypatch, capsys
):
    path, script, words = DATASETS[dataset](tmp_path / "data")
    words = [*words, *SHORT, "--dry_run"]
    code, before, _ = ran(script, words, monkeypatch, capsys)
    assert code == 0 and "left out" not in before
    path.unlink()
    BROKEN[kind](path)
    code, _, error = ran(script, words, monkeypatch, capsys)
    assert (
        code == 2
        and error.count("\n") == 1
        and f"{path} is not a readable image" in error
        and "--on_bad_image skip" in error
    ), error
    code, printed, error = ran(script, [*words, "--on_bad_image", "skip"], monkeypatch, capsys)
    assert (
        code == 0
        and f"1 pictures are left out as broken or too small: {path}" in printed
        and printed.count("left out") == 1
    ), error
    assert not Path("results").exists()


def test_the_others_stay_in_their_splits(tmp_path):
    root = folder(tmp_path)[0].parent
    request = Request("folder", 16, 3, str(root), on_bad_image="skip")
    before = {split: images.source.images.keys for split, images in build_splits(request).items()}
    for path in (before["train"][3], before["val"][0]):
        path.write_text("text")
    after = {split: images.source.images.keys for split, images in build_splits(request).items()}
    assert after == {
        split: [path for path in keys if path.read_bytes() != b"text"]
        for split, keys in before.items()
    }
    assert [len(keys) for keys in after.values()] == [15, 1, 2]


def test_labels_stay_with_their_pictures_and_pairs_together(tmp_path):
    for dataset in (class_folder, paired):
        dataset(tmp_path / dataset.__name__)[0].write_text("text")
    trees = build_splits(
        Request(
            "folder", 16, 3, str(tmp_path / "class_folder"), on_bad_image="skip", labelled=True
        ),
        table=LABELLED,
    )
    for split in trees.values():
        assert [path.parent.name for path in split.source.images.keys] == [
            split.classes[label] for label in split.labels
        ]
    root = tmp_path / "paired"
    pairs = build_splits(
        Request("paired", 16, 3, gt=str(root / "gt"), lq=str(root / "lq"), on_bad_image="skip")
    )
    found = [images.source.images.keys for images in pairs.values()]
    assert sum(map(len, found)) == 19 and all(
        pair.clean.name == pair.degraded.name != "07.png" for keys in found for pair in keys
    )


def test_many_are_counted_and_a_split_of_broken_ones_alone_is_refused(tmp_path, capsys):
    paths = [tmp_path / split / f"{k}.png" for split in ("train", "val", "test") for k in range(6)]
    for k, path in enumerate(paths):
        write(path, k)
    request = Request("folder", 16, 3, str(tmp_path), on_bad_image="skip")
    for path in paths[:5]:
        path.write_text("text")
    assert [len(images) for images in build_splits(request).values()] == [1, 6, 6]
    assert (
        capsys.readouterr().out
        == f"5 pictures are left out as broken or too small: {', '.join(map(str, paths[:3]))}, ...\n"
    )
    for path in paths[6:12]:
        path.write_text("text")
    with pytest.raises(
        UserError, match="dataset 'folder': no val picture is left, all 6 are broken or too small"
    ):
        build_splits(request)


def test_whole_pictures_and_those_of_prediction_are_read_before_the_first_is_used(
    tmp_path, monkeypatch, capsys
):
    path, _, words = folder(tmp_path / "data")
    export = call(main_unet, *words, *SHORT)["export"]
    cut_off("PNG")(path)
    code, _, error = ran(predict, ["--checkpoint", export, path.parent], monkeypatch, capsys)
    assert (
        code == 2
        and error == f"predict.py: error: {error.split('error: ', 1)[1]}"
        and f"{path} is not a readable image" in error
    )
    assert not Path("results/predict").exists()
    request = Request("folder", 16, 1, str(path.parent), crop="whole")
    with pytest.raises(UserError, match=r"07\.png is not a readable image"):
        build_splits(request, wanted=("test",))
    assert len(build_splits(request._replace(on_bad_image="skip"), wanted=("test",))["test"]) == 19


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_goes_away_during_training_is_one_line(
    workers, tmp_path, monkeypatch, capsys
):
    path, script, words = folder(tmp_path / "data")
    monkeypatch.setattr(main_unet, "main", lambda args: deleting(args, path, workers))
    code, _, error = ran(script, [*words, *SHORT], monkeypatch, capsys)
    assert code == 2 and error.count("\n") == 1 and f"{path} is not a readable image" in error, (
        error
    )


def test_workers_end_with_the_error_of_one_of_them(tmp_path):
    """Else the garbage collector waits five seconds for each."""
    path, _, words = folder(tmp_path / "data")
    with pytest.raises(UserError):
        deleting(main_unet.parse([str(word) for word in (*words, *SHORT)]), path, 2)
    began = time.perf_counter()
    gc.collect()
    assert time.perf_counter() - began < 4 and not multiprocessing.active_children()


def deleting(args, path, workers):
    train = build_splits(Request("folder", 16, 1, args.data_root))["train"]
    path = train.source.images.keys[0] if path not in train.source.images.keys else path
    path.unlink()
    list(build_loader(train, 4, workers, shuffle_seed=0))


def test_a_picture_is_decoded_once_unless_it_changes(tmp_path):
    folder(tmp_path)
    request = Request("folder", 16, 3, str(tmp_path))
    build_splits(request)
    known = images.decoded_size.cache_info()
    build_splits(request)
    assert images.decoded_size.cache_info().misses == known.misses
    (tmp_path / "07.png").write_text("text")
    with pytest.raises(UserError, match=r"07\.png"):
        build_splits(request)


@pytest.mark.parametrize(
    "script, words, message",
    [
        (
            main_unet,
            ["--cr", "0.1", "--data_root", "x"],
            "dataset 'photos' does not read --data_root: it is for mnist, fashion_mnist",
        ),
        (
            main_unet,
            ["--cr", "0.1", "--dataset", "digits", "--download"],
            "dataset 'digits' does not read --download: it is for mnist",
        ),
        (
            main_unet,
            ["--cr", "0.1", "--dataset", "npz", "--data_root", "x.npz", "--download"],
            "dataset 'npz' does not read --download",
        ),
        (
            main_unet,
            ["--cr", "0.1", "--dataset", "npz", "--data_root", "x.npz", "--on_bad_image", "skip"],
            "does not read --on_bad_image: it is for folder",
        ),
        (
            main_unet,
            [
                "--dataset",
                "paired",
                "--gt",
                "a",
                "--lq",
                "b",
                "--physics",
                "given",
                "--data_root",
                "x",
            ],
            "'paired' does not read --data_root",
        ),
        (
            main_classify,
            ["--dataset", "digits", "--data_root", "x"],
            "dataset 'digits' does not read --data_root",
        ),
        (
            main_classify,
            ["--dataset", "folder", "--download"],
            "dataset 'folder' does not read --download: it is for mnist",
        ),
    ],
)
def test_a_flag_that_the_dataset_does_not_read_is_refused(
    script, words, message, monkeypatch, capsys
):
    code, _, error = ran(script, words, monkeypatch, capsys)
    assert (
        code == 2 and error.count("\n") == 1 and message in error and not any(Path().iterdir())
    ), error


def test_what_is_given_as_it_is_anyway_and_weights_to_fetch_are_accepted():
    assert main_unet.parse(
        ["--cr", "0.1", "--data_root", "data", "--on_bad_image", "stop"]
    ) == main_unet.parse(["--cr", "0.1"])
    words = [
        "--dataset",
        "digits",
        "--model",
        "resnet18",
        "--width",
        "64",
        "--pretrained",
        "--download",
    ]
    assert main_classify.parse(words).download


@pytest.mark.parametrize(
    "script, words",
    [
        (main_unet, ["--cr", "0.1"]),
        (main_unet, ["--cr", "0.1", "--x0", "lmmse"]),
        (main_unet, ["--cr", "0.1", "--ordering", "variance"]),
        (progressive_distill, ["--ladder", "0.5", "0.1"]),
        (main_classify, ["--physics", "spc", "--cr", "0.1"]),
        (visualize_mask_spc, ["--cr", "0.1"]),
    ],
)
def test_a_wrong_side_is_refused_before_archives_are_unpacked(
    script, words, tmp_path, monkeypatch, capsys
):
    raw = tmp_path / "d" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    with gzip.open(raw / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(b"anything")
    code, _, error = ran(
        script, [*words, "--dataset", "mnist", "--data_root", "d", "--n", "24"], monkeypatch, capsys
    )
    assert (
        code == 2
        and "power of two" in error
        and [path.name for path in raw.iterdir()] == ["train-images-idx3-ubyte.gz"]
    ), error


def npy(shape, kind="<f8"):
    """A short file whose header promises a shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": kind, "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + bytes(100)


@pytest.mark.parametrize(
    "content",
    [
        npy((10**12,)),
        npy((10**30,)),
        npy((2**33, 2**31)),
        npy((3,), "|O"),
        b"",
        b"text",
        npy((5, -1)),
    ],
    ids=range(7),
)
def test_arrays_that_are_objects_or_promise_what_is_not_there_are_one_line(
    content, tmp_path, monkeypatch, capsys
):
    export = call(
        main_unet,
        "--dataset",
        "digits",
        "--cr",
        "0.25",
        *SHORT,
        "--limit_train",
        "20",
        "--limit_val",
        "9",
    )["export"]
    Path("a.npy").write_bytes(content)
    with zipfile.ZipFile("a.npz", "w") as archive:
        for name in ("x_train", "x_test"):
            archive.writestr(f"{name}.npy", content)
    for script, words, message in (
        (
            predict,
            ["--checkpoint", export, "--measurements", "a.npy"],
            "measurements a.npy: neither a .npy array nor a table",
        ),
        (
            main_unet,
            ["--cr", "0.1", "--ordering", "file:a.npy"],
            "ordering 'file:a.npy' is not an .npy array",
        ),
        (
            main_unet,
            ["--cr", "0.1", "--dataset", "npz", "--data_root", "a.npz"],
            "a.npz cannot be read",
        ),
    ):
        code, _, error = ran(script, words, monkeypatch, capsys)
        expected = message if content or "npz" in message else "a.npy is an empty file"
        assert code == 2 and error.count("\n") == 1 and expected in error, error


STRANGE = ["a\nb", "\x1b[2Jb", "caf\udce9"]


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_names_with_control_characters_are_refused_and_written_out(
    name, tmp_path, monkeypatch, capsys
):
    path, script, words = folder(tmp_path / "pictures")
    path.rename(path.with_stem(name))
    shown = ascii(name)[1:-1]
    code, _, error = ran(script, [*words, *SHORT, "--dry_run"], monkeypatch, capsys)
    assert (
        code == 2 and error.count("\n") == 1 and shown in error and "control characters" in error
    ), error
    code, printed, _ = ran(
        script, [*words, *SHORT, "--dry_run", "--on_bad_image", "skip"], monkeypatch, capsys
    )
    assert code == 0 and shown in printed and name not in printed
    _, script, words = class_folder(tmp_path / "classes")
    (tmp_path / "classes" / "train" / "bee").rename(tmp_path / "classes" / "train" / name)
    code, _, error = ran(script, [*words, *SHORT], monkeypatch, capsys)
    assert code == 2 and error.count("\n") == 1 and shown in error, error


@pytest.mark.parametrize(
    "classes", [["ant", "b\nee"], ["ant", 3], "ab", {"ant": 1, "bee": 2}], ids=repr
)
def test_a_checkpoint_whose_classes_are_no_names_is_refused(classes, tmp_path, monkeypatch, capsys):
    _, script, words = class_folder(tmp_path / "classes")
    path = call(script, *words, *SHORT)["export"]
    content = checkpoint.read(path)
    checkpoint.write(
        Path("strange.pth"), content | {"network": content["network"] | {"classes": classes}}
    )
    code, _, error = ran(
        predict,
        ["--checkpoint", "strange.pth", tmp_path / "classes" / "train" / "ant"],
        monkeypatch,
        capsys,
    )
    assert code == 2 and error.count("\n") == 1 and "classes that are not names" in error, error


GREY = np.tile(np.array([[0, 64, 128, 255]], np.uint8).repeat(2, 1), (8, 1))
SCALED = {
    "16-bit PNG": lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(
        path.with_suffix(".png")
    ),
    "16-bit TIFF": lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(
        path.with_suffix(".tiff")
    ),
    "16-bit PGM": lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(
        path.with_suffix(".pgm")
    ),
    "16-bit TIFF, high byte first": lambda path: Image.frombytes(
        "I;16B", (8, 8), (GREY.astype(">u2") * 257).tobytes()
    ).save(path.with_suffix(".tiff")),
    "CMYK": lambda path: Image.merge(
        "CMYK", [Image.new("L", (8, 8))] * 3 + [Image.fromarray(255 - GREY)]
    ).save(path.with_suffix(".tiff")),
    "palette": lambda path: Image.fromarray(GREY).convert("P").save(path.with_suffix(".png")),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("kind", SCALED)
def test_good_pictures_of_other_kinds_come_out_on_their_scale(kind, c, tmp_path):
    SCALED[kind](tmp_path / "a")
    path = next(tmp_path.iterdir())
    expected = torch.from_numpy(GREY / 255).float().expand(c, 8, 8)
    images.check_image(path)
    for found in (open_image(path, Request(n=8, c=c)), read_picture(path, c)):
        assert torch.allclose(found, expected, atol=1.01 / 255), kind


def test_a_cmyk_jpeg_and_a_picture_of_one_pixel_are_good(tmp_path):
    Image.new("CMYK", (9, 9), (0, 0, 0, 128)).save(tmp_path / "a.jpg")
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "b.png")
    for path in tmp_path.iterdir():
        images.check_image(path)
    assert torch.allclose(
        open_image(tmp_path / "a.jpg", Request(n=8, c=3)), torch.tensor(127 / 255), atol=2 / 255
    )
    one = open_image(tmp_path / "b.png", Request(n=8, c=3))
    assert torch.equal(
        (255 * one).round(), torch.tensor([10.0, 20, 30]).view(3, 1, 1).expand(3, 8, 8)
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM"])
def test_what_is_damaged_anywhere_is_a_picture_or_one_line(form, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{form.lower()}"
    noise(0).save(path)
    whole = path.read_bytes()
    for k in range(60):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged if k % 2 else whole[: rng.integers(len(whole) - 20)])
        try:
            images.check_image(path)
            read_picture(path, 3)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        assert k % 2, f"cut at {path.stat().st_size} of {len(whole)} bytes"
