"""Published files of weights, which may be damaged."""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from core.errors import UserError

UNREADABLE = (  # what the readers of zip archives and of torch's files raise on damaged bytes
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def describe_unreadable(error: Exception) -> str:
    """Why a file cannot be read, in a line; never torch's advice to run the code in it."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, numbers and text; that could run code and is not loaded"
    return (str(error) or repr(error)).splitlines()[0]


def dimensions_of(weights: dict[str, Tensor]) -> dict[str, int]:
    """The number of dimensions of each tensor, without the counters of batch norms."""
    return {
        name: tensor.dim()
        for name, tensor in weights.items()
        if not name.endswith("num_batches_tracked")
    }


def read_weights(path: Path, read: Callable[[], dict], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file, which must have the names and dimensions of the network's own."""
    try:
        weights = dict(read())
        dimensions = dimensions_of(weights)
    except (OSError, SafetensorError, *UNREADABLE) as error:
        raise UserError(
            f"published weights {path} cannot be read: {describe_unreadable(error)}; "
            "where the file is damaged, delete it and fetch it again"
        ) from None
    expected = dimensions_of(own)
    if dimensions != expected:
        names = {*dimensions, *expected}
        name = min(name for name in names if dimensions.get(name) != expected.get(name))
        raise UserError(
            f"published weights {path} are damaged or of another network: "
            f"{name} has {dimensions.get(name)} dimensions"
        )
    return weights
