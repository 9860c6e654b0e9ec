"""Writes data/cifar10_small.npz: 400 training and 100 test images of each class of CIFAR-10.

`python examples/cifar10_small.py` from the repository's folder, which downloads CIFAR-10 (170 MB).
Our own draw of these images may be another one.
"""

from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10

COUNTS = {"train": 400, "test": 100}  # images of a class


def first_of_each_class(y, count):
    """The places of the first images of every class, class by class."""
    return np.concatenate([np.flatnonzero(y == k)[:count] for k in range(max(y) + 1)])


def main(folder="data"):
    arrays = {}
    for split, count in COUNTS.items():
        images = CIFAR10(folder, train=split == "train", download=True)
        y = np.array(images.targets)
        chosen = first_of_each_class(y, count)
        arrays |= {f"x_{split}": images.data[chosen], f"y_{split}": y[chosen].astype(np.uint8)}
    path = Path(folder) / "cifar10_small.npz"
    np.savez(path, classes=images.classes, **arrays)
    print(f"{path} written")


if __name__ == "__main__":
    main()
