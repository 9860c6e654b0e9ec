"""Restorers that are not trained: total variation, and a denoiser that is plugged in."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Restorer
from models.measured import Measured

LEAST_TRUST = 1e-12  # keeps 0 / 0 out of the weights of values without noise
PRIMAL_STEP = 0.04  # of total variation, for images in [0, 1]
FIRST_LEVEL = 49 / 255  # of the noise that the plugged-in denoiser is asked to remove
LAST_LEVEL = 2 / 255
DATA_WEIGHT = 0.23  # of the measurements, as in DPIR (Zhang et al. 2021)


class TotalVariation(Restorer):
    """The minimum of 1/2 sum (y - A x)² s² / v + weight s TV(x), by Chambolle and Pock (2011).

    v is the variance of each value and s² their mean, so that a weight means the same at every
    light; without noise A x = y exactly. TV is the sum of the lengths of all gradients.
    """

    reads_measurements = True

    def __init__(self, c: int = 1, n: int = 32, weight: float = 1.0, iterations: int = 100):
        super().__init__(c)
        self.n, self.weight, self.iterations = n, weight, iterations

    @torch.no_grad()
    def features(self, x: Tensor) -> dict[str, Tensor]:
        measured = Measured(x, self.c, self.n)
        level = measured.maps()[:, :1]  # s
        trust = (PRIMAL_STEP * level / self.weight).clamp_min(LEAST_TRUST)
        image = ahead = x[:, : self.c]
        dual = Gradient.of(image).scaled(0.0)
        for _ in range(self.iterations):
            dual.add(Gradient.of(ahead).scaled(1 / (8 * PRIMAL_STEP)))  # 8 bounds its norm²
            dual.limit()
            moved = image - PRIMAL_STEP * dual.adjoint()
            moved += measured.correction(moved, trust)
            image, ahead = moved, 2 * moved - image
        return {"output": image}


class Gradient:
    """Differences of images (B, C, H, W) to the pixel below and to the right."""

    def __init__(self, down: Tensor, right: Tensor):
        self.down, self.right = down, right  # (B, C, H - 1, W), (B, C, H, W - 1)

    @classmethod
    def of(cls, x: Tensor) -> "Gradient":
        return cls(x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1])

    def scaled(self, factor: float) -> "Gradient":
        return Gradient(self.down * factor, self.right * factor)

    def add(self, other: "Gradient") -> None:
        self.down += other.down
        self.right += other.right

    def lengths(self) -> Tensor:
        """The length at every pixel, (B, C, H, W), with no difference beyond the border."""
        squares = F.pad(self.down.square(), (0, 0, 0, 1))
        squares[..., :-1] += self.right.square()
        return squares.sqrt_()

    def limit(self) -> None:
        """Shortens it to at most 1 everywhere."""
        lengths = self.lengths().clamp_min_(1)
        self.down /= lengths[..., :-1, :]
        self.right /= lengths[..., :-1]

    def adjoint(self) -> Tensor:
        """The adjoint of the differences, (B, C, H, W)."""
        x = F.pad(self.down, (0, 0, 1, 0))
        x[..., :-1, :] -= self.down
        x[..., 1:] += self.right
        x[..., :-1] -= self.right
        return x


class PlugAndPlay(Restorer):
    """Steps towards the measured values, each followed by a trained denoiser, as in DPIR.

    The denoiser is asked to remove less and less noise. The last step is one towards the values.
    """

    reads_measurements = True

    def __init__(self, denoiser: Restorer, n: int = 32, iterations: int = 8):
        super().__init__(denoiser.c)
        self.denoiser, self.n, self.iterations = denoiser, n, iterations

    def features(self, x: Tensor) -> dict[str, Tensor]:
        measured = Measured(x, self.c, self.n)
        last = measured.maps()[:, :1].clamp(LAST_LEVEL, FIRST_LEVEL)
        image = x[:, : self.c]
        for k in range(self.iterations):
            level = FIRST_LEVEL * (last / FIRST_LEVEL) ** (k / (self.iterations - 1))
            image = image + measured.correction(image, level.square() / DATA_WEIGHT)
            noise_map = level.expand(-1, 1, *image.shape[2:])
            image = self.denoiser(torch.cat((image, noise_map), dim=1))
        least = torch.tensor(LAST_LEVEL**2)  # of trust: the last step brings no noise back
        return {"output": image + measured.correction(image, least)}
