"""A network whose output agrees with the measured values."""

import torch
from torch import Tensor, nn

from models.base import Restorer
from models.measured import Measured


class Consistent(Restorer):
    """x <- x + Aᵀ W (y - A x) behind any network: it is left what no pattern measured.

    W is 1 without noise. With noise of variance v it is Wiener's weight t / (t + v) for an error of
    the network of variance t in a value, which is learnt. Layers: those of the network.
    """

    reads_measurements = True

    def __init__(self, network: Restorer, n: int):
        super().__init__(network.c)
        self.network, self.n = network, n
        self.log_trust = nn.Parameter(torch.tensor(-4.0))
        self.can_checkpoint, self.reads_noise_level = (
            network.can_checkpoint,
            network.reads_noise_level,
        )

    def input_of(self, x: Tensor) -> Tensor:
        """What the network itself reads: without the measurements, if it does not know them."""
        return x if self.network.reads_measurements else x[:, : -2 * self.c - 1]

    def normalise(self, x: Tensor) -> Tensor:
        return self.network.normalise(self.input_of(x))

    def features(self, x: Tensor) -> dict[str, Tensor]:
        self.network.checkpointing = self.checkpointing
        layers = self.network.features(self.input_of(x))
        output = layers["output"]
        correction = Measured(x, self.c, self.n).correction(output, self.log_trust.exp())
        return layers | {"output": output + correction}
