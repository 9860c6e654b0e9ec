"""The images of training, validation and test: fixed random splits with the shares of classes."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

WORDS = {"train": "training", "val": "validation", "test": "test"}
SPLITS = tuple(WORDS)
SPLIT_SEED = 0  # of splits; a run's --seed must not move an image from test to training


def shuffled_order(count: int, seed: int = SPLIT_SEED) -> Tensor:
    """The random order of so many images that a seed gives."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def places_in_classes(
    labels: Sequence[int], seed: int = SPLIT_SEED
) -> Iterator[tuple[int, int, int]]:
    """In the order of a seed: an image's number, its place in its class, the size of the class."""
    labels = [int(label) for label in labels]
    sizes, before = Counter(labels), Counter()
    for i in shuffled_order(len(labels), seed).tolist():
        yield i, before[labels[i]], sizes[labels[i]]
        before[labels[i]] += 1


def stratified_order(labels: Sequence[int], seed: int = SPLIT_SEED) -> Tensor:
    """The order of a seed that begins with one image of every class.

    Every beginning of it holds the classes in their shares.
    """
    items = sorted(places_in_classes(labels, seed), key=lambda item: item[1] / item[2])
    return torch.tensor([i for i, _, _ in items])


def hold_out_per_class(
    labels: Sequence[int], parts: int = 1, share: float = 0.1
) -> list[list[int]]:
    """Training indices, and parts with this share of every class.

    A part has at least one image of a class if one is left for training.
    """
    groups: list[list[int]] = [[] for _ in range(1 + parts)]
    for i, place, size in places_in_classes(labels):
        held = min(max(1, round(size * share)), (size - 1) // parts)
        groups[1 + place // held if place < parts * held else 0].append(i)
    return groups


def hold_out(count: int, share: float = 0.1) -> tuple[list[int], list[int]]:
    """Training and validation indices out of `count` training images."""
    order = shuffled_order(count).tolist()
    held = max(1, round(count * share))
    return order[held:], order[:held]


def split_by_tenths(items: Sequence) -> dict[str, list]:
    """A fixed random split, 80 / 10 / 10."""
    items = [items[i] for i in shuffled_order(len(items)).tolist()]
    tenth = max(1, len(items) // 10)
    return {"train": items[2 * tenth :], "val": items[:tenth], "test": items[tenth : 2 * tenth]}


class Lazy(Sequence):
    """Images that are made when they are needed, one of each key."""

    def __init__(self, make: Callable[[Any], Any], keys: Sequence):
        self.make, self.keys = make, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i):
        return self.make(self.keys[i])
