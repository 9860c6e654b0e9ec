"""A residual-in-residual dense network without normalisation: the large teacher of restoration.

State-dict names and arithmetic are those of BasicSR's RRDBNet at scale 1, so its checkpoints load.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from models.base import Restorer, initialise, pad_to_multiple

STEP = 4  # pixels are folded into channels 4 x 4, and the image grows back in two doublings


class DenseBlock(nn.Module):
    """Five convolutions, each of which reads the outputs of all before it."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(channels + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(channels + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(channels + 4 * growth, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            maps.append(F.leaky_relu(convolution(torch.cat(maps, 1)), 0.2))
        return x + 0.2 * self.conv5(torch.cat(maps, 1))


class Block(nn.Module):
    """Three dense blocks inside a residual."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.rdb1 = DenseBlock(channels, growth)
        self.rdb2 = DenseBlock(channels, growth)
        self.rdb3 = DenseBlock(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(Restorer):
    """Layers: enc1, block1 .., latent (after the body), dec1 (at full size), head, output."""

    def __init__(
        self,
        c: int = 1,
        channels: int = 64,
        blocks: int = 23,
        growth: int = 32,
        residual: bool = True,
    ):
        super().__init__(c)
        self.residual = residual
        self.conv_first = nn.Conv2d(c * STEP**2, channels, 3, padding=1)
        self.body = nn.Sequential(*(Block(channels, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_up1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_up2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_hr = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, c, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """He's, a tenth of it in the dense blocks, and zero at the end where the image is added."""
        initialise(self)
        for weight in self.body.parameters():
            weight.data *= 0.1
        if self.residual:
            nn.init.zeros_(self.conv_last.weight)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        x = x[:, : self.c]
        height, width = x.shape[-2:]
        h = self.conv_first(F.pixel_unshuffle(pad_to_multiple(x, STEP), STEP))
        layers = {"enc1": h}
        for k, block in enumerate(self.body, 1):
            h = self.run_block(block, h)
            layers[f"block{k}"] = h
        h = layers["enc1"] + self.conv_body(h)
        layers["latent"] = h
        for up in (self.conv_up1, self.conv_up2):
            h = F.leaky_relu(up(F.interpolate(h, scale_factor=2.0, mode="nearest")), 0.2)
        h = F.leaky_relu(self.conv_hr(h), 0.2)
        layers["dec1"] = h
        layers["head"] = self.conv_last(h)[..., :height, :width]
        layers["output"] = layers["head"] + x if self.residual else layers["head"]
        return layers


def config_of(weights: dict[str, Tensor]) -> dict:
    """The config of a bare state dict of BasicSR, which adds no residual."""
    blocks = len({name.split(".")[1] for name in weights if name.startswith("body.")})
    channels, folded = weights["conv_first.weight"].shape[:2]
    c = weights["conv_last.weight"].shape[0]
    growth = weights["body.0.rdb1.conv1.weight"].shape[0]
    if folded != c * STEP**2:
        raise UserError(
            f"this RRDBNet takes {folded} channels and enlarges images: "
            "only those of scale 1 are read"
        )
    return {
        "name": "rrdbnet",
        "c": c,
        "channels": channels,
        "blocks": blocks,
        "growth": growth,
        "residual": False,
    }
