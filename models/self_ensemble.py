"""The mean of a network's answers to the mirror images of what it sees."""

import torch
from torch import Tensor

from models.base import Restorer
from models.measured import Measured

MIRRORS = ((), (-1,), (-2,), (-2, -1))  # the sides that are reversed


class SelfEnsemble(Restorer):
    """mean over m of m f(m x), m one of the four mirrorings (Lim et al. 2017). Layer: output.

    As a teacher of pictures without truth this is data distillation (Radosavovic et al. 2018).
    `n` is the side of what is measured at once, for networks that read measurements.
    """

    def __init__(self, network: Restorer, n: int):
        super().__init__(network.c)
        self.network, self.n = network, n
        self.reads_noise_level = network.reads_noise_level
        self.reads_measurements = network.reads_measurements

    def normalise(self, x: Tensor) -> Tensor:
        return self.network.normalise(x)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        answers = [self.network(self.mirrored(x, sides)).flip(sides) for sides in MIRRORS]
        return {"output": torch.stack(answers).mean(0)}

    def mirrored(self, x: Tensor, sides: tuple[int, ...]) -> Tensor:
        """The first image of the mirrored scene."""
        if not sides:
            return x
        if not self.reads_measurements:
            return x.flip(sides)
        measured = Measured(x, self.c, self.n)
        image = x[:, : -measured.channels].flip(sides)
        return torch.cat((image, measured.mirrored(sides)), dim=1)
