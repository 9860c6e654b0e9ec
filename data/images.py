"""What a script asks of a dataset, and a picture of any size as the tensor that it asks for."""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, NamedTuple
from warnings import catch_warnings
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from core.errors import CONTROL, UserError, in_a_line

BAD_ARRAY = (
    *(ValueError, TypeError, OverflowError, LookupError, SyntaxError, OSError, EOFError),
    *(RuntimeError, MemoryError, TokenError, BadZipFile, zlib.error),
)
BAD_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
BAD_EXIF = (*BAD_IMAGE, struct.error, TypeError, LookupError)
UPRIGHT = {  # how a picture of an EXIF orientation is turned before it is shown
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = (5, 6, 7, 8)  # orientations whose width and height change places
BACKGROUND = "white"  # of pictures with transparency; its 16 bits are 65535
ENLARGED = 2  # times that a picture's shorter side is enlarged to n at most
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


class Request(NamedTuple):
    """What a script asks of a dataset."""

    dataset: str = "photos"
    n: int = 32
    c: int = 1
    data_root: str = "data"
    download: bool = False
    on_bad_image: str = "stop"
    crop: str = "center"
    multiple: int = 1  # of which the sides of whole pictures are cut
    limit_train: int | None = None
    limit_val: int | None = None
    limit_test: int | None = None
    gt: str | None = None
    lq: str | None = None
    pairs: str | None = None
    unpaired: str | None = None
    paired_share: float = 0.5
    labelled: bool = (
        False  # labels beside the images, and splits and subsets in which every class has its share
    )
    shift: bool = False  # training images by up to an eighth of a side


def to_tensor(image: Image.Image | np.ndarray, request: Request) -> Tensor:
    """A picture as (C, n, n) in [0, 1]: grey or RGB, the whole image resized or its central square."""
    image = converted(Image.fromarray(image) if isinstance(image, np.ndarray) else image, request.c)
    if request.crop == "center":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (request.n, request.n):
        image = image.resize((request.n, request.n), Image.Resampling.BILINEAR)
    return pixels_of(image)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a loaded picture, 1 where there is none or where it cannot be read; Pillow turns TIFFs itself."""
    try:
        with catch_warnings(action="ignore"):
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except BAD_EXIF:
        return 1


def upright(image: Image.Image) -> Image.Image:
    """A picture as viewers show it, turned by its EXIF orientation."""
    image.load()
    turn = UPRIGHT.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def converted(image: Image.Image, c: int) -> Image.Image:
    """Grey or RGB, 16-bit pictures on the scale of bytes, transparent ones over the background."""
    if image.mode.startswith(("I", "F")):
        array = np.asarray(image, dtype=np.float32)
        if image.mode == "F" or array.min() < 0 or array.max() > 65535:
            raise ValueError("its pixels are neither of 8 nor of 16 bits")
        clear = image.info.get("transparency")  # a PNG's value that stands for nothing
        array = array if clear is None else np.where(array == clear, 65535, array)
        image = Image.fromarray((array / 65535 * 255).round().astype(np.uint8))
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    return image.convert("L" if c == 1 else "RGB")


def pixels_of(image: Image.Image) -> Tensor:
    """(C, H, W) in [0, 1]"""
    array = np.asarray(image, dtype=np.float32) / 255
    return (
        torch.from_numpy(array.copy())
        .view(image.height, image.width, -1)
        .movedim(-1, 0)
        .contiguous()
    )


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The picture of a file; what is wrong with it is one line that names it."""
    try:
        with Image.open(path) as image:
            yield image
    except BAD_IMAGE as error:
        raise UserError(f"{path} is not a readable image: {error}") from None


def read_picture(path: Path, c: int) -> Tensor:
    """A whole picture (C, H, W) in [0, 1]."""
    with opened(path) as image:
        return pixels_of(converted(upright(image), c))


def open_image(path: Path, request: Request, box: tuple | None = None) -> Tensor:
    """The picture of a file, or what a box (left, top, right, bottom) cuts out of it."""
    with opened(path) as image:
        image = upright(image)
        return to_tensor(image.crop(box) if box else image, request)


def read_array(file: BinaryIO, size: int) -> np.ndarray:
    """An .npy array of plain values, whose header does not promise more than the bytes there are."""
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    shape, _, kind = header(file)
    if kind.hasobject:
        raise ValueError("it holds Python objects, which could run code and are not read")
    if prod(shape) * kind.itemsize > size:
        raise ValueError(f"it promises {kind} {shape} in {size} bytes")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def array_in(path: str | Path) -> np.ndarray:
    """The array of an .npy file."""
    with open(path, "rb") as file:
        return read_array(file, Path(path).stat().st_size)


@cache
def decoded(path: Path, size: int, changed: int) -> tuple[int, int]:
    """Reads a file to its last pixel, once unless it changes; a JPEG at an eighth of its sides, which takes all its bytes and less time."""
    with catch_warnings(action="ignore"), opened(path) as image:
        width, height = image.size
        image.draft("L", (1, 1))
        converted(image, 1)
        return (height, width) if orientation_of(image) in LYING else (width, height)


def check_image(path: Path) -> tuple[int, int]:
    """The width and height of a picture as it is shown; a file that is none, or a damaged one, is named before anything is trained."""
    if not path.is_file() or CONTROL.search(str(path)):
        raise UserError(
            f"{path} is not a readable image: {'its name has control characters' if path.is_file() else 'no such file'}"
        )
    about = path.stat()
    return decoded(path, about.st_size, about.st_mtime_ns)


def is_enlarged(what: str, size: tuple[int, int], n: int, most: int = ENLARGED) -> bool:
    """Whether a picture of this size is enlarged to n pixels; one that would be more than so many times is refused."""
    side = min(size)
    if side * most >= n:
        return side < n
    refused = f"{what} is {size[0]} x {size[1]}"
    if most == 1:
        raise UserError(f"{refused}, smaller than n {n}")
    raise UserError(
        f"{refused}: it would be enlarged {n / max(side, 1):.3g} times to n {n}, "
        f"and at most {most} times is allowed"
    )


@cache
def report_enlarged(where: str, enlarged: int, count: int, n: int) -> None:
    """Says that pictures are enlarged, once, however often they are loaded."""
    if enlarged:
        print(f"{where}: {enlarged} of {count} pictures are smaller than n {n} and are enlarged")


def sound(
    splits: dict[str, list],
    request: Request,
    files: Callable = lambda item: (item,),
    most: int = ENLARGED,
) -> dict[str, list]:
    """The splits, whose pictures can all be read and are large enough to be enlarged at most so many times.

    Any other one stops here, or with --on_bad_image skip is left out with its item.
    """
    paths = dict.fromkeys(
        path for items in splits.values() for item in items for path in files(item)
    )
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
    named = ", ".join(in_a_line(str(path)) for path in sorted(bad)[:3])
    more = ", ..." if len(bad) > 3 else ""
    print(f"pictures left out, broken or too small: {len(bad)} ({named}{more})")
    left = {
        split: [item for item in items if bad.isdisjoint(files(item))]
        for split, items in splits.items()
    }
    for split, items in splits.items():
        if items and not left[split]:
            raise UserError(
                f"dataset '{request.dataset}': no {split} picture is left, all {len(items)} are broken or too small"
            )
    return left


def pictures_in(root: Path) -> list[Path]:
    """The picture files of a tree, in order."""
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
