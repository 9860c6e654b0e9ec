"""Losses that compare what student and teacher answer: the logits of classes, (B, classes)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.feature import soft

EPSILON = 1e-8  # of a variance that is divided by


def divergence(log_s: Tensor, log_t: Tensor) -> Tensor:
    """KL(t || s), mean over the batch"""
    return (log_t.exp() * (log_t - log_s)).sum(1).mean()


def standardised(f: Tensor) -> Tensor:
    """(f - mean) / deviation of each row, the deviation unbiased as torch's `std` has it"""
    deviation = (f.var(1, keepdim=True) + EPSILON).sqrt()  # a gradient where a row is constant
    return (f - f.mean(1, keepdim=True)) / deviation


def kd(s: Tensor, t: Tensor, *, temperature: float, standardise: bool) -> Tensor:
    """T² KL(softmax(t / T) || softmax(s / T))

    of logits that are z-scored row by row if standardised (arXiv:2403.01427)
    """
    if standardise:
        s, t = standardised(s), standardised(t)
    return soft(s, t, temperature)


def dkd(
    s: Tensor,
    t: Tensor,
    *,
    label: Tensor,
    epoch: float,
    temperature: float,
    dkd_alpha: float,
    dkd_beta: float,
    dkd_warmup: float,
) -> Tensor:
    """min(epoch / warmup, 1) T² [a KL(b_t || b_s) + b KL(q_t || q_s)] (arXiv:2203.08679)

    with b = [p_y, 1 - p_y] and q the softmax of the other classes
    """
    others = torch.arange(s.shape[1] - 1, device=s.device).expand(len(s), -1)
    others = others + (others >= label[:, None])  # (B, classes - 1)
    log_b, log_q = [], []
    for f in (s, t):
        log_p = (f / temperature).log_softmax(1)
        rest = log_p.gather(1, others)
        log_b.append(
            torch.cat([log_p.gather(1, label[:, None]), rest.logsumexp(1, keepdim=True)], 1)
        )
        log_q.append(rest.log_softmax(1))
    warm = min(epoch / dkd_warmup, 1.0) if dkd_warmup else 1.0
    return warm * temperature**2 * (dkd_alpha * divergence(*log_b) + dkd_beta * divergence(*log_q))


def decorrelation(p: Tensor, q: Tensor, axis: int) -> Tensor:
    """1 - correlation along an axis, mean over the other"""
    p, q = (F.normalize(f - f.mean(axis, keepdim=True), dim=axis) for f in (p, q))
    return (1 - (p * q).sum(axis)).mean()


def dist(s: Tensor, t: Tensor, *, dist_beta: float, dist_gamma: float) -> Tensor:
    """b mean (1 - corr of rows) + g mean (1 - corr of columns) of softmaxes (arXiv:2205.10536)"""
    s, t = s.softmax(1), t.softmax(1)
    return dist_beta * decorrelation(s, t, 1) + dist_gamma * decorrelation(s, t, 0)
