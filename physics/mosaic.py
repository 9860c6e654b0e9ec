"""A physics of n x n pixels for larger images: it measures them block by block."""

import torch
from torch import Tensor

from physics.base import Physics


def split_blocks(x: Tensor, n: int) -> Tensor:
    """Images (B, C, r n, s n) as their blocks (B r s, C, n, n), row by row."""
    x = x.unfold(2, n, n).unfold(3, n, n)  # (B, C, r, s, n, n)
    return x.movedim(1, 3).flatten(0, 2)


def assemble_blocks(parts: Tensor, rows: int, columns: int) -> Tensor:
    """Blocks (B r s, C, h, w), of whatever size, as images (B, C, r h, s w)."""
    x = parts.unflatten(0, (-1, rows, columns))  # (B, r, s, C, h, w)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class Mosaic(Physics):
    """A physics of n x n pixels, applied to each block of larger images.

    y holds the back-projections of the blocks, and in further channels their first images.
    """

    def __init__(self, physics: Physics):
        super().__init__(physics.config)
        self.physics = physics

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        n = self.config["n"]
        y = self.physics.measure(split_blocks(x, n), generator)
        images = torch.cat((self.physics.back_projection(y), self.physics.first_image(y)), dim=1)
        return assemble_blocks(images, x.shape[-2] // n, x.shape[-1] // n)

    def back_projection(self, y: Tensor) -> Tensor:
        return y[:, : self.config["c"]]

    def first_image(self, y: Tensor) -> Tensor:
        return y[:, self.config["c"] :]

    def baselines(self, images=None) -> dict[str, Physics]:
        return {name: Mosaic(physics) for name, physics in self.physics.baselines(images).items()}

    @property
    def condition(self) -> str:
        return self.physics.condition

    def describe(self) -> str:
        n = self.config["n"]
        return f"{self.physics.describe()}, in blocks of {n} x {n}"
