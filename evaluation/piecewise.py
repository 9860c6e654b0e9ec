"""A network that is shown larger pictures block by block, as its camera sees them."""

from torch import Tensor, nn

from models.base import Restorer
from physics.mosaic import assemble_blocks, split_blocks


class Piecewise(Restorer):
    """The network's taps of every n x n block, put together."""

    def __init__(self, network: nn.Module, n: int):
        super().__init__(network.c)
        self.network, self.n = network, n

    def features(self, x: Tensor) -> dict[str, Tensor]:
        rows, columns = (side // self.n for side in x.shape[-2:])
        return {
            name: assemble_blocks(layer, rows, columns)
            for name, layer in self.network.features(split_blocks(x, self.n)).items()
        }
