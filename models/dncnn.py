"""A convolutional network that predicts the residual: a light student of restoration."""

from torch import Tensor, nn

from models.base import Restorer, initialise


class DnCNN(Restorer):
    """A convolution, `blocks` of convolution and ReLU, a convolution.

    Layers: enc1, block1 .., latent (the last block), head, output.
    """

    can_checkpoint = False  # blocks are single convolutions, whose inputs are kept as layers anyway

    def __init__(self, c: int = 1, channels: int = 32, blocks: int = 6):
        super().__init__(c)
        self.first = nn.Conv2d(c, channels, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks)
        )
        self.last = nn.Conv2d(channels, c, 3, padding=1)
        initialise(self)
        nn.init.zeros_(self.last.weight)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        x = x[:, : self.c]
        h = self.first(x).relu()
        layers = {"enc1": h}
        for k, convolution in enumerate(self.body, 1):
            h = convolution(h).relu()
            layers["latent" if k == len(self.body) else f"block{k}"] = h
        layers["head"] = self.last(h)
        layers["output"] = layers["head"] + x
        return layers
