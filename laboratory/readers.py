"""Files of other people's measurements: .npy, .csv, .mat, and folders of them."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.errors import UserError, in_a_line
from core.inputs import existing_file
from data.arrays import BAD_ARRAY, read_npy

TABLES = (".csv", ".txt", ".dat")
SUFFIXES = (".npy", *TABLES, ".mat")


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


def read_numbers(path: Path, key: str | None) -> np.ndarray:
    """The array of a file, as double precision."""
    existing_file(path, "--input")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: files that end in {', '.join(SUFFIXES)} are read")
    if key is not None and suffix != ".mat":
        raise UserError(f"key {key}: only a .mat file has several arrays, not {path}")
    if suffix == ".mat":
        return read_mat(path, key)
    if suffix in TABLES:
        return read_table(path)
    try:
        array = read_npy(path)
    except BAD_ARRAY as error:
        raise UserError(f"{path} is not an .npy array of numbers ({error})") from None
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path} holds {array.dtype}, not real numbers")
    return array.astype(np.float64)


def read_table(path: Path) -> np.ndarray:
    """The numbers of a text file, perhaps below one line of names."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file") from None
    rows = [(k, split_line(line)) for k, line in enumerate(lines, 1) if line.strip()]
    if rows and not any(map(is_number, rows[0][1])):
        rows = rows[1:]
    if not rows:
        raise UserError(f"{path} has no numbers")
    for k, words in rows:
        wrong = next((word for word in words if not is_number(word)), None)
        if wrong is not None:
            raise UserError(f"{path}, line {k}: '{in_a_line(wrong):.40}' is not a number")
        if len(words) != len(rows[0][1]):
            raise UserError(
                f"{path}, line {k} has {len(words)} numbers, but line {rows[0][0]} has "
                f"{len(rows[0][1])}"
            )
    table = np.array([[float(word) for word in words] for _, words in rows])
    return table[:, 0] if table.shape[1] == 1 else table


def split_line(line: str) -> list[str]:
    """The words of a line between commas, semicolons (with decimal commas) or spaces."""
    line = line.strip().rstrip(",;")
    if ";" in line:
        return [word.strip().replace(",", ".") for word in line.split(";")]
    return [word.strip() for word in line.split(",")] if "," in line else line.split()


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def is_numeric(array) -> bool:
    """Whether a variable of MATLAB is an array of real numbers."""
    return isinstance(array, np.ndarray) and array.dtype.kind in "iuf" and array.size > 1


def read_mat(path: Path, key: str | None) -> np.ndarray:
    """An array of a MATLAB file up to version 7.2."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path)
    except NotImplementedError:
        raise UserError(f"{path} is of MATLAB 7.3: save it again with '-v7'") from None
    except (*BAD_ARRAY, MatReadError, zlib.error) as error:
        raise UserError(f"{path} is not a readable .mat file: {error}") from None
    arrays = {
        name: array
        for name, array in content.items()
        if not name.startswith("__") and is_numeric(array)
    }
    if key is None and len(arrays) != 1:
        raise UserError(f"{path} has {', '.join(arrays) or 'no arrays'}: choose one by --key NAME")
    if key is not None and key not in arrays:
        raise UserError(f"key {key}: {path} has {', '.join(arrays) or 'no arrays'}")
    array = arrays[key or next(iter(arrays))].astype(np.float64)
    return array.reshape(-1) if 1 in array.shape and array.ndim == 2 else array
