"""One U-Net in a loop over scales, with the release's state-dict names and a named tap after every block."""

import torch
import torch.nn.functional as F
from deepinv.models.unet import BFBatchNorm2d
from torch import Tensor, nn

from core.errors import UserError
from core.registry import BATCH_NORMS, PADDINGS
from models.base import Restorer, he, padded


class CircularConv2d(nn.Conv2d):
    """A 3x3 convolution on the torus; wrapping by `cat` keeps channels innermost, which torch's circular padding does not."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((x[..., -1:], x, x[..., :1]), dim=-1)
        x = torch.cat((x[..., -1:, :], x, x[..., :1, :]), dim=-2)
        return F.conv2d(x, self.weight, self.bias)


class UNet(Restorer):
    """A residual U-Net of `scales` resolutions whose first has `width` channels, doubled at each further one."""

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
            raise UserError(f"scales {scales}: a U-Net has 2, 3, 4 or 5")
        if width < 1 or c < 1:
            raise UserError(f"width {width}, channels {c}: both are at least 1")
        if batch_norm not in BATCH_NORMS or padding not in PADDINGS:
            raise UserError(
                f"batch_norm '{batch_norm}', padding '{padding}': choose from {BATCH_NORMS} and {PADDINGS}"
            )
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
        he(self)
        nn.init.zeros_(self.Conv_1x1.weight)  # a residual network begins with its first image

    def _block(self, c_in: int, c_out: int, depth: int) -> nn.Sequential:
        """`depth` times convolution, normalisation, ReLU; a block of two is where `release` pads its first circularly."""
        layers = []
        for i in range(depth):
            circular = self.padding == "circular" or (
                self.padding == "release" and depth == 2 and i == 0
            )
            convolution = CircularConv2d if circular else nn.Conv2d
            layers.append(
                convolution(
                    c_out if i else c_in, c_out, 3, padding=1, bias=self.batch_norm != "bias-free"
                )
            )
            if self.batch_norm == "on":
                layers.append(nn.BatchNorm2d(c_out))
            elif self.batch_norm == "bias-free":
                layers.append(BFBatchNorm2d(c_out))
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """enc1 .. encK, latent, decK .. dec1, head (the image before the residual is added), output; a noise map is not looked at."""
        x = x[:, : self.c]
        height, width = x.shape[-2:]
        h = padded(x, 2 ** (self.scales - 1))  # (B, C, H, W), whole at every scale
        maps = {}
        for k in range(1, self.scales + 1):
            h = self.run(self.get_submodule(f"Conv{k}"), h if k == 1 else self.Maxpool(h))
            maps["latent" if k == self.scales else f"enc{k}"] = h
        for k in range(self.scales - 1, 0, -1):
            h = torch.cat((maps[f"enc{k}"], self.run(self.get_submodule(f"Up{k + 1}"), h)), dim=1)
            maps[f"dec{k}"] = h = self.run(self.get_submodule(f"Up_conv{k + 1}"), h)
        maps["head"] = self.Conv_1x1(h)[..., :height, :width]
        maps["output"] = maps["head"] + x if self.residual else maps["head"]
        return maps


def config_of(weights: dict[str, Tensor]) -> dict:
    """The recipe of a bare state dict of the release, as far as its tensors tell it; such files pad as the release did."""
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
        "padding": "release",
    }
