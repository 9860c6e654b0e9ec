"""The classifiers of torchvision and timm behind one wrapper with named taps, made without a download."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, shufflenet_v2_x1_0
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import make_layers

from core.errors import UserError
from core.registry import BATCH_NORMS, CLASSIFIERS
from models.base import he, padded
from models.cifar_resnet import stage
from models.classifier import DEVIATION, MEAN, Classifier
from models.weights import weights_in

STEMS = ("large", "small")
BLOCKS = 12  # of a vision transformer
CHANNELS_PER_HEAD = 64


class Shrink(nn.MaxPool2d):
    """Pooling that leaves a map of one place a side as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x if min(x.shape[-2:]) < self.kernel_size else super().forward(x)


class Library(Classifier):
    """A network of torchvision with its own names of weights; `cuts` lists the layers that lead from each tap to the next."""

    def __init__(
        self,
        c: int,
        classes: int,
        side: int,
        body: nn.Module,
        cuts: dict[str, Sequence[str]],
        published: str,
    ):
        super().__init__(c, classes, side)
        self.body, self.published = body, published
        self.parts = {
            layer: nn.Sequential(*map(body.get_submodule, names)) for layer, names in cuts.items()
        }  # the body's own layers

    def features(self, x: Tensor) -> dict[str, Tensor]:
        h, maps = self.normalised(x), {}
        for layer, part in self.parts.items():
            h = maps[layer] = self.run(part, h)
        return maps

    def fetch(self, download: bool) -> tuple[dict[str, Tensor], Sequence[float], Sequence[float]]:
        """The published weights, and the mean and deviation with which they were trained."""
        url = get_model_weights(self.published).DEFAULT.url
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        if not (download or path.is_file()):
            raise missing(self.published, path)
        read = partial(
            torch.hub.load_state_dict_from_url,
            url,
            map_location="cpu",
            check_hash=True,
            weights_only=True,
        )
        return weights_in(path, read, self.body.state_dict()), MEAN, DEVIATION


def vgg16(c: int, classes: int, side: int, width: int = 64, batch_norm: str = "on") -> Library:
    """Five blocks of convolutions and three linear layers; a tap stands before its block's pooling."""
    if width < 1 or batch_norm not in BATCH_NORMS[:2]:
        raise UserError(
            f"width {width}, batch_norm '{batch_norm}': at least 1, and {' or '.join(BATCH_NORMS[:2])}"
        )
    plan = [
        layer
        for k, count in enumerate((2, 2, 3, 3, 3))
        for layer in [width * min(2**k, 8)] * count + ["M"]
    ]
    layers = make_layers(plan, batch_norm == "on")
    layers[0] = nn.Conv2d(c, width, 3, padding=1)
    pools = [k for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    for k in pools:
        layers[k] = Shrink(2)
    wide = 64 * width
    linear = [
        nn.Linear(8 * width * 7 * 7, wide),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(wide, wide),
        nn.ReLU(True),
        nn.Dropout(),
    ]
    body = nn.Sequential(
        OrderedDict(
            features=layers,
            avgpool=nn.AdaptiveAvgPool2d(7),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(*linear, nn.Linear(wide, classes)),
            unflatten=nn.Unflatten(1, (wide, 1, 1)),
        )
    )
    he(body)
    for layer in linear:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    blocks = zip(("enc1", "stage1", "stage2", "stage3", "latent"), [0, *pools], pools, strict=False)
    cuts = {layer: [f"features.{k}" for k in range(begin, end)] for layer, begin, end in blocks}
    cuts["pool"] = [
        f"features.{pools[-1]}",
        "avgpool",
        "flatten",
        *(f"classifier.{k}" for k in range(5)),
        "unflatten",
    ]
    cuts["output"] = ["flatten", "classifier.5", "classifier.6"]
    return Library(c, classes, side, body, cuts, "vgg16_bn" if batch_norm == "on" else "vgg16")


def is_large(stem: str) -> bool:
    """7x7 or 3x3 with stride 2 and pooling, as published, or 3x3 alone for small images."""
    if stem not in STEMS:
        raise UserError(f"stem '{stem}': choose from {', '.join(STEMS)}")
    return stem == "large"


def resnet(
    c: int,
    classes: int,
    side: int,
    width: int = 64,
    stem: str = "large",
    *,
    block: type[BasicBlock | Bottleneck],
    counts: Sequence[int],
    published: str,
    **groups,
) -> Library:
    """A stem and four stages of residual blocks, the first of `width` channels."""
    large, step = is_large(stem), 16 if groups else 1
    if width < 1 or width % step:
        raise UserError(f"width {width}: a positive multiple of {step}")
    body = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(c, width, 7, 2, 3, bias=False)
            if large
            else nn.Conv2d(c, width, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(3, 2, 1) if large else nn.Identity(),
        )
    )
    c_in = width
    for k, count in enumerate(counts):
        body.add_module(
            f"layer{k + 1}", stage(block, c_in, width * 2**k, count, 2 if k else 1, **groups)
        )
        c_in = width * 2**k * block.expansion
    for name, layer in {
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(c_in, classes),
    }.items():
        body.add_module(name, layer)
    he(body)
    cuts = {
        "enc1": ["conv1", "bn1", "relu"],
        "stage1": ["maxpool", "layer1"],
        "stage2": ["layer2"],
        "stage3": ["layer3"],
    }
    cuts |= {"latent": ["layer4"], "pool": ["avgpool"], "output": ["flatten", "fc"]}
    return Library(c, classes, side, body, cuts, published)


resnet18 = partial(resnet, block=BasicBlock, counts=(2, 2, 2, 2), published="resnet18")
resnet34 = partial(resnet, block=BasicBlock, counts=(3, 4, 6, 3), published="resnet34")
resnet50 = partial(resnet, block=Bottleneck, counts=(3, 4, 6, 3), published="resnet50")
resnext50 = partial(
    resnet,
    block=Bottleneck,
    counts=(3, 4, 6, 3),
    published="resnext50_32x4d",
    groups=32,
    base_width=4,
)


def shufflenet(c: int, classes: int, side: int, stem: str = "large") -> Library:
    """ShuffleNet V2 as published."""
    large = is_large(stem)
    body = shufflenet_v2_x1_0(weights=None, num_classes=classes)
    body.conv1[0] = nn.Conv2d(c, 24, 3, 2 if large else 1, 1, bias=False)
    if not large:
        body.maxpool = nn.Identity()
    body.avgpool, body.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    cuts = {
        "enc1": ["conv1"],
        "stage1": ["maxpool", "stage2"],
        "stage2": ["stage3"],
        "latent": ["stage4", "conv5"],
    }
    return Library(
        c,
        classes,
        side,
        body,
        cuts | {"pool": ["avgpool"], "output": ["flatten", "fc"]},
        "shufflenet_v2_x1_0",
    )


class VisionTransformer(Classifier):
    """timm's transformer over patches, the image padded to whole ones; taps are its tokens laid out as maps (B, D, H, W)."""

    def __init__(
        self,
        c: int,
        classes: int,
        side: int,
        patch: int = 16,
        width: int = 192,
        published: str = "",
    ):
        super().__init__(c, classes, side)
        heads = max(1, width // CHANNELS_PER_HEAD)
        if patch < 1 or width < 1 or width % heads:
            raise UserError(
                f"patch {patch}, width {width}: at least 1, and a width over {CHANNELS_PER_HEAD} is a multiple of it"
            )
        from timm.models.vision_transformer import VisionTransformer as Body

        self.patch, self.published = patch, published
        size = side + -side % patch
        self.body = Body(
            size,
            patch,
            c,
            classes,
            embed_dim=width,
            depth=BLOCKS,
            num_heads=heads,
            dynamic_img_size=True,
        )

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """enc1 after the patch embedding, stage1 .. stage3 and latent after each quarter of the blocks, pool the class token."""
        h = self.body.patch_embed(padded(self.normalised(x), self.patch))  # (B, H, W, D)
        grid, maps = h.shape[1:3], {"enc1": h.permute(0, 3, 1, 2)}
        h = self.body._pos_embed(
            h
        )  # (B, 1 + HW, D), resized where the image has another size than `side`
        for k, block in enumerate(self.body.blocks, 1):
            h = self.run(block, h)
            if k % (BLOCKS // 4) == 0:
                maps[f"stage{k // (BLOCKS // 4)}" if k < BLOCKS else "latent"] = h[
                    :, 1:
                ].mT.unflatten(2, grid)
        maps["pool"] = self.body.norm(h)[:, 0, :, None, None]
        maps["output"] = self.body.head(maps["pool"].flatten(1))
        return maps

    def fetch(self, download: bool) -> tuple[dict[str, Tensor], Sequence[float], Sequence[float]]:
        """The published weights, their position embeddings resized, and the mean and deviation with which they were trained."""
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from safetensors.torch import load_file
        from timm.layers import resample_abs_pos_embed
        from timm.models import get_pretrained_cfg

        line = get_pretrained_cfg(self.published)
        place, name = line.hf_hub_id, "model.safetensors"
        path = try_to_load_from_cache(place, name)
        cached = (
            Path(path)
            if isinstance(path, str)
            else Path(constants.HF_HUB_CACHE) / f"models--{place.replace('/', '--')}" / name
        )
        if not (download or isinstance(path, str)):
            raise missing(self.published, cached)

        def read() -> dict[str, Tensor]:
            weights = load_file(path if isinstance(path, str) else hf_hub_download(place, name))
            return weights | {
                "pos_embed": resample_abs_pos_embed(
                    weights["pos_embed"], list(self.body.patch_embed.grid_size)
                )
            }

        return weights_in(cached, read, self.body.state_dict()), line.mean, line.std


vit_tiny = partial(VisionTransformer, width=192, published="vit_tiny_patch16_224")
vit_small = partial(VisionTransformer, width=384, published="vit_small_patch16_224")

PRETRAINED = [name for name, line in CLASSIFIERS.items() if "pretrained" in line.flags]


def missing(published: str, path: Path) -> UserError:
    return UserError(
        f"the published weights of '{published}' are not in {path}: --download fetches them"
    )


def load_pretrained(network: Classifier, name: str, download: bool = False) -> None:
    """ImageNet's published weights out of the user's cache; the last layer stays fresh where the number of classes is another.

    The first convolution is given the normalisation of ours that it does not know: with x = d g + m and what it was trained
    on (x - m') / d', it becomes w d / d' with a shift of sum w (m - m') / d'; grey images have all three channels equal.
    """
    if name not in PRETRAINED:
        raise UserError(f"no published weights of '{name}': choose from {', '.join(PRETRAINED)}")
    if network.c not in (1, 3):
        raise UserError(f"published weights see 1 or 3 channels, not {network.c}")
    weights, mean, deviation = network.fetch(download)
    layers, own = dict(network.body.named_modules()), network.body.state_dict()
    first = next(key for key, layer in layers.items() if isinstance(layer, nn.Conv2d))
    last = [key for key, layer in layers.items() if isinstance(layer, nn.Linear)][-1]
    w, mean, deviation = (
        weights[f"{first}.weight"],
        *(torch.tensor(v).view(1, 3, 1, 1) for v in (mean, deviation)),
    )
    shift = (w * ((network.mean.cpu() - mean) / deviation)).sum((1, 2, 3))
    w = w * (network.deviation.cpu() / deviation)
    weights[f"{first}.weight"] = w if network.c == 3 else w.sum(1, keepdim=True)
    if f"{first}.bias" in weights:
        weights[f"{first}.bias"] = weights[f"{first}.bias"] + shift
    else:
        norm = next(key for key, layer in layers.items() if isinstance(layer, nn.BatchNorm2d))
        weights[f"{norm}.running_mean"] = weights[f"{norm}.running_mean"] - shift
    if network.classes != len(weights[f"{last}.bias"]):
        weights |= {key: value for key, value in own.items() if key.startswith(f"{last}.")}
    for key, value in own.items():
        if not key.endswith("num_batches_tracked") and (
            key not in weights or weights[key].shape != value.shape
        ):
            raise UserError(
                f"the published weights of '{name}' are for its default width, stem and patch: {key} is {tuple(value.shape)} here"
            )
    network.body.load_state_dict(weights)
