"""Arrays of numbers in files of other programs: .mat, .h5, and tables of text."""

import zlib
from math import prod
from pathlib import Path

import numpy as np

from core.errors import UserError, in_a_line
from data.arrays import BAD_ARRAY, DEFLATED, read_arrays, read_npy
from data.matlab import check_types

TABLES = (".csv", ".txt", ".dat")
HDF5 = (".h5", ".hdf5")
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
MATLAB_NUMBERS = ("double", "single", "logical", *INTEGERS)
ARRAYS = (".npy", ".npz", ".mat", *HDF5)


def read_named(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers in a file by their names; that of an .npy file has none."""
    suffix = path.suffix.lower()
    if suffix == ".mat":
        return read_mat(path)
    if suffix in HDF5:
        return read_hdf5(path)
    if suffix == ".npz":
        return read_arrays(path, what="")
    try:
        return {"": read_npy(path)}
    except BAD_ARRAY as error:
        raise UserError(f"{path} is not an .npy array of numbers ({error})") from None


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a MATLAB file of any version, with their axes in MATLAB's order."""
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError, matfile_version

    try:
        if matfile_version(path)[0] == 1:
            check_types(path)
        variables = whosmat(path)
        if len({name for name, _, _ in variables}) < len(variables):
            raise ValueError("two of its variables have one name")
        listed = [entry for entry in variables if entry[2] in MATLAB_NUMBERS]
        check_promise(path, sum(8 * prod(shape) for _, shape, _ in listed))
        content = loadmat(path, variable_names=[name for name, _, _ in listed])
    except NotImplementedError:  # version 7.3 is HDF5, which has the axes in reverse
        arrays = read_hdf5(path)
        return {name: array.transpose() for name, array in arrays.items()}
    except UserError:
        raise
    except (*BAD_ARRAY, MatReadError, zlib.error) as error:
        raise UserError(f"{path} is not a readable .mat file: {error}") from None
    return {name: a for name, a in content.items() if name[:2] != "__" and is_numeric(a)}


def is_numeric(array) -> bool:
    """Whether a variable is an array of several real numbers."""
    return isinstance(array, np.ndarray) and array.dtype.kind in "biuf" and array.size > 1


def check_promise(path: Path, size: int) -> None:
    """Refuses arrays of more bytes than a file of its size can hold."""
    if size > DEFLATED * path.stat().st_size:
        raise UserError(f"{path} promises {size:,} bytes, more than it can hold")


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an HDF5 file itself; links to other files are not followed."""
    import h5py

    arrays, promised = {}, 0
    try:
        with h5py.File(path, "r") as file:
            for name in file:
                if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                    continue
                item = file[name]
                if not isinstance(item, h5py.Dataset) or item.attrs.get("MATLAB_class") == b"char":
                    continue
                if item.external or item.is_virtual:
                    raise UserError(f"{path}: {name} is in another file, which is not read")
                if item.dtype.kind not in "biuf" or (item.size or 0) < 2:
                    continue
                promised += item.nbytes  # links may make several of one
                check_promise(path, promised)
                arrays[name] = item[()]
    except UserError:
        raise
    except BAD_ARRAY as error:
        raise UserError(f"{path} is not a readable HDF5 file: {error}") from None
    return arrays


# ---------------------------------------------------------------- text


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
