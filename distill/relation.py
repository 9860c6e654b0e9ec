"""Losses that compare how the samples of a batch, or the places of a map, relate to one another."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.feature import same_size
from distill.layers import need_samples


def squared_distances(f: Tensor) -> Tensor:
    """‖f_i - f_j‖² between the samples, (B, B); the mean is taken out first, which keeps near samples exact."""
    f = f.flatten(1)
    f = f - f.mean(0)
    squares = f.square().sum(1)
    return (squares[:, None] + squares[None, :] - 2 * f @ f.T).clamp_min(0).fill_diagonal_(0)


def inverse_median(distances: Tensor) -> Tensor:
    """1 / median squared distance between different samples."""
    pairs = distances.detach()[
        ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    ]
    return (
        1 / pairs.median().clamp_min(1e-12)
        if pairs.numel()
        else torch.ones((), device=distances.device)
    )


def comb_matrix(s: Tensor, t: Tensor, gamma: float | str = "auto") -> Tensor:
    """‖K(s) - K(t)‖_F with K_ij = exp(-gamma ‖f_i - f_j‖²)

    auto: gamma = 1 / median squared distance of the teacher's samples; of each side's own where the shapes differ, since
    distances in different spaces have no common unit and K would be all zeros or all ones.
    """
    d_s, d_t = squared_distances(s), squared_distances(t)
    auto = isinstance(gamma, str)
    gamma_t = inverse_median(d_t) if isinstance(gamma, str) else gamma
    gamma_s = inverse_median(d_s) if auto and s.shape != t.shape else gamma_t
    return (torch.exp(-gamma_s * d_s) - torch.exp(-gamma_t * d_t)).norm()


def affinity(f: Tensor) -> Tensor:
    """The cosine between the features of every two places, (B, HW, HW)."""
    f = F.normalize(f.flatten(2), dim=1)
    return f.mT @ f


def fakd(s: Tensor, t: Tensor) -> Tensor:
    """mean |A(s) - A(t)|, A the affinity"""
    s, t = same_size(s, t)
    return (affinity(s) - affinity(t)).abs().mean()


def similarity(f: Tensor) -> Tensor:
    """F Fᵀ of the samples with unit rows, (B, B)."""
    f = f.flatten(1)
    return F.normalize(f @ f.T)


def sp(s: Tensor, t: Tensor) -> Tensor:
    """‖G_s - G_t‖_F² / B², G the similarity (arXiv:1907.09682)"""
    return F.mse_loss(similarity(s), similarity(t))


def geometry(f: Tensor) -> tuple[Tensor, Tensor]:
    """d_ij / mean d, and the cosine of the angle that samples j and k subtend at i by the law of cosines; zero where two of them are one."""
    squares = squared_distances(f)
    others = 1 - torch.eye(len(f), dtype=squares.dtype, device=f.device)
    d = squares.clamp_min(1e-12).sqrt()  # no gradient between samples that agree
    inverse = others / d
    cosines = (
        (squares[:, :, None] + squares[:, None, :] - squares)
        / 2
        * inverse[:, :, None]
        * inverse[:, None, :]
    )
    return others * d / (others * d).sum() * others.sum(), cosines


def rkd(s: Tensor, t: Tensor, *, rkd_distance: float, rkd_angle: float) -> Tensor:
    """w_d Huber(distances) + w_a Huber(cosines), means over all pairs and triples (arXiv:1904.05068)"""
    (d_s, cosines_s), (d_t, cosines_t) = geometry(s), geometry(t)
    return rkd_distance * F.smooth_l1_loss(d_s, d_t) + rkd_angle * F.smooth_l1_loss(
        cosines_s, cosines_t
    )


class ICKD(nn.Module):
    """sum (G_s - G_t)² / (C B), G_s and G_t the CxC correlations of BN(conv1x1(s)) and of t with unit rows (arXiv:2202.03680)"""

    def __init__(
        self, s: torch.Size, t: torch.Size, labels: Sequence[int], teacher_input: torch.Size
    ):
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(s[1], t[1], 1, bias=False), nn.BatchNorm2d(t[1]))

    def forward(self, s: Tensor, t: Tensor) -> Tensor:
        s, t = same_size(s, t)
        if s.shape[-2:] == (1, 1):
            need_samples("ickd", s, t)  # the batch is all that BN has
        g_s, g_t = (
            F.normalize(f @ f.mT, dim=2) for f in (self.project(s).flatten(2), t.flatten(2))
        )  # (B, C, C)
        return (g_s - g_t).square().sum() / (t.shape[1] * len(t))
