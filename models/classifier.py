"""What every classifier is: an image in, named taps out, the last of them the logits."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from tables import UserError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226  # their averages


class Classifier(nn.Module):
    """A network that gives images of c channels in [0, 1] one of so many classes; it normalises what it sees itself."""

    checkpointing = False  # whether the backward pass computes a block's features again instead of keeping them

    def __init__(self, c: int, classes: int, side: int):
        super().__init__()
        if min(c, side) < 1 or classes < 2:
            raise UserError(f"channels {c}, side {side}, classes {classes}: at least 1, 1 and 2")
        self.c, self.classes, self.side = c, classes, side
        mean, deviation = (MEAN, DEVIATION) if c == 3 else ((GREY_MEAN,) * c, (GREY_DEVIATION,) * c)
        self.register_buffer("mean", torch.tensor(mean).view(1, c, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, c, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)["output"]

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """enc1, stages, latent (maps), pool (what the last layer reads, (B, D, 1, 1)), output (logits, (B, classes))."""
        raise NotImplementedError

    def normalised(self, x: Tensor) -> Tensor:
        """The image less its mean over its deviation; a map of the noise level behind it is not looked at."""
        return (x[:, : self.c] - self.mean) / self.deviation

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return block(x)
        return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), counted(block)))


@contextmanager
def counted(block: nn.Module) -> Iterator[None]:
    """Batch norms that have counted a batch do not count it again when it is computed again."""
    norms = [(layer, layer.momentum, layer.num_batches_tracked) for layer in block.modules() if isinstance(layer, _BatchNorm)]
    for layer, *_ in norms:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, momentum, count in norms:
            layer.momentum, layer.num_batches_tracked = momentum, count
