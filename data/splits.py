"""Which images are for training, validation and test: fixed random splits, with the shares of the classes."""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

WORDS = {"train": "training", "val": "validation", "test": "test"}
SPLITS = tuple(WORDS)
SPLIT_SEED = 0  # of splits and subsets; a run's --seed must not move an image from test to training


def shuffled(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))


def places(labels: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """In a fixed random order each image's number, its place in its class, and the size of the class."""
    labels = [int(label) for label in labels]
    sizes, before = Counter(labels), Counter()
    for i in shuffled(len(labels)).tolist():
        yield i, before[labels[i]], sizes[labels[i]]
        before[labels[i]] += 1


def stratified(labels: Sequence[int]) -> Tensor:
    """A fixed random order that begins with one image of every class, and whose every beginning holds the classes in their shares."""
    return torch.tensor(
        [i for i, place, size in sorted(places(labels), key=lambda item: item[1] / item[2])]
    )


def hold_out_of_each(labels: Sequence[int], parts: int = 1, share: float = 0.1) -> list[list[int]]:
    """Training indices, and parts with this share of every class, at least one image of it if one is left for training."""
    groups = [[] for _ in range(1 + parts)]
    for i, place, size in places(labels):
        held = min(max(1, round(size * share)), (size - 1) // parts)
        groups[1 + place // held if place < parts * held else 0].append(i)
    return groups


def hold_out(count: int, share: float = 0.1) -> tuple[Tensor, Tensor]:
    """Training and validation indices out of `count` training images."""
    order = shuffled(count)
    held = max(1, round(count * share))
    return order[held:], order[:held]


def tenths(items: Sequence) -> dict[str, list]:
    """A fixed random split, 80 / 10 / 10."""
    items = [items[i] for i in shuffled(len(items))]
    tenth = max(1, len(items) // 10)
    return {"train": items[2 * tenth :], "val": items[:tenth], "test": items[tenth : 2 * tenth]}


class Lazy(Sequence):
    """Images made when they are asked for."""

    def __init__(self, make, keys: Sequence):
        self.make, self.keys = make, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> Tensor:
        return self.make(self.keys[i])
