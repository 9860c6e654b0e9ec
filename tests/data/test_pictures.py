"""Picture files as viewers show them: turned by their EXIF orientation, transparent pixels over white."""

import warnings

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps
from test_scripts import call

import main_classify
import main_unet
import predict
from core.errors import UserError
from core.registry import LABELLED
from data.images import UPRIGHT, check_image, open_image, read_picture
from data.splits import SPLITS
from data_loader import Request, build_splits

SIZE = (18, 26)  # height and width
INVERSE = {6: 8, 8: 6}  # of the orientations, which else undo themselves
EXACT = {".png": {}, ".tif": {}, ".webp": {"lossless": True}, ".jpg": {}}


def exif_of(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def picture(seed, size=SIZE):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def lying(image, orientation):
    """The picture as a camera stores it that was held in another way."""
    return image.transpose(UPRIGHT[INVERSE.get(orientation, orientation)])


def write(path, image, orientation=None):
    """A picture that looks like this one, stored as it is or lying."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if orientation is None:
        image.save(path)
    else:
        lying(image, orientation).save(path, exif=exif_of(orientation))


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_pillow_turns_it(orientation, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    picture(0).save(path, exif=exif_of(orientation), **EXACT[suffix])
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(
        (read_picture(path, 3) * 255).round().numpy(), expected.transpose(2, 0, 1)
    )
    assert check_image(path) == expected.shape[1::-1]


def test_a_damaged_orientation_turns_nothing_and_says_nothing(tmp_path, recwarn):
    whole = exif_of(6).tobytes()
    warnings.simplefilter("always")
    for k in range(6, len(whole)):
        picture(0).save(tmp_path / f"{k}.png", exif=whole[:k])
        height_and_width = read_picture(tmp_path / f"{k}.png", 1).shape[1:]
        assert check_image(tmp_path / f"{k}.png") == height_and_width[::-1]
    assert not recwarn.list


def folder(root, orientation):
    for k in range(10):
        write(root / f"{k}.png", picture(k), orientation)
    return Request("folder", 16, 3, str(root), crop="none")


def whole(root, orientation):
    return folder(root, orientation)._replace(crop="whole", n=18)


def class_folder(root, orientation):
    for k in range(12):
        write(root / ("ant", "bee")[k % 2] / f"{k}.png", picture(k), orientation)
    return Request("folder", 16, 3, str(root), crop="none", labelled=True)


def paired(root, orientation):
    for k in range(10):
        write(root / "gt" / f"{k}.png", picture(k), orientation)
        write(root / "lq" / f"{k}.png", picture(100 + k))
        write(root / "more" / f"{k}.png", picture(200 + k), orientation)
    return Request("paired", 18, 3, gt=str(root / "gt"), lq=str(root / "lq"))


def hybrid(root, orientation):
    return paired(root, orientation)._replace(dataset="hybrid", unpaired=str(root / "more"))


@pytest.mark.parametrize("layout", [folder, whole, class_folder, paired, hybrid])
def test_a_dataset_of_lying_files_is_that_of_upright_ones(layout, tmp_path):
    """Also where a piece of the whole height is cut, for which a lying picture has too few pixels."""

    def items(orientation):
        request = layout(tmp_path / str(orientation), orientation)
        wanted = ("test",) if layout is whole else ("train", "val", "test")
        table = {"table": LABELLED} if request.labelled else {}
        splits = build_splits(request, wanted, augment_seed=0, **table)
        return [images[i] for images in splits.values() for i in range(len(images))]

    found, expected = items(6), items(None)
    assert len(found) == len(expected)
    for ours, upright in zip(found, expected, strict=True):
        assert torch.equal(ours["image"], upright["image"])
        assert "seen" not in ours or torch.equal(ours["seen"], upright["seen"])


def test_a_prediction_stands_upright(tmp_path):
    words = ["--physics", "denoise", "--sigma", "5", "--n", "16", "--dataset", "digits"]
    few = ["--width", "4", "--limit_train", "8", "--limit_val", "8", "--steps", "1"]
    export = call(main_unet, *words, *few)["export"]
    write(tmp_path / "a.png", picture(0), 6)
    write(tmp_path / "b.png", picture(0))
    folder = call(predict, "--checkpoint", export, "a.png", "b.png")["folder"]
    a, b = (read_picture(tmp_path / folder / f"{name}.png", 1) for name in "ab")
    assert a.shape[1:] == SIZE and torch.equal(a, b)


def hidden(mode):
    """A picture of a mode whose pixels hide colours below every transparency, and what is seen over white, by numpy."""
    rng = np.random.default_rng(1)
    if mode == "I;16":
        array = rng.integers(0, 65536, SIZE, dtype=np.uint16)
        array[:, :9] = 700
        image = Image.fromarray(array)
        image.info["transparency"] = 700
        return image, np.where(array == 700, 255, array / 65535 * 255)[..., None].repeat(3, -1)
    array = rng.integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    array[:9, :, 3], array[9:12, :, 3] = 0, 255
    image = Image.fromarray(array, "RGBA")
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
    else:
        image = image.convert("RGB" if mode == "RGB" else "L").convert(mode)
        image.info["transparency"] = image.getpixel((20, 0))
    array = np.asarray(image.convert("RGBA"), dtype=np.float64)
    alpha = array[..., 3:] / 255
    assert (alpha == 0).any() and (alpha == 1).any()
    return image, alpha * array[..., :3] + (1 - alpha) * 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16"])
def test_transparent_pixels_lie_over_white(mode, tmp_path):
    image, expected = hidden(mode)
    image.save(tmp_path / "a.png", transparency=image.info.get("transparency"))
    found = read_picture(tmp_path / "a.png", 3) * 255
    assert np.abs(found.numpy().transpose(1, 2, 0) - expected).max() <= 1
    grey = read_picture(tmp_path / "a.png", 1)[0] * 255
    luma = expected @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey.numpy() - luma).max() <= 1.5
    request = Request("folder", 18, 3, crop="none")
    assert torch.equal(
        open_image(tmp_path / "a.png", request._replace(n=18), (0, 0, 18, 18)),
        found[:, :18, :18] / 255,
    )


def test_an_opaque_picture_keeps_its_pixels(tmp_path):
    picture(0).save(tmp_path / "rgb.png")
    picture(0).convert("RGBA").save(tmp_path / "rgba.png")
    for c in (1, 3):
        assert torch.equal(*(read_picture(tmp_path / f"{name}.png", c) for name in ("rgb", "rgba")))


def sized(root, sizes):
    """A folder of pictures of these heights and widths, or of classes of them."""
    for k, size in enumerate(sizes):
        write(root / "train" / ("ant", "bee")[k % 2] / f"{k:02d}.png", picture(k, size))
    return Request("folder", 32, 1, str(root))


@pytest.mark.parametrize("labelled", [False, True])
def test_a_picture_of_less_than_half_a_side_is_refused_or_left_out(labelled, tmp_path, capsys):
    request = sized(tmp_path, [(16, 40)] * 10 + [(40, 40)] * 10 + [(15, 40)])
    request = request._replace(labelled=labelled)
    table = {"table": LABELLED} if labelled else {}
    wanted = ("train", "val")
    message = r"20\.png is 40 x 15: it would be enlarged 2\.13 times to n 32, and at most 2 times"
    with pytest.raises(UserError, match=message + r" .*--on_bad_image skip"):
        build_splits(request, wanted, **table)
    skipping = request._replace(on_bad_image="skip")
    for _ in range(2):
        splits = build_splits(skipping, wanted, **table)
        assert sum(map(len, splits.values())) == 20 - 2 * labelled  # a tenth is for the test
    printed = capsys.readouterr().out
    assert printed.count("1 pictures are left out as broken or too small: ") == 2
    assert (
        printed.count(f"{tmp_path}: 10 of 20 pictures are smaller than n 32 and are enlarged") == 1
    )


def test_what_is_large_enough_is_not_mentioned(tmp_path, capsys):
    build_splits(sized(tmp_path, [(32, 40)] * 4), ("train", "val"))
    build_splits(Request("digits", 32))
    assert not capsys.readouterr().out


@pytest.mark.parametrize("dataset", ["paired", "whole"])
def test_a_picture_too_small_for_a_piece_is_left_out_too(dataset, tmp_path):
    request = paired(tmp_path, None)._replace(on_bad_image="skip")
    for name in ("gt", "lq"):
        write(tmp_path / name / "3.png", picture(3, (17, 40)))
    if dataset == "whole":
        request = Request("folder", 18, data_root=request.gt, crop="whole", on_bad_image="skip")
    assert (
        sum(map(len, build_splits(request, ("test",) if dataset == "whole" else SPLITS).values()))
        == 9
    )


def test_arrays_of_less_than_half_a_side_are_refused(tmp_path, capsys):
    arrays = {f"x_{name}": np.zeros((12, 16, 20, 3), np.uint8) for name in ("train", "test")}
    np.savez(tmp_path / "a.npz", **arrays)
    request = Request("npz", 33, 3, str(tmp_path / "a.npz"))
    with pytest.raises(UserError, match=r"x_train of .*a\.npz is 20 x 16: .* 2\.06 times to n 33"):
        build_splits(request)
    build_splits(request._replace(n=32))
    assert "x_test of " in (printed := capsys.readouterr().out) and printed.count("enlarged") == 2


def test_a_classifier_is_shown_no_picture_much_smaller_than_what_it_learnt_from(tmp_path, capsys):
    tiny = ["--width", "4", "--limit_train", "20", "--limit_val", "10", "--steps", "1"]
    export = call(main_classify, "--dataset", "digits", "--n", "16", *tiny)["export"]
    write(tmp_path / "a.png", picture(0, (9, 30)))
    call(predict, "--checkpoint", export, "a.png")
    assert "a.png: 1 of 1 pictures are smaller than n 16" in capsys.readouterr().out
    write(tmp_path / "a.png", picture(0, (7, 30)))
    with pytest.raises(UserError, match=r"a\.png is 30 x 7: it would be enlarged 2\.29 times"):
        call(predict, "--checkpoint", export, "a.png")


def test_a_folder_is_cut_into_tiles_of_full_and_half_size(tmp_path):
    sides = {"train/a.png": (18, 26), "train/b.png": (40, 16), "val/c.png": (16, 16)}
    for k, (name, size) in enumerate(sides.items()):
        write(tmp_path / name, picture(k, size))
    request = Request("folder", n=8, data_root=str(tmp_path), crop="tiles")
    splits = build_splits(request, wanted=("train", "val"))
    counts = {"a": 3 * 5 + 1 * 2, "b": 9 * 3 + 4 * 1, "c": 3 * 3 + 1}
    assert len(splits["train"]) == counts["a"] + counts["b"] and len(splits["val"]) == counts["c"]
    whole = np.asarray(picture(0, sides["train/a.png"]).convert("L"), dtype=np.float32) / 255
    seen = np.zeros_like(whole)
    for k, (y, x) in enumerate((y, x) for y in (0, 5, 10) for x in (0, 4, 9, 14, 18)):
        tile = splits["train"][k]["image"][0].numpy()
        np.testing.assert_allclose(tile, whole[y : y + 8, x : x + 8])
        seen[y : y + 8, x : x + 8] += 1
    assert seen.min() >= 1
    small = picture(0, sides["train/a.png"]).convert("L").resize((13, 9), Image.Resampling.BILINEAR)
    half = np.asarray(small, dtype=np.float32) / 255
    np.testing.assert_allclose(splits["train"][15]["image"][0].numpy(), half[:8, :8])
    assert splits["train"].name(0).endswith("a.png")


def test_tiles_need_pictures_of_their_size_and_a_folder(tmp_path):
    write(tmp_path / "train/a.png", picture(0))
    with pytest.raises(UserError, match="26 x 18, smaller than n 32"):
        build_splits(Request("folder", n=32, data_root=str(tmp_path), crop="tiles"))
    with pytest.raises(UserError, match="crop tiles: only the pictures of dataset 'folder'"):
        build_splits(Request("digits", crop="tiles"))


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("crop", ["none", "tiles", "whole"])
def test_pictures_of_sixteen_bits_keep_them(crop, c, tmp_path):
    deep = np.random.default_rng(0).integers(20000, 20500, (16, 16), dtype=np.uint16)
    for k in range(10):
        Image.fromarray(deep).save(tmp_path / f"{k}.png")
    test = build_splits(Request("folder", 16, c, str(tmp_path), crop=crop), ["test"])["test"]
    expected = torch.from_numpy(deep / np.float32(65535)).expand(c, 16, 16)
    torch.testing.assert_close(test[0]["image"], expected, atol=1e-6, rtol=0)


def test_pictures_of_sixteen_bits_are_resized_like_floats(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (32, 32), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    floats = torch.from_numpy(deep / np.float32(65535))[None, None]
    expected = torch.nn.functional.interpolate(floats, (16, 16), mode="bilinear", antialias=True)
    found = open_image(tmp_path / "a.png", Request(n=16))
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA"])
def test_an_uncompressed_tiff_is_turned_like_a_compressed_one(mode, orientation, tmp_path):
    grey = np.arange(24, dtype=np.uint8).reshape(6, 4) * 10
    array = grey.astype(np.uint16) * 257 if mode == "I;16" else grey
    if mode.startswith("RGB"):
        array = np.dstack([grey] * 3 + [np.full_like(grey, 255)] * (mode == "RGBA"))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for name, compression in (("plain", None), ("packed", "tiff_lzw")):
        path = tmp_path / f"{name}.tif"
        Image.fromarray(array).save(path, exif=exif, compression=compression)
        read = read_picture(path, 1)
        assert check_image(path) == (read.shape[2], read.shape[1])
        upright = UPRIGHT.get(orientation)
        expected = Image.fromarray(grey)
        expected = expected if upright is None else expected.transpose(upright)
        shown = torch.from_numpy(np.asarray(expected) / np.float32(255))
        torch.testing.assert_close(read[0], shown)
