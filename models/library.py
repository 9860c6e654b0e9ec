"""The classifiers of torchvision and timm with named layers, built without a download."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model_weights, shufflenet_v2_x1_0
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import make_layers

from core.errors import UserError
from core.registry import BATCH_NORMS
from models.base import initialise, pad_to_multiple
from models.cifar_resnet import residual_stage
from models.classifier import DEVIATION, MEAN
from models.pretrained import Pretrained, missing_weights
from models.weights import read_weights

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer as Body

STEMS = ("large", "small")
BLOCKS = 12  # of a vision transformer
CHANNELS_PER_HEAD = 64


class SafePool(nn.MaxPool2d):
    """A pooling that leaves a map of one place a side unchanged."""

    def __init__(self, size: int):
        super().__init__(size)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x if min(x.shape[-2:]) < self.size else F.max_pool2d(x, self.size)


class Library(Pretrained):
    """A network of torchvision with its own names of weights.

    `cuts` lists the modules that lead from each named layer to the next.
    """

    def __init__(
        self,
        c: int,
        classes: int,
        side: int,
        body: nn.Module,
        cuts: Mapping[str, Sequence[str]],
        published: str,
    ):
        super().__init__(c, classes, side)
        self.body, self.published = body, published
        self.parts = {  # a dict, not modules: they are the body's own
            layer: nn.Sequential(*map(body.get_submodule, names)) for layer, names in cuts.items()
        }

    def features(self, x: Tensor) -> dict[str, Tensor]:
        h = self.normalise(x)
        layers = {}
        for layer, part in self.parts.items():
            h = self.run_block(part, h)
            layers[layer] = h
        return layers

    def fetch(self, download: bool) -> tuple[dict[str, Tensor], Sequence[float], Sequence[float]]:
        weights = get_model_weights(self.published)
        url = weights["DEFAULT"].url
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        if not (download or path.is_file()):
            raise missing_weights(self.published, path)
        read = partial(
            torch.hub.load_state_dict_from_url,
            url,
            map_location="cpu",
            check_hash=True,
            weights_only=True,
        )
        return read_weights(path, read, self.body.state_dict()), MEAN, DEVIATION


def vgg16(c: int, classes: int, side: int, width: int = 64, batch_norm: str = "on") -> Library:
    """Five blocks of convolutions and three linear layers; a layer is named before its pooling."""
    if width < 1 or batch_norm not in BATCH_NORMS[:2]:
        raise UserError(
            f"width {width}, batch_norm '{batch_norm}': allowed are at least 1, "
            f"and {' or '.join(BATCH_NORMS[:2])}"
        )
    plan: list[str | int] = []
    for k, count in enumerate((2, 2, 3, 3, 3)):
        plan += [width * min(2**k, 8)] * count + ["M"]
    layers = make_layers(plan, batch_norm == "on")
    layers[0] = nn.Conv2d(c, width, 3, padding=1)
    pools = [k for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    for k in pools:
        layers[k] = SafePool(2)
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
    initialise(body)
    for layer in linear:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    blocks = zip(("enc1", "stage1", "stage2", "stage3", "latent"), [0, *pools], pools, strict=False)
    cuts = {layer: [f"features.{k}" for k in range(begin, end)] for layer, begin, end in blocks}
    hidden = [f"classifier.{k}" for k in range(5)]
    cuts["pool"] = [f"features.{pools[-1]}", "avgpool", "flatten", *hidden, "unflatten"]
    cuts["output"] = ["flatten", "classifier.5", "classifier.6"]
    return Library(c, classes, side, body, cuts, "vgg16_bn" if batch_norm == "on" else "vgg16")


def is_large(stem: str) -> bool:
    """Whether a stem is the published one, with stride 2 and pooling, or 3x3 for small images."""
    if stem not in STEMS:
        raise UserError(f"unknown stem '{stem}': choose from {', '.join(STEMS)}")
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
        raise UserError(f"width {width}: allowed are positive multiples of {step}")
    kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
    body = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(c, width, kernel, stride, padding, bias=False),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(3, 2, 1) if large else nn.Identity(),
        )
    )
    c_in = width
    for k, count in enumerate(counts):
        stage = residual_stage(block, c_in, width * 2**k, count, 2 if k else 1, **groups)
        body.add_module(f"layer{k + 1}", stage)
        c_in = width * 2**k * block.expansion
    body.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    body.add_module("flatten", nn.Flatten())
    body.add_module("fc", nn.Linear(c_in, classes))
    initialise(body)
    cuts = {
        "enc1": ["conv1", "bn1", "relu"],
        "stage1": ["maxpool", "layer1"],
        "stage2": ["layer2"],
        "stage3": ["layer3"],
        "latent": ["layer4"],
        "pool": ["avgpool"],
        "output": ["flatten", "fc"],
    }
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
        body.add_module("maxpool", nn.Identity())
    body.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    body.add_module("flatten", nn.Flatten())
    cuts = {
        "enc1": ["conv1"],
        "stage1": ["maxpool", "stage2"],
        "stage2": ["stage3"],
        "latent": ["stage4", "conv5"],
        "pool": ["avgpool"],
        "output": ["flatten", "fc"],
    }
    return Library(c, classes, side, body, cuts, "shufflenet_v2_x1_0")


class VisionTransformer(Pretrained):
    """timm's transformer over patches, the image padded to whole ones.

    Layers are its tokens as maps (B, D, H, W): enc1 after the patch embedding, stage1 .. stage3 and
    latent after each quarter of the blocks; pool is the class token.
    """

    body: "Body"

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
                f"patch {patch}, width {width}: both must be at least 1, "
                f"and a width over {CHANNELS_PER_HEAD} a multiple of it"
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
        h = self.body.patch_embed(pad_to_multiple(self.normalise(x), self.patch))  # (B, H, W, D)
        grid, layers = h.shape[1:3], {"enc1": h.permute(0, 3, 1, 2)}
        # (B, 1 + HW, D); positions are resized where the image has another size than `side`
        h = self.body._pos_embed(h)
        for k, block in enumerate(self.body.blocks, 1):
            h = self.run_block(block, h)
            if k % (BLOCKS // 4) == 0:
                layer = f"stage{k // (BLOCKS // 4)}" if k < BLOCKS else "latent"
                layers[layer] = h[:, 1:].mT.unflatten(2, grid)
        layers["pool"] = self.body.norm(h)[:, 0, :, None, None]
        layers["output"] = self.body.head(layers["pool"].flatten(1))
        return layers

    def fetch(self, download: bool) -> tuple[dict[str, Tensor], Sequence[float], Sequence[float]]:
        """The published weights, their position embeddings resized, their mean and deviation."""
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from safetensors.torch import load_file
        from timm.layers.pos_embed import resample_abs_pos_embed
        from timm.models import get_pretrained_cfg

        published = get_pretrained_cfg(self.published)
        assert published is not None and published.hf_hub_id, f"timm lacks '{self.published}'"
        place, name = published.hf_hub_id, "model.safetensors"
        cached = try_to_load_from_cache(place, name)
        if isinstance(cached, str):
            path = Path(cached)
        else:
            path = Path(constants.HF_HUB_CACHE) / f"models--{place.replace('/', '--')}" / name
            if not download:
                raise missing_weights(self.published, path)

        def read() -> dict[str, Tensor]:
            file = cached if isinstance(cached, str) else hf_hub_download(place, name)
            weights = load_file(file)
            grid = list(self.body.patch_embed.grid_size)
            return weights | {"pos_embed": resample_abs_pos_embed(weights["pos_embed"], grid)}

        weights = read_weights(path, read, self.body.state_dict())
        return weights, published.mean, published.std


vit_tiny = partial(VisionTransformer, width=192, published="vit_tiny_patch16_224")
vit_small = partial(VisionTransformer, width=384, published="vit_small_patch16_224")
