"""The linear estimate of least mean squared error, as a first image of measured values."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.errors import UserError
from physics.stationary import power_of, with_floor

MOST_LMMSE = 10_000  # images that it is fitted to
LARGEST_LMMSE = 64  # n: beyond it a matrix from all values to all pixels is too much
SHARES = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)  # of the stationary covariance; the best one is taken
MOST_HELD = 500  # images that it is chosen on
FEWEST = 8  # images: of fewer the covariance is the stationary one


class Moments(NamedTuple):
    """Mean and covariance of images, and of what patterns R see of them, for one channel."""

    mean: Tensor  # (n²,)
    cross: Tensor  # C Rᵀ, (n², m)
    inner: Tensor  # R C Rᵀ, (m, m)

    def mixed(self, other: "Moments", share: float) -> "Moments":
        """With a share of the other's."""
        return Moments(*(torch.lerp(*both, share) for both in zip(self, other, strict=True)))

    def solve(self, noise: Tensor, values: Tensor) -> Tensor:
        """(R C Rᵀ + Σ)⁻¹ of columns (m, ..), with the noise's diagonal Σ."""
        system = self.inner.clone()
        # a little more than the noise, which keeps repeated patterns solvable
        system.diagonal().add_(noise + 1e-9 * system.diagonal().mean())
        return torch.linalg.solve(system, values)


def sample_moments(pixels: Tensor, rows: Tensor) -> Moments:
    """Those of images (N, n²) as they are."""
    mean = pixels.mean(0)
    centred = pixels - mean
    seen = centred @ rows.T
    return Moments(mean, centred.T @ seen / len(pixels), seen.T @ seen / len(pixels))


def stationary_moments(pixels: Tensor, rows: Tensor) -> Moments:
    """Those of a process that is the same everywhere: a grey level and a power spectrum."""
    level, n = pixels.mean(), int(pixels.shape[1] ** 0.5)
    power = power_of((pixels - level).unflatten(1, (n, n)))
    spectrum = with_floor(power / len(pixels))
    transformed = spectrum * torch.fft.fft2(rows.unflatten(1, (n, n)))
    cross = torch.fft.ifft2(transformed).real.flatten(1).T
    return Moments(level.expand(n * n), cross, rows @ cross)


class LMMSE(nn.Module):
    """Per channel E[x] + C Rᵀ (R C Rᵀ + Σ)⁻¹ (y - R E[x]), with the noise's diagonal Σ."""

    mean: Tensor
    seen: Tensor
    gain: Tensor

    def __init__(self, c: int, n: int, m: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(c, n * n))
        self.register_buffer("seen", torch.zeros(c, m))  # R E[x], under the name that files have
        self.register_buffer("gain", torch.zeros(c, n * n, m))

    @torch.no_grad()
    def fit(self, rows: Tensor, images: Tensor, variance: float | Tensor) -> "LMMSE":
        """Fits it to patterns (m, n²), training images and the noise variance.

        The variance is one number, or that of every value, (m,) or (C, m). The covariance of the
        images is shrunk towards one that is the same everywhere; `choose_share` says how much.
        """
        rows = rows.double()
        noise = torch.as_tensor(variance, dtype=torch.float64).expand(images.shape[1], len(rows))
        for k in range(images.shape[1]):
            pixels = images[:, k].flatten(1).double()  # (N, n²)
            sampled = sample_moments(pixels, rows)
            if not sampled.inner.diagonal().any():
                raise UserError(
                    "x0 'lmmse': the training images do not differ in what is measured; "
                    "more of them are needed"
                )
            share = choose_share(pixels, rows, noise[k])
            found = sampled.mixed(stationary_moments(pixels, rows), share)
            self.mean[k], self.seen[k] = found.mean, rows @ found.mean
            self.gain[k] = found.solve(noise[k], found.cross.T).T
        return self

    def forward(self, y: Tensor) -> Tensor:
        """Measured values (B, C, m) to images (B, C, n, n)."""
        x = self.mean + torch.einsum("cpm,bcm->bcp", self.gain, y - self.seen)
        return x.unflatten(-1, (int(x.shape[-1] ** 0.5), -1))


def choose_share(pixels: Tensor, rows: Tensor, noise: Tensor) -> float:
    """The share of the stationary covariance with the least error on the last quarter of images."""
    if len(pixels) < FEWEST:
        return 1.0
    count = len(pixels) // 4
    fitted, held = pixels[:-count], pixels[-count:]
    held = held[:: -(-len(held) // MOST_HELD)]  # of all of it, for neighbours are alike
    sampled, stationary = sample_moments(fitted, rows), stationary_moments(fitted, rows)
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(len(held), len(rows), generator=generator, dtype=torch.float64)
    values = held @ rows.T + noise.sqrt() * white
    errors = {}
    for share in SHARES:
        found = sampled.mixed(stationary, share)
        solved = found.solve(noise, (values - rows @ found.mean).T)
        errors[share] = (found.mean + (found.cross @ solved).T - held).square().mean().item()
    return min(errors, key=lambda share: errors[share])
