"""A physics that measures larger images block by block."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from core.blocks import assemble_blocks, split_blocks
from physics.base import Physics


class Mosaic(Physics):
    """A physics of n x n pixels, applied to each block of larger images.

    y holds the back-projections of the blocks, and in further channels their first images. The
    config is by default that of the physics.
    """

    def __init__(self, physics: Physics, config: dict | None = None):
        super().__init__(physics.config if config is None else config)
        self.physics, self.levels = physics, physics.levels

    @property
    def block(self) -> int:
        return self.physics.config["n"]

    @property
    def image_config(self) -> dict:
        """What of the config is of whole images, not of their blocks."""
        return {}

    @property
    def step(self) -> int:
        return self.block

    @property
    def appends_noise_level(self) -> bool:
        return self.physics.appends_noise_level

    @property
    def appends_measurements(self) -> bool:
        return self.physics.appends_measurements

    def per_block(self, change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """An image of the changed blocks of images."""
        rows, columns = (side // self.block for side in x.shape[-2:])
        return assemble_blocks(change(split_blocks(x, self.block)), rows, columns)

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        def measure_block(part: Tensor) -> Tensor:
            y = self.physics.measure(part, generator)
            return torch.cat((self.physics.back_projection(y), self.physics.first_image(y)), dim=1)

        return self.per_block(measure_block, x)

    def back_projection(self, y: Tensor) -> Tensor:
        return y[:, : self.config["c"]]

    def first_image(self, y: Tensor) -> Tensor:
        return y[:, self.config["c"] :]

    def project(self, x: Tensor) -> Tensor | None:
        if self.physics.project(split_blocks(x, self.block)[:1]) is None:
            return None
        return self.per_block(lambda part: self.physics.project(part), x)  # type: ignore

    # ------------------------------------------------ the same for other physics of a block

    def of_blocks(self, images: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """What loads the blocks of training images."""
        return lambda: split_blocks(images(), self.block)

    def with_physics(self, physics: Physics) -> Self:
        """The same blocks, measured by another physics."""
        return type(self)(physics, physics.config | self.image_config)

    def baselines(self, images: Callable[[], Tensor] | None) -> dict[str, Physics]:
        blocks = None if images is None else self.of_blocks(images)
        found = self.physics.baselines(blocks)
        return {name: self.with_physics(physics) for name, physics in found.items()}

    def with_measurements(self) -> Self | None:
        reading = self.physics.with_measurements()
        return None if reading is None else self.with_physics(reading)

    def at_noise(self, **noise: float | list[float] | None) -> Self:
        return self.with_physics(self.physics.at_noise(**noise))

    def refit(self, images: Callable[[], Tensor]) -> Self:
        return self.with_physics(self.physics.refit(self.of_blocks(images)))

    def kept(self) -> dict:
        return self.physics.kept()

    @property
    def condition(self) -> str:
        return self.physics.condition

    def describe(self) -> str:
        return f"{self.physics.describe()}, in blocks of {self.block} x {self.block}"
