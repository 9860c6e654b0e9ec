"""Losses on recorded values, where no clean image is known.

A loss compares what a student's output x̂ would give, A x̂, with the recorded values y, of which the
student sees a part. A value whose noise has the variance v is in units of sqrt(v + 0.05²), so that
a weight means about the same at every light. r2r (Pang et al. 2021) and splitting (Yaman et al.
2020) are deepinv's own losses; sure is Stein's estimate (1981).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from warnings import catch_warnings

import torch
from deepinv.loss import R2RLoss, SplittingLoss
from deepinv.physics import GaussianNoise, LinearPhysics
from torch import Tensor, nn

from core.registry import LabelTarget
from data.batches import Batch, present
from models.base import Network
from physics.single_pixel import SinglePixel

SMALLEST_UNIT = 0.05  # of a value without noise, for images in [0, 1]
KEPT = 0.9  # share of the student's own values that splitting leaves it
LEAST_NOISE = 1e-6  # where deepinv needs some, in units of the noise
PROBE = 0.1  # step of the divergence in sure, in units of the noise


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a student learns from recordings: labels that stand for the truth, and a loss."""

    physics: SinglePixel  # measures all that was recorded
    target: LabelTarget | None = None
    loss: "Callable[[Recorded, Tensor], Tensor] | None" = None
    weight: float = 1.0  # of the loss


class Recorded(nn.Module):
    """The recorded values of a batch and the student, as the losses of deepinv expect them.

    `physics` measures everything that was recorded, `student_physics` the student's part of it.
    """

    def __init__(
        self, physics: SinglePixel, student_physics: SinglePixel, student: Network, batch: Batch
    ):
        super().__init__()
        recorded, variance = present(batch.recorded), present(batch.variance)
        self.student, self.student_physics, self.batch = student, student_physics, batch
        self.amp = torch.is_autocast_enabled(recorded.device.type)  # of the student, also in a loss
        self.measured = physics.measured_in(recorded)  # 1 where a value was recorded, else 0
        self.own = student_physics.measured_in(recorded)  # and where the student sees it
        self.unit = (variance + SMALLEST_UNIT**2).sqrt()
        self.noise = variance.sqrt() / self.unit
        self.y = recorded / self.unit
        self.operator = Rescaled(physics, self.unit, self.measured, self.noise)

    def forward(self, y: Tensor, physics: LinearPhysics | None = None) -> Tensor:
        """The student's output for values y in units of their noise."""
        batch = self.batch.replace(recorded=y * self.unit)
        x0 = self.student_physics.first_image(self.student_physics.measure_batch(batch))
        with torch.autocast(x0.device.type, enabled=self.amp):
            return self.student(x0).float()


class Rescaled(LinearPhysics):
    """All that was recorded, as an operator of deepinv in units of the noise."""

    def __init__(self, physics: SinglePixel, unit: Tensor, measured: Tensor, noise: Tensor):
        super().__init__()
        self.physics, self.unit = physics, unit
        noise_model: Any = GaussianNoise()
        noise_model.sigma = noise.clamp_min(LEAST_NOISE)  # of each value
        self.mask, self.noise_model = measured, noise_model

    def A(self, x: Tensor, **_) -> Tensor:
        return self.physics.operator.A(x) / self.unit

    def A_adjoint(self, y: Tensor, **_) -> Tensor:
        return self.physics.operator.A_adjoint(y / self.unit)


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where the mask is 1, of which every image has as many."""
    return (values * mask).sum() / (mask.sum() * (len(values) / len(mask)))


def measurements(recorded: Recorded, output: Tensor) -> Tensor:
    """mean (A x̂ - y)² over all that was recorded"""
    error = recorded.operator.A(output) - recorded.y
    return mean_over(error.square(), recorded.measured)


def outside_student(recorded: Recorded, output: Tensor) -> Tensor:
    """mean (A x̂ - y)² over what the student does not see, whose noise is not in its input"""
    error = recorded.operator.A(output) - recorded.y
    return mean_over(error.square(), recorded.measured - recorded.own)


def null_space(recorded: Recorded, output: Tensor, label: Tensor) -> Tensor:
    """mean ((1 - A⁺A) (x̂ - label))² over pixels, of what no pattern measured"""
    difference = output - label
    unit = mean_over(recorded.unit.square(), recorded.measured)
    seen = present(recorded.operator.physics.project(difference))
    return (difference - seen).square().mean() / unit


def r2r(recorded: Recorded, output: Tensor) -> Tensor:
    """mean (A f(y + c w) - (y - w / c))², with fresh noise w"""
    loss = R2RLoss(eval_n_samples=1)
    model = loss.adapt_model(recorded)
    x = model(recorded.y, recorded.operator, update_parameters=True)
    return per_measured(loss(x, recorded.y, recorded.operator, model), recorded)


class OwnSplit:
    """Leaves the student a random part of its own values: all others are to be predicted.

    The first value, the sum of all pixels, is always left, as the centre of k-space is in MRI.
    """

    def __init__(self, own: Tensor, first: int):
        self.own, self.first = own, first

    def step(self, batch_size: int, input_mask: Tensor | None = None) -> dict[str, Tensor]:
        kept = torch.rand(batch_size, *self.own.shape[1:]).to(self.own.device) < KEPT
        kept.flatten(2)[..., self.first] = True
        return {"mask": self.own * kept}


def splitting(recorded: Recorded, output: Tensor) -> Tensor:
    """mean (A₂ f(y₁) - y₂)², with a random part y₁ of the student's own values"""
    generator: Any = OwnSplit(recorded.own, int(recorded.student_physics.index[0]))
    loss = SplittingLoss(mask_generator=generator, eval_split_input=False)
    model = loss.adapt_model(recorded)
    with catch_warnings(action="ignore"):  # the masked camera is not decomposed, nor need it be
        x = model(recorded.y, recorded.operator, update_parameters=True)
        return loss(x, recorded.y, recorded.operator, model)


def sure(recorded: Recorded, output: Tensor) -> Tensor:
    """mean (A x̂ - y)² - v + 2 v ∂(A x̂) / ∂y, an unbiased estimate of the error of A x̂"""
    # By hand, as deepinv's SureGaussianLoss knows one noise level, and frames differ in light.
    before, variance = recorded.operator.A(output), recorded.noise.square()
    direction = torch.randn_like(recorded.y)
    change = recorded.operator.A(recorded(recorded.y + PROBE * direction)) - before
    divergence = variance * direction * change / PROBE
    excess = (before - recorded.y).square() - variance + 2 * divergence
    return mean_over(excess, recorded.measured)


def per_measured(mean: Tensor, recorded: Recorded) -> Tensor:
    """A mean over all entries of y as one over those that were measured."""
    return mean / recorded.measured.mean()
