"""Classifiers: taps, sizes, the published networks and their weights."""

import copy
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model_weights

from core.errors import UserError
from models import cifar_resnet, library, pretrained
from models.classifier import DEVIATION, GREY_DEVIATION, GREY_MEAN, MEAN

SMALL = {
    **{
        name: partial(getattr(cifar_resnet, name), width=4)
        for name in ("resnet8", "resnet20", "resnet56", "resnet112")
    },
    **{
        name: partial(getattr(library, name), width=8)
        for name in ("resnet18", "resnet34", "resnet50")
    },
    "resnext50": partial(library.resnext50, width=16),
    "small_resnet18": partial(library.resnet18, width=8, stem="small"),
    "small_resnext50": partial(library.resnext50, width=16, stem="small"),
    "shufflenet": library.shufflenet,
    "small_shufflenet": partial(library.shufflenet, stem="small"),
    "vgg16": partial(library.vgg16, width=4, batch_norm="off"),
    "vgg16_bn": partial(library.vgg16, width=4, batch_norm="on"),
    "vit_tiny": partial(library.vit_tiny, width=24),
    "vit_small": partial(library.vit_small, width=64, patch=8),
}
TORCHVISION = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnext50": "resnext50_32x4d",
    "shufflenet": "shufflenet_v2_x1_0",
}
VIT = "vit_tiny_patch16_224"


def normal(x: torch.Tensor, mean=MEAN, deviation=DEVIATION) -> torch.Tensor:
    return torch.stack([(x[:, k] - mean[k]) / deviation[k] for k in range(3)], 1)


def lively(network: nn.Module) -> nn.Module:
    """Weights and statistics that are all different, as after a training."""
    generator = torch.Generator().manual_seed(0)
    for key, value in network.state_dict().items():
        if key.endswith(("bias", "running_mean")):
            value.normal_(0, 0.1, generator=generator)
        elif key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("c", [1, 3])
class TestEveryClassifier:
    def build(self, name, c, side=24):
        torch.manual_seed(0)
        return SMALL[name](c, 5, side)

    def test_layers_come_in_order_and_forward_is_the_last(self, name, c):
        network = self.build(name, c).eval()
        x = torch.rand(2, c, 24, 24)
        layers = network.features(x)
        middle = [f"stage{k}" for k in range(1, len(layers) - 3)]
        assert list(layers) == ["enc1", *middle, "latent", "pool", "output"] and len(middle) >= 2
        assert torch.equal(network(x), layers["output"]) and layers["output"].shape == (2, 5)
        assert all(h.ndim == 4 for layer, h in layers.items() if layer != "output") and layers[
            "pool"
        ].shape[2:] == (1, 1)
        sides = [h.shape[-1] for layer, h in layers.items() if layer not in ("pool", "output")]
        assert sides == sorted(sides, reverse=True)
        last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
        assert torch.allclose(last(layers["pool"].flatten(1)), layers["output"], atol=1e-6)

    def test_any_size_goes_through_and_a_map_of_noise_is_not_looked_at(self, name, c):
        network = self.build(name, c, 17).eval()
        for size in ((17, 17), (5, 9), (16, 31)):
            x = torch.rand(2, c + 1, *size)
            assert network(x).shape == (2, 5) and torch.equal(network(x), network(x[:, :c]))

    def test_every_parameter_is_reached_and_a_few_steps_learn(self, name, c):
        side = (
            64 if name in TORCHVISION else 16
        )  # the large stem and three strides leave two places a side
        network = self.build(name, c, side).train()
        x, label = torch.rand(4, c, side, side), torch.arange(4)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        losses = []
        for _ in range(4):
            torch.manual_seed(1)  # the same units dropped
            loss = nn.functional.cross_entropy(network(x), label)
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.item())
            assert losses[1:] or not [
                key for key, w in network.named_parameters() if w.grad is None or not w.grad.any()
            ]
            optimizer.step()
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "vgg16_bn", "vit_tiny", "shufflenet"])
def test_gradient_checkpointing_keeps_less_and_changes_neither_gradient_nor_statistics(name):
    torch.manual_seed(0)
    plain, x, kept = SMALL[name](3, 5, 16), torch.rand(4, 3, 16, 16), []
    saving = copy.deepcopy(plain)
    saving.checkpointing = True
    for network in (plain, saving):
        count = 0

        def pack(tensor):
            nonlocal count
            count += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(x).square().mean()
        loss.backward()
        kept.append(count)
    assert kept[1] < kept[0]
    assert all(
        torch.allclose(a.grad, b.grad, atol=1e-6)
        for a, b in zip(plain.parameters(), saving.parameters(), strict=True)
    )
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), saving.buffers(), strict=True))


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "vit_tiny"])
def test_a_copy_has_its_own_weights_and_the_same_answer(name):
    network = SMALL[name](1, 3, 16).eval()
    other, x = copy.deepcopy(network), torch.rand(2, 1, 16, 16)
    before = network(x)
    assert torch.equal(other(x), before)
    for w in other.parameters():
        w.data.add_(0.1)
    assert torch.equal(network(x), before) and not torch.equal(other(x), before)


@pytest.mark.parametrize(
    "name, blocks, depth",
    [("resnet8", 1, 8), ("resnet20", 3, 20), ("resnet56", 9, 56), ("resnet112", 18, 110)],
)
def test_cifar_networks_are_6n_plus_2_deep_and_of_the_known_size(name, blocks, depth):
    network = getattr(cifar_resnet, name)(3, 10, 32)
    layers = [
        m
        for m in network.modules()
        if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
    ]
    assert len(layers) == depth == 6 * blocks + 2
    count = 3 * 16 * 9 + 32 + 640 + 10  # stem and linear layer
    for stage, width in enumerate((16, 32, 64)):
        first = width if stage == 0 else width // 2
        count += (
            9 * width * (first + (2 * blocks - 1) * width) + 4 * width * blocks
        )  # convolutions, norms
        count += 0 if stage == 0 else first * width + 2 * width  # shortcut
    assert sum(w.numel() for w in network.parameters()) == count
    assert blocks != 3 or count == 272_474
    shapes = {
        layer: tuple(h.shape[1:])
        for layer, h in network.eval().features(torch.rand(1, 3, 32, 32)).items()
    }
    assert shapes == {
        "enc1": (16, 32, 32),
        "stage1": (16, 32, 32),
        "stage2": (32, 16, 16),
        "latent": (64, 8, 8),
        "pool": (64, 1, 1),
        "output": (10,),
    }


class TestPublished:
    @pytest.mark.parametrize(
        "name, batch_norm",
        [*((name, None) for name in TORCHVISION), ("vgg16", "off"), ("vgg16", "on")],
    )
    def test_torchvisions_number_of_parameters(self, name, batch_norm):
        with torch.device("meta"):
            network = getattr(library, name)(
                3, 1000, 224, **({"batch_norm": batch_norm} if batch_norm else {})
            )
        meta = get_model_weights(network.published).DEFAULT.meta
        assert sum(w.numel() for w in network.parameters()) == meta["num_params"]

    @pytest.mark.parametrize("name", ["vit_tiny", "vit_small"])
    def test_timms_number_of_parameters(self, name):
        with torch.device("meta"):
            ours, other = (
                getattr(library, name)(3, 1000, 224),
                timm.create_model(f"{name}_patch16_224", pretrained=False),
            )
        assert {key: w.shape for key, w in ours.body.state_dict().items()} == {
            key: w.shape for key, w in other.state_dict().items()
        }
        assert ours.body.blocks[0].attn.num_heads == other.blocks[0].attn.num_heads

    @pytest.mark.parametrize("name, other", TORCHVISION.items())
    def test_torchvisions_output_with_the_same_weights(self, name, other):
        other = lively(getattr(torchvision.models, other)(weights=None, num_classes=6))
        ours, x = getattr(library, name)(3, 6, 40).eval(), torch.rand(2, 3, 40, 52)
        ours.body.load_state_dict(other.state_dict())
        assert torch.allclose(ours(x), other(normal(x)), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("batch_norm", ["off", "on"])
    def test_vggs_output_with_the_same_weights_and_small_linear_layers(self, batch_norm):
        other = torchvision.models.vgg16_bn if batch_norm == "on" else torchvision.models.vgg16
        with torch.device("meta"):
            other, ours = other(weights=None), library.vgg16(3, 1000, 224, batch_norm=batch_norm)
        assert {key: w.shape for key, w in ours.body.state_dict().items()} == {
            key: w.shape for key, w in other.state_dict().items()
        }
        ours = lively(library.vgg16(3, 6, 40, width=8, batch_norm=batch_norm))
        plan = [8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M"]
        other.features = torchvision.models.vgg.make_layers(plan, batch_norm == "on")
        other.classifier[0], other.classifier[3], other.classifier[6] = (
            nn.Linear(64 * 49, 512),
            nn.Linear(512, 512),
            nn.Linear(512, 6),
        )
        other.features[0] = nn.Conv2d(3, 8, 3, padding=1)
        other.load_state_dict(ours.body.state_dict())
        x = torch.rand(2, 3, 40, 70)
        assert torch.allclose(ours(x), other.eval()(normal(x)), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("side, patch", [(32, 16), (16, 4)])
    def test_timms_output_with_the_same_weights(self, side, patch):
        other = lively(
            timm.create_model(VIT, pretrained=False, num_classes=6, img_size=side, patch_size=patch)
        )
        ours, x = library.vit_tiny(3, 6, side, patch=patch).eval(), torch.rand(2, 3, side, side)
        ours.body.load_state_dict(other.state_dict())
        assert torch.allclose(ours(x), other(normal(x)), atol=1e-5, rtol=1e-4)
        _, maps = other.forward_intermediates(normal(x), indices=[2, 5, 8, 11])
        layers = ours.features(x)
        for layer, h in zip(("stage1", "stage2", "stage3", "latent"), maps, strict=True):
            assert torch.allclose(layers[layer], h, atol=1e-4), layer


class TestTransformer:
    @pytest.mark.parametrize("side, whole", [(224, 224), (112, 112), (56, 64), (17, 32)])
    def test_an_image_is_padded_to_whole_patches_by_its_border(self, side, whole):
        network = library.vit_tiny(1, 3, side, width=8).eval()
        assert network.body.pos_embed.shape[1] == 1 + (whole // 16) ** 2
        x = torch.rand(1, 1, side, side)
        wide = torch.from_numpy(
            np.pad(x.numpy(), ((0, 0), (0, 0), (0, whole - side), (0, whole - side)), mode="edge")
        )
        layers = network.features(x)
        assert layers["latent"].shape == (1, 8, whole // 16, whole // 16)
        assert torch.equal(layers["output"], network(wide))

    def test_a_place_of_the_first_layer_is_its_patch_times_a_matrix(self):
        network = library.vit_tiny(3, 3, 20, patch=4, width=8).eval()
        x = torch.rand(1, 3, 20, 20)
        patch = normal(x)[0, :, 12:16, 4:8].flatten()
        embed = network.body.patch_embed.proj
        expected = embed.weight.flatten(1) @ patch + embed.bias
        assert torch.allclose(network.features(x)["enc1"][0, :, 3, 1], expected, atol=1e-6)


def publish(network: nn.Module, published: str, tmp_path: Path, monkeypatch) -> Path:
    """A state dict where the user's cache keeps the published one."""
    if published.startswith("vit"):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        place = tmp_path / f"models--timm--{VIT}.augreg_in21k_ft_in1k"
        path = place / "snapshots" / "0" / "model.safetensors"
        for folder in (place / "refs", path.parent):
            folder.mkdir(parents=True)
        (place / "refs" / "main").write_text("0")
        save_file(network.state_dict(), path)
    else:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        path = (
            tmp_path / "hub" / "checkpoints" / Path(get_model_weights(published).DEFAULT.url).name
        )
        path.parent.mkdir(parents=True)
        torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def offline(monkeypatch):
    """Whoever fetches something finds no network."""

    def unreachable(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)


@pytest.mark.usefixtures("offline")
class TestPretrained:
    @pytest.mark.parametrize("name", ["resnet18", "shufflenet"])
    def test_torchvisions_weights_come_from_torchs_cache_for_colours_and_grey(
        self, name, tmp_path, monkeypatch
    ):
        other = lively(getattr(torchvision.models, TORCHVISION[name])(weights=None))
        publish(other, TORCHVISION[name], tmp_path, monkeypatch)
        ours, x = getattr(library, name)(3, 1000, 32), torch.rand(2, 3, 32, 32)
        pretrained.load_pretrained(ours, name)
        assert torch.allclose(ours.eval()(x), other(normal(x)), atol=1e-4, rtol=1e-4)
        fresh = getattr(library, name)(1, 7, 32).eval()
        head = fresh.body.fc.weight.clone()
        pretrained.load_pretrained(fresh, name)
        assert torch.equal(fresh.body.fc.weight, head) and fresh(x[:, :1]).shape == (2, 7)
        assert (
            sum(
                torch.equal(w, other.state_dict()[key])
                for key, w in fresh.body.state_dict().items()
            )
            >= len(other.state_dict()) - 4
        )
        grey, colour = (
            fresh.features(x[:, :1])["enc1"],
            ours.features(x[:, :1].expand(-1, 3, -1, -1))["enc1"],
        )
        assert torch.allclose(
            grey[..., 2:-2, 2:-2], colour[..., 2:-2, 2:-2], atol=1e-4
        )  # at the border what is padded differs

    def test_timms_weights_come_with_their_own_normalisation_for_colours_and_grey(
        self, tmp_path, monkeypatch
    ):
        other = lively(timm.create_model(VIT, pretrained=False))
        publish(other, VIT, tmp_path, monkeypatch)
        ours, grey, x = (
            library.vit_tiny(3, 1000, 224).eval(),
            library.vit_tiny(1, 1000, 224).eval(),
            torch.rand(1, 3, 224, 224),
        )
        for network in (ours, grey):
            pretrained.load_pretrained(network, "vit_tiny")
        assert torch.allclose(ours(x), other(2 * x - 1), atol=1e-3)
        assert torch.allclose(
            grey(x[:, :1]), other(2 * x[:, :1].expand(-1, 3, -1, -1) - 1), atol=1e-3
        )

    @pytest.mark.parametrize("side, grid", [(112, 7), (56, 4)])
    def test_position_embeddings_are_resized_as_pillow_resizes_an_image(
        self, side, grid, tmp_path, monkeypatch
    ):
        other = timm.create_model(VIT, pretrained=False)
        publish(other, VIT, tmp_path, monkeypatch)
        ours = library.vit_tiny(3, 5, side)
        pretrained.load_pretrained(ours, "vit_tiny")
        old, new = other.pos_embed[0].detach(), ours.body.pos_embed[0].detach()
        assert torch.equal(new[0], old[0])
        for channel in (0, 77):
            image = Image.fromarray(old[1:, channel].reshape(14, 14).numpy())
            expected = np.asarray(image.resize((grid, grid), Image.Resampling.BICUBIC))
            assert np.allclose(new[1:, channel].reshape(grid, grid), expected, atol=1e-5)

    @pytest.mark.parametrize(
        "name, file",
        [
            ("resnet50", "resnet50-.*pth"),
            ("vgg16", "vgg16_bn-.*pth"),
            ("vit_small", "vit_small.*safetensors"),
        ],
    )
    def test_what_is_not_in_the_cache_is_named_and_never_fetched_unasked(
        self, name, file, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with torch.device("meta"):
            network = getattr(library, name)(3, 5, 32)
        with pytest.raises(UserError, match=f"{file}: --download fetches them"):
            pretrained.load_pretrained(network, name)
        with pytest.raises(UserError, match="no network"):
            pretrained.load_pretrained(network, name, download=True)

    @pytest.mark.parametrize("change", [{"width": 32}, {"stem": "small"}])
    def test_weights_of_another_form_are_refused(self, change, tmp_path, monkeypatch):
        publish(torchvision.models.resnet18(weights=None), "resnet18", tmp_path, monkeypatch)
        with pytest.raises(UserError, match=r"default width, stem and patch: conv1\.weight"):
            pretrained.load_pretrained(library.resnet18(3, 5, 32, **change), "resnet18")

    @pytest.mark.parametrize("name, published", [("resnet18", "resnet18"), ("vit_tiny", VIT)])
    @pytest.mark.parametrize(
        "damage",
        [
            lambda file: file[:1000],
            lambda file: b"",
            lambda file: b"<html>",
            lambda file: file[:-9000],
        ],
    )
    def test_a_damaged_file_is_one_line_that_names_it(
        self, damage, name, published, tmp_path, monkeypatch
    ):
        network = getattr(library, name)(3, 5, 32)
        path = publish(network.body, published, tmp_path, monkeypatch)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(
            UserError, match=f"published weights .*{path.name} cannot be read: "
        ) as refusal:
            pretrained.load_pretrained(network, name)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize(
        "change",
        [
            lambda body: nn.Linear(2, 2),
            lambda body: nn.Sequential(body),
            lambda body: body.append(nn.Linear(2, 2)),
        ],
    )
    def test_a_file_of_another_network_is_one_line_that_names_it(
        self, change, tmp_path, monkeypatch
    ):
        network = library.resnet18(3, 5, 32)
        path = publish(change(copy.deepcopy(network.body)), "resnet18", tmp_path, monkeypatch)
        with pytest.raises(UserError, match=f"{path.name} are damaged or of another network: "):
            pretrained.load_pretrained(network, "resnet18")

    def test_only_published_networks_of_grey_or_colour_have_weights(self):
        with pytest.raises(UserError, match="no published weights of 'resnet8': choose from vgg16"):
            pretrained.load_pretrained(SMALL["resnet8"](3, 5, 32), "resnet8")
        with pytest.raises(UserError, match="1 or 3 channels, not 2"):
            pretrained.load_pretrained(SMALL["resnet18"](2, 5, 32), "resnet18")


def test_grey_images_are_normalised_by_the_colours_averages():
    assert (round(sum(MEAN) / 3, 3), round(sum(DEVIATION) / 3, 3)) == (GREY_MEAN, GREY_DEVIATION)
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(SMALL["resnet8"](3, 2, 8).normalise(x), normal(x), atol=1e-6)
    assert torch.allclose(
        SMALL["resnet8"](1, 2, 8).normalise(x), (x[:, :1] - GREY_MEAN) / GREY_DEVIATION, atol=1e-6
    )


@pytest.mark.parametrize(
    "build",
    [
        partial(cifar_resnet.resnet8, 0, 5, 32),
        partial(cifar_resnet.resnet8, 3, 1, 32),
        partial(cifar_resnet.resnet8, 3, 5, 32, width=0),
        partial(library.resnet18, 3, 5, 32, stem="tiny"),
        partial(library.resnext50, 3, 5, 32, width=24),
        partial(library.vgg16, 3, 5, 32, batch_norm="bias-free"),
        partial(library.vit_tiny, 3, 5, 32, width=200),
        partial(library.vit_tiny, 3, 5, 32, patch=0),
        partial(library.shufflenet, 3, 5, 0),
    ],
)
def test_impossible_configs_are_refused(build):
    with pytest.raises(UserError):
        build()
