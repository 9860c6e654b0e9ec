"""Losses that compare one tap of the student with the same tap of the teacher; means over the batch."""

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6  # of Charbonnier's smooth absolute value


def mse(s: Tensor, t: Tensor) -> Tensor:
    return F.mse_loss(s, t)


def mae(s: Tensor, t: Tensor) -> Tensor:
    return F.l1_loss(s, t)


def charbonnier(s: Tensor, t: Tensor) -> Tensor:
    """mean sqrt(d² + eps²)"""
    return ((s - t).square() + EPSILON**2).sqrt().mean()


def cs(s: Tensor, t: Tensor) -> Tensor:
    """1 - cos(s, t) of the flattened samples"""
    return (1 - F.cosine_similarity(s.flatten(1), t.flatten(1))).mean()


def l2(s: Tensor, t: Tensor) -> Tensor:
    """‖s - t‖₂ of each sample"""
    return (s - t).flatten(1).norm(dim=1).mean()


def linf(s: Tensor, t: Tensor) -> Tensor:
    """max |s - t| of each sample"""
    return (s - t).flatten(1).abs().amax(1).mean()
