"""deepinv's DRUNet, a residual U-Net that reads the noise level, with named layers."""

import deepinv
import torch.nn.functional as F
from torch import Tensor

from models.base import Restorer, pad_to_multiple


class DRUNet(Restorer):
    """Layers: enc1 .. enc4, latent, dec4 .. dec1, output; channels width, 2, 4 and 8 times it."""

    reads_noise_level = True

    def __init__(self, c: int = 1, width: int = 64, blocks: int = 4):
        super().__init__(c)
        self.net = deepinv.models.DRUNet(
            c, c, nc=tuple(width * 2**k for k in range(4)), nb=blocks, pretrained=None
        )

    def features(self, x: Tensor) -> dict[str, Tensor]:
        net = self.net
        height, width = x.shape[-2:]
        x = F.pad(x, (0, 0, 0, 0, 0, self.c + 1 - x.shape[1]))  # a missing noise level is zero
        layers = {"enc1": net.m_head(pad_to_multiple(x, 8))}
        for k in (1, 2, 3):
            down = net.get_submodule(f"m_down{k}")
            layers[f"enc{k + 1}"] = self.run_block(down, layers[f"enc{k}"])
        h = self.run_block(net.m_body, layers["enc4"])
        layers["latent"] = h
        for k in (3, 2, 1):
            up = net.get_submodule(f"m_up{k}")
            h = self.run_block(up, h + layers[f"enc{k + 1}"])
            layers[f"dec{k}"] = h
        layers["output"] = net.m_tail(h + layers["enc1"])[..., :height, :width]
        return layers
