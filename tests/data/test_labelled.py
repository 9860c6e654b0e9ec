"""Labelled datasets: every image keeps its label, classes keep their shares, and no split sees another's images."""

import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from core import registry
from core.errors import UserError
from data.augment import sample_shift, shift_images
from data.batches import build_loader
from data.splits import hold_out_per_class, stratified_order
from data_loader import Request, build_splits

TABLE = {
    name: registry.LABELLED[name] for name in registry.LABELLED if name not in ("array", "recorded")
}
SIZES = {"ant": 30, "bee": 20, "cow": 10}
NAMES = list(SIZES)


def splits_of(request, **options):
    return build_splits(request._replace(labelled=True), table=TABLE, **options)


def code(name, serial):
    """A picture of one colour, which tells its class and its number."""
    return np.full(
        (8, 8, 3), (NAMES.index(name) * 50 + 10, serial % 256, serial // 256), dtype=np.uint8
    )


def decode(image):
    red, green, blue = (image[:, 0, 0] * 255).round().int().tolist()
    return (red - 10) // 50, green + 256 * blue


def write(path, name, serial):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(code(name, serial)).save(path, "PNG")


def serials():
    """All images: a class's name, and a number."""
    return [
        (name, 100 * NAMES.index(name) + k) for name, size in SIZES.items() for k in range(size)
    ]


def class_tree(root, split=lambda serial: ""):
    for name, serial in serials():
        write(root / split(serial) / name / f"{serial}.png", name, serial)
    return Request("folder", 8, 3, str(root))


def in_two_splits(serial):
    return "test" if serial % 5 == 0 else "train"


def in_three_splits(serial):
    return "val" if serial % 5 == 1 else in_two_splits(serial)


def npz(root):
    parts = {
        split: [item for item in serials() if in_two_splits(item[1]) == split]
        for split in ("train", "test")
    }
    x = {f"x_{split}": np.stack([code(*item) for item in items]) for split, items in parts.items()}
    y = {
        f"y_{split}": np.array([NAMES.index(name) for name, _ in items], np.uint8)
        for split, items in parts.items()
    }
    np.savez(root / "set.npz", **x, **y, classes=np.array(NAMES))
    return Request("npz", 8, 3, str(root / "set.npz"))


def aircraft(root):
    data = root / "fgvc-aircraft-2013b" / "data"
    for name, serial in serials():
        write(data / "images" / f"{serial:07d}.jpg", name, serial)
    (data / "variants.txt").write_text("".join(f"{name}\n" for name in NAMES))
    for split in ("train", "val", "test"):
        lines = [
            f"{serial:07d} {name}\n"
            for name, serial in serials()
            if in_three_splits(serial) == split
        ]
        (data / f"images_variant_{split}.txt").write_text("".join(lines))
    return Request("aircraft", 8, 3, str(root))


def cub(root):
    lines = {
        "images": [],
        "image_class_labels": [],
        "train_test_split": [],
        "classes": [f"{k} {name}\n" for k, name in enumerate(NAMES, 1)],
    }
    for number, (name, serial) in enumerate(serials(), 1):
        write(root / "images" / name / f"{serial}.jpg", name, serial)
        lines["images"].append(f"{number} {name}/{serial}.jpg\n")
        lines["image_class_labels"].append(f"{number} {NAMES.index(name) + 1}\n")
        lines["train_test_split"].append(f"{number} {int(in_two_splits(serial) == 'train')}\n")
    for file, text in lines.items():
        (root / f"{file}.txt").write_text("".join(text))
    return Request("cub", 8, 3, str(root))


LAYOUTS = {
    "flat tree": class_tree,
    "train alone": lambda root: class_tree(root, lambda _: "train"),
    "train and test": lambda root: class_tree(root, in_two_splits),
    "three splits": lambda root: class_tree(root, in_three_splits),
    "npz": npz,
    "aircraft": aircraft,
    "cub": cub,
}
TENTHS = {
    "flat tree": ("val", "test"),
    "train alone": ("val", "test"),
    "train and test": ("val",),
    "npz": ("val",),
    "cub": ("val",),
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    return request.param, LAYOUTS[request.param](tmp_path)


@pytest.mark.parametrize("limit", [None, 17])
def test_a_label_belongs_to_its_image(layout, limit):
    for images in splits_of(
        layout[1]._replace(shift=True, limit_train=limit), augment_seed=0
    ).values():
        assert images.classes == tuple(NAMES)
        for i in range(len(images)):
            item = images[i]
            assert (
                item["label"].dtype == torch.int64
                and decode(item["image"])[0] == item["label"] == images.labels[i]
            )


def test_every_image_is_in_one_split(layout):
    found = [
        decode(image)[1] for images in splits_of(layout[1]).values() for image in images.stack()
    ]
    assert sorted(found) == sorted(serial for _, serial in serials())


def test_held_out_parts_have_a_tenth_of_every_class(layout):
    name, request = layout
    splits = splits_of(request)
    counts = {split: Counter(images.labels) for split, images in splits.items()}
    for split in TENTHS.get(name, ()):
        for k in range(3):
            total = sum(counts[part][k] for part in {"train", *TENTHS[name]})
            assert counts[split][k] == round(total / 10)


def test_given_splits_are_kept(layout):
    name, request = layout
    for split, images in splits_of(request).items():
        if split != "train" and split not in TENTHS.get(name, ()):
            assert {decode(image)[1] for image in images.stack()} == {
                s for _, s in serials() if (split, s % 5) in (("test", 0), ("val", 1))
            }


def test_the_runs_seed_moves_no_image(layout):
    a, b = (splits_of(layout[1]._replace(limit_train=17), augment_seed=seed) for seed in (0, 1))
    for split in a:
        assert (
            torch.equal(a[split].stack(), b[split].stack()) and a[split].labels == b[split].labels
        )


def test_limits_keep_every_class_as_far_as_they_reach(layout):
    for limit in (3, 6, 13):
        assert set(splits_of(layout[1]._replace(limit_train=limit))["train"].labels) == {0, 1, 2}
    assert len(set(splits_of(layout[1]._replace(limit_train=2))["train"].labels)) == 2


def test_labels_are_known_without_what_the_images_show(layout, monkeypatch):
    monkeypatch.setattr("data.images.check_image", lambda path: (8, 8))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image is opened"))
    assert sum(len(images.labels) for images in splits_of(layout[1]).values()) == sum(
        SIZES.values()
    )


@pytest.mark.parametrize("sizes", [(60, 30, 10), (50, 50), (97, 1, 2, 40), (1, 1, 1)])
def test_every_beginning_of_the_stratified_order_holds_the_classes_in_their_shares(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = stratified_order(labels)
    assert sorted(order.tolist()) == list(range(len(labels)))
    shares = np.array(sizes) / len(labels)
    for length in range(len(sizes), len(labels) + 1):
        counts = np.bincount(labels[order[:length]], minlength=len(sizes))
        assert (
            counts.min() >= 1
            and (counts - length * shares <= 1).all()
            and (counts - length * shares >= -len(sizes) * shares).all()
        )


def test_a_class_gives_no_image_away_that_training_needs():
    for parts in (1, 2):
        groups = hold_out_per_class([0] + [1] * 2 + [2] * 3 + [3] * 40, parts)
        assert sorted(i for group in groups for i in group) == list(range(46))
        labels = [{0: 0, 1: 1, 2: 1}.get(i, 2 if i < 6 else 3) for i in range(46)]
        counts = [Counter(labels[i] for i in group) for group in groups]
        assert all(counts[0][k] >= 1 for k in range(4)) and all(
            count[2] == 1 and count[3] == 4 for count in counts[1:]
        )


def test_digits_are_divided_as_scikit_learn_divides_them():
    splits, target = splits_of(Request("digits", 8)), load_digits().target
    rest, test = train_test_split(target, test_size=0.2, stratify=target, random_state=0)
    train, val = train_test_split(rest, test_size=0.1, stratify=rest, random_state=0)
    for images, expected in zip(splits.values(), (train, val, test), strict=True):
        assert (
            np.abs(
                np.bincount(images.labels, minlength=10) - np.bincount(expected, minlength=10)
            ).max()
            <= 1
        )


def test_a_digits_label_is_scikit_learns():
    data = load_digits()
    known = {
        (image * 255 / 16).round().astype(np.uint8).tobytes(): label
        for image, label in zip(data.images, data.target, strict=True)
    }
    for images in splits_of(Request("digits", 8)).values():
        pictures = (images.stack() * 255).round().to(torch.uint8)
        assert [known[picture.numpy().tobytes()] for picture in pictures] == images.labels


def test_a_tree_is_read_as_torchvision_reads_it(tmp_path):
    splits = splits_of(class_tree(tmp_path, in_three_splits))
    for split, images in splits.items():
        reference = torchvision.datasets.ImageFolder(tmp_path / split)
        assert images.classes == tuple(reference.classes)
        assert Counter(images.labels) == Counter(reference.targets)


class TestShift:
    def windows(self, image):
        """All crops of an image with a reflected border, by numpy."""
        n = image.shape[-1]
        wide = np.pad(image.numpy(), ((0, 0), (n // 8,) * 2, (n // 8,) * 2), mode="reflect")
        return [
            wide[:, y : y + n, x : x + n].tobytes()
            for y in range(2 * (n // 8) + 1)
            for x in range(2 * (n // 8) + 1)
        ]

    @pytest.mark.parametrize("n, offsets", [(4, 1), (8, 9), (16, 25)])
    def test_an_image_moves_by_up_to_an_eighth_of_its_side(self, n, offsets):
        image = torch.rand(3, n, n)
        corners = torch.tensor([sample_shift(np.random.default_rng(k), n) for k in range(400)])
        found = {
            moved.numpy().tobytes()
            for moved in shift_images(image.expand(400, -1, -1, -1), corners)
        }
        assert found == set(self.windows(image)) and len(found) == offsets

    def test_labelled_arrays_are_shifted_and_mirrored(self, tmp_path):
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (40, 16, 16), dtype=np.uint8), np.arange(40) % 2
        np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
        train = splits_of(
            Request("npz", 16, 1, str(tmp_path / "set.npz"), limit_train=30, shift=True),
            augment_seed=2,
        )["train"]
        flips = 0
        for i, clean in enumerate(train.stack()):
            item = train[i]["image"].numpy().tobytes()
            flips += item not in self.windows(clean)
            assert item in self.windows(clean) or item in self.windows(clean.flip(-1))
        assert flips > 5

    def test_scikit_learns_digits_stay_as_they_are(self):
        train = splits_of(Request("digits", 16, limit_train=20, shift=True), augment_seed=2)[
            "train"
        ]
        assert torch.equal(torch.stack([train[i]["image"] for i in range(20)]), train.stack())

    def test_only_training_is_shifted_and_only_on_request(self, tmp_path):
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (40, 16, 16), dtype=np.uint8), np.arange(40) % 2
        x[..., 8:] = x[..., 7::-1]  # mirrored it is the same
        np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
        request = Request("npz", 16, 1, str(tmp_path / "set.npz"))
        for shift in (False, True):
            for split, images in splits_of(request._replace(shift=shift), augment_seed=0).items():
                same = torch.equal(
                    torch.stack([images[i]["image"] for i in range(len(images))]), images.stack()
                )
                assert same == (split != "train" or not shift)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_item_does_not_depend_on_batch_size_or_workers(self, workers, tmp_path):
        train = splits_of(npz(tmp_path)._replace(n=16, shift=True), augment_seed=3)["train"]
        train.epoch = 2
        batches = list(build_loader(train, 7, workers, shuffle_seed=5))
        assert batches[0].label.dtype == torch.int64
        for index, image, label in (
            (k, image, label)
            for b in batches
            for k, image, label in zip(b.index, b.image, b.label, strict=True)
        ):
            item = train[int(index)]
            assert torch.equal(image, item["image"]) and label == item["label"]


def test_reconstruction_knows_no_labels(tmp_path):
    np.savez(
        tmp_path / "set.npz",
        x_train=np.zeros((9, 8, 8), np.uint8),
        x_test=np.zeros((9, 8, 8), np.uint8),
    )
    for request in (Request("digits", 8), Request("npz", 8, 1, str(tmp_path / "set.npz"))):
        for images in build_splits(request, augment_seed=0).values():
            assert images.labels is None and images[0].keys() == {"image", "index"}


@pytest.mark.parametrize("name, count", [("CIFAR10", 10), ("CIFAR100", 100)])
def test_cifars_labels_and_classes_are_torchvisions(name, count, tmp_path, monkeypatch):
    class Given:
        def __init__(self, root, train, download):
            self.targets = list(range(count)) * (10 if train else 2)
            self.data = np.stack([np.full((32, 32, 3), label, np.uint8) for label in self.targets])
            self.classes = [f"class {k}" for k in range(count)]

    monkeypatch.setattr(torchvision.datasets, name, Given)
    (tmp_path / registry.LAYOUTS[name.lower()]).mkdir()
    splits = splits_of(Request(name.lower(), 8, 3, str(tmp_path)))
    assert [len(images) for images in splits.values()] == [9 * count, count, 2 * count]
    for images in splits.values():
        assert (
            images.classes[-1] == f"class {count - 1}"
            and (images.stack()[:, 0, 0, 0] * 255).round().int().tolist() == images.labels
        )


def replaced(file, old, new):
    def change(root):
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new, 1))

    return change


def moved(old, new):
    return lambda root: shutil.move(root / old, root / new)


def folder(path):
    return lambda root: (root / path).mkdir(parents=True)


def resaved(**changes):
    def change(root):
        with np.load(root / "set.npz") as arrays:
            content = dict(arrays) | changes
        np.savez(
            root / "set.npz",
            **{name: value for name, value in content.items() if value is not None},
        )

    return change


VARIANTS = "fgvc-aircraft-2013b/data"
WRONG = {
    "a class that training lacks": (
        "three splits",
        moved("test/bee", "test/wasp"),
        r"class wasp of \S*/test is not in \S*/train, which has ant, bee, cow",
    ),
    "an empty class": ("flat tree", folder("dog"), r"/dog has no pictures"),
    "no training folder": (
        "three splits",
        moved("train", "learn"),
        r"has no class folders in train/: name its folders train/<class>/\*",
    ),
    "a test folder without classes": (
        "train alone",
        folder("test"),
        r"/test has no class folders: expected are \S*/test/<class>/\*",
    ),
    "one class": (
        "flat tree",
        lambda root: [shutil.rmtree(root / name) for name in ("ant", "bee")],
        r"has 1 class folders: expected are .* at least two classes",
    ),
    "an unlabelled npz": (
        "npz",
        resaved(y_test=None),
        r"set\.npz lacks y_test; it has x_train, x_test, y_train, classes",
    ),
    "labels of another length": (
        "npz",
        resaved(y_train=np.arange(5)),
        r"y_train of \S*set\.npz is int64 \(5,\): integers \(48,\) from 0 are allowed",
    ),
    "labels that are no integers": (
        "npz",
        resaved(y_test=np.full(12, 0.5)),
        r"y_test of \S*set\.npz is float64 \(12,\): integers",
    ),
    "labels without a name": (
        "npz",
        resaved(classes=np.array(["ant", "bee"])),
        r"y_train of \S*set\.npz goes from 0 to 2: 0 to 1 are allowed",
    ),
    "names that are no strings": (
        "npz",
        resaved(classes=np.arange(3)),
        r"classes of \S*set\.npz is int64 \(3,\): strings \(K,\) are allowed",
    ),
    "a name without images": (
        "npz",
        resaved(classes=np.array([*NAMES, "dog"])),
        r"no training images of class dog",
    ),
    "an unknown variant": (
        "aircraft",
        replaced(f"{VARIANTS}/images_variant_val.txt", " bee", " wasp"),
        r"2013b/data/images_variant_\*\.txt: a line is not 'number variant' .*'wasp\'",
    ),
    "a line without a variant": (
        "aircraft",
        replaced(f"{VARIANTS}/images_variant_val.txt", " bee", ""),
        r"2013b/data/images_variant_\*\.txt: a line is not",
    ),
    "no annotation": (
        "aircraft",
        moved(f"{VARIANTS}/variants.txt", "gone.txt"),
        r"fgvc-aircraft-2013b lacks files or has damaged ones; .* or give --download",
    ),
    "an aircraft without a file": (
        "aircraft",
        moved(f"{VARIANTS}/images/0000003.jpg", "gone.jpg"),
        r"0000003\.jpg is listed but does not exist",
    ),
    "an aircraft out of the folder": (
        "aircraft",
        replaced(f"{VARIANTS}/images_variant_val.txt", "0000001", "../0000001"),
        r"is outside of",
    ),
    "an aircraft in two splits": (
        "aircraft",
        replaced(f"{VARIANTS}/images_variant_val.txt", "0000001", "0000000"),
        r"0000000\.jpg is listed 2 times",
    ),
    "not the extracted folder": (
        "cub",
        moved("train_test_split.txt", "split.txt"),
        r"not the extracted folder CUB_200_2011: it lacks train_test_split\.txt",
    ),
    "a path out of the folder": (
        "cub",
        replaced("images.txt", "ant/1.jpg", "../images.txt"),
        r"/images\.txt is listed but is outside of \S*/images",
    ),
    "an absolute path": (
        "cub",
        replaced("images.txt", "ant/1.jpg", "/etc/hosts"),
        r"/etc/hosts is listed but is outside of \S*/images",
    ),
    "a picture twice": (
        "cub",
        replaced("images.txt", "ant/1.jpg", "ant/0.jpg"),
        r"ant/0\.jpg is listed 2 times",
    ),
    "a picture that is missing": (
        "cub",
        replaced("images.txt", "ant/1.jpg", "ant/x.jpg"),
        r"ant/x\.jpg is listed but does not exist",
    ),
    "a line of one word": (
        "cub",
        replaced("images.txt", "2 ant/1.jpg", "ant/1.jpg"),
        r"images\.txt, line 2: 'ant/1\.jpg' is not 'number text'",
    ),
    "a number twice": (
        "cub",
        replaced("image_class_labels.txt", "\n2 1", "\n1 1"),
        r"image_class_labels\.txt, line 2: '1 1' is not 'number text' with a new number",
    ),
    "an image without a label": (
        "cub",
        replaced("image_class_labels.txt", "\n2 1", ""),
        r"image_class_labels\.txt: image 2 must be both here and in images\.txt",
    ),
    "an unknown class": (
        "cub",
        replaced("image_class_labels.txt", "\n2 1", "\n2 9"),
        r"image_class_labels\.txt: image 2 has '9', which is not a number of classes\.txt",
    ),
    "an unknown split": (
        "cub",
        replaced("train_test_split.txt", "\n2 1", "\n2 x"),
        r"train_test_split\.txt: image 2 has 'x', which is not 0 \(test\) or 1",
    ),
    "a class without images": (
        "cub",
        replaced("classes.txt", "3 cow", "3 cow\n4 dog"),
        r"dataset 'cub': no training images of class dog",
    ),
    "a file that is no text": (
        "cub",
        lambda root: (root / "classes.txt").write_bytes(b"\xff\xfe\x00"),
        r"classes\.txt cannot be read",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_layout_is_one_line_that_names_it(name, tmp_path):
    layout, change, message = WRONG[name]
    request = LAYOUTS[layout](tmp_path)
    splits_of(request)
    change(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        splits_of(request)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["folder", "cub", "npz"])
def test_a_place_that_is_not_there_is_named(name):
    with pytest.raises(UserError, match="--data_root nowhere: no such f"):
        splits_of(Request(name, 8, 3, "nowhere"))


def test_files_that_are_no_pictures_and_hidden_folders_are_left_out(tmp_path):
    request = class_tree(tmp_path, in_two_splits)
    before = {split: images.labels for split, images in splits_of(request).items()}
    (tmp_path / "LICENSE").write_text("free")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("an insect")
    (tmp_path / "train" / ".cache").mkdir()
    assert {split: images.labels for split, images in splits_of(request).items()} == before


def test_a_class_may_be_called_train(tmp_path):
    for name, serial in serials():
        write(
            tmp_path / {"ant": "train", "bee": "tram", "cow": "car"}[name] / f"{serial}.png",
            name,
            serial,
        )
    assert splits_of(Request("folder", 8, 3, str(tmp_path)))["test"].classes == (
        "car",
        "train",
        "tram",
    )


def test_whole_pictures_have_no_labels(tmp_path):
    with pytest.raises(UserError, match="crop whole"):
        splits_of(class_tree(tmp_path)._replace(crop="whole"))


class TestRealData:
    def test_cifar10_small_is_balanced(self, shared):
        splits = splits_of(
            Request("npz", 8, 3, str(shared / "cifar10_small" / "cifar10_small.npz"))
        )
        assert [Counter(images.labels) for images in splits.values()] == [
            dict.fromkeys(range(10), count) for count in (360, 40, 100)
        ]
        assert splits["test"].classes[0] == "airplane" and splits["test"].classes[9] == "truck"

    def test_clothing_is_counted_class_by_class(self, shared):
        root = shared / "clothing"
        splits = splits_of(Request("folder", 16, 3, str(root)))
        assert splits["train"].classes == tuple(
            sorted(path.name for path in (root / "test").iterdir())
        )
        for k, name in enumerate(splits["train"].classes):
            own = {split: images.labels.count(k) for split, images in splits.items()}
            held = len(list((root / "train" / name).iterdir()))
            assert own["test"] == len(list((root / "test" / name).iterdir()))
            assert own["val"] == round(held / 10) and own["train"] + own["val"] == held
        images = [splits["test"][i]["image"] for i in range(0, len(splits["test"]), 30)]
        assert all(image.shape == (3, 16, 16) and image.std() > 0.01 for image in images)

    def test_mnist_has_its_published_numbers_of_digits(self, shared, tmp_path):
        shutil.copytree(shared / "mnist", tmp_path / "MNIST" / "raw")
        splits = splits_of(Request("mnist", 8, 1, str(tmp_path)))
        test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        counts = {split: np.bincount(images.labels) for split, images in splits.items()}
        assert (
            counts["test"].tolist() == test and (counts["train"] + counts["val"]).tolist() == train
        )
        assert np.abs(counts["val"] - np.array(train) / 10).max() <= 0.5
