"""deepinv's DRUNet, a residual U-Net that is told the noise level, with named taps."""

import deepinv
import torch.nn.functional as F
from torch import Tensor

from models.base import Restorer, padded


class DRUNet(Restorer):
    """Taps enc1 .. enc4, latent, dec4 .. dec1, output; channels width, 2, 4 and 8 times it."""

    reads_noise_level = True

    def __init__(self, c: int = 1, width: int = 64, blocks: int = 4):
        super().__init__(c)
        self.net = deepinv.models.DRUNet(
            c, c, nc=tuple(width * 2**k for k in range(4)), nb=blocks, pretrained=None
        )

    def features(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, 0, 0, 0, 0, self.c + 1 - x.shape[1]))  # noise that is not told is none
        layers = {"enc1": self.net.m_head(padded(x, 8))}
        for k in (1, 2, 3):
            layers[f"enc{k + 1}"] = self.run(
                self.net.get_submodule(f"m_down{k}"), layers[f"enc{k}"]
            )
        layers["latent"] = h = self.run(self.net.m_body, layers["enc4"])
        for k in (3, 2, 1):
            layers[f"dec{k}"] = h = self.run(
                self.net.get_submodule(f"m_up{k}"), h + layers[f"enc{k + 1}"]
            )
        layers["output"] = self.net.m_tail(h + layers["enc1"])[..., :height, :width]
        return layers
