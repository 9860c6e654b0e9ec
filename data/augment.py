"""The random changes of training images: samples of an image, and changes of a batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

Sample = Callable[[np.random.Generator, int], Any]  # of an image of n pixels a side
Change = Callable[[Tensor, Tensor], Tensor]  # of images, by what was sampled for each


def symmetries_of(name: str, shift: bool) -> dict[Sample, Change]:
    """Mirror images, quarter turns of `dihedral`, and shifts on request."""
    changes: dict[Sample, Change] = {}
    if name not in ("none", "fixed"):
        changes[sample_mirror] = mirror
    if name == "dihedral":
        changes[sample_turn] = turn
    if shift and name != "fixed":
        changes[sample_shift] = shift_images
    return changes


def sample_mirror(rng: np.random.Generator, _: int) -> bool:
    return rng.random() < 0.5


def mirror(images: Tensor, is_mirrored: Tensor) -> Tensor:
    return torch.where(is_mirrored[:, None, None, None], images.flip(-1), images)


def sample_turn(rng: np.random.Generator, _: int) -> int:
    return int(rng.integers(4))


def turn(images: Tensor, turns: Tensor) -> Tensor:
    """By so many quarter turns."""
    result = images.clone()
    for k in (1, 2, 3):
        result[turns == k] = torch.rot90(images[turns == k], k, (-2, -1))
    return result


def sample_shift(rng: np.random.Generator, n: int) -> list[int]:
    return rng.integers(2 * (n // 8) + 1, size=2).tolist()


def shift_images(images: Tensor, corners: Tensor) -> Tensor:
    """A crop n x n of each image with an eighth of a side reflected around it."""
    n = images.shape[-1]
    wide = pad(images, (n // 8,) * 4, mode="reflect")
    places = torch.arange(n, device=images.device)
    rows, columns = (corners[:, k, None] + places for k in (0, 1))
    image = torch.arange(len(images))[:, None, None]
    return wide[image, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
