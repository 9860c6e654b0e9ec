"""The LMMSE estimate of large images, whose covariance is taken to be the same everywhere."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.errors import UserError

MOST_STEPS = 100  # of conjugate gradients
ACCURACY = 1e-4  # of the residual, relative to the measurements
LEAST_SHARE = 1e-3  # of the mean power, which every frequency has at least
CHUNK = 64  # images that are measured at once

Operator = Callable[[Tensor], Tensor]


class StationaryLMMSE(nn.Module):
    """Per channel E[x] + C Aᵀ (A C Aᵀ + Σ)⁻¹ (y - A E[x]), where C is a circular convolution.

    E[x] is a grey level, and C = Fᴴ S F with the power spectrum S of the training images: n²
    numbers instead of n⁴. The system is solved by conjugate gradients, preconditioned with its
    diagonal; each image stops on its own, so that it is the same alone and in a batch. What they
    leave of the values is added by Aᵀ.
    """

    level: Tensor
    spectrum: Tensor
    variance: Tensor
    diagonal: Tensor

    def __init__(self, c: int, n: int, m: int):
        super().__init__()
        self.register_buffer("level", torch.zeros(c, 1, 1))
        self.register_buffer("spectrum", torch.zeros(c, n, n))
        self.register_buffer("variance", torch.zeros(c, m))  # of the noise of every value
        self.register_buffer("diagonal", torch.ones(c, m))  # of A C Aᵀ + Σ

    @torch.no_grad()
    def fit(self, measure: Operator, images: Tensor, variance: float | Tensor) -> "StationaryLMMSE":
        """Fits it to training images (N, C, n, n), which `measure` turns into values (N, C, m)."""
        self.level.copy_(images.mean((0, 2, 3))[:, None, None])
        power, squares = torch.zeros_like(self.spectrum), torch.zeros_like(self.diagonal)
        for some in images.split(CHUNK):
            centred = some - self.level
            power += power_of(centred)
            squares += measure(centred).square().sum(0)
        if not squares.any():
            raise UserError(
                "x0 'lmmse': the training images do not differ in what is measured; "
                "more of them are needed"
            )
        self.spectrum.copy_(with_floor(power / len(images)))
        self.variance.copy_(torch.as_tensor(variance).expand_as(self.variance))
        squares /= len(images)
        self.diagonal.copy_(squares + self.variance + LEAST_SHARE * squares.mean(1, keepdim=True))
        return self

    def convolve(self, x: Tensor) -> Tensor:
        """C x"""
        return torch.fft.ifft2(self.spectrum * torch.fft.fft2(x)).real

    @torch.no_grad()
    def forward(self, values: Tensor, measure: Operator, adjoint: Operator) -> Tensor:
        """Measured values (B, C, m) to images (B, C, n, n), by A and Aᵀ."""
        level = self.level.expand(len(values), *self.spectrum.shape)
        residual = values - measure(level)
        solution = torch.zeros_like(residual)
        target = ACCURACY * residual.norm(dim=-1, keepdim=True)
        scaled = residual / self.diagonal
        direction, product = scaled, dot(residual, scaled)
        for _ in range(MOST_STEPS):
            active = residual.norm(dim=-1, keepdim=True) > target  # of each image and channel
            if not active.any():
                break
            image = measure(self.convolve(adjoint(direction))) + self.variance * direction
            step = torch.where(active, product / dot(direction, image), 0)
            solution, residual = solution + step * direction, residual - step * image
            scaled, before = residual / self.diagonal, product
            product = dot(residual, scaled)
            direction = scaled + torch.where(active, product / before, 0) * direction
        trust = (self.diagonal - self.variance) / self.diagonal  # where the steps did not suffice
        return level + self.convolve(adjoint(solution)) + adjoint(trust * residual)


def power_of(images: Tensor) -> Tensor:
    """The power of every frequency, summed over images (N, .., n, n) without their mean."""
    return torch.fft.fft2(images, norm="ortho").abs().square().sum(0)


def with_floor(spectrum: Tensor) -> Tensor:
    """A power spectrum (.., n, n) in which no frequency is empty."""
    return spectrum + LEAST_SHARE * spectrum.mean((-2, -1), keepdim=True)


def dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)
