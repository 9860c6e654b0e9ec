"""Networks that read measurements: unrolled ones, and those whose output agrees with y."""

import pytest
import torch

from algo_functions import build_physics
from core.errors import UserError
from data.batches import Batch
from models import build_network
from models.measured import Measured
from physics.mosaic import Mosaic

N = 16
CAMERA = {"name": "spc", "n": N, "c": 1, "cr": 0.25, "ordering": "xy", "x0": "adjoint"}
NOISES = ({}, {"noise": 0.2}, {"awgn_snr": 20.0}, {"photons": 10.0}, {"photons": [2.0, 50.0]})
NETWORKS = (
    {"name": "unrolled", "n": N, "stages": 3, "channels": 4},
    {"name": "unrolled", "n": N, "stages": 3, "channels": 4, "share": True},
    {"name": "unet", "width": 2, "consistency": "range", "n": N},
    {"name": "unrolled", "n": N, "stages": 2, "channels": 4, "consistency": "range"},
)


def camera(c: int = 1, **config):
    levels = {"awgn_snr": None, "noise": None, "photons": None}
    return build_physics(CAMERA | levels | {"c": c, "measurements": True} | config)


def pictures(count: int = 3, c: int = 1, n: int = N) -> torch.Tensor:
    return torch.rand(count, c, n, n, generator=torch.Generator().manual_seed(0))


def trained(config: dict, c: int = 1):
    """A network whose weights are not those of the beginning, where it changes nothing."""
    torch.manual_seed(0)
    network = build_network(config | {"c": c}).eval()
    for weight in network.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return network


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("noise", NOISES)
def test_the_correction_is_its_formula_with_the_matrix(noise, c):
    physics, x = camera(c, **noise), pictures(c=c)
    y = physics.measure(x, torch.Generator().manual_seed(1))
    x0, estimate, trust = physics.first_image(y), pictures(6, c)[3:], torch.tensor(0.03)
    rows = physics.rows()  # (m, n²)
    values = physics.values(y)
    variance = physics.values(y[:, -c:])
    weight = trust / (trust + variance)
    residual = weight * (values - estimate.flatten(2) @ rows.T)
    expected = (residual @ rows).view_as(estimate)
    found = Measured(x0, c, N).correction(estimate, trust)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    if not noise:
        assert not variance.any()
    else:
        errors = values - x.flatten(2) @ rows.T
        assert 0.3 < (errors.square().mean() / variance.mean()) < 3


def test_the_variance_of_every_value_is_the_cameras():
    physics = camera(noise=0.2)
    y = physics.measure(pictures())
    torch.testing.assert_close(physics.values(y[:, -1:]), torch.full((3, 1, physics.m), 0.04))
    physics = camera(awgn_snr=20.0)
    y = physics.measure(pictures())
    clean = pictures().flatten(2) @ physics.rows().T
    expected = (clean.square().mean((1, 2), keepdim=True) / 100).expand(-1, 1, physics.m)
    torch.testing.assert_close(physics.values(y[:, -1:]), expected)


@pytest.mark.parametrize("config", NETWORKS[2:])
def test_without_noise_a_consistent_output_has_exactly_the_measured_values(config):
    physics, network = camera(), trained(config)
    y = physics.measure(pictures())
    output = network(physics.first_image(y))
    torch.testing.assert_close(
        physics.values(physics.operator.A(output)), physics.values(y), atol=1e-5, rtol=1e-5
    )
    inner = network.network(physics.first_image(y))
    difference = output - inner
    torch.testing.assert_close(physics.project(difference), difference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", NETWORKS)
@pytest.mark.parametrize("noise", [{}, {"photons": 10.0}])
def test_a_frame_is_the_same_alone_and_in_a_batch(config, noise):
    physics, network = camera(**noise), trained(config)
    x0 = physics.observe(pictures(), torch.Generator().manual_seed(1))
    alone = torch.cat([network(one[None]) for one in x0])
    torch.testing.assert_close(network(x0), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", NETWORKS)
def test_gradients_are_those_of_differences(config):
    physics, network = camera(photons=10.0), trained(config).double()
    x0 = physics.observe(pictures(1), torch.Generator().manual_seed(1)).double()
    weights = [w for name, w in network.named_parameters() if "trust" in name or "steps" in name]
    assert weights
    for weight in weights:
        (gradient,) = torch.autograd.grad(network(x0).square().mean(), weight)
        before, step = weight.data.clone(), 1e-6
        weight.data = before + step
        above = network(x0).square().mean()
        weight.data = before - step
        below = network(x0).square().mean()
        weight.data = before
        numeric = (above - below) / (2 * step)
        torch.testing.assert_close(gradient.sum(), numeric, atol=1e-7, rtol=1e-4)


def test_large_images_are_corrected_block_by_block():
    physics = camera()
    x = pictures(2, n=2 * N)
    x0 = Mosaic(physics).observe(x)
    estimate, trust = pictures(4, n=2 * N)[2:], torch.tensor(1.0)
    found = Measured(x0, 1, N).correction(estimate, trust)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        block = (..., slice(i * N, (i + 1) * N), slice(j * N, (j + 1) * N))
        own = Measured(physics.observe(x[block]), 1, N).correction(estimate[block], trust)
        torch.testing.assert_close(found[block], own, atol=1e-5, rtol=1e-4)


def test_recorded_values_and_their_variances_are_those_of_the_file():
    physics, whole = camera(photons=10.0), camera(photons=10.0, cr=0.5)
    y = whole.measure(pictures(), torch.Generator().manual_seed(1))
    recorded, variance = y[:, :1], y[:, -1:]
    batch = Batch(None, torch.arange(3), recorded=recorded, variance=variance)
    own = physics.measure_batch(batch)
    torch.testing.assert_close(physics.values(own), recorded.flatten(2)[..., physics.index])
    torch.testing.assert_close(physics.values(own[:, -1:]), variance.flatten(2)[..., physics.index])


def test_other_patterns_and_other_physics_are_refused_in_words():
    with pytest.raises(UserError, match="ordering 'random': --network unrolled, "):
        camera(ordering="random")
    with pytest.raises(UserError, match="reads measurements, which its input lacks"):
        trained(NETWORKS[0])(pictures())


def test_the_same_values_are_measured_for_networks_that_read_them_and_others():
    reading, plain = camera(noise=0.1), camera(noise=0.1, measurements=False)
    assert reading.same_measurements_as(plain) and not reading.same_first_image_as(plain)
    views = (p.observe(pictures(), torch.Generator().manual_seed(1)) for p in (reading, plain))
    more, x0 = views
    assert torch.equal(more[:, :1], x0) and more.shape[1] == 4


@pytest.mark.parametrize("config", NETWORKS)
def test_it_learns_and_gradient_checkpointing_changes_no_gradient(config):
    physics, x = camera(), 0.3 * pictures() + pictures(n=1)
    x0, grads = physics.observe(x), []
    for checkpointing in (False, True):
        network = trained(config).train()
        network.checkpointing = checkpointing
        (network(x0) - x).square().mean().backward()
        grads.append([w.grad for w in network.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (network(x0) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_stages_are_named_layers_in_the_order_of_the_computation():
    layers = trained({"name": "unrolled", "n": N, "stages": 4, "channels": 4}).features(
        camera().observe(pictures())
    )
    assert list(layers) == ["enc1", "stage2", "stage3", "latent", "head", "output"]


def test_a_shared_denoiser_has_its_parameters_once():
    separate, shared = (
        sum(w.numel() for w in build_network(config | {"c": 1}).parameters())
        for config in NETWORKS[:2]
    )
    steps, memory = 2 * 3, 4 * 4  # the first of separate stages has no stage before it
    assert separate - steps == 3 * (shared - steps) - memory


def test_a_consistent_denoiser_reads_no_values_as_its_noise_level():
    network = trained({"name": "drunet", "width": 4, "blocks": 1, "consistency": "range", "n": N})
    x0 = camera().observe(pictures())
    assert network.input_of(x0).shape[1] == 1
    x0 = camera(photons=10.0).observe(pictures(), torch.Generator().manual_seed(1))
    image_and_level = network.input_of(x0)
    assert image_and_level.shape[1] == 2 and (image_and_level[:, 1] > 0).all()


def test_values_are_kept_in_sixteen_bits():
    physics, network = camera(), trained(NETWORKS[2])
    y = physics.measure(pictures())
    with torch.autocast("cpu", torch.bfloat16):
        output = network(physics.first_image(y))
    torch.testing.assert_close(physics.clean_values(output), physics.values(y), atol=1e-4, rtol=0)
