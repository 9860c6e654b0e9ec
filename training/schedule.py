"""How the learning rate changes after its warm-up: factors of the progress, which runs from 0 to 1."""

import math


def cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    return 1.0


def multistep(progress: float, milestones: list[float], lr_gamma: float) -> float:
    return lr_gamma ** sum(progress >= milestone for milestone in milestones)
