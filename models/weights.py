"""Files of weights that others published, which may be damaged."""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from core.errors import UserError

UNREADABLE = (  # what the readers of zip archives and of torch's files make of bytes that are none
    zipfile.BadZipFile, pickle.UnpicklingError, struct.error, zlib.error,
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def reason(error: Exception) -> str:
    """Why a file cannot be read, in a line; never torch's advice to run the code in it."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, numbers and text; that could run code and is not loaded"
    return (str(error) or repr(error)).splitlines()[0]


def weights_in(path: Path, read: Callable[[], dict], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file, named as the network's own and with as many dimensions; what is wrong is one line that names the file."""
    try:
        weights = dict(read())
        dimensions = {
            name: tensor.dim()
            for name, tensor in weights.items()
            if not name.endswith("num_batches_tracked")
        }
    except (OSError, SafetensorError, *UNREADABLE) as error:
        raise UserError(
            f"published weights {path} cannot be read: {reason(error)}; where the file is damaged, delete it and fetch it again"
        ) from None
    expected = {
        name: tensor.dim()
        for name, tensor in own.items()
        if not name.endswith("num_batches_tracked")
    }
    if dimensions != expected:
        name = min(
            name for name in {*dimensions, *expected} if dimensions.get(name) != expected.get(name)
        )
        raise UserError(
            f"published weights {path} are damaged or of another network: {name} has {dimensions.get(name)} dimensions"
        )
    return weights
