"""Pictures larger than the camera: it looks at them block by block."""

import torch
from torch import Tensor

from physics.base import Physics


def blocks(x: Tensor, n: int) -> Tensor:
    """Pictures (B, C, r n, s n) as their blocks (B r s, C, n, n), row by row."""
    x = x.unfold(2, n, n).unfold(3, n, n)  # (B, C, r, s, n, n)
    return x.movedim(1, 3).flatten(0, 2)


def assembled(parts: Tensor, rows: int, columns: int) -> Tensor:
    """Blocks (B r s, C, h, w), of whatever size, as pictures (B, C, r h, s w)."""
    x = parts.unflatten(0, (-1, rows, columns))  # (B, r, s, C, h, w)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class Mosaic(Physics):
    """A camera of n x n pixels in front of larger pictures; y is the picture of its back-projections, and behind it that of its first images."""

    def __init__(self, camera: Physics):
        super().__init__(camera.config)
        self.camera = camera

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        n = self.config["n"]
        y = self.camera.measure(blocks(x, n), generator)
        seen = torch.cat((self.camera.back_projection(y), self.camera.first_image(y)), dim=1)
        return assembled(seen, x.shape[-2] // n, x.shape[-1] // n)

    def back_projection(self, y: Tensor) -> Tensor:
        return y[:, : self.config["c"]]

    def first_image(self, y: Tensor) -> Tensor:
        return y[:, self.config["c"] :]

    def baselines(self, images=None) -> dict[str, Physics]:
        return {name: Mosaic(camera) for name, camera in self.camera.baselines(images).items()}

    @property
    def condition(self) -> str:
        return self.camera.condition

    def describe(self) -> str:
        n = self.config["n"]
        return f"{self.camera.describe()}, in blocks of {n} x {n}"
