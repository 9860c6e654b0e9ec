"""A residual-in-residual dense network: many dense blocks without normalisation; the large teacher of restoration.

State-dict names and arithmetic are those of BasicSR's RRDBNet at scale 1, so its checkpoints load.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from models.base import Restorer, he, padded

STEP = 4  # pixels are folded into channels 4 x 4, and the image grows back in two doublings


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all that came before it."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        for k in range(1, 6):
            self.add_module(
                f"conv{k}",
                nn.Conv2d(features + (k - 1) * growth, growth if k < 5 else features, 3, padding=1),
            )

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for k in range(1, 5):
            seen.append(F.leaky_relu(self.get_submodule(f"conv{k}")(torch.cat(seen, 1)), 0.2))
        return x + 0.2 * self.conv5(torch.cat(seen, 1))


class Block(nn.Module):
    """Three dense blocks inside a residual."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        for k in (1, 2, 3):
            self.add_module(f"rdb{k}", DenseBlock(features, growth))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(Restorer):
    """Taps enc1 (the first convolution), block1 .., latent (after the body), dec1 (at full size), head, output."""

    def __init__(
        self,
        c: int = 1,
        features: int = 64,
        blocks: int = 23,
        growth: int = 32,
        residual: bool = True,
    ):
        super().__init__(c)
        self.residual = residual
        self.conv_first = nn.Conv2d(c * STEP**2, features, 3, padding=1)
        self.body = nn.Sequential(*(Block(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, c, 3, padding=1)
        self._begin()

    def _begin(self) -> None:
        """He's initialisation, a tenth of it inside the dense blocks, and zero at the end where the image is added."""
        he(self)
        for weight in self.body.parameters():
            weight.data *= 0.1
        if self.residual:
            nn.init.zeros_(self.conv_last.weight)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        x = x[:, : self.c]
        height, width = x.shape[-2:]
        layers = {"enc1": self.conv_first(F.pixel_unshuffle(padded(x, STEP), STEP))}
        h = layers["enc1"]
        for k, block in enumerate(self.body, 1):
            layers[f"block{k}"] = h = self.run(block, h)
        layers["latent"] = h = layers["enc1"] + self.conv_body(h)
        for up in (self.conv_up1, self.conv_up2):
            h = F.leaky_relu(up(F.interpolate(h, scale_factor=2.0, mode="nearest")), 0.2)
        layers["dec1"] = h = F.leaky_relu(self.conv_hr(h), 0.2)
        layers["head"] = self.conv_last(h)[..., :height, :width]
        layers["output"] = layers["head"] + x if self.residual else layers["head"]
        return layers


def config_of(weights: dict[str, Tensor]) -> dict:
    """The recipe of a bare state dict of BasicSR's, which adds no residual."""
    blocks = len({name.split(".")[1] for name in weights if name.startswith("body.")})
    features, c = weights["conv_first.weight"].shape[0], weights["conv_last.weight"].shape[0]
    growth = weights["body.0.rdb1.conv1.weight"].shape[0]
    if weights["conv_first.weight"].shape[1] != c * STEP**2:
        raise UserError(
            f"an RRDBNet that takes {weights['conv_first.weight'].shape[1]} channels makes images larger: those of scale 1 are read"
        )
    return {
        "name": "rrdbnet",
        "c": c,
        "features": features,
        "blocks": blocks,
        "growth": growth,
        "residual": False,
    }
