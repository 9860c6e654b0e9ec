"""Whether the values of a recording fit its patterns, frame by frame."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SATURATED = 3  # values at the maximum, and as many times those of the next level
MARGIN = 1.02  # by which another coefficient may exceed the first one, for noise


class Problem(NamedTuple):
    """What is wrong with a frame, and whether its values cannot be used at all."""

    frame: int
    text: str
    is_broken: bool = False


def find_problems(
    raw: np.ndarray, values: np.ndarray, first: int | None, are_counts: bool
) -> Iterator[Problem]:
    """The problems of raw values (N, C, K) and of coefficients (N, C, m).

    `first` is the place of the all-ones pattern, if it was shown.
    """
    for k, (frame, coefficients) in enumerate(zip(raw, values, strict=True)):
        if not np.isfinite(frame).all():
            count = int((~np.isfinite(frame)).sum())
            yield Problem(k, f"{count} values are not finite", True)
            continue
        if (frame == frame[:, :1]).all():
            yield Problem(k, f"dead: all its values are {frame[0, 0]:g}", True)
            continue
        if are_counts and frame.min() < 0:
            yield Problem(k, f"{(frame < 0).sum()} negative counts, lowest {frame.min():g}")
        yield from find_saturation(k, frame)
        if first is not None:
            yield from check_first(k, coefficients, first)


def find_saturation(k: int, frame: np.ndarray) -> Iterator[Problem]:
    """Many values at the maximum and few below it: the detector is at its end."""
    levels, counts = np.unique(frame, return_counts=True)
    next_level = counts[-2] if len(levels) > 1 else 0
    if counts[-1] >= SATURATED and counts[-1] >= SATURATED * next_level:
        yield Problem(k, f"saturated: {counts[-1]} of its values are the maximum {levels[-1]:g}")


def check_first(k: int, coefficients: np.ndarray, first: int) -> Iterator[Problem]:
    """|y_k| <= y_0 for an image that is nowhere negative."""
    for channel in coefficients:
        if channel[first] <= 0:
            yield Problem(
                k,
                f"the all-ones pattern (value {first}) gives {channel[first]:.4g}, but light is "
                "positive: another --order or --pairs?",
            )
            return
        largest = int(np.abs(channel).argmax())
        if np.abs(channel[largest]) > MARGIN * channel[first]:
            yield Problem(
                k,
                f"value {largest} is {channel[largest]:.4g}, more than {channel[first]:.4g} of the "
                f"all-ones pattern (value {first}): another --order, or negative pixels?",
            )
            return


class Sums(NamedTuple):
    """How equal the sums of the pairs of each frame are, as shares of their mean."""

    spread: np.ndarray  # (N,) standard deviation
    drift: np.ndarray  # (N,) the change from the first to the last pair


def sums_of(pairs: np.ndarray) -> Sums:
    """Of pairs (N, C, m, 2), whose sums would be one number without noise and drift."""
    sums = pairs.sum(-1).mean(1)  # (N, m)
    mean = np.abs(sums.mean(1)) + 1e-300
    time = np.linspace(-0.5, 0.5, sums.shape[1])
    slope = (sums * time).sum(1) / (time**2).sum() if sums.shape[1] > 1 else np.zeros(len(sums))
    return Sums(sums.std(1) / mean, slope / mean)


def spread_of_neighbours(pairs: np.ndarray) -> np.ndarray:
    """The variance (N, C) of the sums of pairs without their slow changes.

    It is that of their differences too: the noise of y+ and of y- is independent.
    """
    sums = pairs.sum(-1)
    return np.square(np.diff(sums, axis=-1)).mean(-1) / 2
