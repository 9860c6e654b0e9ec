"""The learning rate: a linear warm-up, then a schedule over what is left.

A schedule is a factor of the progress, which runs from 0 to 1.
"""

import math
from argparse import Namespace

from core.registry import SCHEDULES, bound


def learning_rate(args: Namespace, epoch: float, epochs: float) -> float:
    """The learning rate at a fractional epoch of `epochs`."""
    warmup = min(args.warmup, epochs / 2)
    if epoch < warmup:
        return args.lr * epoch / warmup
    schedule = bound(SCHEDULES, args.schedule, args)
    return args.lr * schedule((epoch - warmup) / (epochs - warmup))


def cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    return 1.0


def multistep(progress: float, milestones: list[float], lr_gamma: float) -> float:
    return lr_gamma ** sum(progress >= milestone for milestone in milestones)
