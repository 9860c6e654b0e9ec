"""What can be refused by words and the names of files alone, in a second: nothing here imports torch."""

import os
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

from core.errors import UserError
from core.registry import LAYOUTS, PICTURES

LARGEST_DENSE = 64  # n: beyond it the decomposition of dense patterns is too much for a workstation
RUN_FILES = ("best.pth", "last.pth")  # of a run folder: what is meant where the folder is named
ZIP, PICKLE = b"PK", b"\x80"  # how torch's files begin since version 1.6, and before it


def existing_file(path: str | Path, what: str) -> Path:
    """A file that is there and holds something."""
    path = Path(path)
    if path.is_dir():
        inside = next(
            (f"; give {path / name}" for name in RUN_FILES if (path / name).is_file()), ""
        )
        raise UserError(f"{what} {path} is a folder, a file is needed{inside}")
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file")
    if not path.stat().st_size:
        raise UserError(f"{what} {path} is an empty file")
    return path


def existing_folder(path: str | Path, what: str) -> Path:
    """A folder that is there."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{what} {path} is a file, a folder is needed")
    if not path.is_dir():
        raise UserError(f"{what} {path}: no such folder")
    return path


def is_archive(path: Path) -> bool:
    """Whether a file ends as a zip archive; what is wrong within it, its reader says."""
    try:
        return is_zipfile(path)
    except BadZipFile:
        return True


def checkpoint_file(path: str | Path, what: str = "checkpoint") -> Path:
    """A file that torch.save wrote to its end."""
    path = existing_file(path, what)
    with open(path, "rb") as file:
        begins = file.read(2)
    if is_archive(path):
        return path
    if begins == ZIP:
        raise UserError(f"{what} {path} is cut off: its end is missing; copy it or train it again")
    if begins[:1] == PICKLE:
        raise UserError(
            f"{what} {path} is a pickle, as torch wrote before version 1.6: it could run code and is not read"
        )
    raise UserError(f"{what} {path} is not a checkpoint: torch.save did not write it")


def folder_to_write(path: str | Path, what: str) -> Path:
    """A folder that is there or can be made."""
    path = Path(path)
    nearest = next((place for place in (path, *path.parents) if place.exists()), Path())
    if not nearest.is_dir():
        raise UserError(f"{what} {path}: {nearest} is a file, not a folder; name another folder")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{what} {path}: permission denied in {nearest}; name another folder")
    return path


def npz_file(path: str | Path, what: str) -> Path:
    """An archive of arrays."""
    path = existing_file(path, what)
    if not is_archive(path):
        raise UserError(f"{what} {path} is not an .npz file: numpy.savez did not write it")
    return path


def check_data(asked) -> None:
    """Refuses a dataset whose files are not where the flags say."""
    name, where = asked.dataset, f"dataset '{asked.dataset}':"
    if name in LAYOUTS and not getattr(asked, "download", False):
        folder = Path(asked.data_root) / LAYOUTS[name]
        if not folder.is_dir():
            if Path(asked.data_root).exists():
                existing_folder(asked.data_root, f"{where} --data_root")
            raise UserError(f"{where} no files in {folder}; put them there or give --download")
    elif name == "npz":
        npz_file(asked.data_root, f"{where} --data_root")
    elif name in ("folder", "cub"):
        existing_folder(asked.data_root, f"{where} --data_root")
    for flag in PICTURES.get(name, ()):
        if not getattr(asked, flag):
            raise UserError(f"{where} which folder? give --{flag} DIR")
        path = Path(getattr(asked, flag))
        if not (flag == "unpaired" and path.is_file()):  # which may be a list of pictures
            existing_folder(path, f"{where} --{flag}")
    if name in PICTURES and asked.pairs:
        existing_file(asked.pairs, "--pairs")


def check_side(ordering: str, n: int) -> None:
    """Refuses a side that Hadamard patterns do not have."""
    if n < 2 or n & (n - 1):
        raise UserError(
            f"n {n}: ordering '{ordering}' measures Hadamard patterns, whose side is a power of two (2, 4, 8, 16, ...)"
        )


def check_dense(n: int) -> None:
    """Refuses a side of dense patterns that would take too long."""
    if n > LARGEST_DENSE:
        raise UserError(
            f"n {n}: dense patterns need a singular value decomposition, allowed up to n {LARGEST_DENSE}"
        )


def check_patterns(ordering: str, n: int) -> None:
    """Refuses a side that an ordering of the table cannot have; a user's own patterns are looked into later."""
    if ordering == "random":
        check_dense(n)
    elif not ordering.startswith("file:"):
        check_side(ordering, n)
