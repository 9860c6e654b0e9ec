"""A plain convolutional network that predicts the residual: the light student of restoration."""

from torch import Tensor, nn

from models.base import Restorer, he


class DnCNN(Restorer):
    """A convolution, `blocks` of convolution and ReLU, a convolution; taps enc1, block1 .., latent (the last block), head, output."""

    lightens = (
        False  # its blocks are single convolutions, whose inputs are taps that are kept anyway
    )

    def __init__(self, c: int = 1, features: int = 32, blocks: int = 6):
        super().__init__(c)
        self.first = nn.Conv2d(c, features, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Conv2d(features, features, 3, padding=1) for _ in range(blocks)
        )
        self.last = nn.Conv2d(features, c, 3, padding=1)
        he(self)
        nn.init.zeros_(self.last.weight)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        x = x[:, : self.c]
        layers = {"enc1": self.first(x).relu()}
        h = layers["enc1"]
        for k, layer in enumerate(self.body, 1):
            layers["latent" if k == len(self.body) else f"block{k}"] = h = layer(h).relu()
        layers["head"] = self.last(h)
        layers["output"] = layers["head"] + x
        return layers
