"""What every classifier is: an image in, named taps out, the last of them the logits."""

import torch
from torch import Tensor

from core.errors import UserError
from models.base import Network

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226  # their averages


class Classifier(Network):
    """A network that gives images of c channels in [0, 1] one of so many classes; it normalises what it sees itself."""

    def __init__(self, c: int, classes: int, side: int):
        super().__init__()
        if min(c, side) < 1 or classes < 2:
            raise UserError(f"channels {c}, side {side}, classes {classes}: at least 1, 1 and 2")
        self.c, self.classes, self.side = c, classes, side
        mean, deviation = (MEAN, DEVIATION) if c == 3 else ((GREY_MEAN,) * c, (GREY_DEVIATION,) * c)
        self.register_buffer("mean", torch.tensor(mean).view(1, c, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, c, 1, 1), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)["output"]

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """enc1, stages, latent (maps), pool (what the last layer reads, (B, D, 1, 1)), output (logits, (B, classes))."""
        raise NotImplementedError

    def normalised(self, x: Tensor) -> Tensor:
        """The image less its mean over its deviation; a map of the noise level behind it is not looked at."""
        return (x[:, : self.c] - self.mean) / self.deviation
