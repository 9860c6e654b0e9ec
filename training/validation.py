"""A network's outputs on a split, and their scores."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from algo_functions import ClassMeter, Meter
from data.batches import Batch
from models.base import Network
from training.cache import View

M = TypeVar("M", bound=Meter | ClassMeter)


def outputs(network: Network, views: Iterable[View]) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Batch by batch of a split: the batch, its measurements, and the network's output."""
    network.eval()
    for batch, y, x0 in views:
        with torch.no_grad():
            output = network(x0)
        yield batch, y, output


def evaluate(
    network: Network,
    views: Iterable[View],
    meter: M,
    check: Callable[[], None] = lambda: None,
) -> M:
    """The scores of every image of a split, once for each part of the physics."""
    for batch, y, output in outputs(network, views):
        meter.add_view(network, batch, y, output)
        check()
    return meter.gathered()
