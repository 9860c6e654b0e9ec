"""Offset, dark noise and gain of a detector, from black and white recordings.

The photon transfer of the EMVA 1288 standard: for counts y = g Poisson(lambda) + N(mu, sigma²),
whatever the light lambda of an exposure,

    mean_white - mean_black = g lambda        var_white - var_black = g² lambda

so the second over the first is a line through zero, whose slope is the gain g.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt
from typing import NamedTuple

import numpy as np
from scipy import stats

from core.errors import UserError

LEVEL = 0.95  # of the intervals
LEAST_RANGE = 1.2  # of the brightest exposure's light over the darkest one's
SATURATED = 0.05  # share of an exposure's values that are its largest one
UNLIKELY = 1e-3  # probability below which a deviation is named
METHOD = (
    "mu: Student's t; sigma: chi squared; g: line through zero, weighted by the variances of the "
    "sample variances of Poisson and Gaussian counts, normal on the logarithm"
)
Exposures = Sequence[np.ndarray]  # the repeated counts of each exposure


class Interval(NamedTuple):
    """An estimate and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Transfer:
    """Light and variance of every exposure, (exposures,), and the deviations of the variances."""

    light: np.ndarray  # mean_white - mean_black
    variance: np.ndarray  # var_white - var_black
    deviation: np.ndarray

    @property
    def misfit(self) -> float:
        """The probability of a chi squared that large, if the variances lie on the line."""
        weights = self.deviation**-2.0
        slope = (weights * self.light * self.variance).sum() / (weights * self.light**2).sum()
        chi2 = (weights * (self.variance - slope * self.light) ** 2).sum()
        return float(stats.chi2.sf(chi2, len(self.light) - 1))


@dataclass(frozen=True)
class Calibration:
    """A detector with the intervals of its values."""

    dark: Interval  # mu, counts
    dark_noise: Interval  # sigma, counts
    gain: Interval  # g, counts a photon
    transfer: Transfer
    notes: tuple[str, ...]  # what is strange about the recordings

    def content(self) -> dict:
        """What the file holds, whose first three values all scripts read."""
        named = {"dark": self.dark, "dark_noise": self.dark_noise, "gain": self.gain}
        return {
            **{name: interval.value for name, interval in named.items()},
            "intervals": {name: [one.low, one.high] for name, one in named.items()},
            "level": LEVEL,
            "method": METHOD,
            "light": self.transfer.light.tolist(),
            "variance": self.transfer.variance.tolist(),
            "notes": list(self.notes),
        }


def calibrate(black: Exposures, white: Exposures) -> Calibration:
    """The detector that recorded black and white exposures; one black exposure is for all."""
    check_exposures(black, white)
    dark, dark_noise = offset_of(black), dark_noise_of(black)
    gain, transfer = gain_of(black, white)
    return Calibration(dark, dark_noise, gain, transfer, notes_on(black, transfer))


# ---------------------------------------------------------------- estimates


def offset_of(black: Exposures) -> Interval:
    """mu: the mean of the black counts."""
    counts = np.concatenate(black)
    mean = counts.mean()
    reach = stats.t.ppf((1 + LEVEL) / 2, len(counts) - 1) * counts.std(ddof=1) / sqrt(len(counts))
    return Interval(float(mean), float(max(mean - reach, 0)), float(mean + reach))


def dark_noise_of(black: Exposures) -> Interval:
    """sigma: the deviation of the black counts from their exposure's mean."""
    freedom = sum(len(counts) - 1 for counts in black)
    squares = sum(((counts - counts.mean()) ** 2).sum() for counts in black)
    ends = [sqrt(squares / stats.chi2.ppf(p, freedom)) for p in ((1 + LEVEL) / 2, (1 - LEVEL) / 2)]
    return Interval(sqrt(squares / freedom), *ends)


def gain_of(black: Exposures, white: Exposures) -> tuple[Interval, Transfer]:
    """g: the slope of a line through zero, with the weights that follow from the slope itself."""
    blacks = list(black) * len(white) if len(black) == 1 else list(black)
    light = np.array([w.mean() - b.mean() for w, b in zip(white, blacks, strict=True)])
    variance = np.array([w.var(ddof=1) - b.var(ddof=1) for w, b in zip(white, blacks, strict=True)])
    repeats = np.array([len(counts) for counts in white])
    of_black = np.array([2 * b.var(ddof=1) ** 2 / (len(b) - 1) for b in blacks])
    dark = np.mean([b.var(ddof=1) for b in black])
    if (light <= 0).any():
        k = int((light <= 0).argmax())
        raise UserError(
            f"white exposure {k + 1} is not brighter than the black one: its mean is "
            f"{white[k].mean():.4g}, that of the black one {blacks[k].mean():.4g}"
        )
    slope = max(variance.sum() / light.sum(), 0.0)
    for _ in range(20):
        # A sample variance of r counts has variance 2 v² / (r - 1) + k / r with the fourth
        # cumulant k, which is g⁴ lambda of a Poisson count and 0 of a Gaussian one.
        expected = slope * light + dark
        of_white = 2 * expected**2 / (repeats - 1) + slope**3 * light / repeats
        deviation = np.sqrt(of_white + of_black)
        weights = 1 / np.maximum(deviation, 1e-300) ** 2
        slope = max((weights * light * variance).sum() / (weights * light**2).sum(), 0.0)
    share = weights * light / (weights * light**2).sum()  # of a variance in the slope
    common = len(black) == 1  # so its error is that of all exposures
    squared = (share.sum() if common else share) ** 2 * (of_black[0] if common else of_black)
    error = sqrt((share**2 * of_white).sum() + np.sum(squared))
    if slope <= stats.norm.ppf((1 + LEVEL) / 2) * error:
        raise UserError(
            "the white counts do not vary more than the black ones, so there is no slope: record "
            "brighter exposures, or more repeats"
        )
    reach = exp(stats.norm.ppf((1 + LEVEL) / 2) * error / slope)
    gain = Interval(float(slope), float(slope / reach), float(slope * reach))
    return gain, Transfer(light, variance, deviation)


# ---------------------------------------------------------------- checks


def check_exposures(black: Exposures, white: Exposures) -> None:
    """Refuses recordings from which a detector cannot be calibrated."""
    for name, exposures in (("black", black), ("white", white)):
        for k, counts in enumerate(exposures, 1):
            check_counts(counts, f"{name} exposure {k}")
    if len(white) < 2:
        raise UserError(
            "one white exposure has no slope: record at least two of different light, as rows of "
            "an array or as several files"
        )
    if len(black) not in (1, len(white)):
        raise UserError(
            f"{len(black)} black exposures for {len(white)} white ones: give one for each, or one "
            "for all"
        )
    for k, counts in enumerate(white, 1):
        check_saturation(counts, k)
    means = [counts.mean() for counts in white]
    offset = np.concatenate(black).mean()
    if max(means) - offset < LEAST_RANGE * (min(means) - offset):
        raise UserError(
            f"the white exposures have almost the same light (means {min(means):.4g} to "
            f"{max(means):.4g}): change the light or the exposure time between them"
        )


def check_counts(counts: np.ndarray, where: str) -> None:
    if len(counts) < 3:
        raise UserError(f"{where} has {len(counts)} repeats: at least 3 are needed, 100 are better")
    if not np.isfinite(counts).all():
        raise UserError(f"{where} holds values that are not finite numbers")
    if (counts < 0).any():
        raise UserError(
            f"{where} holds negative counts, such as {counts.min():.4g}: give what the detector "
            "counted, with its offset"
        )


def check_saturation(counts: np.ndarray, k: int) -> None:
    """Refuses an exposure whose largest value is more frequent than the second largest one."""
    values, times = np.unique(counts, return_counts=True)
    often = times[-1] >= max(5, SATURATED * len(counts))
    if len(values) == 1 or (often and times[-1] > times[-2]):
        raise UserError(
            f"white exposure {k} is saturated: {times[-1]} of its {len(counts)} values are "
            f"{values[-1]:.6g}, the largest one; record it with less light"
        )


def notes_on(black: Exposures, transfer: Transfer) -> tuple[str, ...]:
    """In words, what the model of the detector does not explain."""
    notes = []
    means = [counts.mean() for counts in black]
    varied = len(black) > 1 and any(counts.std() for counts in black)
    if varied and stats.f_oneway(*black).pvalue < UNLIKELY:
        notes.append(
            f"the offset is not the same in all black exposures ({min(means):.4g} to "
            f"{max(means):.4g}): dark is their mean, so use one exposure time"
        )
    if transfer.misfit < UNLIKELY:
        notes.append(
            "the variances do not lie on a line (chi squared, p "
            f"{transfer.misfit:.1g}): the light may have changed, or the detector is not linear"
        )
    return tuple(notes)
