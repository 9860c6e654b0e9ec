"""Datasets of clean images: photographs, digits, torchvision's, folders and arrays."""

import zlib
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.errors import UserError
from core.registry import LAYOUTS
from data.batches import Source, WholeImages, free_memory
from data.images import (
    LARGEST_ENLARGEMENT,
    Request,
    check_image,
    convert_channels,
    drop_bad_images,
    open_image,
    open_pil,
    pictures_in,
    read_picture,
    to_pixels,
    to_tensor,
    turn_upright,
)
from data.splits import SPLITS, Lazy, hold_out, hold_out_per_class, shuffled_order, split_by_tenths

PHOTOGRAPHS = {  # of scikit-image; each photograph, and each scene, is in one split only
    "train": "astronaut.png brick.png cell.png clock_motion.png grass.png gravel.png "
    "hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png page.png retina.jpg text.png",
    "val": "coins.png rocket.jpg",
    "test": "camera.png chelsea.png coffee.png",
}
PAGE, WRITING = "page.png", "text.png"  # of these, a printed page, and handwriting
REGIONS = {"train": (0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1)}  # of the page's width
TEXT_STEP = 4  # pixels from one tile of the page to the next
KEPT_PICTURES = 256  # of a folder that is cut into tiles, in a quarter of the free memory
LARGEST_PIXEL = 4  # bytes that Pillow takes for one
LEAST_INK = 0.1  # standard deviation of a tile that is not blank paper


def photos(request: Request) -> dict[str, Source]:
    """Tiles of scikit-image's photographs at full and half size; whole photographs are held out.

    The tiles n x n do not overlap.
    """
    return tiles_of_photographs(request)


def photos_without_text(request: Request) -> dict[str, Source]:
    """The same without the printed page, of which dataset `text` is made, and the handwriting."""
    return tiles_of_photographs(request, without=(PAGE, WRITING))


def tiles_of_photographs(request: Request, without: Sequence[str] = ()) -> dict[str, Source]:
    n, splits = request.n, {}
    for split, names in PHOTOGRAPHS.items():
        places = []
        for name in names.split():
            if name in without:
                continue
            width, height = size_of_photograph(name)
            for scale in (1, 2):
                rows = range(0, height // scale - n + 1, n)
                columns = range(0, width // scale - n + 1, n)
                places += [(name, scale, x, y) for y in rows for x in columns]
        splits[split] = Source(Lazy(tile_reader(request), places), "dihedral")
    return splits


def text(request: Request) -> dict[str, Source]:
    """Tiles of scikit-image's printed page; the splits are regions of it, side by side.

    The tiles of a split overlap, those of two splits do not. Blank ones are left out.
    """
    n, splits = request.n, {}
    width, height = size_of_photograph(PAGE)
    read = tile_reader(request)
    for split, ends in REGIONS.items():
        left, right = (round(end * width) for end in ends)
        rows = range(0, height - n + 1, TEXT_STEP)
        columns = range(left, right - n + 1, TEXT_STEP)
        places = [(PAGE, 1, x, y) for y in rows for x in columns]
        places = [place for place in places if read(place).std() > LEAST_INK]
        splits[split] = Source(Lazy(read, places))
    return splits


def photograph_path(name: str) -> Path:
    import skimage.data

    return Path(skimage.data.__file__).parent / name


def size_of_photograph(name: str) -> tuple[int, int]:
    with Image.open(photograph_path(name)) as image:
        return image.size


def tile_reader(request: Request) -> Callable[[tuple[str, int, int, int]], Tensor]:
    """What cuts a tile of a photograph when it is needed."""

    @cache
    def photograph(name: str, scale: int) -> Image.Image:
        image = Image.open(photograph_path(name))
        size = (image.width // scale, image.height // scale)
        return image.convert("L" if request.c == 1 else "RGB").resize(
            size, Image.Resampling.BILINEAR
        )

    def tile(place: tuple[str, int, int, int]) -> Tensor:
        name, scale, x, y = place
        box = (x, y, x + request.n, y + request.n)
        return to_tensor(photograph(name, scale).crop(box), request)

    return tile


def from_arrays(
    train: np.ndarray,
    test: np.ndarray,
    request: Request,
    symmetries: str,
    labels: Sequence | None = None,
    classes: Sequence[str] = (),
) -> dict[str, Source]:
    """The splits of arrays (N, H, W) or (N, H, W, 3) of bytes, with labels on request."""
    y_train, y_test = None, None
    if request.labelled:
        assert labels is not None, "labels are requested of a dataset that has none"
        y_train, y_test = labels
    if y_train is None:
        training, validation = hold_out(len(train))
    else:
        training, validation = hold_out_per_class(y_train)

    def source(
        x: np.ndarray, y: Sequence | None, keys: Sequence[int], symmetries: str = "none"
    ) -> Source:
        images = Lazy(lambda i: to_tensor(x[i], request), keys)
        own_labels = None if y is None else [int(y[i]) for i in keys]
        return Source(images, symmetries, labels=own_labels, classes=tuple(classes))

    return {
        "train": source(train, y_train, training, symmetries),
        "val": source(train, y_train, validation),
        "test": source(test, y_test, range(len(test))),
    }


def digits(request: Request) -> dict[str, Source]:
    """scikit-learn's 1,797 handwritten digits, resized.

    They fill their 8 x 8 pixels, so they are not shifted.
    """
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images = (data.images / 16 * 255).round().astype(np.uint8)
    if request.labelled:
        rest, held = hold_out_per_class(data.target, share=0.2)
    else:
        held, rest = np.split(shuffled_order(len(images)).numpy(), [len(images) // 5])
    return from_arrays(
        images[rest],
        images[held],
        request,
        "fixed",
        (data.target[rest], data.target[held]),
        "0123456789",
    )


def from_torchvision(name: str, request: Request, **splits) -> list:
    """The splits of a torchvision dataset; its files are fetched only on request."""
    import torchvision.datasets as available

    try:
        return [
            getattr(available, name)(request.data_root, download=request.download, **split)
            for split in splits.values()
        ]
    except (RuntimeError, OSError) as error:
        where = Path(request.data_root) / LAYOUTS[request.dataset]
        if request.download:
            why = " ".join(str(error).split())
            text = f"its files could not be downloaded to {where} ({why}); put them there yourself"
        else:
            text = (
                f"{where} lacks files or has damaged ones; "
                "put the original files there or give --download"
            )
        raise UserError(f"dataset '{request.dataset}': {text}") from None


def _unpack(raw: Path) -> None:
    """Unpacks original .gz files that were only copied, as torchvision does after a download."""
    from torchvision.datasets.utils import extract_archive

    for archive in raw.glob("*-ubyte.gz"):
        target = archive.with_suffix("")
        if not target.exists():
            try:
                extract_archive(str(archive), str(raw))
            except (OSError, EOFError, zlib.error) as error:
                target.unlink(missing_ok=True)
                raise UserError(f"{archive} is damaged: {error}") from None


def mnist(request: Request) -> dict[str, Source]:
    _unpack(Path(request.data_root) / LAYOUTS["mnist"])
    train, test = from_torchvision("MNIST", request, train={"train": True}, test={"train": False})
    return from_arrays(
        train.data.numpy(),
        test.data.numpy(),
        request,
        "none",
        (train.targets.tolist(), test.targets.tolist()),
        "0123456789",
    )


def fashion_mnist(request: Request) -> dict[str, Source]:
    _unpack(Path(request.data_root) / LAYOUTS["fashion_mnist"])
    train, test = from_torchvision(
        "FashionMNIST", request, train={"train": True}, test={"train": False}
    )
    return from_arrays(
        train.data.numpy(),
        test.data.numpy(),
        request,
        "flip",
        (train.targets.tolist(), test.targets.tolist()),
        train.classes,
    )


def cifar10(request: Request) -> dict[str, Source]:
    return _cifar("CIFAR10", request)


def cifar100(request: Request) -> dict[str, Source]:
    return _cifar("CIFAR100", request)


def _cifar(name: str, request: Request) -> dict[str, Source]:
    train, test = from_torchvision(name, request, train={"train": True}, test={"train": False})
    return from_arrays(
        train.data, test.data, request, "flip", (train.targets, test.targets), train.classes
    )


def celeba(request: Request) -> dict[str, Source]:
    """The release's first 20,000 training and 2,000 test faces."""
    train, test = from_torchvision(
        "CelebA", request, train={"split": "train"}, test={"split": "test"}
    )
    training, validation = hold_out(min(20_000, len(train)))
    testing = range(min(2_000, len(test)))
    return {
        "train": Source(Lazy(lambda i: to_tensor(train[i][0], request), training), "flip"),
        "val": Source(Lazy(lambda i: to_tensor(train[i][0], request), validation)),
        "test": Source(Lazy(lambda i: to_tensor(test[i][0], request), testing)),
    }


def folder(request: Request) -> dict[str, Source]:
    """Any tree of pictures under --data_root, by its train/ val/ test/ or split 80 / 10 / 10."""
    root = Path(request.data_root)
    if request.crop == "whole":
        return whole_pictures(root, request)
    paths = {split: pictures_in(root / split) for split in SPLITS}
    if len(paths["train"]) > 1 and not paths["val"]:
        training, validation = hold_out(len(paths["train"]))
        paths |= {
            "train": [paths["train"][i] for i in training],
            "val": [paths["train"][i] for i in validation],
        }
    elif not any(paths.values()):
        paths = split_by_tenths(pictures_in(root))
    tiled = request.crop == "tiles"
    paths = drop_bad_images(paths, request, most=1 if tiled else LARGEST_ENLARGEMENT)
    splits = {}
    for split in SPLITS:
        if tiled:
            splits[split] = tiles_of_pictures(paths[split], request)
        else:
            images = Lazy(lambda path: open_image(path, request), paths[split])
            splits[split] = Source(images, "flip", files=paths[split])
    return splits


def tiles_of_pictures(paths: Sequence[Path], request: Request) -> Source:
    """Tiles n x n of pictures at full and half size, which overlap by half of a side at most."""
    n, places, largest = request.n, [], 1
    for path in paths:
        width, height = check_image(path)
        largest = max(largest, LARGEST_PIXEL * width * height)
        for scale in (1, 2):
            for y in starts(height // scale, n):
                places += [(path, scale, x, y) for x in starts(width // scale, n)]

    room = free_memory(torch.device("cpu")) // 4

    @lru_cache(maxsize=max(1, min(KEPT_PICTURES, room // largest)))
    def picture(path: Path, scale: int) -> Image.Image:
        with open_pil(path) as image:
            image = convert_channels(turn_upright(image), request.c)
        size = (image.width // scale, image.height // scale)
        return image.resize(size, Image.Resampling.BILINEAR)

    def tile(place: tuple[Path, int, int, int]) -> Tensor:
        path, scale, x, y = place
        return to_pixels(picture(path, scale).crop((x, y, x + n, y + n)), request.c)

    return Source(Lazy(tile, places), "dihedral", files=[place[0] for place in places])


def starts(side: int, n: int) -> list[int]:
    """Where tiles of n pixels begin that cover a side, as few as are at least n / 2 apart."""
    if side < n:
        return []
    count = 1 + (side - n) * 2 // n
    return [round(k * (side - n) / max(1, count - 1)) for k in range(count)]


def whole_pictures(root: Path, request: Request) -> dict[str, Source]:
    """The pictures of a folder, or of its test/, in their own sizes, as a test set alone."""
    paths = pictures_in(root / "test") or pictures_in(root)
    paths, multiple = drop_bad_images({"test": paths}, request, most=1)["test"], request.multiple
    cropped = 0
    for path in paths:
        cropped += any(side % multiple for side in check_image(path))
    if cropped:
        print(
            f"{root}: {cropped} of {len(paths)} pictures are cropped to multiples of "
            f"{multiple} pixels"
        )

    def picture(path: Path) -> Tensor:
        image = read_picture(path, request.c)
        height, width = (side - side % multiple for side in image.shape[-2:])
        return image[:, :height, :width]

    return {
        "train": Source([]),
        "val": Source([]),
        "test": Source(Lazy(picture, paths), kind=WholeImages, files=paths),
    }
