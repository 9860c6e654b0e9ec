"""What the first image carries of the measurements, for networks that read them."""

import torch
from torch import Tensor

from core.blocks import assemble_blocks, split_blocks
from core.errors import UserError
from core.hadamard import hadamard_2d


class Measured:
    """What the first image carries of the measurements, which a step compares an image with.

    All maps are on the grid of the Hadamard patterns of n x n pixels; of larger images each block
    has its own.
    """

    def __init__(self, x: Tensor, c: int, n: int):
        if x.shape[1] < 3 * c + 1:
            raise UserError(
                "this network reads measurements, which its input lacks: its physics must be spc"
            )
        self.n, self.size = n, x.shape[-2:]
        self.channels = 2 * c + 1
        self.values, self.variance, self.mask = x[:, -self.channels :].split((c, c, 1), dim=1)

    def transform(self, x: Tensor) -> Tensor:
        """The orthonormal Hadamard transform of each block, which is its own inverse."""
        if self.size == (self.n, self.n):
            return hadamard_2d(x)
        rows, columns = (side // self.n for side in self.size)
        return assemble_blocks(hadamard_2d(split_blocks(x, self.n)), rows, columns)

    def correction(self, x: Tensor, trust: Tensor) -> Tensor:
        """Aᵀ W (y - A x), W = trust / (trust + variance): 1 for values without noise."""
        if torch.is_autocast_enabled(x.device.type):  # 16 bits would not keep the values
            with torch.autocast(x.device.type, enabled=False):
                return self.correction(x.float(), trust)
        weight = self.mask * trust / (trust + self.variance)
        return self.transform(weight * (self.values - self.transform(x)))

    def mirrored(self, sides: tuple[int, ...]) -> Tensor:
        """The measurements of the mirrored scene: a Hadamard pattern becomes itself, or minus it.

        Of larger images the blocks are mirrored in their places too.
        """
        with torch.autocast(self.values.device.type, enabled=False):  # as for the correction
            values = self.transform(self.transform(self.values).flip(sides))
        variance = self.variance
        if self.size != (self.n, self.n):
            rows, columns = (side // self.n for side in self.size)
            blocks = split_blocks(variance.flip(sides), self.n).flip(sides)
            variance = assemble_blocks(blocks, rows, columns)
        return torch.cat((values, variance, self.mask), dim=1)

    def maps(self) -> Tensor:
        """The noise level of a value and the ratio of every image, (B, 2, 1, 1)."""
        share = self.mask.mean((1, 2, 3), keepdim=True)
        variance = (self.mask * self.variance).mean((1, 2, 3), keepdim=True) / share
        return torch.cat((variance.clamp_min(0).sqrt(), share), dim=1)
