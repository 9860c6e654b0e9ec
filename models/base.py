"""What every network is: an image in, named taps out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Restorer(nn.Module):
    """A network of c channels; behind them the first image may carry a map of the noise level, which most networks do not look at."""

    looks_at_noise = False
    checkpointing = False  # whether the backward pass computes a block's features again instead of keeping them
    lightens = True  # whether that saves anything

    def __init__(self, c: int):
        super().__init__()
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)["output"]

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Named taps in the order in which they are computed; the last is the output."""
        return {"output": x[:, : self.c]}

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False) if self.checkpointing and torch.is_grad_enabled() else block(x)


class AsSeen(Restorer):
    """No network: the first image as it is."""


def padded(x: Tensor, step: int) -> Tensor:
    """Sides that are multiples of a step, the border repeated."""
    return F.pad(x, (0, -x.shape[-1] % step, 0, -x.shape[-2] % step), mode="replicate")


def he(network: nn.Module) -> None:
    """He's initialisation of every convolution, biases zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
