"""The image itself, or a smaller one, for classifiers."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import UserError
from core.registry import RESIZES
from physics.base import Physics


class Picture(Physics):
    """y = the image, `lessen_ratio` times smaller along a side; y is the first image."""

    measures_images = True

    @property
    def side(self) -> int:
        return round(self.config["n"] / self.config["lessen_ratio"])

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if x.shape[-1] == self.side:
            return x
        mode, antialias = RESIZES[self.config["resize"]]
        return F.interpolate(x, (self.side, self.side), mode=mode, antialias=antialias)

    def back_projection(self, y: Tensor) -> Tensor:
        return y

    def from_picture(self, picture: Tensor, sigma: float | None = None) -> Tensor:
        return self.measure(picture)

    def describe(self) -> str:
        n = self.config["n"]
        if self.side == n:
            return f"image, {n} x {n}"
        return f"image, {n} x {n} resized to {self.side} x {self.side} ({self.config['resize']})"


def picture(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Picture:
    if config["resize"] not in RESIZES:
        raise UserError(f"unknown resize '{config['resize']}': choose from {', '.join(RESIZES)}")
    physics = Picture(config)
    if config["lessen_ratio"] < 1 or physics.side < 1:
        raise UserError(
            f"lessen_ratio {config['lessen_ratio']:g}: it must be from 1 to twice the side "
            f"of the images, {config['n']}"
        )
    return physics
