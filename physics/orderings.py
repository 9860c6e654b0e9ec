"""Which patterns a single-pixel camera measures, and in which order.

They are places (n, n) over the Hadamard grid in natural order, of which 0 is measured first; or
dense patterns, as rows (m, n²).
"""

from collections.abc import Callable

import numpy as np
import torch
from deepinv.physics.singlepixel import (
    cake_cutting_order,
    diagonal_index_matrix,
    hadamard_2d_ishift,
    sequency_order,
)
from torch import Tensor

from core.errors import UserError
from core.hadamard import hadamard_2d
from core.inputs import check_patterns, check_side, existing_file
from core.registry import ORDERINGS, look_up
from data.arrays import BAD_ARRAY, read_npy


def _places(order: np.ndarray, n: int) -> Tensor:
    """Places from an order over the grid by columns, which deepinv's orderings use."""
    places = torch.empty(n * n, dtype=torch.int64)
    places[torch.from_numpy(order.astype(np.int64))] = torch.arange(n * n)
    return places.view(n, n).T.contiguous()


def sequency_places(n: int, **_) -> Tensor:
    return _places(sequency_order(n * n), n)


def cake_cutting_places(n: int, **_) -> Tensor:
    return _places(sequency_order(n * n)[cake_cutting_order(n * n)], n)


def zig_zag_places(n: int, **_) -> Tensor:
    return hadamard_2d_ishift(diagonal_index_matrix(n, n))


def xy_places(n: int, **_) -> Tensor:
    """Ascending XY + (X² + Y²) / 4 over the sequencies X, Y, ties as deepinv breaks them."""
    x, y = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    index = x * y + (x**2 + y**2) / 4
    order = torch.argsort((index / index.max()).view(-1))
    places = torch.empty_like(order)
    places[order] = torch.arange(n * n)
    return hadamard_2d_ishift(places.view(n, n))


def strip_places(n: int, **_) -> Tensor:
    """The original release: index i has place gray_encode(bit_reverse(i)), in a grid by rows."""
    bits = n.bit_length() - 1
    reverse = [int(format(i, f"0{bits}b")[::-1], 2) if bits else 0 for i in range(n)]
    place = torch.tensor([r ^ (r >> 1) for r in reverse])
    return place[:, None] * n + place[None, :]


def variance_places(n: int, images: Callable[[], Tensor] | None, **_) -> Tensor:
    """Descending energy of the Hadamard coefficients over the training images."""
    if images is None:
        raise UserError("ordering 'variance' is computed from training images: give a dataset")
    energy = torch.zeros((), dtype=torch.float64)
    for chunk in images().split(500):
        energy = energy + hadamard_2d(chunk).double().square().sum((0, 1))  # (n, n)
    order = torch.argsort(energy.view(-1), descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(n * n)
    return places.view(n, n)


def random_patterns(n: int, m: int, **_) -> Tensor:
    """Dense patterns of equally likely ±1.

    They are the first m rows of one fixed stream: a larger ratio contains a smaller one's.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (m, n * n), generator=generator).to(torch.int8) * 2 - 1


def learned_patterns(**_) -> Tensor:
    """Patterns of ±1 that are learned with the network, and kept in its checkpoint."""
    raise UserError("ordering 'learned': only a training learns patterns; give its checkpoint")


def file_patterns(path: str, n: int, m: int) -> Tensor:
    """The user's own patterns in an .npy file.

    They are a 0/1 mask or places 0 .. n²-1 over the (n, n) Hadamard grid in natural order, or a
    (rows, n²) matrix.
    """
    where = f"ordering 'file:{path}'"
    existing_file(path, "ordering file")
    try:
        array = read_npy(path)
    except BAD_ARRAY as error:
        raise UserError(f"{where} is not an .npy array of numbers ({error})") from None
    numeric = array.dtype == bool or np.issubdtype(array.dtype, np.integer)
    numeric = numeric or np.issubdtype(array.dtype, np.floating)
    if not numeric or not np.isfinite(array.astype(np.float32)).all():
        raise UserError(f"{where} holds {array.dtype} values that are not finite real numbers")
    if array.shape == (n, n):
        check_side(f"file:{path}", n)
        return grid_patterns(array, where, n, m)
    if array.ndim == 2 and array.shape[1] == n * n:
        return matrix_patterns(array, where, m)
    raise UserError(f"{where} has shape {array.shape}: allowed are ({n}, {n}) and (rows, {n * n})")


def grid_patterns(array: np.ndarray, where: str, n: int, m: int) -> Tensor:
    """Places (n, n), from places or from a mask of m cells."""
    flat = np.sort(array.reshape(-1))
    if np.array_equal(flat, np.arange(n * n)):
        return torch.from_numpy(array.astype(np.int64))
    if not np.isin(flat, (0, 1)).all():
        raise UserError(
            f"{where}: an ({n}, {n}) array must hold 0 and 1, or each place 0 .. {n * n - 1} once"
        )
    if int(flat.sum()) != m:
        raise UserError(
            f"{where} selects {int(flat.sum())} of {n * n} coefficients, but --cr asks for {m}"
        )
    return _places_of_mask(torch.from_numpy(array != 0))


def matrix_patterns(array: np.ndarray, where: str, m: int) -> Tensor:
    """Dense patterns (rows, n²), of which the first m are independent."""
    if len(array) < m:
        raise UserError(f"{where} has {len(array)} patterns, but --cr asks for {m}")
    rank = np.linalg.matrix_rank(array[:m].astype(np.float32))
    if rank < m:
        raise UserError(f"{where}: its first {m} patterns measure only {rank} independent values")
    return torch.from_numpy(array.astype(np.float32))


def _places_of_mask(mask: Tensor) -> Tensor:
    """Places with the selected cells first, row by row."""
    order = torch.argsort(~mask.view(-1), stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel())
    return places.view(mask.shape)


def patterns_of(
    ordering: str, n: int, m: int, images: Callable[[], Tensor] | None = None
) -> Tensor:
    """Places (n, n) over the Hadamard grid in natural order, or dense patterns (rows, n²)."""
    if ordering.startswith("file:"):
        return file_patterns(ordering.removeprefix("file:"), n, m)
    check_patterns(ordering, n)
    return look_up(ORDERINGS, ordering, "ordering")(n=n, m=m, images=images)


def is_hadamard(patterns: Tensor, n: int) -> bool:
    """Whether patterns are places over the (n, n) Hadamard grid instead of a matrix (rows, n²)."""
    return patterns.shape == (n, n)
