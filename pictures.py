"""What a script asks of a dataset, and a picture of any size as the tensor that it asks for."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tables import UserError

BAD_IMAGE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


class Request(NamedTuple):
    """What a script asks of a dataset."""

    dataset: str = "photos"
    n: int = 32
    c: int = 1
    data_root: str = "data"
    download: bool = False
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
    labelled: bool = False  # labels beside the images, and splits and subsets in which every class has its share
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


def converted(image: Image.Image, c: int) -> Image.Image:
    """Grey or RGB, 16-bit pictures on the scale of bytes."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 65535 * 255).round().astype(np.uint8))
    return image.convert("L" if c == 1 else "RGB")


def pixels_of(image: Image.Image) -> Tensor:
    """(C, H, W) in [0, 1]"""
    array = np.asarray(image, dtype=np.float32) / 255
    return torch.from_numpy(array.copy()).view(image.height, image.width, -1).movedim(-1, 0).contiguous()


def read_picture(path: Path, c: int) -> Tensor:
    """A whole picture (C, H, W) in [0, 1]."""
    try:
        with Image.open(path) as image:
            return pixels_of(converted(image, c))
    except BAD_IMAGE as error:
        raise UserError(f"{path} is not a readable image: {error}") from None


def check_image(path: Path) -> None:
    """Names a file that is no image, or a damaged one as far as its format can tell, before anything is trained."""
    try:
        with Image.open(path) as image:
            image.verify()
    except BAD_IMAGE as error:
        raise UserError(f"{path} is not a readable image: {error}") from None


def pictures_in(root: Path) -> list[Path]:
    """The picture files of a tree, in order."""
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)


def open_image(path: Path, request: Request, box: tuple | None = None) -> Tensor:
    """The picture of a file, or what a box (left, top, right, bottom) cuts out of it."""
    try:
        with Image.open(path) as image:
            return to_tensor(image.crop(box) if box else image, request)
    except BAD_IMAGE as error:
        raise UserError(f"{path} is not a readable image: {error}") from None
