"""A network for images larger than its physics, which measures them block by block."""

from torch import Tensor

from core.blocks import assemble_blocks, split_blocks
from models.base import Network, Restorer


class Piecewise(Restorer):
    """The network's features of every n x n block, put together."""

    def __init__(self, network: Network, n: int):
        super().__init__(network.c)
        self.network, self.n = network, n

    def features(self, x: Tensor) -> dict[str, Tensor]:
        rows, columns = (side // self.n for side in x.shape[-2:])
        features = self.network.features(split_blocks(x, self.n))
        return {layer: assemble_blocks(f, rows, columns) for layer, f in features.items()}
