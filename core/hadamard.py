"""The Hadamard transform of images, by matrix products and with memory linear in the pixels.

It is written by hand since deepinv's, in a loop over the bits, took 15 times as long (one CPU core,
16 images of 32 x 32 and of 128 x 128).
"""

from functools import cache
from math import ceil, sqrt

import torch
from torch import Tensor

# Sides up to which an axis is one product with H; along the last axis, whose entries are next to
# each other in memory, products are faster.
ONE_PRODUCT = {-2: 32, -1: 64}
# Beyond them H is a Kronecker product of matrices of at most 16 rows, each along its own axis.
RADIX_BITS = 4


@cache
def matrix(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The orthonormal Hadamard matrix of natural order, (n, n)."""
    h = torch.ones(1, 1, device=device, dtype=dtype)
    while len(h) < n:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)))
    return h / sqrt(n)


def hadamard_2d(x: Tensor) -> Tensor:
    """H X Hᵀ for images X (..., n, m) whose sides are powers of two."""
    n, m = x.shape[-2:]
    y = x @ matrix(m, x.device, x.dtype) if m <= ONE_PRODUCT[-1] else along(x, m, 1)
    return matrix(n, x.device, x.dtype) @ y if n <= ONE_PRODUCT[-2] else along(y, n, m)


def along(x: Tensor, n: int, inner: int) -> Tensor:
    """H = H_r ⊗ H_q ⊗ ... along an axis of n entries, each of `inner` values in memory."""
    shape, bits = x.shape, n.bit_length() - 1
    parts = ceil(bits / RADIX_BITS)
    for k in range(parts):
        r = 2 ** ((bits + k) // parts)  # as equal as they can be
        n //= r
        h = matrix(r, x.device, x.dtype)
        x = h @ x.reshape(-1, r, n * inner) if n * inner > 1 else x.reshape(-1, r) @ h
    return x.reshape(shape)
