"""Restorers that are not trained: total variation, and a denoiser that is plugged in."""

import torch
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

    def features(self, x: Tensor) -> dict[str, Tensor]:
        measured = Measured(x, self.c, self.n)
        level = measured.maps()[:, :1]  # s
        trust = (PRIMAL_STEP * level / self.weight).clamp_min(LEAST_TRUST)
        image = ahead = x[:, : self.c]
        dual = torch.zeros_like(gradient(image))
        for _ in range(self.iterations):
            dual = dual + gradient(ahead) / (8 * PRIMAL_STEP)  # 8 bounds the gradient's norm²
            dual = dual / dual.norm(dim=0).clamp_min(1)
            moved = image - PRIMAL_STEP * gradient_adjoint(dual)
            moved = moved + measured.correction(moved, trust)
            image, ahead = moved, 2 * moved - image
        return {"output": image}


def gradient(x: Tensor) -> Tensor:
    """Differences to the pixel below and to the right, (2, B, C, H, W), zero at the border."""
    down, right = torch.zeros_like(x), torch.zeros_like(x)
    down[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    right[..., :-1] = x[..., 1:] - x[..., :-1]
    return torch.stack((down, right))


def gradient_adjoint(u: Tensor) -> Tensor:
    """The adjoint of the gradient, (B, C, H, W); its entries at the border count nothing."""
    down, right = u[0][..., :-1, :], u[1][..., :-1]
    x = torch.zeros_like(u[0])
    x[..., :-1, :] -= down
    x[..., 1:, :] += down
    x[..., :-1] -= right
    x[..., 1:] += right
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
        return {"output": image + measured.correction(image, last.square() / DATA_WEIGHT)}
