"""What light gives: the noise of back-projection against what is not measured, for every ratio."""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

from core.errors import UserError
from core.files import significant, write_csv
from core.hadamard import hadamard_2d
from physics.light import Light
from physics.orderings import is_hadamard
from physics.single_pixel import SinglePixel
from report.figures import COLORS, WIDE, panels, save_figure, use_decimal_labels, write_below


@dataclass(frozen=True)
class Outcome:
    """The mean squared error of back-projection with a light, for m = 1 .. n² measurements.

    An image's error is its noise and its truncation error, which do not depend on each other.
    """

    light: Light
    noise: Tensor
    truncation: Tensor

    @property
    def error(self) -> Tensor:
        return self.noise + self.truncation

    @property
    def best(self) -> int:
        """The number of measurements of the least error."""
        return int(self.error.argmin()) + 1

    def row(self, m: int) -> dict:
        """The errors of m measurements in words."""
        error = self.error[m - 1].item()
        return {
            "photons": self.light.photons,
            "ratio": m / len(self.noise),
            "measurements": m,
            "noise": self.noise[m - 1].item(),
            "not measured": self.truncation[m - 1].item(),
            "PSNR (dB)": -10 * torch.tensor(error).log10().item(),
        }


def truncation_errors(physics: SinglePixel, images: Tensor) -> Tensor:
    """The energy of a pixel that the first m = 1 .. n² coefficients leave out, (n²,)."""
    n = physics.config["n"]
    energy = torch.zeros(n * n, dtype=torch.float64)
    for chunk in images.split(500):
        energy += hadamard_2d(chunk.double()).square().sum((0, 1)).flatten()
    energy = energy[physics.patterns.flatten().argsort()] / images.numel()
    return (energy.sum() - energy.cumsum(0)).clamp_min(0)


def noise_variances(light: Light, n: int, brightness: float) -> Tensor:
    """The variance of a pixel of back-projection, for m = 1 .. n² measurements, (n²,).

    It is (m / n²) (mean(x) / alpha + 2 sigma² / (n g alpha)²).
    """
    total = torch.tensor(brightness * n * n, dtype=torch.float64)  # |H| x of an average image
    of_value = [light.expected_variance(total, m) / n**2 for m in range(1, n * n + 1)]
    return torch.arange(1, n * n + 1) / n**2 * torch.stack(of_value)


def outcomes_of(physics: SinglePixel, images: Tensor, lights: list[Light]) -> list[Outcome]:
    """What each light gives for images like these."""
    n = physics.config["n"]
    if not is_hadamard(physics.patterns, n):
        raise UserError(
            f"photons: ordering '{physics.config['ordering']}' has no Hadamard patterns, whose "
            "noise and truncation error are drawn; choose another --ordering"
        )
    truncation = truncation_errors(physics, images)
    brightness = images.double().mean().item()
    return [Outcome(light, noise_variances(light, n, brightness), truncation) for light in lights]


def draw_outcomes(outcomes: list[Outcome], m: int, path: Path) -> None:
    """The errors over the ratio, and the PSNR of back-projection, with the best ratio marked."""
    figure, (left, right) = panels(2, 2, WIDE / 2, 3.6)
    count = len(outcomes[0].noise)
    ratios = torch.arange(1, count + 1) / count
    left.plot(ratios[:-1], outcomes[0].truncation[:-1], "k:", label="not measured")
    for name, dash in (("noise", "--"), ("sum", "-")):
        left.plot([], [], color="k", ls=dash, label=name)
    for outcome, color in zip(outcomes, COLORS * len(outcomes), strict=False):
        draw_outcome(outcome, ratios, color, left, right)
    for axis in (left, right):
        axis.axvline(m / count, color="0.6", lw=0.8, ls="-", zorder=0)
        axis.set(xscale="log", xlabel="ratio of measurements to pixels", xlim=(1 / count, 1.1))
        use_decimal_labels(axis.xaxis)
        axis.grid()
    lowest = min(outcome.error.min().item() for outcome in outcomes)
    left.set(yscale="log", ylabel="mean squared error of a pixel", ylim=(lowest / 20, 1))
    use_decimal_labels(left.yaxis)
    left.legend(loc="upper left")
    left.set_title("expected error of back-projection")
    light, top = outcomes[0].light, right.get_ylim()[1]
    right.set(ylabel="expected PSNR (dB)", ylim=(0, 1.1 * top))
    right.set_title("the sum in decibels, and its best ratio")
    right.legend(loc="lower left", title=f"photons of a {light.budget}", framealpha=1)
    note = "A pixel of value 1 gives the photons."
    write_below(figure, [f"{note} The grey line is --cr; {detector_of(light)}."])
    save_figure(figure, path)


def draw_outcome(outcome: Outcome, ratios: Tensor, color: str, left: Axes, right: Axes) -> None:
    """The curves of one light."""
    k = outcome.best - 1
    psnr = -10 * outcome.error.log10()
    label = f"{outcome.light.photons:g}: cr {ratios[k]:.2g}, {psnr[k]:.1f} dB"
    left.plot(ratios, outcome.noise, color=color, ls="--", lw=0.9)
    for axis, curve, name in ((left, outcome.error, None), (right, psnr, label)):
        axis.plot(ratios, curve, color=color, ls="-")
        axis.plot(ratios[k], curve[k], color=color, marker="o", ls="", ms=7, label=name)


def detector_of(light: Light) -> str:
    if not light.dark_noise:
        return "the detector has no dark noise"
    return f"dark noise {light.dark_noise:g} counts, gain {light.gain:g} counts a photon"


def write_outcomes(outcomes: list[Outcome], path: Path) -> None:
    """The errors of every ratio as a table."""
    rows = []
    for outcome in outcomes:
        for m in range(1, len(outcome.noise) + 1):
            row = outcome.row(m)
            rows.append({name: significant(value) for name, value in row.items()})
    write_csv(path, rows)
