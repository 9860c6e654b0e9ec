"""Datasets: three splits that share nothing, clean images of the asked size, errors that say what is missing."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Resize, ToTensor

from core.errors import UserError
from data import datasets
from data.augment import symmetries_of
from data.batches import build_loader
from data.datasets import PHOTOGRAPHS
from data.images import to_tensor
from data_loader import Request, build_splits


def tree(root, names, size=(20, 14), mode="RGB"):
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        array[0, 0] = k
        Image.fromarray(array).convert(mode).save(path)
    return root


def arrays(tmp_path, **changes):
    rng = np.random.default_rng(0)
    content = {
        "x_train": rng.integers(0, 256, (50, 9, 9), dtype=np.uint8),
        "x_test": rng.integers(0, 256, (20, 9, 9), dtype=np.uint8),
    } | changes
    np.savez(
        tmp_path / "set.npz",
        **{name: value for name, value in content.items() if value is not None},
    )
    return str(tmp_path / "set.npz")


@pytest.fixture(params=["photos", "text", "digits", "folder", "npz"])
def request_for(request, tmp_path):
    """A request for each dataset that needs no download."""
    root = {
        "folder": lambda: str(
            tree(tmp_path / "tree", [f"{a}/{k}.png" for a in "ab" for k in range(30)])
        ),
        "npz": lambda: arrays(tmp_path),
    }.get(request.param, lambda: "data")()
    return Request(dataset=request.param, n=16, data_root=root)


@pytest.mark.parametrize("c", [1, 3])
def test_images_are_clean_sized_and_in_the_unit_interval(request_for, c):
    for images in build_splits(
        request_for._replace(c=c, limit_train=20, limit_val=20, limit_test=20)
    ).values():
        batch = images.stack()
        assert batch.shape[1:] == (c, 16, 16) and batch.dtype == torch.float32
        assert batch.min() >= 0 and batch.max() <= 1 and batch.std() > 0.01


def test_no_image_is_in_two_splits(request_for):
    splits = {
        name: {image.numpy().tobytes() for image in images.stack()}
        for name, images in build_splits(request_for).items()
    }
    if request_for.dataset in (
        "photos",
        "digits",
    ):  # flat tiles and digits may agree by chance; the next tests hold these
        splits = {
            name: {x for x in images if np.frombuffer(x, np.float32).std() > 0.05}
            for name, images in splits.items()
        }
    assert (
        not splits["train"] & splits["test"]
        and not splits["train"] & splits["val"]
        and not splits["val"] & splits["test"]
    )


def test_whole_photographs_are_held_out():
    names = [name for split in PHOTOGRAPHS.values() for name in split.split()]
    assert len(names) == len(set(names)) == 18
    assert not any("right" in name for name in names), (
        "the second view of a scene must not be in another split"
    )


def test_tiles_of_text_of_two_splits_share_no_pixel_and_are_not_blank():
    splits = build_splits(Request(dataset="text", n=32))
    columns = {}
    for name, images in splits.items():
        lefts = [place[2] for place in images.source.images.keys]
        columns[name] = set(range(min(lefts), max(lefts) + 32))
        assert images.stack().flatten(1).std(1).min() > 0.1
    assert not columns["train"] & columns["val"] and not columns["val"] & columns["test"]
    assert not columns["train"] & columns["test"]


def test_photos_without_text_hold_nothing_of_the_page_that_text_is_made_of():
    names = {
        place[0]
        for images in build_splits(Request(dataset="photos_without_text")).values()
        for place in images.source.images.keys
    }
    pages = {place[0] for place in build_splits(Request(dataset="text"))["test"].source.images.keys}
    assert len(names) == 16 and pages == {"page.png"} and not names & pages


def test_splits_and_limits_do_not_depend_on_the_runs_seed(request_for):
    a, b = (build_splits(request_for._replace(limit_train=7), augment_seed=seed) for seed in (0, 1))
    for split in a:
        assert torch.equal(a[split].stack(), b[split].stack())
    assert len(a["train"]) == 7


def test_only_training_is_augmented_and_the_epoch_decides_how():
    splits = build_splits(Request(n=16, limit_train=30), augment_seed=3)
    clean = splits["train"].stack()

    def pass_of(epoch):
        splits["train"].epoch = epoch
        return torch.stack([splits["train"][i]["image"] for i in range(30)])

    first, again, second = pass_of(0), pass_of(0), pass_of(1)
    assert (
        torch.equal(first, again)
        and not torch.equal(first, second)
        and not torch.equal(first, clean)
    )
    assert torch.allclose(first.sum((1, 2, 3)), clean.sum((1, 2, 3)), rtol=1e-4), (
        "a symmetry moves pixels and changes none"
    )
    for split in ("val", "test"):
        assert torch.equal(
            torch.stack([splits[split][i]["image"] for i in range(9)]), splits[split].stack()[:9]
        )


def test_all_eight_symmetries_occur_and_a_mirror_only_mirrors():
    image = torch.arange(9.0).view(1, 3, 3)

    def seen(name):
        images = image.expand(200, 1, 3, 3)
        for draw, change in symmetries_of(name, shift=False).items():
            images = change(
                images,
                torch.tensor([draw(np.random.default_rng((k, len(name))), 3) for k in range(200)]),
            )
        return {each.contiguous().numpy().tobytes() for each in images}

    assert len(seen("dihedral")) == 8 and seen("flip") == {
        image.numpy().tobytes(),
        image.flip(-1).contiguous().numpy().tobytes(),
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    train = build_splits(Request(n=16, limit_train=30), augment_seed=3)["train"]
    passes = [
        list(build_loader(train, size, count, shuffle_seed=5))
        for size, count in ((8, workers), (7, 0))
    ]
    (order, images), (again, same) = (
        (torch.cat([b.index for b in p]), torch.cat([b.image for b in p])) for p in passes
    )
    assert sorted(order.tolist()) == list(range(30)) and torch.equal(order, again)
    assert torch.equal(images, same) and not torch.equal(
        images, train.stack()[order]
    )  # augmented, and alike


class TestFolder:
    def test_named_splits_are_kept(self, tmp_path):
        root = tree(
            tmp_path, ["train/a/1.png", "train/2.jpg", "val/3.png", "test/x/4.png", "test/5.bmp"]
        )
        assert [len(s) for s in build_splits(Request("folder", 8, 3, str(root))).values()] == [
            2,
            1,
            2,
        ]

    def test_validation_comes_out_of_training_where_it_is_missing(self, tmp_path):
        root = tree(tmp_path, [f"train/{k}.png" for k in range(20)] + ["test/1.png"])
        assert [len(s) for s in build_splits(Request("folder", 8, 3, str(root))).values()] == [
            18,
            2,
            1,
        ]

    def test_a_test_folder_alone_is_enough_for_evaluation(self, tmp_path):
        root = tree(tmp_path, ["test/1.png", "test/2.png"])
        request = Request("folder", 8, 1, str(root))
        assert len(build_splits(request, wanted=("test",))["test"]) == 2
        with pytest.raises(
            UserError,
            match="has 2 images, too few for training: 0 for training, 0 for validation, 2 for test",
        ):
            build_splits(request)

    def test_crops_the_centre_or_resizes_the_whole(self):
        array = np.zeros((8, 24), dtype=np.uint8)
        array[:, 8:16] = 255
        assert to_tensor(array, Request(n=8)).min() == 1
        assert 0.2 < to_tensor(array, Request(n=8, crop="none")).mean() < 0.5

    @pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", "P", "1"])
    def test_any_mode_becomes_grey_or_colour(self, mode):
        image = Image.fromarray(np.full((9, 9, 3), 100, dtype=np.uint8)).convert(mode)
        for c in (1, 3):
            assert to_tensor(image, Request(n=8, c=c)).shape == (c, 8, 8)

    def test_sixteen_bit_grey_keeps_its_scale(self, tmp_path):
        Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16)).save(tmp_path / "deep.png")
        with Image.open(tmp_path / "deep.png") as image:
            assert torch.allclose(to_tensor(image, Request(n=8)), torch.tensor(0.5), atol=0.01)

    def test_a_broken_image_is_named(self, tmp_path):
        (tmp_path / "test").mkdir()
        (tmp_path / "test" / "broken.png").write_text("this is text")
        with pytest.raises(UserError, match=r"broken\.png is not a readable image"):
            build_splits(Request("folder", 8, 1, str(tmp_path)), wanted=("test",))["test"].stack()


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"dataset": "imagenet"},
            "unknown dataset 'imagenet': choose from photos, photos_without_text",
        ),
        ({"dataset": "folder", "data_root": "nowhere"}, "--data_root nowhere: no such folder"),
        ({"dataset": "npz", "data_root": "nowhere.npz"}, r"nowhere\.npz: no such file"),
        (
            {"dataset": "mnist", "data_root": "nowhere"},
            "no files in nowhere/MNIST/raw; put them there or give --download",
        ),
        (
            {"dataset": "cifar10", "data_root": "."},
            "no files in cifar-10-batches-py; put them there or give --download",
        ),
        (
            {"dataset": "celeba", "data_root": "."},
            "no files in celeba; put them there or give --download",
        ),
        ({"dataset": "photos", "n": 512}, "no validation images of 512 x 512"),
        ({"dataset": "text", "n": 512}, "'text' has no .* images of 512 x 512: choose a smaller"),
    ],
)
def test_what_is_missing_is_said(changes, message):
    with pytest.raises(UserError, match=message):
        build_splits(Request(**changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x_test": None}, "lacks x_test; it has x_train"),
        ({"x_train": np.zeros((4, 9, 9)) - 1}, "x_train of .* has values from -1 to -1"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        build_splits(Request("npz", 8, 1, arrays(tmp_path, **changes)))


def test_celeba_is_the_releases_first_faces(tmp_path, monkeypatch):
    import torchvision.datasets

    class Faces:
        def __init__(self, root, split, download):
            self.count = {"train": 30_000, "test": 5_000}[split]

        def __len__(self):
            return self.count

        def __getitem__(self, i):
            assert i < 20_000
            return Image.fromarray(np.full((218, 178, 3), i % 256, dtype=np.uint8)), 0

    monkeypatch.setattr(torchvision.datasets, "CelebA", Faces)
    (tmp_path / "celeba").mkdir()
    splits = build_splits(Request("celeba", 16, 3, str(tmp_path)))
    assert [len(s) for s in splits.values()] == [18_000, 2_000, 2_000]
    assert splits["train"][0]["image"].shape == (3, 16, 16)


def test_mnist_is_read_from_its_four_files_without_a_download(tmp_path, shared):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (shared / "mnist").iterdir():
        shutil.copyfile(path, raw / path.name)
    splits = build_splits(Request("mnist", 32, 1, str(tmp_path), limit_test=5))
    assert [len(splits[name]) for name in ("train", "val")] == [54_000, 6_000]
    reference = MNIST(str(tmp_path), train=False, transform=Compose([Resize((32, 32)), ToTensor()]))
    expected = torch.stack([reference[int(k)][0] for k in splits["test"].subset])
    assert torch.allclose(splits["test"].stack(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "count, sizes",
    [(30, [10] * 3), (31, [10, 10, 11]), (32, [10, 10, 10, 2]), (1, [1]), (11, [11])],
)
def test_a_last_batch_of_one_joins_the_one_before_it_and_every_image_comes_once_an_epoch(
    count, sizes
):
    images = build_splits(Request("digits", 16, limit_train=count))["train"]
    loader, orders = build_loader(images, 10, shuffle_seed=0), []
    for images.epoch in range(2):
        batches = [batch.index.tolist() for batch in loader]
        assert [len(batch) for batch in batches] == sizes and len(loader) == len(sizes)
        orders.append([index for batch in batches for index in batch])
        assert sorted(orders[-1]) == list(range(count))
    assert count < 2 or orders[0] != orders[1]
    loader.batch_sampler.first = len(sizes) - 1
    assert [batch.index.tolist() for batch in loader] == batches[-1:]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_pictures_that_are_cut_into_tiles_are_kept_as_free_memory_allows(
    kept, monkeypatch, tmp_path
):
    picture_bytes, read = 4 * 16 * 16, []
    monkeypatch.setattr(datasets, "free_memory", lambda _: 4 * kept * picture_bytes)
    for k in range(20):
        array = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / f"{k:02d}.png")
    images = build_splits(Request("folder", 16, 3, str(tmp_path), crop="tiles"))["train"]
    real = datasets.open_pil
    monkeypatch.setattr(datasets, "open_pil", lambda path: read.append(path) or real(path))
    first, second = images.decode([0]), images.decode([1])
    for _ in range(3):
        assert torch.equal(images.decode([0]), first)
        assert torch.equal(images.decode([1]), second)
    assert len(read) == (2 if kept == 2 else 8)
