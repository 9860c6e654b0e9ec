"""Validation without truth: how far a network's images are from what was recorded of new scenes.

Of held-out frames, which no training has seen, the values y_k that the student does not measure
have noise that its input does not know. There (a_k x̂ - y_k)² - Var y_k is an unbiased estimate of
the squared error. Where the student does measure, the noise is in its input too, and Stein's
formula corrects for that: (a_k x̂ - y_k)² - Var y_k + 2 Var y_k ∂(a_k x̂) / ∂y_k.
"""

import torch
from torch import Generator, Tensor

from algo_functions import Meter
from data.batches import Batch, present
from models.base import Network
from physics.single_pixel import SinglePixel

PROBES, STEP = 4, 0.1  # of Stein's formula: random directions, and their length in deviations
LOWEST_ERROR = 1e-10  # an estimate of a small error may be negative


class HeldOutMeter(Meter):
    """The estimated squared error of all that was recorded, per pixel of the image."""

    target, curves = "recorded", ("recorded_psnr",)
    columns = ("recorded_psnr", "recorded_error", "recorded_error_se")
    validated = columns
    counts_first = True  # the network before the first step is a candidate too

    def __init__(self, physics: SinglePixel, recording: SinglePixel):
        super().__init__()
        self.physics, self.recording = physics, recording

    def new(self, **_) -> "HeldOutMeter":
        return HeldOutMeter(self.physics, self.recording)

    def add_batch(self, output: Tensor, batch: Batch) -> None:
        """Outputs for training frames, whose error is not corrected for what was learnt of them."""
        self._add(self._excess(output, batch))

    @torch.no_grad()
    def add_view(self, network: Network, batch: Batch, y: Tensor, output: Tensor) -> None:
        """Outputs for held-out frames."""
        excess = self._excess(output, batch)
        correction = self._correction(network, batch, output)
        self._add(excess + correction)

    def _add(self, error: Tensor) -> None:
        pixels = self.recording.config["n"] ** 2 * self.recording.config["c"]
        self.rows.setdefault("error", []).append(error.flatten(1).sum(1) / pixels)

    @torch.no_grad()
    def _excess(self, output: Tensor, batch: Batch) -> Tensor:
        """(a_k x̂ - y_k)² - Var y_k of all that was recorded, laid out as y."""
        recorded = present(batch.recorded)
        error = self.recording.operator.A(output.float()) - recorded
        excess = error.square() - present(batch.variance)
        return excess * self.recording.measured_in(recorded)

    def _correction(self, network: Network, batch: Batch, output: Tensor) -> Tensor:
        """2 Var y_k ∂(a_k x̂) / ∂y_k of what the student measures, by differences."""
        recorded, deviation = present(batch.recorded), present(batch.variance).sqrt()
        if not deviation.any():
            return torch.zeros_like(recorded)
        own = self.physics.measured_in(recorded)
        before, total = self.recording.operator.A(output), torch.zeros_like(recorded)
        generator = Generator().manual_seed(0)  # the same directions for all networks
        for _ in range(PROBES):
            signs = torch.randint(0, 2, recorded.shape, generator=generator) * 2 - 1
            direction = signs.to(recorded) * deviation * own
            moved = batch.replace(recorded=recorded + STEP * direction)
            x0 = self.physics.first_image(self.physics.measure_batch(moved))
            change = (self.recording.operator.A(network(x0)) - before) / STEP
            total += 2 * direction * change
        return total / PROBES

    def latest(self) -> float:
        """The score of the last batch, in dB."""
        return in_decibels(self.rows["error"][-1].mean().item())

    @staticmethod
    def selection_score(row: dict) -> float:
        """Of an epoch: the largest is the best."""
        return -row["val_recorded_error"]

    @staticmethod
    def format_row(row: dict) -> str:
        """An epoch's row in words."""
        scores = {"train": row["train_recorded_psnr"], "held out": row["val_recorded_psnr"]}
        words = [f"{name} {score:.2f} dB" for name, score in scores.items() if is_above_zero(score)]
        return f"recorded values: {'  '.join(words)}"

    @staticmethod
    def format_scores(scores: dict[str, float]) -> str:
        """A summary in words, with the interval of 95 % over the held-out frames."""
        low, high = interval_of(scores)
        return (
            f"{scores['recorded_psnr']:.2f} dB on the recorded values of held-out frames "
            f"(95 % interval {low:.2f} to {high:.2f})"
        )

    def summary(self) -> dict[str, float]:
        """The mean estimate over frames, in dB and with its standard error."""
        errors = self.per_image()["error"].double()
        mean = errors.mean().item()
        deviation = errors.std().item() if len(errors) > 1 else float("nan")
        return {
            "recorded_psnr": in_decibels(mean),
            "recorded_error": mean,
            "recorded_error_se": deviation / len(errors) ** 0.5,
            "images": len(errors),
        }


def interval_of(scores: dict[str, float]) -> tuple[float, float]:
    """The interval of 95 % of a summary, in dB."""
    error, reach = scores["recorded_error"], 1.96 * scores["recorded_error_se"]
    return in_decibels(error + reach), in_decibels(error - reach)


def in_decibels(error: float) -> float:
    return -10 * torch.tensor(max(error, LOWEST_ERROR)).log10().item()


def is_above_zero(decibels: float) -> bool:
    """Whether the estimated error is: less the noise, that of a training frame may be below."""
    return decibels < in_decibels(LOWEST_ERROR)
