"""Files of other people's measurements: .npy, .csv, .mat, .h5, and folders of them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.inputs import existing_file
from data.numbers import HDF5, TABLES, read_named, read_table

NAMED = (".mat", *HDF5)  # files of several arrays
SUFFIXES = (".npy", *TABLES, *NAMED)


@dataclass(frozen=True)
class Raw:
    """The values of a detector (N, C, K), as a file has them, and what it says of them."""

    values: np.ndarray
    names: tuple[str, ...]
    n: int | None = None  # the side of the images, where the file says it
    walsh: np.ndarray | None = None  # the Walsh numbers of the pairs, where the file says them
    notes: dict = field(default_factory=dict)

    def order(self) -> list[int]:
        """The Walsh numbers as a list, which can be compared."""
        return [] if self.walsh is None else self.walsh.tolist()


def read_raw(path: Path, key: str | None = None, in_columns: bool = False) -> Raw:
    """The frames of a file, or of the files of a folder, each of which is one frame."""
    if not path.is_dir():
        values = as_frames(read_numbers(path, key), path, in_columns)
        names = tuple(f"{path.stem}_{k:05d}" for k in range(len(values)))
        return Raw(values, names)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{path} has no files that end in {', '.join(SUFFIXES)}")
    frames = [one_frame(read_numbers(file, key), file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise UserError(
                f"{file} has {frame.shape[-1]} values, but {files[0]} has {frames[0].shape[-1]}"
            )
    return Raw(np.stack(frames), tuple(file.stem for file in files))


def as_frames(array: np.ndarray, path: Path, in_columns: bool) -> np.ndarray:
    """(N, C, K) of an array (K,), (N, K) or (N, C, K)."""
    if array.ndim == 1:
        array = array[None]
    if array.ndim == 2:
        array = without_counter(array, path).T[:, None] if in_columns else array[:, None]
    elif in_columns:
        raise UserError(f"{path} has shape {array.shape}: only a table has frames in columns")
    if array.ndim != 3 or array.shape[1] not in (1, 3) or not array.size:
        raise UserError(
            f"{path} has shape {array.shape}: allowed are (frames, values) and (frames, 3, values)"
        )
    return array


def without_counter(table: np.ndarray, path: Path) -> np.ndarray:
    """A table without a first column that counts its rows."""
    if table.shape[1] > 1 and np.array_equal(table[:, 0] - table[0, 0], np.arange(len(table))):
        print(f"{path}: the first column counts the rows and is left out")
        return table[:, 1:]
    return table


def one_frame(array: np.ndarray, path: Path) -> np.ndarray:
    """(C, K) of a file that holds one frame."""
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[0] not in (1, 3):
        raise UserError(f"{path} has shape {array.shape}, but a file of a folder is one frame")
    return array


def read_numbers(
    path: Path, key: str | None, advice: str = "choose one by --key NAME"
) -> np.ndarray:
    """The array of a file, as double precision; the advice is for a file of several."""
    existing_file(path, "--input")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: files that end in {', '.join(SUFFIXES)} are read")
    named = suffix in NAMED
    if key is not None and not named:
        raise UserError(f"key {key}: only {', '.join(NAMED)} have several arrays, not {path}")
    if suffix in TABLES:
        return read_table(path)
    arrays = read_named(path)
    if not named:
        (array,) = arrays.values()
    elif key is None and len(arrays) != 1:
        raise UserError(f"{path} has {', '.join(arrays) or 'no arrays'}: {advice}")
    elif key is not None and key not in arrays:
        raise UserError(f"key {key}: {path} has {', '.join(arrays) or 'no arrays'}")
    else:
        array = arrays[key or next(iter(arrays))]
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path} holds {array.dtype}, not real numbers")
    array = array.astype(np.float64)
    return array.reshape(-1) if named and array.ndim == 2 and 1 in array.shape else array
