"""Files of arrays, .npy and .npz, which may be damaged or hostile."""

import zlib
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np

from core.errors import UserError

BAD_ARRAY = (
    *(ValueError, TypeError, OverflowError, LookupError, SyntaxError, OSError, EOFError),
    *(RuntimeError, MemoryError, TokenError, BadZipFile, zlib.error),
)
DEFLATED = 1032  # most bytes that one byte of a zip archive can become


def read_array(file: IO[bytes], size: int) -> np.ndarray:
    """An .npy array of numbers, whose header does not promise more bytes than there are."""
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, kind = headers[np.lib.format.read_magic(file)](file)
    if kind.hasobject:
        raise ValueError("it holds Python objects, which could run code and are not read")
    if prod(shape) * kind.itemsize > size:
        raise ValueError(f"its header promises {kind} {shape} in {size} bytes")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_npy(path: str | Path) -> np.ndarray:
    """The array of an .npy file."""
    with open(path, "rb") as file:
        return read_array(file, Path(path).stat().st_size)


def read_member(archive: ZipFile, name: str, most: int) -> np.ndarray:
    """An array of an .npz file, which has at most so many bytes."""
    with archive.open(name) as file:
        return read_array(file, min(archive.getinfo(name).file_size, most))


def read_arrays(
    path: Path, *names: str, optional: str | None = None, what: str = "dataset 'npz':"
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, all of them without a name."""
    most = DEFLATED * path.stat().st_size
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in names if name not in arrays]
            if missing:
                raise UserError(
                    f"{what} {path} lacks {', '.join(missing)}; it has {', '.join(arrays)}"
                )
            present = [*names, *([optional] if optional in arrays else [])] or list(arrays)
            return {name: read_member(arrays.zip, f"{name}.npy", most) for name in present}
    except UserError:
        raise
    except BAD_ARRAY as error:
        raise UserError(f"{what} {path} cannot be read: {error}") from None
