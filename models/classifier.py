"""The base class of classifiers: an image in, named layers out, the last of them the logits."""

import torch
from torch import Tensor

from core.errors import UserError
from models.base import Network

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226  # their averages


class Classifier(Network):
    """A network from images of c channels in [0, 1], which it normalises, to logits (B, classes).

    `side` is that of the training images. The layers are enc1, stages, latent (maps), pool (the
    input of the last layer, (B, D, 1, 1)) and output.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, c: int, classes: int, side: int):
        super().__init__(c)
        if min(c, side) < 1 or classes < 2:
            raise UserError(
                f"channels {c}, side {side}, classes {classes}: allowed are at least 1, 1 and 2"
            )
        self.classes, self.side = classes, side
        mean, deviation = (MEAN, DEVIATION) if c == 3 else ((GREY_MEAN,) * c, (GREY_DEVIATION,) * c)
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values).view(1, c, 1, 1), persistent=False)

    def normalise(self, x: Tensor) -> Tensor:
        """The image minus its mean, over its deviation, without a map of the noise level."""
        return (x[:, : self.c] - self.mean) / self.deviation
