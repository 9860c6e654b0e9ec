"""The image itself, or a smaller one: what a classifier sees of it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import UserError
from core.registry import RESIZES
from physics.base import Physics


class Picture(Physics):
    """y = the image, `lessen_ratio` times smaller along a side; it is its own first image."""

    takes_pictures = True

    @property
    def side(self) -> int:
        return round(self.recipe["n"] / self.recipe["lessen_ratio"])

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if x.shape[-1] == self.side:
            return x
        mode, antialias = RESIZES[self.recipe["resize"]]
        return F.interpolate(x, (self.side, self.side), mode=mode, antialias=antialias)

    def back_projection(self, y: Tensor) -> Tensor:
        return y

    def from_picture(self, picture: Tensor, sigma: float | None = None) -> Tensor:
        return self.measure(picture)

    def describe(self) -> str:
        n = self.recipe["n"]
        return f"image, {n} x {n}" + (
            "" if self.side == n else f" made {self.side} x {self.side} ({self.recipe['resize']})"
        )


def picture(
    recipe: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Picture:
    if recipe["resize"] not in RESIZES:
        raise UserError(f"resize '{recipe['resize']}': choose from {', '.join(RESIZES)}")
    seen = Picture(recipe)
    if recipe["lessen_ratio"] < 1 or seen.side < 1:
        raise UserError(
            f"lessen_ratio {recipe['lessen_ratio']:g}: it divides the side of the images, {recipe['n']}, and is at least 1"
        )
    return seen
