"""Images of one's own in arrays of one file."""

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat
from test_scripts import call

import main_classify
import main_unet
import test_UNet
from core.errors import UserError
from core.registry import LABELLED
from data.numbers import read_named
from data_loader import Request, build_splits

COUNT, N = 40, 12


def images(*shape):
    return np.random.default_rng(0).random((COUNT, *(shape or (N, N))), dtype=np.float32)


def write(path, **arrays):
    """A file of arrays in the form that its suffix names."""
    match Path(path).suffix:
        case ".npy":
            np.save(path, arrays["x"])
        case ".npz":
            np.savez(path, **arrays)
        case ".mat":
            savemat(path, arrays)
        case ".h5":
            with h5py.File(path, "w") as file:
                for name, values in arrays.items():
                    file[name] = values
    return path


def write_matlab_73(path, **arrays):
    """As MATLAB writes version 7.3: HDF5 behind a header of 512 bytes, with reversed axes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = values.transpose()
            file[name].attrs["MATLAB_class"] = np.bytes_("single")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with open(path, "r+b") as file:
        file.write(header.ljust(512, b"\0"))
    return path


def splits_of(path, n=N, c=1, labelled=False, **more):
    request = Request("array", n, c, str(path), labelled=labelled, **more)
    return build_splits(request, table=LABELLED) if labelled else build_splits(request)


def stack_all(splits):
    return torch.cat([split.stack() for split in splits.values()])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5", "7.3"])
def test_every_form_gives_the_same_images(tmp_path, suffix):
    x = images()
    if suffix == "7.3":
        path = write_matlab_73(tmp_path / "x.mat", x=x)
    else:
        path = write(tmp_path / f"x{suffix}", x=x)
    splits = splits_of(path)
    assert [len(split) for split in splits.values()] == [32, 4, 4]
    found = stack_all(splits).sort(dim=0).values
    expected = torch.from_numpy(x)[:, None].sort(dim=0).values
    assert torch.equal(found, expected)  # floats stay floats


@pytest.mark.parametrize(
    "x",
    [
        images(N, N, 3),
        np.moveaxis(images(N, N, 3), 3, 1),
        (images(N, N, 3) * 255).astype(np.uint8),
        images(N, N, 1),
        images() > 0.5,
        images().astype(np.float64),
        images().astype(">f4"),
    ],
    ids=["channels last", "channels first", "bytes", "grey", "booleans", "doubles", "big-endian"],
)
@pytest.mark.parametrize("c", [1, 3])
def test_every_layout_and_kind_is_read(tmp_path, x, c):
    path = write(tmp_path / "x.npz", x_train=x, x_test=x, x_val=x)
    got = splits_of(path, c=c)["test"].stack()
    pixels = torch.from_numpy(x.astype(np.float64)) / (255 if x.dtype == np.uint8 else 1)
    pixels = pixels[..., None] if pixels.dim() == 3 else pixels
    pixels = pixels if pixels.shape[1] == 3 else pixels.movedim(3, 1)
    if c == 1 and pixels.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
        pixels = torch.einsum("ncij,c->nij", pixels, weights)[:, None]
    expected = pixels.expand(-1, c, -1, -1).float()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=0.5 / 255 + 1e-6, rtol=0)


def test_floats_are_cropped_and_resized_like_bytes(tmp_path):
    x = (images(20, 30) * 255).astype(np.uint8)
    write(tmp_path / "bytes.npy", x=x)
    write(tmp_path / "floats.npy", x=(x / np.float32(255)))
    for crop in ("center", "none"):
        a, b = (
            splits_of(tmp_path / f"{name}.npy", n=16, crop=crop)["test"].stack()
            for name in ("bytes", "floats")
        )
        torch.testing.assert_close(a, b, atol=1.5 / 255, rtol=0)


def test_given_splits_and_labels_are_kept(tmp_path):
    x, y = images(), np.arange(COUNT) % 4
    path = write(tmp_path / "x.mat", x_train=x[:30], x_test=x[30:], y_train=y[:30], y_test=y[30:])
    splits = splits_of(path, labelled=True)
    assert splits["test"].labels == y[30:].tolist() and len(splits["train"]) == 26
    assert torch.equal(splits["test"].stack()[:, 0], torch.from_numpy(x[30:]))
    path = write(tmp_path / "x.npz", x=x, y=y, classes=np.array(list("abcd")))
    splits = splits_of(path, labelled=True)
    assert splits["train"].classes == ("a", "b", "c", "d")
    for split in splits.values():
        for k in range(len(split)):
            place = np.flatnonzero((x == split[k]["image"].numpy()[0]).all((1, 2)))
            assert y[place].tolist() == [split.labels[k]]


@pytest.mark.parametrize("named", [False, True])
def test_a_split_of_few_images_may_have_any_class_of_the_training(named, tmp_path):
    x, y = images(), np.arange(COUNT) % 20
    few = {"x_test": x[:3], "y_test": np.array([17, 18, 19]), "x_val": x[:2], "y_val": [19, 0]}
    names = {"classes": np.array([f"class {k}" for k in range(20)])} if named else {}
    path = write(tmp_path / "x.npz", x_train=x, y_train=y, **few, **names)
    splits = splits_of(path, labelled=True)
    assert splits["test"].labels == [17, 18, 19] and splits["val"].labels == [19, 0]
    assert len(splits["train"].classes) == 20
    for wrong in (20, 1e300, 2**64 - 1):  # which no training image has
        few["y_test"] = np.array([wrong, 18, 19], np.float64 if wrong == 1e300 else np.uint64)
        path = write(tmp_path / "x.npz", x_train=x, y_train=y, **few, **names)
        with pytest.raises(UserError, match=rf"y_test .* from 18 to {int(wrong)}: 0 to 19 are"):
            splits_of(path, labelled=True)


REFUSED = {  # and the sentence that says why
    "sixteen bits": ((images() * 65535).astype(np.uint16), "holds uint16 from"),
    "large integers": ((images() * 1e6).astype(np.int32), "holds int32 from"),
    "0 to 255 as floats": (images() * 255, "not in [0, 1]"),
    "negative": (images() - 0.5, "not in [0, 1]"),
    "not a number": (np.where(images() > 0.9, np.nan, images()), "not finite"),
    "complex": (images() * 1j, "complex numbers"),
    "one image": (images()[0], "is one image of 12 x 12"),
    "four channels": (images(N, N, 4), "neither 1 nor 3 channels"),
}


@pytest.mark.parametrize("form", ["npy", "npz"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_the_line_that_converts_it(name, form, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    x, reason = REFUSED[name]
    write(f"own.{form}", x=x if name != "one image" else x.repeat(12, 0).repeat(12, 1)[:N, :N])
    with pytest.raises(UserError) as refusal:
        splits_of(f"own.{form}")
    text = str(refusal.value)
    assert reason in text and "\n" not in text
    exec(text.partition("convert it: ")[2], {})
    if name == "one image":  # now it is one of too few
        with pytest.raises(UserError, match="has 1 images, too few"):
            splits_of(f"x.{form}")
        return
    got = stack_all(splits_of(f"x.{form}"))
    assert len(got) == COUNT and got.min() >= 0 and got.max() <= 1 and got.std() > 0.1


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_line_divides_by_the_white_of_a_camera(bits, kind, tmp_path):
    x = (images() * (2**bits - 1)).astype(kind)
    x[0, 0, 0] = 2**bits - 2
    with pytest.raises(UserError, match=rf"x / np.float32\({2**bits - 1}\)"):
        splits_of(write(tmp_path / "x.npy", x=x))


def test_several_arrays_without_names_that_say_it_are_refused(tmp_path):
    path = write(tmp_path / "two.npz", a=images(), b=images())
    with pytest.raises(UserError, match=r"has a \(40, 12, 12\), b .*which are the images"):
        splits_of(path)
    path = write(tmp_path / "half.npz", x_train=images(), other=images())
    with pytest.raises(UserError, match="lacks x_test; it has x_train, other"):
        splits_of(path)
    path = write(tmp_path / "flat.npz", x=images(N))
    with pytest.raises(UserError, match="is one image of 40 x 12"):
        splits_of(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5", ".txt"])
def test_damaged_files_are_one_line(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"nothing that can be read")
    with pytest.raises(UserError) as refusal:
        splits_of(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


class TestHostileFiles:
    def test_matlabs_promises_are_checked_before_they_are_kept(self, tmp_path):
        savemat(tmp_path / "own.mat", {"x": images()})
        content = bytearray((tmp_path / "own.mat").read_bytes())
        place = content.index(np.array([COUNT, N, N], "<i4").tobytes())
        content[place : place + 4] = np.array([10**9], "<i4").tobytes()
        (tmp_path / "own.mat").write_bytes(content)
        with pytest.raises(UserError, match=r"promises .* more than it can hold"):
            read_named(tmp_path / "own.mat")

    @pytest.mark.parametrize("part", ["real", "imaginary"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_types_of_numbers_that_matlab_lacks_do_not_crash_scipy(
        self, compressed, part, tmp_path
    ):
        x = images().astype(float)
        savemat(tmp_path / "good.mat", {"x": x if part == "real" else x + 1j, "s": "text"})
        good = (tmp_path / "good.mat").read_bytes()
        place = 128 + 8 + 16 + 24 + 8  # behind the tags of the matrix, its flags, shape and name
        place += 0 if part == "real" else 8 + x.nbytes
        assert good[place] == 9  # doubles
        for kind in (0, 8, 11, 15, 19, 99, 255):
            bad = bytearray(good)
            bad[place] = kind
            if compressed:
                size = 8 + int.from_bytes(bad[132:136], "little")
                packed = zlib.compress(bad[128 : 128 + size])
                bad = bad[:128] + struct.pack("<II", 15, len(packed)) + packed
            (tmp_path / "bad.mat").write_bytes(bad)
            with pytest.raises(UserError, match=f"type {kind}, which there is not"):
                read_named(tmp_path / "bad.mat")

    def test_many_names_of_one_array_are_counted(self, tmp_path):
        with h5py.File(tmp_path / "own.h5", "w") as file:
            file.create_dataset("x", data=np.zeros((2000, 1000)), compression="gzip")
            for k in range(2000):
                file[f"x{k}"] = file["x"]
        with pytest.raises(UserError, match="more than it can hold"):
            read_named(tmp_path / "own.h5")

    def test_a_number_of_a_class_cannot_exceed_that_of_images(self, tmp_path):
        path = write(tmp_path / "x.npz", x=images(), y=np.full(COUNT, 10**9))
        with pytest.raises(UserError, match="40 images cannot have so many classes"):
            splits_of(path, labelled=True)

    def test_links_to_other_files_are_not_followed(self, tmp_path):
        write(tmp_path / "secret.h5", x=images())
        with h5py.File(tmp_path / "own.h5", "w") as file:
            file["x"] = h5py.ExternalLink("secret.h5", "x")
            file["other"] = images()
        assert [*read_named(tmp_path / "own.h5")] == ["other"]

    def test_data_of_other_files_are_not_read(self, tmp_path):
        (tmp_path / "secret").write_bytes(bytes(range(100)))
        with h5py.File(tmp_path / "own.h5", "w") as file:
            where = [(str(tmp_path / "secret"), 0, 100)]
            file.create_dataset("x", (100,), "uint8", external=where)
        with pytest.raises(UserError, match="in another file, which is not read"):
            read_named(tmp_path / "own.h5")

    def test_a_promise_of_more_than_a_file_can_hold_is_refused(self, tmp_path):
        with h5py.File(tmp_path / "own.h5", "w") as file:
            file.create_dataset("x", (10**6, 1000, 1000), "float64", chunks=(1, 100, 100))
        with pytest.raises(UserError, match="more than it can hold"):
            read_named(tmp_path / "own.h5")


def test_a_network_and_a_classifier_learn_from_them():
    x, y = images(16, 16), np.arange(COUNT) % 2
    write("own.npz", x=x, y=y)
    own = ["--dataset", "array", "--data_root", "own.npz", "--n", "16", "--epochs", "1"]
    path = call(main_unet, "--cr", "0.25", "--width", "2", *own)["export"]
    words = ["--checkpoint", path, "--dataset", "array", "--data_root", "own.npz"]
    rows = call(test_UNet, *words)["rows"]
    assert rows[-1]["images"] == 4 and rows[1]["estimate"] == "LMMSE"
    assert "val_top1" in call(main_classify, "--model", "resnet8", "--width", "2", *own)
