"""Losses that compare how the samples of a batch, or the places of a map, relate to one another."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.feature import need_channels, need_places, same_size


def squared_distances(f: Tensor) -> Tensor:
    """‖f_i - f_j‖² between the samples, (B, B); the mean is taken out first, which keeps near samples exact."""
    f = f.flatten(1)
    f = f - f.mean(0)
    squares = f.square().sum(1)
    return (squares[:, None] + squares[None, :] - 2 * f @ f.T).clamp_min(0).fill_diagonal_(0)


def inverse_median(distances: Tensor) -> Tensor:
    """1 / median squared distance between different samples."""
    pairs = distances.detach()[~torch.eye(len(distances), dtype=torch.bool, device=distances.device)]
    return 1 / pairs.median().clamp_min(1e-12) if pairs.numel() else torch.ones((), device=distances.device)


def comb_matrix(s: Tensor, t: Tensor, gamma: float | str = "auto") -> Tensor:
    """‖K(s) - K(t)‖_F with K_ij = exp(-gamma ‖f_i - f_j‖²)

    auto: gamma = 1 / median squared distance of the teacher's samples; of each side's own where the shapes differ, since
    distances in different spaces have no common unit and K would be all zeros or all ones.
    """
    d_s, d_t = squared_distances(s), squared_distances(t)
    gamma_t = inverse_median(d_t) if gamma == "auto" else gamma
    gamma_s = inverse_median(d_s) if gamma == "auto" and s.shape != t.shape else gamma_t
    return (torch.exp(-gamma_s * d_s) - torch.exp(-gamma_t * d_t)).norm()


def affinity(f: Tensor) -> Tensor:
    """The cosine between the features of every two places, (B, HW, HW)."""
    f = F.normalize(f.flatten(2), dim=1)
    return f.mT @ f


def fakd(s: Tensor, t: Tensor) -> Tensor:
    """mean |A(s) - A(t)|, A the affinity"""
    s, t = same_size(s, t)
    need_places("fakd", s)
    need_channels("fakd", s)
    return (affinity(s) - affinity(t)).abs().mean()
