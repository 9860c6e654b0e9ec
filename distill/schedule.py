"""How alpha changes while a student learns: factors of the progress, which runs from 0 to 1."""

import math

PHASES = ((0.0, 5.0), (0.2, 2.0), (0.4, 1.0), (0.8, 0.5))  # much guidance first, the task last


def constant(progress: float) -> float:
    return 1.0


def step(progress: float, alpha_milestones: list[float], alpha_gamma: float) -> float:
    return alpha_gamma ** sum(progress >= milestone for milestone in alpha_milestones)


def linear(progress: float) -> float:
    return 1 - progress


def cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def warmup(progress: float, alpha_warmup: float) -> float:
    return min(1.0, progress / alpha_warmup)


def phases(progress: float) -> float:
    return [factor for begin, factor in PHASES if progress >= begin][-1]
