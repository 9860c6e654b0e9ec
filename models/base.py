"""What every network is: an image in, named taps out."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Network(nn.Module):
    """What can compute a block's features again in the backward pass instead of keeping them."""

    checkpointing = False  # whether it does
    lightens = True  # whether that saves anything

    def normalised(self, x: Tensor) -> Tensor:
        """What it is shown as its first layer sees it: as it is."""
        return x

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return block(x)
        return checkpoint(
            block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), Counted(block))
        )


class Counted:
    """Batch norms that have counted a batch do not count it again when it is computed again, once for every backward pass."""

    def __init__(self, block: nn.Module):
        self.norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]

    def __enter__(self) -> None:
        self.kept = [(layer.momentum, layer.num_batches_tracked) for layer in self.norms]
        for layer in self.norms:
            layer.momentum, layer.num_batches_tracked = 0.0, None

    def __exit__(self, *_) -> None:
        for layer, kept in zip(self.norms, self.kept, strict=True):
            layer.momentum, layer.num_batches_tracked = kept


class Restorer(Network):
    """A network of c channels; behind them the first image may carry a map of the noise level, which most networks do not look at."""

    reads_noise_level = False

    def __init__(self, c: int):
        super().__init__()
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)["output"]

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Named taps in the order in which they are computed; the last is the output."""
        return {"output": x[:, : self.c]}


class FirstImage(Restorer):
    """No network: the first image as it is."""


SAFE = 8  # input channels from which on a strided 1x1 convolution is


def unsafe_layers(network: nn.Module) -> list[nn.Conv2d]:
    """Strided 1x1 convolutions of few channels, which must not be computed with channels innermost.

    On processors without AVX-512 oneDNN writes their weight gradient beyond its memory: the process
    crashes, never ends, or is silently wrong.
    """
    layers = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    strided = (layer for layer in layers if layer.kernel_size == (1, 1) and max(layer.stride) > 1)
    return [layer for layer in strided if layer.in_channels // layer.groups < SAFE]


def memory_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels innermost, in which convolutions are faster, unless a layer of the network is not safe in it."""
    unsafe = device.type == "cpu" and unsafe_layers(network)
    return torch.contiguous_format if unsafe else torch.channels_last


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device, in the memory format that is fast and safe there."""
    if device.type == "cpu":
        for layer in unsafe_layers(network):  # images themselves may have their channels innermost
            layer.register_forward_pre_hook(contiguous)
    return network.to(device, memory_format=memory_format(network, device))


def contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.contiguous() for x in inputs)


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
