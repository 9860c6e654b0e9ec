"""Checks of names and files, which take no time since nothing here imports torch."""

import json
import os
import re
import zlib
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

from core.errors import UserError
from core.registry import LAYOUTS, LIGHT_LIMITS, PICTURES

LARGEST_DENSE = 64  # n: beyond it the decomposition of dense patterns is too much for a workstation
RUN_FILES = ("best.pth", "last.pth")  # of a run folder, to be given instead of the folder
ZIP, PICKLE = b"PK", b"\x80"  # how torch's files begin since version 1.6, and before it
NAME_RULE = "letters, digits, '_', '-', '.' and '+' are allowed"
DEVICE = re.compile(r"auto|cpu|-1|cuda|(cuda:)?\d+", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a text can name a folder."""
    return bool(re.fullmatch(r"[\w.+-]*\w[\w.+-]*", text))


def check_device(device: str) -> None:
    """Refuses what is no device's name; torch checks later whether this machine has it."""
    if not DEVICE.fullmatch(device):
        raise UserError(f"unknown device '{device}': choose from auto, cpu, -1, cuda, cuda:N and N")


def existing_file(path: str | Path, what: str) -> Path:
    """The path of a file that exists and is not empty."""
    path = Path(path)
    if path.is_dir():
        inside = [path / name for name in RUN_FILES if (path / name).is_file()]
        advice = f"; give {inside[0]}" if inside else ""
        raise UserError(f"{what} {path} is a folder, but a file is needed{advice}")
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file")
    if not path.stat().st_size:
        raise UserError(f"{what} {path} is an empty file")
    return path


def existing_folder(path: str | Path, what: str) -> Path:
    """The path of a folder that exists."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{what} {path} is a file, but a folder is needed")
    if not path.is_dir():
        raise UserError(f"{what} {path}: no such folder")
    return path


def is_archive(path: Path) -> bool:
    """Whether a file ends as a zip archive; its reader reports what is wrong inside of it."""
    try:
        return is_zipfile(path)
    except BadZipFile:
        return True


def checkpoint_file(path: str | Path, what: str = "checkpoint") -> Path:
    """The path of a file that torch.save wrote to its end."""
    path = existing_file(path, what)
    with open(path, "rb") as file:
        begins = file.read(2)
    if is_archive(path):
        return path
    if begins == ZIP:
        raise UserError(f"{what} {path} is cut off at its end: copy it or train it again")
    if begins[:1] == PICKLE:
        raise UserError(
            f"{what} {path} is a pickle, which torch wrote before version 1.6; "
            "it could run code and "
            "is not read: save it again with a newer torch"
        )
    raise UserError(f"{what} {path} is not a checkpoint: torch.save did not write it")


def folder_to_write(path: str | Path, what: str) -> Path:
    """The path of a folder that exists or can be made."""
    path = Path(path)
    nearest = next((place for place in (path, *path.parents) if place.exists()), Path())
    if not nearest.is_dir():
        raise UserError(f"{what} {path}: {nearest} is a file, not a folder; name another folder")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{what} {path}: permission denied in {nearest}; name another folder")
    return path


def npz_file(path: str | Path, what: str) -> Path:
    """The path of an archive of arrays."""
    path = existing_file(path, what)
    if not is_archive(path):
        raise UserError(f"{what} {path} is not an .npz file: numpy.savez did not write it")
    return path


def recorded_config(path: str | Path) -> dict:
    """The physics in the header of a recording; empty where it cannot be read, which data/ reports.

    It takes no time, as nothing else of the file is read.
    """
    from numpy.lib.format import read_array

    try:
        with ZipFile(path) as archive, archive.open("config.npy") as file:
            config = json.loads(str(read_array(BytesIO(file.read(2**20)), allow_pickle=False)))
    except (OSError, ValueError, LookupError, BadZipFile, MemoryError, RecursionError, zlib.error):
        return {}
    return config if isinstance(config, dict) else {}


def check_data(request) -> None:
    """Refuses a dataset whose files are not where the flags say; `request` has these flags."""
    name, where = request.dataset, f"dataset '{request.dataset}':"
    root = Path(request.data_root)
    if name in LAYOUTS and not getattr(request, "download", False):
        folder = root / LAYOUTS[name]
        if not folder.is_dir():
            if root.exists():
                existing_folder(root, f"{where} --data_root")
            raise UserError(f"{where} no files in {folder}; put them there or give --download")
    elif name == "array":
        existing_file(root, f"{where} --data_root")
    elif name in ("npz", "recorded"):
        npz_file(root, f"{where} --data_root")
    elif name in ("folder", "cub"):
        existing_folder(root, f"{where} --data_root")
    for flag in PICTURES.get(name, ()):
        if not getattr(request, flag):
            raise UserError(f"{where} which folder? give --{flag} DIR")
        path = Path(getattr(request, flag))
        if not (flag == "unpaired" and path.is_file()):  # it may be a list of pictures
            existing_folder(path, f"{where} --{flag}")
    if name in PICTURES and request.pairs:
        existing_file(request.pairs, "--pairs")


CALIBRATED = ("dark", "dark_noise", "gain")  # what a calibration file holds of a camera


def read_calibration(path: str | Path) -> dict[str, float]:
    """Dark offset, dark noise and gain of a file that calibrate.py wrote."""
    where, file = f"calibration {path}", existing_file(path, "calibration")
    try:
        content = json.loads(file.read_text())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not {*CALIBRATED} <= content.keys():
        raise UserError(f"{where} is not a file that calibrate.py wrote")
    for name in CALIBRATED:
        low, high, open_low = LIGHT_LIMITS[name]
        value = content[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high or (open_low and value == low):
            raise UserError(f"{where}: {name} {value!r:.40} is not a number that a camera can have")
    return {name: float(content[name]) for name in CALIBRATED}


def check_side(ordering: str, n: int) -> None:
    """Refuses a side that is no power of two, which Hadamard patterns need."""
    if n < 2 or n & (n - 1):
        raise UserError(
            f"n {n}: ordering '{ordering}' measures Hadamard patterns, "
            "whose side must be a power of two (2, 4, 8, 16, ...)"
        )


def check_dense(n: int) -> None:
    """Refuses a side for which dense patterns take too long."""
    if n > LARGEST_DENSE:
        raise UserError(
            f"n {n}: dense patterns need a singular value decomposition, "
            f"which is allowed up to n {LARGEST_DENSE}; choose a smaller --n or another --ordering"
        )


def check_patterns(ordering: str, n: int) -> None:
    """Refuses a side that an ordering cannot have; a user's own patterns are checked later."""
    if ordering == "random":
        check_dense(n)
    elif ordering == "learned":
        check_dense(n)
        check_side(ordering, n)
    elif not ordering.startswith("file:"):
        check_side(ordering, n)
