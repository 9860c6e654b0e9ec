"""What can be said of differences: means with intervals, paired tests, and many of them at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Said(NamedTuple):
    """A mean of n values with its deviation, its interval, and where it was compared with 0 the chance of one as far from it."""

    mean: float
    std: float
    n: int
    low: float
    high: float
    p: float = float("nan")

    def __str__(self) -> str:
        return (
            f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
            if self.n > 1
            else "one value: no interval"
        )


def summary(values: Sequence[float]) -> Said:
    """Mean, deviation and Student's interval: m ± t_{0.975, n - 1} s / √n."""
    x = np.asarray(values, float)
    n, mean = len(x), x.mean()
    if n < 2:
        return Said(mean, float("nan"), n, float("nan"), float("nan"))
    std = x.std(ddof=1)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * std / np.sqrt(n)
    return Said(mean, std, n, mean - half, mean + half)


def paired(a: Sequence[float], b: Sequence[float], test: str = "t") -> Said:
    """The mean of a - b over pairs; whether it is 0, by Student's t, or by Wilcoxon's signed ranks, which outliers do not move."""
    d = np.round(np.asarray(a, float) - np.asarray(b, float), 9)  # equal differences are equal
    found = summary(d)
    if found.n < 2:
        return found
    if not d.any():
        p = 1.0
    elif test == "t" and np.ptp(d) == 0:
        p = (
            np.nan
        )  # scores of few images can agree by chance: no deviation to compare the mean with
    elif test == "t":
        p = 2 * stats.t.sf(abs(found.mean) / (found.std / np.sqrt(found.n)), found.n - 1)
    else:
        p = stats.wilcoxon(d, zero_method="zsplit").pvalue
    return found._replace(p=float(p))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: the k-th smallest of m times m - k + 1, made to grow; what was not tested stays nan and does not count."""
    corrected, p = np.full(len(p), np.nan), np.asarray(p, float)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return corrected.tolist()


def gap_closed(gain: Said, alone: float, teacher: float) -> tuple[float, float, float]:
    """The share of teacher - alone that a gain closes, in per cent, with the gain's interval; the gap itself is taken as known."""
    gap = teacher - alone
    if not gap > 0:
        return (float("nan"),) * 3
    return tuple(100 * value / gap for value in (gain.mean, gain.low, gain.high))


def verdict(gain: Said, corrected: float) -> str:
    """What a reader may take from a gain over the seeds."""
    if gain.n < 2 or np.isnan(corrected):
        return "not tested"
    if corrected < 1 - LEVEL:
        return "helps" if gain.mean > 0 else "harms"
    return "not told apart"
