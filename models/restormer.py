"""deepinv's Restormer, a transformer over channels, with named layers."""

import deepinv
import torch
from torch import Tensor

from core.errors import UserError
from models.base import Restorer, pad_to_multiple


class Restormer(Restorer):
    """Layers: enc1 .. enc3, latent, dec3 .. dec1, head, output.

    `blocks` of 4 is the published depth, with 4, 6, 6, 8 blocks at the four levels.
    """

    def __init__(self, c: int = 1, width: int = 48, blocks: int = 4):
        super().__init__(c)
        if width < 2 or width % 2:
            raise UserError(f"width {width}: a Restormer needs an even number of channels")
        depths = (blocks, blocks * 3 // 2, blocks * 3 // 2, blocks * 2)
        self.net = deepinv.models.Restormer(
            c, c, dim=width, num_blocks=depths, num_refinement_blocks=blocks, pretrained=None
        )

    def features(self, x: Tensor) -> dict[str, Tensor]:
        net, x = self.net, x[:, : self.c]
        height, width = x.shape[-2:]
        layers = {
            "enc1": self.run_block(net.encoder_level1, net.patch_embed(pad_to_multiple(x, 8)))
        }
        layers["enc2"] = self.run_block(net.encoder_level2, net.down1_2(layers["enc1"]))
        layers["enc3"] = self.run_block(net.encoder_level3, net.down2_3(layers["enc2"]))
        layers["latent"] = self.run_block(net.latent, net.down3_4(layers["enc3"]))
        h = net.reduce_chan_level3(torch.cat((net.up4_3(layers["latent"]), layers["enc3"]), 1))
        layers["dec3"] = self.run_block(net.decoder_level3, h)
        h = net.reduce_chan_level2(torch.cat((net.up3_2(layers["dec3"]), layers["enc2"]), 1))
        layers["dec2"] = self.run_block(net.decoder_level2, h)
        h = self.run_block(
            net.decoder_level1, torch.cat((net.up2_1(layers["dec2"]), layers["enc1"]), 1)
        )
        layers["dec1"] = self.run_block(net.refinement, h)
        layers["head"] = net.output(layers["dec1"])[..., :height, :width]
        layers["output"] = layers["head"] + x
        return layers
