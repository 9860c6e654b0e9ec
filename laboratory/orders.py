"""Orders of the patterns of other people, as places in the natural order."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from core.hadamard import matrix
from core.inputs import check_side
from data.arrays import BAD_ARRAY, read_npy
from laboratory.readers import read_table
from physics.orderings import patterns_of


def walsh_places(n: int) -> Tensor:
    """Places (n, n) of Walsh order: by the sequency of the rows, then by that of the columns."""
    signs = matrix(n, torch.device("cpu"), torch.float32).sign()
    sequency = (signs.diff(dim=1) != 0).sum(1)
    return sequency[:, None] * n + sequency[None, :]


def places_of(numbers: np.ndarray, n: int) -> Tensor:
    """Places (n, n) that begin with these numbers of the natural order, then take the others."""
    rest = np.setdiff1d(np.arange(n * n), numbers)
    places = np.empty(n * n, np.int64)
    places[np.concatenate((numbers, rest))] = np.arange(n * n)
    return torch.from_numpy(places).view(n, n)


def listed_numbers(path: str, n: int, m: int) -> np.ndarray:
    """The numbers of the patterns in a file, one for each value."""
    where = f"order listed:{path}"
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{where}: no such file")
    try:
        numbers = read_npy(file) if file.suffix == ".npy" else read_table(file)
    except BAD_ARRAY as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    numbers = numbers.ravel()
    if len(numbers) != m:
        raise UserError(f"{where} lists {len(numbers)} patterns for {m} values")
    whole = numbers.astype(np.int64) if np.isfinite(numbers).all() else np.array([-1])
    if not np.array_equal(whole, numbers) or not 0 <= whole.min() <= whole.max() < n * n:
        raise UserError(
            f"{where}: the patterns of {n} x {n} pixels have the numbers 0 to {n * n - 1}"
        )
    if len(np.unique(whole)) < m:
        raise UserError(f"{where} lists a pattern twice")
    return whole


def patterns_in_order(order: str, n: int, m: int) -> Tensor:
    """The patterns that an order names, as the physics has them."""
    if order == "variance":
        raise UserError("order variance depends on images, and a recording has none")
    if order in ("natural", "walsh") or order.startswith("listed:"):
        check_side(order, n)
    if order == "natural":
        return torch.arange(n * n).view(n, n)
    if order == "walsh":
        return walsh_places(n)
    if order.startswith("listed:"):
        return places_of(listed_numbers(order.removeprefix("listed:"), n, m), n)
    return patterns_of(order, n, m)
