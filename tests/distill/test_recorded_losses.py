"""Losses on recorded values against closed forms for a linear student."""

import pytest
import scipy.linalg
import torch
from deepinv.loss import SureGaussianLoss
from torch import Tensor
from torch.nn.functional import mse_loss

from core.registry import RECORDED_LOSSES, look_up
from data.batches import Batch
from distill import recorded
from distill.recorded import Labels, Recorded
from distill.task import Supervised
from models.base import Network
from tests.doubles import FACTOR, SIDE, Scaled, camera, recorded_batch

DEVIATION = 0.3


def loss_of(name: str, batch: Batch, student: Network | None = None) -> Tensor:
    student = student or Scaled()
    own = camera(0.25)
    view = Recorded(camera(0.5), own, student, batch)
    output = student(own.observe_batch(batch))
    torch.manual_seed(1)  # not the noise of the batch again
    return look_up(RECORDED_LOSSES, name, "loss")(view, output)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).expand(
        4000, -1, -1, -1
    )


def parts_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """The clean values that the student measures, and those that are recorded beyond them."""
    whole, own = camera(0.5), camera(0.25)
    values = whole.values(whole.operator.A(x[:1]))[0, 0]
    return values[: own.m], values[own.m :]


def unit(deviation: float) -> float:
    return (deviation**2 + recorded.SMALLEST_UNIT**2) ** 0.5


def test_measurements_is_the_mean_squared_distance_in_units_of_the_noise(images):
    batch = recorded_batch(images[:3], camera(0.5), DEVIATION)
    y = camera(0.5).values(batch.recorded)
    own = camera(0.25).m
    predicted = torch.cat((FACTOR * y[..., :own], torch.zeros_like(y[..., own:])), dim=2)
    expected = ((predicted - y) / unit(DEVIATION)).square()
    torch.testing.assert_close(loss_of("measurements", batch), expected.mean())
    torch.testing.assert_close(loss_of("outside_student", batch), expected[..., own:].mean())


def test_sure_is_on_average_the_error_of_the_clean_values(images):
    seen, unseen = parts_of(images)
    noise = (1 - FACTOR) ** 2 * seen.square() + FACTOR**2 * DEVIATION**2
    error = torch.cat((noise, unseen.square())).mean() / unit(DEVIATION) ** 2
    loss = loss_of("sure", recorded_batch(images, camera(0.5), DEVIATION))
    torch.testing.assert_close(loss, error.float(), rtol=0.03, atol=0)


def test_sure_is_that_of_deepinv_where_all_values_have_one_noise(images):
    batch, own = recorded_batch(images[:8], camera(0.5), DEVIATION), camera(0.25)
    view = Recorded(camera(0.5), own, Scaled(), batch)
    sigma = view.noise.max().item()
    output = view(view.y)
    torch.manual_seed(1)
    loss = SureGaussianLoss(sigma, tau=recorded.PROBE)(view.y, output, view.operator, view)
    share = view.measured.mean()  # deepinv subtracts the noise of entries that were not measured
    expected = (loss.mean() + (1 - share) * sigma**2) / share
    torch.testing.assert_close(loss_of("sure", batch), expected, rtol=1e-4, atol=1e-5)


def test_sure_is_the_error_where_frames_differ_in_noise(images):
    quiet, loud = (
        recorded_batch(images, camera(0.5), d, seed=k) for k, d in enumerate((0.05, 0.5))
    )
    both = {
        name: torch.cat((getattr(quiet, name), getattr(loud, name)))
        for name in ("recorded", "variance")
    }
    batch = quiet.replace(index=torch.arange(2 * len(quiet)), **both)
    seen, unseen = parts_of(images)
    errors = []
    for d in (0.05, 0.5):
        own = (1 - FACTOR) ** 2 * seen.square() + FACTOR**2 * d**2
        errors.append(torch.cat((own, unseen.square())).mean() / unit(d) ** 2)
    expected = sum(errors) / 2
    torch.testing.assert_close(loss_of("sure", batch), expected.float(), rtol=0.03, atol=0)


@pytest.mark.parametrize("ordering", ["xy", "random"])
def test_the_null_space_is_the_distance_in_all_directions_that_no_pattern_has(ordering, images):
    whole, own = camera(0.5, ordering=ordering), camera(0.25, ordering=ordering)
    batch = recorded_batch(images[:2], whole, DEVIATION)
    view = Recorded(whole, own, Scaled(), batch)
    output, label = torch.rand(2, 2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    null = scipy.linalg.null_space(whole.rows().double())
    distance = (output - label).flatten(1).double() @ torch.from_numpy(null)
    expected = distance.square().sum() / (2 * SIDE**2) / unit(DEVIATION) ** 2
    torch.testing.assert_close(recorded.null_space(view, output, label), expected.float())


def test_r2r_is_on_average_the_error_at_more_noise_and_a_constant(images):
    alpha = 0.15
    seen, unseen = parts_of(images)
    own = (1 - FACTOR) ** 2 * seen.square() + FACTOR**2 * DEVIATION**2 / (1 - alpha)
    error = torch.cat((own, unseen.square())) + DEVIATION**2 / alpha
    loss = loss_of("r2r", recorded_batch(images, camera(0.5), DEVIATION))
    torch.testing.assert_close(loss, error.mean().float() / unit(DEVIATION) ** 2, rtol=0.03, atol=0)


def test_splitting_predicts_what_it_does_not_leave_to_the_student(images):
    seen, unseen = parts_of(images)
    seen = seen[1:]  # the first one is never dropped
    dropped = (1 - recorded.KEPT) * len(seen)
    total = (1 - recorded.KEPT) * seen.square().sum() + unseen.square().sum()
    expected = total / (dropped + len(unseen)) / unit(0) ** 2
    loss = loss_of("splitting", recorded_batch(images, camera(0.5), 0))
    torch.testing.assert_close(loss, expected.float(), rtol=0.03, atol=0)


@pytest.mark.parametrize("deviation", [0, DEVIATION])
@pytest.mark.parametrize("name", RECORDED_LOSSES)
def test_every_loss_teaches_the_student(name, deviation, images):
    student = Scaled(0.0)
    loss_of(name, recorded_batch(images[:16], camera(0.5), deviation), student).backward()
    assert student.factor.grad is not None and student.factor.grad.isfinite()
    # x̂ = a x0 cannot predict what is not in x0.
    assert (student.factor.grad.abs() > 1e-4) == (name not in ("outside_student", "splitting"))


@pytest.mark.parametrize("name", RECORDED_LOSSES)
def test_a_smaller_type_of_convolutions_changes_no_loss(name, images):
    """Where the student has none; dense patterns are measured by a matrix."""
    own, whole = (camera(cr, ordering="random") for cr in (0.25, 0.5))
    labels = Labels(
        physics=whole, target="raw", loss=look_up(RECORDED_LOSSES, name, "loss"), weight=1.0
    )
    task = Supervised(Scaled(), own, mse_loss, recorded=labels)
    batch = task.add_observations(recorded_batch(images[:8], whole, DEVIATION))
    found = []
    for amp in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            found.append(task(batch)["terms"])
    torch.testing.assert_close(*found)


def test_dense_patterns_are_recorded_too(images):
    whole, own = camera(0.5, ordering="random"), camera(0.25, ordering="random")
    batch = recorded_batch(images[:4], whole, DEVIATION)
    assert own.measure_batch(batch).shape[-1] == own.m
    for name in RECORDED_LOSSES:
        student = Scaled()
        view = Recorded(whole, own, student, batch)
        loss = look_up(RECORDED_LOSSES, name, "loss")(view, student(own.observe_batch(batch)))
        assert loss.isfinite(), name
