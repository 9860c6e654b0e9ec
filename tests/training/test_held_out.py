"""Validation without truth: the estimate agrees on average with the error that the truth shows."""

import pytest
import torch

from models.base import Network
from tests.doubles import SIDE, Scaled, camera, recorded_batch
from training.held_out import HeldOutMeter, in_decibels


class Bent(Network):
    """A student that is not linear."""

    def features(self, x):
        return {"output": torch.tanh(2 * x) * 0.6}


@pytest.mark.parametrize("deviation", [0, 0.1, 0.3])
@pytest.mark.parametrize("network", [Scaled(), Bent(1)], ids=["linear", "bent"])
def test_the_estimate_is_the_error_of_the_recorded_part(network, deviation):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, SIDE, SIDE, generator=generator).expand(4000, -1, -1, -1)
    whole, own = camera(0.5), camera(0.25)
    batch = recorded_batch(x, whole, deviation)
    output = network(own.observe_batch(batch)).detach()
    meter = HeldOutMeter(own, whole)
    meter.add_view(network, batch, torch.empty(0), output)
    scores = meter.summary()
    truth = whole.project(output - x).square().sum((1, 2, 3)).mean().item() / SIDE**2
    reach = 4 * scores["recorded_error_se"] + 1e-6
    assert abs(scores["recorded_error"] - truth) < reach, (scores, truth)


def test_without_the_correction_a_network_that_copies_noise_would_look_better():
    x = torch.rand(500, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    whole, own = camera(0.5), camera(0.25)
    batch = recorded_batch(x, whole, 0.5)
    errors = {}
    for factor in (1.0, 0.8):
        network, meter = Scaled(factor), HeldOutMeter(own, whole)
        output = network(own.observe_batch(batch)).detach()
        meter.add_view(network, batch, torch.empty(0), output)
        plain = HeldOutMeter(own, whole)
        plain.add_batch(output, batch)
        errors[factor] = meter.summary()["recorded_error"], plain.summary()["recorded_error"]
    true = {}
    for factor in errors:
        output = factor * own.observe_batch(batch)
        true[factor] = whole.project(output - x).square().mean().item()
    assert (errors[1.0][0] < errors[0.8][0]) == (true[1.0] < true[0.8])
    assert errors[1.0][1] < errors[1.0][0], "the noise that is copied counts against it"


def test_an_error_below_zero_is_not_shown_in_decibels():
    known = {"train_recorded_psnr": in_decibels(0.01), "val_recorded_psnr": in_decibels(0.1)}
    assert HeldOutMeter.format_row(known) == "recorded values: train 20.00 dB  held out 10.00 dB"
    below = known | {"train_recorded_psnr": in_decibels(-0.01)}
    assert HeldOutMeter.format_row(below) == "recorded values: held out 10.00 dB"
