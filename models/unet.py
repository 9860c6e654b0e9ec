"""The U-Net, with the release's state-dict names and a named layer after each block."""

import torch
import torch.nn.functional as F
from deepinv.models.unet import BFBatchNorm2d
from torch import Tensor, nn

from core.errors import UserError
from core.registry import BATCH_NORMS, PADDINGS
from models.base import Restorer, initialise, pad_to_multiple


class CircularConv2d(nn.Conv2d):
    """A 3x3 convolution on the torus.

    Wrapping by `cat` keeps channels innermost, which torch's circular padding does not.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((x[..., -1:], x, x[..., :1]), dim=-1)
        x = torch.cat((x[..., -1:, :], x, x[..., :1, :]), dim=-2)
        return F.conv2d(x, self.weight, self.bias)


class UNet(Restorer):
    """A residual U-Net of `scales` resolutions, with `width` channels at the first, then doubled.

    Layers: enc1 .., latent, .. dec1, head (before the image is added), output.
    """

    def __init__(
        self,
        c: int = 1,
        scales: int = 2,
        width: int = 64,
        batch_norm: str = "off",
        padding: str = "zeros",
        residual: bool = True,
    ):
        super().__init__(c)
        if not 2 <= scales <= 5:
            raise UserError(f"scales {scales}: a U-Net has 2 to 5 of them")
        if width < 1 or c < 1:
            raise UserError(f"width {width}, channels {c}: both are at least 1")
        for name, value, allowed in (
            ("batch_norm", batch_norm, BATCH_NORMS),
            ("padding", padding, PADDINGS),
        ):
            if value not in allowed:
                raise UserError(f"unknown {name} '{value}': choose from {', '.join(allowed)}")
        self.scales, self.residual = scales, residual
        self.batch_norm, self.padding = batch_norm, padding
        widths = [width * 2**k for k in range(scales)]
        self.Maxpool = nn.MaxPool2d(2)
        for k in range(scales):
            self.add_module(f"Conv{k + 1}", self._block(widths[k - 1] if k else c, widths[k], 2))
        for k in range(scales - 1, 0, -1):
            up = self._block(widths[k], widths[k - 1], 1)
            self.add_module(f"Up{k + 1}", nn.Sequential(nn.Upsample(scale_factor=2), *up))
            self.add_module(f"Up_conv{k + 1}", self._block(2 * widths[k - 1], widths[k - 1], 2))
        self.Conv_1x1 = nn.Conv2d(width, c, 1, bias=batch_norm != "bias-free")
        initialise(self)
        nn.init.zeros_(self.Conv_1x1.weight)  # a residual network begins with its first image

    def _block(self, c_in: int, c_out: int, depth: int) -> nn.Sequential:
        """`depth` times convolution, normalisation, ReLU.

        `release` padding is circular in the first convolution of a block of two.
        """
        bias = self.batch_norm != "bias-free"
        layers = []
        for i in range(depth):
            released = self.padding == "release" and depth == 2 and i == 0
            convolution = CircularConv2d if self.padding == "circular" or released else nn.Conv2d
            layers.append(convolution(c_out if i else c_in, c_out, 3, padding=1, bias=bias))
            if self.batch_norm == "on":
                layers.append(nn.BatchNorm2d(c_out))
            elif self.batch_norm == "bias-free":
                layers.append(BFBatchNorm2d(c_out))
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        x = x[:, : self.c]
        height, width = x.shape[-2:]
        h = pad_to_multiple(x, 2 ** (self.scales - 1))  # (B, C, H, W), even at every scale
        layers = {}
        for k in range(1, self.scales + 1):
            h = h if k == 1 else self.Maxpool(h)
            h = self.run_block(self.get_submodule(f"Conv{k}"), h)
            layers["latent" if k == self.scales else f"enc{k}"] = h
        for k in range(self.scales - 1, 0, -1):
            up = self.run_block(self.get_submodule(f"Up{k + 1}"), h)
            h = torch.cat((layers[f"enc{k}"], up), dim=1)
            h = self.run_block(self.get_submodule(f"Up_conv{k + 1}"), h)
            layers[f"dec{k}"] = h
        layers["head"] = self.Conv_1x1(h)[..., :height, :width]
        layers["output"] = layers["head"] + x if self.residual else layers["head"]
        return layers


def config_of(weights: dict[str, Tensor]) -> dict:
    """The config of a bare state dict of the release, as far as its tensors determine it."""
    depth = 0
    while f"Conv{depth + 1}.0.weight" in weights:
        depth += 1
    width, c = weights["Conv1.0.weight"].shape[:2]
    normed, biased = "Conv1.1.running_mean" in weights, "Conv1.0.bias" in weights
    batch_norm = ("on" if biased else "bias-free") if normed else "off"
    return {
        "name": "unet",
        "c": c,
        "scales": depth,
        "width": width,
        "batch_norm": batch_norm,
        "padding": "release",  # as all such files
    }
