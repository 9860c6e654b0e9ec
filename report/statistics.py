"""Statistics of differences: means with intervals, paired tests, corrections for many tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

LEVEL = 0.95
POWER = 0.8  # of a test: how often it finds a gain that is there
QUANTILES = 4000  # of a sample's deviation
CLEAR = 2.0  # standard errors
HELPS, HARMS, UNCLEAR, UNTESTED = "helps", "harms", "no difference shown", "not tested"  # verdicts


@dataclass(frozen=True)
class Summary:
    """The mean of n values with its deviation, its interval, and the p-value of a mean of 0."""

    mean: float
    std: float
    n: int
    low: float
    high: float
    p: float = float("nan")

    def __str__(self) -> str:
        if self.n < 2:
            return "one value: no interval"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def summarize(values: ArrayLike) -> Summary:
    """Mean, deviation and Student's interval: m ± t_{0.975, n - 1} s / √n."""
    x = np.asarray(values, float)
    n, mean = len(x), float(x.mean())
    if n < 2:
        return Summary(mean, float("nan"), n, float("nan"), float("nan"))
    std = float(x.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * std / np.sqrt(n))
    return Summary(mean, std, n, mean - half, mean + half)


def first_of_best(names: Sequence[str], errors: Sequence[ArrayLike]) -> int:
    """Which of several errors of the same frames is the first that is not clearly above the lowest.

    Of those with one name the lowest counts, at the place of the first. Clearly: by more than twice
    the standard error of the mean difference, frame by frame.
    """
    values = [np.asarray(own, float) for own in errors]
    means = [float(own.mean()) for own in values]
    lowest: dict[str, int] = {}  # of each name
    for k, name in enumerate(names):
        if means[k] < means[lowest.setdefault(name, k)]:
            lowest[name] = k
    best = min(lowest.values(), key=lambda k: means[k])
    for k in lowest.values():
        d = values[k] - values[best]
        error = d.std(ddof=1) / np.sqrt(len(d)) if len(d) > 1 else 0.0
        if d.mean() <= CLEAR * error:
            return k
    return best


def paired(a: ArrayLike, b: ArrayLike, test: str = "t") -> Summary:
    """The mean of a - b over pairs, tested against 0.

    The test is Student's t, or Wilcoxon's signed ranks, which outliers do not move.
    """
    d = np.round(np.asarray(a, float) - np.asarray(b, float), 9)  # equal differences are equal
    summary = summarize(d)
    if summary.n < 2:
        return summary
    if not d.any():
        p = 1.0
    elif test == "t" and np.ptp(d) == 0:  # scores of few images can agree by chance
        p = float("nan")  # no deviation to compare the mean with
    elif test == "t":
        statistic = abs(summary.mean) / (summary.std / np.sqrt(summary.n))
        p = 2 * stats.t.sf(statistic, summary.n - 1)
    else:
        result: Any = stats.wilcoxon(d, zero_method="zsplit")
        p = result.pvalue
    return replace(summary, p=float(p))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: the k-th smallest of m times m - k + 1, made to grow; nan stays nan."""
    corrected, values = np.full(len(p), np.nan), np.asarray(p, float)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return corrected.tolist()


def detectable(std: float, n: int, tests: int = 1, power: float = POWER) -> float:
    """The smallest true gain that Student's paired test finds this often at the level of 5 %.

    Of n pairs whose differences have this standard deviation. Among several tests it is the gain
    that is found with the smallest p, which Holm's correction multiplies by their number.
    """
    if n < 2 or not std > 0:
        return float("nan")
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    deviations = np.sqrt(stats.chi2.ppf(shares, n - 1) / (n - 1))  # that such samples may have
    bounds = stats.t.isf((1 - LEVEL) / (2 * tests), n - 1) * deviations

    def missed(shift: float) -> float:
        """How much less often than asked for a gain of so many standard errors is found."""
        found = stats.norm.sf(bounds - shift) + stats.norm.cdf(-bounds - shift)
        return power - float(found.mean())

    shift: Any = optimize.brentq(missed, 0.0, 1e4)
    return float(shift * std / np.sqrt(n))


def gap_closed(gain: Summary, alone: float, teacher: float) -> tuple[float, float, float]:
    """The share of the gap teacher - alone that a gain closes, in per cent, with its interval.

    The gap itself counts as exact.
    """
    gap = teacher - alone
    if not gap > 0:
        return float("nan"), float("nan"), float("nan")
    return 100 * gain.mean / gap, 100 * gain.low / gap, 100 * gain.high / gap


def verdict(gain: Summary, corrected: float) -> str:
    """What a gain over the seeds shows at the level of 5 %."""
    if gain.n < 2 or np.isnan(corrected):
        return UNTESTED
    if corrected < 1 - LEVEL:
        return HELPS if gain.mean > 0 else HARMS
    return UNCLEAR
