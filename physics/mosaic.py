"""A physics of n x n pixels for larger images: it measures them block by block."""

import torch
from torch import Tensor

from core.blocks import assemble_blocks, split_blocks
from physics.base import Physics


class Mosaic(Physics):
    """A physics of n x n pixels, applied to each block of larger images.

    y holds the back-projections of the blocks, and in further channels their first images.
    """

    def __init__(self, physics: Physics):
        super().__init__(physics.config)
        self.physics, self.levels = physics, physics.levels

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

    def with_measurements(self) -> "Mosaic | None":
        reading = self.physics.with_measurements()
        return None if reading is None else Mosaic(reading)

    @property
    def condition(self) -> str:
        return self.physics.condition

    def describe(self) -> str:
        n = self.config["n"]
        return f"{self.physics.describe()}, in blocks of {n} x {n}"
