"""A U-Net whose encoder comes from one checkpoint and whose decoder from another."""

from torch import Tensor

from core.errors import UserError
from models.unet import UNet

PARTS = ("encoder", "decoder")


def part_of(name: str) -> str:
    """The part of the U-Net that a tensor or block belongs to: Conv1 .. ConvK are the encoder."""
    block = name.removeprefix("network.").split(".")[0]  # which a consistent network puts before
    return "encoder" if block.startswith("Conv") and block != "Conv_1x1" else "decoder"


class HybridUNet(UNet):
    """A U-Net one part of which may be frozen: it gets no gradient and stays in eval mode."""

    def __init__(self, freeze: str = "none", **unet):
        super().__init__(**unet)
        if freeze not in (*PARTS, "none"):
            raise UserError(f"unknown freeze '{freeze}': choose from encoder, decoder, none")
        self.freeze = freeze
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(part_of(name) != freeze)

    def train(self, mode: bool = True):
        super().train(mode)
        for name, block in self.named_children():
            if part_of(name) == self.freeze:
                block.eval()
        return self


def graft(encoder: dict[str, Tensor], decoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a hybrid: the first one's encoder and the second one's decoder."""
    return {k: (encoder if part_of(k) == "encoder" else decoder)[k] for k in encoder}
