"""What a script requests of a dataset, and pictures of any size as tensors."""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from core.errors import CONTROL, UserError, in_a_line

BAD_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
BAD_EXIF = (*BAD_IMAGE, struct.error, TypeError, LookupError)
UPRIGHT = {  # how a picture of an EXIF orientation is turned
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
BACKGROUND = "white"  # of pictures with transparency; its 16 bits are 65535
LARGEST_ENLARGEMENT = 2  # of a picture's shorter side to n
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


class Request(NamedTuple):
    """What a script requests of a dataset."""

    dataset: str = "photos"
    n: int = 32
    c: int = 1
    data_root: str = "data"
    download: bool = False
    on_bad_image: str = "stop"
    crop: str = "center"
    multiple: int = 1  # the sides of whole pictures are cropped to multiples of it
    limit_train: int | None = None
    limit_val: int | None = None
    limit_test: int | None = None
    limit_labels: int | None = None  # of the training images, those whose label is known
    subset_seed: int = 0  # chooses the images of limit_train, limit_val and limit_labels
    gt: str | None = None
    lq: str | None = None
    pairs: str | None = None
    unpaired: str | None = None
    paired_share: float = 0.5
    truth: str | None = None  # the file of a recording's clean images
    labelled: bool = False  # with labels, and the share of each class in splits and subsets
    shift: bool = False  # shifts training images by up to an eighth of a side


def to_tensor(image: Image.Image | np.ndarray, request: Request) -> Tensor:
    """A picture as (C, n, n) in [0, 1]: grey or RGB, resized whole or its central square."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image = convert_channels(image, request.c)
    if request.crop == "center":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (request.n, request.n):
        image = image.resize((request.n, request.n), Image.Resampling.BILINEAR)
    return to_pixels(image, request.c)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a loaded picture, 1 where it is missing or unreadable.

    Pillow turns TIFFs itself.
    """
    try:
        with catch_warnings(action="ignore"):
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except BAD_EXIF:
        return 1


def turn_upright(image: Image.Image) -> Image.Image:
    """A picture as viewers show it, turned by its EXIF orientation."""
    image.load()
    turn = UPRIGHT.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def convert_channels(image: Image.Image, c: int) -> Image.Image:
    """A grey or RGB picture of 0 to 255, transparent pixels over the background.

    They are bytes, and of a picture of 16 bits, which Pillow has in grey alone, floats.
    """
    if image.mode.startswith(("I", "F")):
        array = np.asarray(image, dtype=np.float32)
        if image.mode == "F" or array.min() < 0 or array.max() > 65535:
            raise ValueError("its pixels have neither 8 nor 16 bits")
        clear = image.info.get("transparency")  # a PNG's value of transparent pixels
        array = array if clear is None else np.where(array == clear, 65535, array)
        return Image.fromarray(array / np.float32(257))  # 65535 becomes 255
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    return image.convert("L" if c == 1 else "RGB")


def to_pixels(image: Image.Image, c: int) -> Tensor:
    """A picture of 0 to 255 as (c, H, W) in [0, 1]."""
    array = np.asarray(image, dtype=np.float32) / 255
    pixels = torch.from_numpy(array.copy()).view(image.height, image.width, -1)
    return pixels.movedim(-1, 0).expand(c, -1, -1).contiguous()


@contextmanager
def open_pil(path: Path) -> Iterator[Image.Image]:
    """The picture of a file; an error names the file in one line."""
    try:
        # Of a path, Pillow maps an uncompressed TIFF into memory, and turns it wrongly.
        with path.open("rb") as file, Image.open(file) as image:
            yield image
    except UnidentifiedImageError:  # which would name the opened file, not its path
        raise UserError(f"{path} is not a readable image: its format is unknown") from None
    except BAD_IMAGE as error:
        raise UserError(f"{path} is not a readable image: {error}") from None


def read_picture(path: Path, c: int) -> Tensor:
    """A whole picture (C, H, W) in [0, 1]."""
    with open_pil(path) as image:
        return to_pixels(convert_channels(turn_upright(image), c), c)


def open_image(path: Path, request: Request, box: tuple | None = None) -> Tensor:
    """The picture of a file, or what a box (left, top, right, bottom) cuts out of it."""
    with open_pil(path) as image:
        image = turn_upright(image)
        return to_tensor(image.crop(box) if box else image, request)


@cache
def decoded_size(path: Path, size: int, changed: int) -> tuple[int, int]:
    """Width and height of a file that is read to its last pixel, once unless it changes.

    A JPEG is read at an eighth of its sides, which takes all its bytes and less time.
    """
    with catch_warnings(action="ignore"), open_pil(path) as image:
        width, height = image.size
        image.draft("L", (1, 1))
        convert_channels(image, 1)
        return (height, width) if orientation_of(image) in SIDEWAYS else (width, height)


def check_image(path: Path) -> tuple[int, int]:
    """The width and height of an upright picture, or an error for a damaged file."""
    if not path.is_file():
        raise UserError(f"{path} is not a readable image: no such file")
    if CONTROL.search(str(path)):
        raise UserError(f"{path} is not a readable image: its name has control characters")
    status = path.stat()
    return decoded_size(path, status.st_size, status.st_mtime_ns)


def is_enlarged(what: str, size: tuple[int, int], n: int, most: int = LARGEST_ENLARGEMENT) -> bool:
    """Whether a picture of this size is enlarged to n pixels; too small a one is refused."""
    side = min(size)
    if side * most >= n:
        return side < n
    start = f"{what} is {size[0]} x {size[1]}"
    if most == 1:
        raise UserError(f"{start}, smaller than n {n}")
    raise UserError(
        f"{start}: it would be enlarged {n / max(side, 1):.3g} times to n {n}, "
        f"and at most {most} times is allowed"
    )


@cache
def report_enlarged(where: str, enlarged: int, count: int, n: int) -> None:
    """Reports that pictures are enlarged, once, however often they are loaded."""
    if enlarged:
        print(f"{where}: {enlarged} of {count} pictures are smaller than n {n} and are enlarged")


def drop_bad_images(
    splits: dict[str, list],
    request: Request,
    files: Callable[[Any], Sequence[Path]] = lambda item: (item,),
    most: int = LARGEST_ENLARGEMENT,
) -> dict[str, list]:
    """The splits without the items of unreadable or too small pictures.

    Such a picture is an error, unless --on_bad_image is skip.
    """
    items_of_all = [item for items in splits.values() for item in items]
    paths = dict.fromkeys(path for item in items_of_all for path in files(item))
    bad, enlarged = set(), 0
    for path in paths:
        try:
            enlarged += is_enlarged(str(path), check_image(path), request.n, most)
        except UserError as error:
            if request.on_bad_image == "stop":
                raise UserError(f"{error} (--on_bad_image skip leaves such pictures out)") from None
            bad.add(path)
    report_enlarged(request.data_root, enlarged, len(paths) - len(bad), request.n)
    if not bad:
        return splits
    names = ", ".join(in_a_line(str(path)) for path in sorted(bad)[:3])
    more = ", ..." if len(bad) > 3 else ""
    print(f"{len(bad)} pictures are left out as broken or too small: {names}{more}")
    good = {
        split: [item for item in items if bad.isdisjoint(files(item))]
        for split, items in splits.items()
    }
    for split, items in splits.items():
        if items and not good[split]:
            raise UserError(
                f"dataset '{request.dataset}': no {split} picture is left, "
                f"all {len(items)} are broken or too small"
            )
    return good


def pictures_in(root: Path) -> list[Path]:
    """The picture files of a tree, in order."""
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
