"""Images of your own in the arrays of one file: .npy, .npz, .mat, .h5."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core import own
from core.errors import UserError
from data.batches import Source
from data.images import Request, is_enlarged, report_enlarged, to_tensor
from data.numbers import ARRAYS, read_named
from data.splits import SPLITS, Lazy, hold_out, hold_out_per_class, split_by_tenths

GREY = torch.tensor([0.299, 0.587, 0.114])  # of red, green and blue, as Pillow has it
SINGLE = ("x", "y")  # images and labels that have no splits
WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))  # the largest values of cameras
SAVE = {".npy": "np.save('x.npy', {})", ".npz": "np.savez('x.npz', x={})"}


def array(request: Request) -> dict[str, Source]:
    """Images (N, H, W), (N, H, W, 3) or (N, 3, H, W), as bytes or as floats in [0, 1].

    They are x_train, x_test and perhaps x_val, or one array that is split 80 / 10 / 10. Labels are
    y_train, y_test and y_val, or y; `classes` has their names.
    """
    path, where = Path(request.data_root), f"dataset '{request.dataset}':"
    if path.suffix.lower() not in ARRAYS:
        raise UserError(f"{where} {path} does not end in {', '.join(ARRAYS)}")
    return from_arrays(path, where, read_named(path), request)


def own_images(request: Request) -> dict[str, Source]:
    """Images that a function of the user's makes: an array, or several as such a file has them.

    It gets what it asks for of n, c and data_root.
    """
    key, where = request.dataset, f"dataset '{request.dataset}':"
    function = own.load(key)
    offered = {"n": request.n, "c": request.c, "data_root": request.data_root}
    arguments = own.settings_for(function, key, {}, offered)
    if request.data_root != Request().data_root and "data_root" not in arguments:
        raise UserError(f"{where} it has no argument data_root, so leave out --data_root")
    with own.pointing_at(own.source_of(key).path):
        made = function(**arguments)
    arrays = made if isinstance(made, dict) else {"x": made}
    try:
        arrays = {str(name): np.asarray(value) for name, value in arrays.items()}
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{where} it must return arrays of numbers: {error}") from None
    return from_arrays(Path(key), where, arrays, request)


def from_arrays(
    path: Path, where: str, arrays: dict[str, np.ndarray], request: Request
) -> dict[str, Source]:
    """The splits of named arrays."""
    named = {split: f"x_{split}" for split in SPLITS if f"x_{split}" in arrays}
    if not named:
        return split_one(path, where, arrays, request)
    for split in ("train", "test"):
        if split not in named:
            raise UserError(
                f"{where} {path} lacks x_{split}; it has {', '.join(arrays)}; "
                "leave the splitting to us by one array named x"
            )
    images = {split: checked(path, where, name, arrays[name]) for split, name in named.items()}
    labels = {}
    if request.labelled:
        labels = {
            split: labels_of(path, where, arrays, f"y_{split}", len(images[split]))
            for split in images
        }
    keys = {split: list(range(len(x))) for split, x in images.items()}
    if "val" not in images:
        train = labels.get("train")
        count = len(images["train"])
        keys["train"], keys["val"] = hold_out(count) if train is None else hold_out_per_class(train)
        images["val"] = images["train"]
        labels |= {"val": labels["train"]} if labels else {}
    return sources(path, where, images, labels, keys, arrays, request)


def split_one(
    path: Path, where: str, arrays: dict[str, np.ndarray], request: Request
) -> dict[str, Source]:
    """The splits of one array, which is the only one that can be images, or is named x."""
    found = [name for name, a in arrays.items() if a.ndim > 2] or list(arrays)
    name = "x" if "x" in arrays else found[0] if len(found) == 1 else None
    if name is None:
        has = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise UserError(
            f"{where} {path} has {has or 'no arrays'}: which are the images? name them x, "
            "or x_train and x_test; for example np.savez('x.npz', x=images)"
        )
    x = checked(path, where, name, arrays[name])
    y = labels_of(path, where, arrays, "y", len(x)) if request.labelled else None
    if y is None:
        keys = split_by_tenths(range(len(x)))
    else:
        train, val, test = hold_out_per_class(y, parts=2)
        keys = {"train": train, "val": val, "test": test}
    labels = {} if y is None else dict.fromkeys(SPLITS, y)
    return sources(path, where, dict.fromkeys(SPLITS, x), labels, keys, arrays, request)


def sources(
    path: Path,
    where: str,
    images: dict[str, np.ndarray],
    labels: dict[str, list[int]],
    keys: dict[str, list[int]],
    arrays: dict[str, np.ndarray],
    request: Request,
) -> dict[str, Source]:
    """The splits of checked images, of which each has some."""
    distinct = {id(x): (split, x) for split, x in reversed(images.items())}  # one may be two parts
    for split, x in distinct.values():
        height, width = x.shape[1:3]
        name = f"x_{split}" if f"x_{split}" in arrays else "an image"
        small = is_enlarged(f"{where} {name} of {path}", (width, height), request.n)
        report_enlarged(f"{name} of {path}", small * len(x), len(x), request.n)
    classes = class_names(path, where, arrays, labels) if labels else ()
    splits = {}
    for split in SPLITS:
        x, y = images[split], labels.get(split)
        splits[split] = Source(
            Lazy(lambda i, x=x: to_image(x[i], request), keys[split]),
            "flip" if split == "train" else "none",
            labels=None if y is None else [int(y[i]) for i in keys[split]],
            classes=classes,
        )
    return splits


def checked(path: Path, where: str, name: str, x: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) of bytes or floats in [0, 1]; what is refused says how to convert it."""
    called = name or "array"
    load = f"x = np.load('{path}')" + (f"['{name}']" if name and path.suffix == ".npz" else "")
    load = load if path.suffix in SAVE else f"x = ...  # {called} of {path}"

    def refuse(why: str, becomes: str) -> UserError:
        save = SAVE.get(path.suffix, SAVE[".npz"]).format(becomes)
        return UserError(
            f"{where} {called} of {path} {why}; convert it: import numpy as np; {load}; {save}"
        )

    if x.ndim == 2:
        raise refuse(f"is one image of {x.shape[0]} x {x.shape[1]}", "x[None]")
    if x.ndim not in (3, 4) or not x.size:
        raise UserError(
            f"{where} {called} of {path} has shape {x.shape}: allowed are (images, "
            "height, width), and with 1 or 3 channels behind or before height and width"
        )
    if x.ndim == 4 and x.shape[3] not in (1, 3):
        if x.shape[1] not in (1, 3):
            raise refuse(f"has shape {x.shape}, neither 1 nor 3 channels", "x[..., :3]")
        x = np.moveaxis(x, 1, 3)
    if x.dtype.kind == "c":
        raise refuse("holds complex numbers", "abs(x) / abs(x).max()")
    if x.dtype == bool:
        x = x.astype(np.uint8) * 255
    if x.dtype.kind in "iu" and x.dtype != np.uint8:
        low, high = int(x.min()), int(x.max())
        raise refuse(f"holds {x.dtype} from {low} to {high}", scaled(low, high))
    if x.dtype.kind == "f":
        if not np.isfinite(x).all():
            raise refuse("has values that are not finite", "np.nan_to_num(x, posinf=1, neginf=0)")
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            why = f"has values from {low:.3g} to {high:.3g}, not in [0, 1]"
            raise refuse(why, scaled(low, high))
    elif x.dtype != np.uint8:
        raise UserError(f"{where} {called} of {path} holds {x.dtype}, not numbers")
    return x if x.ndim == 4 else x[..., None]


def scaled(low: float, high: float) -> str:
    """What brings an array x into [0, 1]: a division by the white of the least bits that fit."""
    white = next((white for white in WHITES if low >= 0 and high <= white), None)
    return "(x - x.min()) / np.ptp(x)" if white is None else f"x / np.float32({white})"


def to_image(x: np.ndarray, request: Request) -> Tensor:
    """An image (H, W, C) as (c, n, n) in [0, 1], its central square or whole."""
    if x.dtype == np.uint8:
        return to_tensor(x[..., 0] if x.shape[2] == 1 else x, request)
    image = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).movedim(2, 0)
    if len(image) != request.c:
        if request.c == 1:
            image = (GREY[:, None, None] * image).sum(0, keepdim=True)
        else:
            image = image.expand(3, -1, -1)
    height, width = image.shape[1:]
    if request.crop == "center":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[:, top : top + side, left : left + side]
    size = (request.n, request.n)
    if image.shape[1:] != size:
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return image.clamp(0, 1).contiguous()


def labels_of(
    path: Path, where: str, arrays: dict[str, np.ndarray], name: str, count: int
) -> list[int]:
    """The numbers of the classes of images."""
    if name not in arrays:
        raise UserError(f"{where} {path} lacks {name}; it has {', '.join(arrays)}")
    y = arrays[name].reshape(-1)
    whole = y.dtype.kind in "iu" or (
        y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all()
    )
    if not whole or len(y) != count or y.min() < 0:
        raise UserError(
            f"{where} {name} of {path} is {y.dtype} {arrays[name].shape}: "
            f"integers ({count},) from 0 are allowed"
        )
    if name in ("y", "y_train") and y.max() >= count:
        raise UserError(
            f"{where} {name} of {path} goes to {y.max():g}: "
            f"{count} images cannot have so many classes"
        )
    return [int(label) for label in y.tolist()]  # exact, however large


def class_names(
    path: Path, where: str, arrays: dict[str, np.ndarray], labels: dict[str, list[int]]
) -> tuple[str, ...]:
    """The names of the classes, or their numbers."""
    names = arrays.get("classes")
    if names is None:
        names = np.array([str(k) for k in range(1 + max(labels["train"]))])
    if names.dtype.kind != "U" or names.ndim != 1:
        raise UserError(
            f"{where} classes of {path} is {names.dtype} {names.shape}: strings (K,) are allowed"
        )
    for split, y in labels.items():
        if max(y) >= len(names):
            name = f"y_{split}" if f"y_{split}" in arrays else "y"
            raise UserError(
                f"{where} {name} of {path} goes from {min(y)} to {max(y)}: "
                f"0 to {len(names) - 1} are allowed"
            )
    return tuple(names.tolist())
