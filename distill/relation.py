"""Losses that compare how the samples of a batch relate to one another."""

import torch
from torch import Tensor


def squared_distances(f: Tensor) -> Tensor:
    """‖f_i - f_j‖² between the samples, (B, B); the mean is taken out first, which keeps near samples exact."""
    f = f.flatten(1)
    f = f - f.mean(0)
    squares = f.square().sum(1)
    return (squares[:, None] + squares[None, :] - 2 * f @ f.T).clamp_min(0).fill_diagonal_(0)


def comb_matrix(s: Tensor, t: Tensor, gamma: float | str = "auto") -> Tensor:
    """‖K(s) - K(t)‖_F with K_ij = exp(-gamma ‖f_i - f_j‖²); auto: 1 / median squared distance of the teacher's samples"""
    d_s, d_t = squared_distances(s), squared_distances(t)
    if gamma == "auto":
        pairs = d_t[~torch.eye(len(d_t), dtype=torch.bool, device=d_t.device)]
        gamma = 1 / pairs.median().clamp_min(1e-12) if pairs.numel() else 1.0
    return (torch.exp(-gamma * d_s) - torch.exp(-gamma * d_t)).norm()
