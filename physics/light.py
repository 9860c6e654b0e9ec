"""Photon counts of pairs of patterns, as the EMVA 1288 standard models a detector.

A pattern H = H+ - H- of entries in [-1, 1] is measured as a pair of patterns in [0, 1]:

    y± = g Poisson(alpha H± x) + N(mu, sigma²)        m = (y+ - y-) / (g alpha)        E m = H x
    Var m = |H| x / alpha + 2 sigma² / (g alpha)²
    estimated from the counts: [g (y+ + y- - 2 mu) + 2 sigma²] / (g alpha)²

with alpha photons from a pixel of value 1 where the pattern is 1, gain g (counts a photon), dark
offset mu and dark noise sigma (counts).
"""

from dataclasses import dataclass
from math import log
from typing import Self

import torch
from torch import Tensor

from core.errors import UserError
from core.registry import LIGHT_BUDGETS, LIGHT_LIMITS


def check_light(config: dict) -> None:
    """Refuses values of a config that no camera has, and two models of noise at once."""
    ends = config["photons"] if isinstance(config["photons"], list) else [config["photons"]]
    if isinstance(config["photons"], list) and len(ends) != 2:
        listed = " ".join(f"{end:g}" for end in ends)
        raise UserError(f"photons {listed}: give one number, or the two ends of a range")
    values = [("photons", end) for end in ends if end is not None]
    values += [(name, config[name]) for name in ("dark", "dark_noise", "gain")]
    for name, value in values:
        low, high, open_low = LIGHT_LIMITS[name]
        if not low <= value <= high or (open_low and value == low):
            interval = f"{'(' if open_low else '['}{low:g}, {high:g}]"
            raise UserError(f"{name} {value:g} is outside {interval}")
    if len(ends) == 2 and ends[0] > ends[1]:
        raise UserError(f"photons {ends[0]:g} {ends[1]:g}: a range begins with its smaller end")
    if config["photon_budget"] not in LIGHT_BUDGETS:
        raise UserError(
            f"unknown photon_budget '{config['photon_budget']}': "
            f"choose from {', '.join(LIGHT_BUDGETS)}"
        )
    noise = [name for name in ("awgn_snr", "noise", "photons") if config[name] is not None]
    if len(noise) > 1:
        raise UserError(
            f"{' and '.join(noise)} are {len(noise)} models of the same noise: give one of them"
        )


@dataclass(frozen=True)
class Light:
    """What a detector counts: photons A, whose budget is a pattern's or a frame's, and the dark.

    Of the two ends of a range of photons each image gets a number between them, log-uniformly.
    """

    photons: float | list[float]
    budget: str = "pattern"
    dark: float = 0.0  # mu
    dark_noise: float = 0.0  # sigma
    gain: float = 1.0  # g

    @classmethod
    def of(cls, config: dict) -> Self | None:
        """The light of a physics's config, or None where it counts no photons."""
        if config["photons"] is None:
            return None
        return cls(
            config["photons"],
            config["photon_budget"],
            config["dark"],
            config["dark_noise"],
            config["gain"],
        )

    def range_of_alpha(self, pairs: int) -> tuple[float, float]:
        """The ends of alpha: A of each pattern, or A of a frame, divided among its pairs.

        Of the two ±1 patterns of a pair each pixel is lit by one.
        """
        low, high = self.photons if isinstance(self.photons, list) else [self.photons] * 2
        shared = pairs if self.budget == "frame" else 1
        return low / shared, high / shared

    def sample_alpha(
        self, images: int, pairs: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """alpha (B, 1, 1) of each image."""
        low, high = self.range_of_alpha(pairs)
        if low == high:
            return torch.full((images, 1, 1), low, dtype=torch.float64)
        share = torch.rand(images, 1, 1, generator=generator, dtype=torch.float64)
        return low * (high / low) ** share

    def counts(
        self,
        total: Tensor,
        difference: Tensor,
        alpha: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """y+ and y- (B, C, m, 2), from |H| x and H x (B, C, m) on the CPU."""
        light = torch.stack((total + difference, total - difference), dim=-1) / 2  # H± x
        # Rounded to single precision, so that the last bits of a sum change no sample.
        rates = (alpha[..., None] * light).float().double().clamp_min(0)
        counts = self.gain * torch.poisson(rates, generator=generator) + self.dark
        if self.dark_noise:
            counts += self.dark_noise * torch.randn(
                counts.shape, generator=generator, dtype=counts.dtype
            )
        return counts

    def estimate(self, counts: Tensor, alpha: Tensor) -> Tensor:
        """m = (y+ - y-) / (g alpha), (B, C, m)."""
        return (counts[..., 0] - counts[..., 1]) / (self.gain * alpha)

    def estimated_variance(self, counts: Tensor, alpha: Tensor) -> Tensor:
        """[g (y+ + y- - 2 mu) + 2 sigma²] / (g alpha)², (B, C, m), which is unbiased."""
        return self.variance_of_sums(counts.sum(-1)) / (self.gain * alpha) ** 2

    def variance_of_sums(self, sums: Tensor) -> Tensor:
        """The variance of y+ - y-, estimated from y+ + y-."""
        return self.gain * (sums - 2 * self.dark) + 2 * self.dark_noise**2

    def expected_variance(self, total: Tensor, pairs: int) -> Tensor:
        """Var m = |H| x / alpha + 2 sigma² / (g alpha)², over a range the mean, for |H| x."""
        low, high = self.range_of_alpha(pairs)
        if low == high:
            inverse, squared = 1 / low, 1 / low**2
        else:  # of a log-uniform alpha
            inverse = (1 / low - 1 / high) / log(high / low)
            squared = (1 / low**2 - 1 / high**2) / (2 * log(high / low))
        return total * inverse + 2 * self.dark_noise**2 / self.gain**2 * squared

    def describe(self) -> str:
        """The light in words, such as "10 photons a pattern"."""
        ends = self.photons if isinstance(self.photons, list) else [self.photons]
        words = f"{' to '.join(f'{end:g}' for end in ends)} photons a {self.budget}"
        if self.dark_noise:
            words += f", dark noise {self.dark_noise:g}"
        return words if self.gain == 1 else f"{words}, gain {self.gain:g}"
