"""Losses that compare one layer of the student with the same layer of the teacher; means over the batch."""

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


def smooth_l1(s: Tensor, t: Tensor) -> Tensor:
    """d² / 2 where |d| < 1, else |d| - 1/2"""
    return F.smooth_l1_loss(s, t)


def same_size(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The larger map pooled down to the smaller."""
    height, width = (min(a, b) for a, b in zip(s.shape[-2:], t.shape[-2:], strict=True))
    s, t = (
        F.adaptive_avg_pool2d(f, (height, width)) if f.shape[-2:] != (height, width) else f
        for f in (s, t)
    )
    return s, t


def attention(f: Tensor) -> Tensor:
    """The unit vector of a sample's energy at each place, (B, HW)."""
    return F.normalize(f.square().mean(1).flatten(1))


def at(s: Tensor, t: Tensor) -> Tensor:
    """mean (q_s - q_t)², q the attention"""
    s, t = same_size(s, t)
    return F.mse_loss(attention(s), attention(t))


def feature_attention(s: Tensor, t: Tensor) -> Tensor:
    """mse(s, t) + at(s, t) / 2"""
    return F.mse_loss(s, t) + 0.5 * at(s, t)


def soft(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """T² KL(softmax(t / T) || softmax(s / T)) across the channels, mean over places and batch"""
    log_s, log_t = ((f / temperature).log_softmax(1) for f in (s, t))
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()
