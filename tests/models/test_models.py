"""Networks: taps, sizes, the release's files, hybrids; over depths, widths, norms and paddings."""

import itertools

import numpy as np
import pytest
import torch
from deepinv.models import UNet as DeepinvUNet

from checkpoints.checkpoint import restore_network
from core.errors import UserError
from core.registry import BATCH_NORMS, NETWORKS, PADDINGS, READ_MEASUREMENTS
from models import build_network
from models.hybrid_unet import graft, part_of
from models.unet import config_of

RELEASE = "UNET_cr_09_scales_2_dataset_mnist_2025_05_04_21_38.pth"


@pytest.mark.parametrize("name", ["unet", "hybrid_unet"])
@pytest.mark.parametrize("scales", [2, 3, 4, 5])
def test_layers_come_in_order_and_forward_is_the_last(name, scales):
    network = build_network({"name": name, "scales": scales, "width": 2}).eval()
    x = torch.rand(2, 1, 32, 32)
    layers = network.features(x)
    encoder = [f"enc{k}" for k in range(1, scales)]
    decoder = [f"dec{k}" for k in range(scales - 1, 0, -1)]
    assert list(layers) == [*encoder, "latent", *decoder, "head", "output"]
    assert torch.equal(network(x), layers["output"]) and torch.equal(
        layers["output"], layers["head"] + x
    )
    assert layers["latent"].shape == (
        2,
        2 * 2 ** (scales - 1),
        32 // 2 ** (scales - 1),
        32 // 2 ** (scales - 1),
    )


@pytest.mark.parametrize("batch_norm, padding", list(itertools.product(BATCH_NORMS, PADDINGS)))
@pytest.mark.parametrize("size", [(2, 2), (7, 7), (16, 24), (33, 18)])
def test_any_size_comes_back_at_its_size(batch_norm, padding, size):
    network = build_network(
        {
            "name": "unet",
            "c": 3,
            "scales": 3,
            "width": 2,
            "batch_norm": batch_norm,
            "padding": padding,
        }
    ).eval()
    assert network(torch.rand(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("scales, millions", [(2, 0.444), (3, 2.07), (4, 8.56), (5, 34.5)])
def test_parameter_counts_are_the_releases(scales, millions):
    with torch.device("meta"):
        count = sum(
            w.numel() for w in build_network({"name": "unet", "scales": scales}).parameters()
        )
    assert float(f"{count / 1e6:.3g}") == millions


@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("scales", [2, 4])
def test_equals_deepinvs_u_net_with_the_same_weights(padding, batch_norm, scales):
    widths = [4 * 2**k for k in range(scales)]
    other = DeepinvUNet(
        1,
        1,
        circular_padding=padding == "circular",
        batch_norm=batch_norm,
        channels_per_scale=widths,
    ).eval()
    ours = build_network(
        {
            "name": "unet",
            "scales": scales,
            "width": 4,
            "padding": padding,
            "batch_norm": "on" if batch_norm else "off",
        }
    ).eval()
    ours.load_state_dict(other.state_dict())
    x = torch.rand(2, 1, 32, 32)
    assert torch.allclose(ours(x), other(x), atol=1e-6)


def test_a_bias_free_network_scales_with_its_input():
    network = build_network({"name": "unet", "width": 4, "batch_norm": "bias-free"})
    for _ in range(3):
        network(torch.rand(4, 1, 16, 16))
    network.eval()
    x = torch.rand(2, 1, 16, 16)
    assert torch.allclose(network(3 * x), 3 * network(x), rtol=1e-4, atol=1e-5)


def test_the_releases_file_gives_the_releases_layers_and_output(shared):
    golden = np.load(shared / "upstream_unet" / "golden_cr09_mnist.npz")
    network, config = restore_network(shared / "upstream_unet" / RELEASE)
    assert config == {
        "name": "unet",
        "c": 1,
        "scales": 2,
        "width": 64,
        "batch_norm": "off",
        "padding": "release",
    }
    layers = network.features(torch.from_numpy(golden["x0"]))
    for layer in ("enc1", "latent", "dec1", "head", "output"):
        assert np.allclose(layers[layer][:, :4].detach(), golden[layer], atol=1e-5), layer
    wrong = build_network(config | {"padding": "circular"})
    wrong.load_state_dict(network.state_dict())
    assert not np.allclose(
        wrong(torch.from_numpy(golden["x0"])).detach(), golden["output"], atol=1e-3
    )


def test_the_releases_denormal_weights_become_zero(shared):
    raw = torch.load(shared / "upstream_unet" / RELEASE, map_location="cpu", weights_only=True)
    smallest = min(
        w[w != 0].abs().min().item()
        for w in restore_network(shared / "upstream_unet" / RELEASE)[0].parameters()
        if w.any()
    )
    assert smallest >= 1e-30
    assert sum(w.numel() for w in raw.values()) == 443_585


@pytest.mark.parametrize(
    "scales, width, batch_norm", [(2, 3, "off"), (5, 2, "off"), (3, 4, "on"), (2, 2, "bias-free")]
)
def test_a_bare_state_dict_tells_its_config(scales, width, batch_norm):
    config = {
        "name": "unet",
        "c": 3,
        "scales": scales,
        "width": width,
        "batch_norm": batch_norm,
        "padding": "release",
    }
    assert config_of(build_network(config).state_dict()) == config


def tiny(name: str) -> dict:
    """The flags of a network, made small."""
    small = {
        flag: min(value, 8) if isinstance(value, int) else value
        for flag, value in NETWORKS[name].flags.items()
    }
    return small | ({"blocks": 1} if "blocks" in small else {})


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in READ_MEASUREMENTS])
@pytest.mark.parametrize("c", [1, 3])
class TestEveryNetwork:
    def build(self, name, c):
        torch.manual_seed(0)
        return build_network({"name": name, "c": c} | tiny(name)).eval()

    def test_any_size_goes_through_and_the_last_layer_is_the_output(self, name, c):
        network = self.build(name, c)
        for size in ((16, 16), (13, 22)):
            x = torch.rand(2, c + 1, *size)  # with a noise map
            layers = network.features(x)
            assert list(layers)[-1] == "output" and layers["output"].shape == (2, c, *size)
            assert {"enc1", "latent"} <= layers.keys() and torch.equal(network(x), layers["output"])

    def test_only_networks_that_say_so_look_at_the_noise_map(self, name, c):
        network = self.build(name, c)
        x = torch.rand(2, c + 1, 16, 16)
        other = torch.cat((x[:, :c], 1 - x[:, c:]), 1)
        assert torch.equal(network(x), network(other)) is not network.reads_noise_level

    def test_gradient_checkpointing_keeps_less_where_it_can_and_changes_no_gradient(self, name, c):
        x, kept, grads = torch.rand(2, c + 1, 16, 16), [], []
        for checkpointing in (False, True):
            network, count = self.build(name, c).train(), 0
            network.checkpointing = checkpointing

            def pack(tensor):
                nonlocal count
                count += tensor.numel()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = network(x).square().mean()
            loss.backward()
            kept.append(count)
            grads.append([w.grad for w in network.parameters()])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))
        assert (kept[1] < kept[0]) is network.can_checkpoint

    def test_learns(self, name, c):
        network = self.build(name, c).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        x = torch.rand(2, c + 1, 16, 16)
        losses = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = (network(x) - x[:, :c].flip(-1)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["unet", "hybrid_unet"])
def test_gradient_checkpointing_counts_no_batch_twice(name):
    states, x = [], torch.rand(3, 4, 1, 16, 16)
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = build_network({"name": name, "scales": 3, "width": 4, "batch_norm": "on"}).train()
        network.checkpointing = checkpointing
        for batch in x:
            loss = network(batch).square().mean()
            for again in (True, False):
                loss.backward(retain_graph=again)
        states.append(network.state_dict())
    assert states[0]["Conv1.1.num_batches_tracked"] == 3
    assert all(torch.allclose(states[0][k], states[1][k], atol=1e-6) for k in states[0])


def test_the_large_dense_network_has_the_published_size():
    count = sum(
        w.numel()
        for w in build_network(
            {"name": "rrdbnet_large", "c": 3} | NETWORKS["rrdbnet_large"].flags
        ).parameters()
    )
    assert (
        count == 16_697_987 + 16 * 3 * 64 * 9 - 3 * 64 * 9
    )  # the published x4 network reads the image as it is, this one 4 x 4 pixels folded


class TestHybrid:
    config = {"name": "unet", "scales": 3, "width": 2, "batch_norm": "on"}  # noqa: RUF012

    def test_takes_each_part_from_its_own_network(self):
        a, b = build_network(self.config), build_network(self.config)
        weights = graft(a.state_dict(), b.state_dict())
        for name, tensor in weights.items():
            assert torch.equal(tensor, (a if part_of(name) == "encoder" else b).state_dict()[name])
        x = torch.rand(2, 1, 16, 16)
        hybrid = build_network(self.config).eval()
        hybrid.load_state_dict(weights)
        assert torch.equal(hybrid.features(x)["latent"], a.eval().features(x)["latent"])

    @pytest.mark.parametrize(
        "freeze, frozen",
        [("encoder", ("Conv1", "Conv2", "Conv3")), ("decoder", ("Up", "Conv_1x1")), ("none", ())],
    )
    def test_a_frozen_part_neither_learns_nor_counts_statistics(self, freeze, frozen):
        hybrid = build_network(self.config | {"name": "hybrid_unet", "freeze": freeze})
        before = {name: tensor.clone() for name, tensor in hybrid.state_dict().items()}
        optimizer = torch.optim.SGD([w for w in hybrid.parameters() if w.requires_grad], lr=0.1)
        hybrid.train()
        hybrid(torch.rand(4, 1, 16, 16)).square().mean().backward()
        optimizer.step()
        changed = {
            name
            for name, tensor in hybrid.state_dict().items()
            if not torch.equal(tensor, before[name])
        }
        assert changed and not any(name.startswith(frozen) for name in changed if frozen)
        assert any(not name.startswith(frozen or ("-",)) for name in changed)


@pytest.mark.parametrize(
    "change",
    [{"scales": 1}, {"scales": 6}, {"width": 0}, {"padding": "mirror"}, {"batch_norm": "maybe"}],
)
def test_impossible_configs_are_refused(change):
    with pytest.raises(UserError):
        build_network({"name": "unet", **change})
