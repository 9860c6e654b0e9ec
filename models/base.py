"""The base class of all networks, of those that restore images, and what they share."""

from contextlib import nullcontext
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

N = TypeVar("N", bound=nn.Module)


class Network(nn.Module):
    """A network of images of `c` channels.

    A new network is a subclass that defines `features`; its blocks go through `run_block`, so that
    --gradient_checkpointing works. It must take images of any size, and its registry line lists its
    constructor's arguments, which are its config in a checkpoint.
    """

    checkpointing: bool = False  # whether blocks are computed again in the backward pass
    can_checkpoint: bool = True  # whether that saves memory
    reads_noise_level: bool = False  # whether it reads a map of the noise level behind the image
    reads_measurements: bool = False  # whether it reads the measurements behind them

    def __init__(self, c: int):
        super().__init__()
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)["output"]

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The named layers in the order in which they are computed; the last is "output"."""
        raise NotImplementedError

    def normalise(self, x: Tensor) -> Tensor:
        """The input as the first layer gets it."""
        return x

    def run_block(self, block: nn.Module, *inputs: Tensor | None) -> Any:
        """What a block makes of its inputs."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return block(*inputs)
        return checkpoint(
            block,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), FrozenCounts(block)),
        )


class FrozenCounts:
    """Keeps batch norms from counting a batch again when a block is computed again."""

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
    """A network from a first image to a restored image (B, C, H, W).

    Behind its channels the first image may carry a map of the noise level, which most networks
    ignore; behind it come the measurements, for those that read them.
    """


class FirstImage(Restorer):
    """No network: it returns the first image unchanged."""

    def features(self, x: Tensor) -> dict[str, Tensor]:
        return {"output": x[:, : self.c]}


SAFE_CHANNELS = 8  # of the input: a strided 1x1 convolution of fewer is not safe


def unsafe_layers(network: nn.Module) -> list[nn.Conv2d]:
    """Strided 1x1 convolutions of few channels, which must not run with channels innermost.

    On processors without AVX-512 oneDNN writes their weight gradient beyond its memory: the process
    crashes, never ends, or is silently wrong.
    """
    layers = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    strided = (layer for layer in layers if layer.kernel_size == (1, 1) and max(layer.stride) > 1)
    return [layer for layer in strided if layer.in_channels // layer.groups < SAFE_CHANNELS]


def memory_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels innermost, which is faster, unless a layer of the network is not safe with it."""
    unsafe = device.type == "cpu" and unsafe_layers(network)
    return torch.contiguous_format if unsafe else torch.channels_last


def to_device(network: N, device: torch.device) -> N:
    """The network on a device, in the memory format that is fast and safe there."""
    if device.type == "cpu":
        for layer in unsafe_layers(network):  # images themselves may have their channels innermost
            layer.register_forward_pre_hook(make_contiguous)
    moved = network.to(device)
    return moved.to(memory_format=memory_format(network, device))


def make_contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.contiguous() for x in inputs)


def pad_to_multiple(x: Tensor, step: int) -> Tensor:
    """The image with its border repeated until its sides are multiples of a step."""
    return F.pad(x, (0, -x.shape[-1] % step, 0, -x.shape[-2] % step), mode="replicate")


def initialise(network: nn.Module) -> None:
    """He's initialisation of every convolution, biases zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
