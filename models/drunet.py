"""deepinv's DRUNet, a residual U-Net that is told the noise level, with named taps."""

import deepinv
import torch.nn.functional as F
from torch import Tensor

from models.base import Restorer, padded


class DRUNet(Restorer):
    """Taps enc1 .. enc4, latent, dec4 .. dec1, output; channels width, 2, 4 and 8 times it."""

    looks_at_noise = True

    def __init__(self, c: int = 1, width: int = 64, blocks: int = 4):
        super().__init__(c)
        self.net = deepinv.models.DRUNet(
            c, c, nc=tuple(width * 2**k for k in range(4)), nb=blocks, pretrained=None
        )

    def features(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, 0, 0, 0, 0, self.c + 1 - x.shape[1]))  # noise that is not told is none
        taps = {"enc1": self.net.m_head(padded(x, 8))}
        for k in (1, 2, 3):
            taps[f"enc{k + 1}"] = self.run(self.net.get_submodule(f"m_down{k}"), taps[f"enc{k}"])
        taps["latent"] = h = self.run(self.net.m_body, taps["enc4"])
        for k in (3, 2, 1):
            taps[f"dec{k}"] = h = self.run(
                self.net.get_submodule(f"m_up{k}"), h + taps[f"enc{k + 1}"]
            )
        taps["output"] = self.net.m_tail(h + taps["enc1"])[..., :height, :width]
        return taps
