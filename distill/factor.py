"""Losses that compare factors of two maps: trained ones, or those of a Tucker decomposition."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from distill.feature import same_size
from models.base import initialise

NEGLIGIBLE = 1e-10  # share of the largest eigenvalue below which a direction is none of the map's


def unit(f: Tensor) -> Tensor:
    """Each sample flattened, of length 1."""
    return F.normalize(f.flatten(1))


def convolutions(*channels: int) -> nn.Sequential:
    """3x3 convolutions, each with a LeakyReLU behind it."""
    layers = [
        layer
        for a, b in pairwise(channels)
        for layer in (nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(0.1))
    ]
    return nn.Sequential(*layers)


class FT(nn.Module):
    """mean |n(translator(s)) - n(paraphraser(t))| (arXiv:1802.04977)

    The paraphraser is trained first, as half of an autoencoder. A factor has `ft_rate` times the
    channels of the teacher.
    """

    def __init__(
        self,
        s: torch.Size,
        t: torch.Size,
        labels: Sequence[int],
        teacher_input: torch.Size,
        *,
        ft_rate: float,
    ):
        super().__init__()
        if ft_rate <= 0:
            raise UserError(
                f"ft_rate {ft_rate:g}: the factor's share of the teacher's channels must be above 0"
            )
        c_s, c_t, c = s[1], t[1], max(1, round(ft_rate * t[1]))
        self.paraphraser, self.decoder = convolutions(c_t, c_t, c, c), convolutions(c, c, c_t, c_t)
        self.translator = convolutions(c_s, c_s, c, c)
        initialise(self)
        for weight in self.pretrained_parameters():
            weight.requires_grad_(False)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        return [*self.paraphraser.parameters(), *self.decoder.parameters()]

    def pretrain(self, t: Tensor) -> Tensor:
        """mse(decoder(paraphraser(t)), t)"""
        return F.mse_loss(self.decoder(self.paraphraser(t)), t)

    def forward(self, s: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            factor_t = self.paraphraser(t)
        factor_s, factor_t = same_size(self.translator(s), factor_t)
        return F.l1_loss(unit(factor_s), unit(factor_t))


@torch.no_grad()
def leading(x: Tensor, share: float) -> Tensor:
    """The leading share of the left singular vectors of (..., n, m).

    They come from the smaller Gram matrix; a direction that x lacks is zero.
    """
    n, m = x.shape[-2:]
    rank = min(max(1, round(share * n)), m)
    wide = x.double()
    values, vectors = torch.linalg.eigh(wide.mT @ wide if m < n else wide @ wide.mT)
    values, vectors = values[..., None, -rank:], vectors[..., -rank:]
    vectors = F.normalize(wide @ vectors, dim=-2) if m < n else vectors
    return (vectors * (values > NEGLIGIBLE * values[..., -1:])).to(x.dtype)


def multiplied(f: Tensor, matrix: Tensor, mode: int) -> Tensor:
    """F x_mode M, the matrix one for all samples or (B, r, n)."""
    f = f.movedim(mode, 1)
    return (matrix @ f.flatten(2)).unflatten(2, f.shape[2:]).movedim(1, mode)


def tucker(
    s: Tensor, t: Tensor, *, tucker_ranks: float, tucker_space: str, tucker_over: str
) -> Tensor:
    """mean |n(s x Uᵀ) - n(t x Uᵀ)|, with U Uᵀ instead of Uᵀ where the space is `projected`

    U are the truncated factors (HOSVD) of the teacher: channels, rows and columns, of the batch or
    of each sample. The student has no factors of its own: its core would be rotated against the
    teacher's.
    """
    if not 0 < tucker_ranks <= 1:
        raise UserError(
            f"tucker_ranks {tucker_ranks:g}: the kept share of a mode must be above 0 and at most 1"
        )
    if tucker_space not in ("core", "projected") or tucker_over not in ("batch", "sample"):
        raise UserError(
            f"tucker_space '{tucker_space}', tucker_over '{tucker_over}': "
            "choose core or projected, and batch or sample"
        )
    if tucker_over == "sample" and s.shape[-2:] == (1, 1):
        raise UserError(
            "loss 'tucker' of a sample needs a map of several pixels: choose --tucker_over batch, "
            "or --type_dist latent"
        )
    unfolded = {mode: t.movedim(mode, 1).flatten(2) for mode in (1, 2, 3)}  # (B, n, m)
    factors = {
        mode: leading(x.transpose(0, 1).flatten(1) if tucker_over == "batch" else x, tucker_ranks)
        for mode, x in unfolded.items()
    }
    for mode, u in factors.items():
        matrix = u.mT if tucker_space == "core" else u @ u.mT
        s, t = multiplied(s, matrix, mode), multiplied(t, matrix, mode)
    return F.l1_loss(unit(s), unit(t))
