"""The linear estimate of least mean squared error, as a first image of measured values."""

import torch
from torch import Tensor, nn

from core.errors import UserError

MOST_LMMSE = 10_000  # images that it is fitted to
LARGEST_LMMSE = 64  # n: beyond it an n² x n² covariance is too much for a workstation


class LMMSE(nn.Module):
    """Per channel E[x] + C Aᵀ (A C Aᵀ + Σ)⁻¹ (y - A E[x]), with the noise's diagonal Σ."""

    mean: Tensor
    seen: Tensor
    gain: Tensor

    def __init__(self, c: int, n: int, m: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(c, n * n))
        self.register_buffer("seen", torch.zeros(c, m))  # A E[x], under the name that files have
        self.register_buffer("gain", torch.zeros(c, n * n, m))

    @torch.no_grad()
    def fit(self, rows: Tensor, images: Tensor, variance: float | Tensor) -> "LMMSE":
        """Fits it to patterns (m, n²), training images and the noise variance.

        The variance is one number, or that of every value, (m,) or (C, m). The covariance is shrunk
        as Ledoit and Wolf do.
        """
        from sklearn.covariance import ledoit_wolf

        rows = rows.double()
        noise = torch.as_tensor(variance, dtype=torch.float64).expand(images.shape[1], len(rows))
        for k in range(images.shape[1]):
            pixels = images[:, k].flatten(1).double()  # (N, n²)
            mean = pixels.mean(0)
            shrunk, _ = ledoit_wolf((pixels - mean).numpy(), assume_centered=True)
            cross = torch.from_numpy(shrunk) @ rows.T  # (n², m)
            inner = rows @ cross
            if not inner.diagonal().any():
                raise UserError(
                    "x0 'lmmse': the training images do not differ in what is measured; "
                    "more of them are needed"
                )
            ridge = noise[k] + 1e-9 * inner.diagonal().mean()  # keeps repeated patterns solvable
            inner.diagonal().add_(ridge)
            self.mean[k], self.seen[k] = mean, rows @ mean
            self.gain[k] = torch.linalg.solve(inner, cross.T).T
        return self

    def forward(self, y: Tensor) -> Tensor:
        """Measured values (B, C, m) to images (B, C, n, n)."""
        x = self.mean + torch.einsum("cpm,bcm->bcp", self.gain, y - self.seen)
        return x.unflatten(-1, (int(x.shape[-1] ** 0.5), -1))
