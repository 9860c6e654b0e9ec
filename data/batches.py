"""From the images of a split to batches, in memory, augmented, in an order that can be resumed."""

import copy
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from core.distributed import world
from core.runtime import SIGNALS
from data.augment import symmetries_of

T = TypeVar("T")


def map_tensors(value, change: Callable[[Tensor], Tensor]) -> Any:
    """A nest of lists and dicts with every tensor changed; one that stands in two places, once."""
    memo: dict[int, Tensor] = {}

    def changed(value):
        if isinstance(value, Tensor):
            if id(value) not in memo:
                memo[id(value)] = change(value)
            return memo[id(value)]
        if isinstance(value, list):
            return [changed(item) for item in value]
        if isinstance(value, dict):
            return {name: changed(item) for name, item in value.items()}
        return value

    return changed(value)


def tensors_in(value) -> list[Tensor]:
    """The tensors in a nest of lists and dicts, in order."""
    tensors: list[Tensor] = []
    if isinstance(value, Tensor):
        tensors.append(value)
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            tensors += tensors_in(item)
    return tensors


def present(value: T | None) -> T:
    """A field of a batch that is there by now."""
    assert value is not None, "the batch lacks this field: a recording has no clean images"
    return value


def bytes_of(value) -> int:
    """Bytes of the tensors in a nest; one that stands in two places counts once."""
    return sum({id(tensor): tensor.nbytes for tensor in tensors_in(value)}.values())


@dataclass
class Batch:
    """Some images, what the networks see of them, and the features of frozen teachers.

    A field that is `None` is not there, or not yet.
    """

    image: Tensor | None  # (B, C, n, n) in [0, 1]; a recording has none
    index: Tensor  # (B,) places in the split
    label: Tensor | None = None  # (B,) classes, or UNLABELLED
    degraded: Tensor | None = None  # the given pictures of pairs
    paired: Tensor | None = None  # (B,) whether the degraded picture was given
    recorded: Tensor | None = None  # recorded values as the physics lays out y
    variance: Tensor | None = None  # of their noise, laid out like them
    x0: Tensor | None = None  # what the student sees
    teacher_x0: list[Tensor] | None = None  # what each teacher sees
    teacher_features: list[dict[str, Tensor]] | None = None  # each teacher's compared layers

    def __len__(self) -> int:
        return len(self.index)

    def map(self, change: Callable[[Tensor], Tensor], only: Sequence[str] = ()) -> "Batch":
        """The batch with every tensor changed, or those of some fields."""
        names = only or [field.name for field in fields(self)]
        values = {name: getattr(self, name) for name in names}
        return self.replace(**map_tensors(values, change))

    def to(self, device: torch.device) -> "Batch":
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, places: Tensor | slice) -> "Batch":
        """Some of the images."""
        return self.map(lambda tensor: tensor[places])

    def replace(self, **values) -> "Batch":
        return replace(self, **values)

    def loaded(self) -> "Batch":
        """The batch as the loader gave it, without what was computed of it since."""
        return self.replace(x0=None, teacher_x0=None, teacher_features=None)

    def of_target(self, name: str) -> Tensor:
        """What an output is compared with: the image or the label."""
        target = {"image": self.image, "label": self.label}[name]
        assert target is not None, f"the batch has no {name}, as that of a recording"
        return target


UNLABELLED = -1  # in the place of a label that is not known


class Source(NamedTuple):
    """One split: images (C, n, n) in [0, 1], and the symmetries that training may use."""

    images: Sequence
    symmetries: str = "none"  # none, flip, dihedral; fixed allows not even shifts
    kind: "type[Images] | None" = None  # the class of its dataset, where it is a special one
    labels: Sequence[int] | None = None  # one for each image
    classes: tuple[str, ...] = ()
    files: Sequence[Path] = ()  # one for each image


class Images(Dataset):
    """Clean images of one split.

    Augmentation is sampled from (seed, epoch, index), so no worker or batch size changes it.
    """

    paired: bool = False  # whether validation and test items bring their degraded pictures
    same_size: bool = True  # whether all items have one size

    def __init__(
        self, source: Source, subset: Tensor, augment_seed: int | None = None, shift: bool = False
    ):
        self.source, self.subset, self.augment_seed, self.epoch = source, subset, augment_seed, 0
        self.symmetries = {} if augment_seed is None else symmetries_of(source.symmetries, shift)
        self.classes = source.classes
        self.labels = None if source.labels is None else [source.labels[k] for k in subset.tolist()]
        self.held: Tensor | None = None
        self.every = self  # of some of them, all

    def __len__(self) -> int:
        return len(self.subset)

    def with_labels(self) -> Self:
        """Those whose label is known."""
        if self.labels is None or UNLABELLED not in self.labels:
            return self
        other = copy.copy(self)
        known = [place for place, label in enumerate(self.labels) if label != UNLABELLED]
        other.subset, other.labels = self.subset[known], [self.labels[k] for k in known]
        return other

    @property
    def fixed(self) -> bool:
        """Whether an image is the same in every epoch."""
        return not self.symmetries

    def __getitem__(self, i: int) -> dict:
        return {name: value[0] for name, value in self.__getitems__([i]).items()}

    def __getitems__(self, places: Sequence[int]) -> dict:
        """A batch."""
        images = self.decode(places)
        if self.symmetries:
            images = self.augment(images, places)
        batch = {"image": images, "index": torch.as_tensor(places)}
        if self.labels is not None:
            batch["label"] = torch.tensor([self.labels[i] for i in places])
        return batch

    def augment(self, images: Tensor, places: Sequence[int]) -> Tensor:
        n = images.shape[-1]
        samples = []  # of each image, one value a symmetry
        for i in places:
            rng = self.rng(i)
            samples.append([sample(rng, n) for sample in self.symmetries])
        by_symmetry = zip(*samples, strict=True)
        for change, values in zip(self.symmetries.values(), by_symmetry, strict=True):
            images = change(images, torch.tensor(values, device=images.device))
        return images

    def rng(self, i: int) -> np.random.Generator:
        """The random numbers of an item in this epoch."""
        assert self.augment_seed is not None, "only training images are augmented"
        return np.random.default_rng((self.augment_seed, self.epoch, i))

    def decode(self, places: Sequence[int] | Tensor) -> Tensor:
        """Images (B, C, n, n) as their files have them."""
        places = torch.as_tensor(places)
        if self.held is not None:
            images = self.held[places.to(self.held.device)]
            return images.float() / 255 if images.dtype == torch.uint8 else images
        return torch.stack([self.source.images[int(k)] for k in self.subset[places]])

    def stack(self) -> Tensor:
        """All images (N, C, n, n), not augmented."""
        return self.decode(range(len(self)))

    def hold(self, device: torch.device, room: Callable[[torch.device], int]) -> None:
        """Decodes all images once and keeps them: as bytes if these lose nothing, else as floats.

        They are on the device where half of its room is enough, else in memory, else in a file.
        """
        held = self.decode_all(device, room, torch.uint8)
        self.held = self.decode_all(device, room, torch.float32) if held is None else held

    def decode_all(
        self, device: torch.device, room: Callable[[torch.device], int], dtype: torch.dtype
    ) -> Tensor | None:
        """All images in one tensor, or None where they are not as many bytes."""
        shape = (len(self), *self.decode([0]).shape[1:])
        size, cpu = int(np.prod(shape)) * dtype.itemsize, torch.device("cpu")
        place = next((place for place in (device, cpu) if size <= room(place) / 2), None)
        held = file_backed(shape, dtype) if place is None else torch.empty(shape, dtype=dtype)
        for some in torch.arange(len(self)).split(256):
            images = self.decode(some)
            if dtype == torch.uint8:
                levels = (images * 255).round()
                if not torch.equal(levels / 255, images):
                    return None
                images = levels
            held[some] = images.to(dtype)
        return held if place is None else held.to(place)

    def name(self, i: int) -> str:
        """The file of an image, or its place where it has none."""
        return str(self.source.files[int(self.subset[i])]) if self.source.files else str(i)


class WholeImages(Images):
    """Pictures of their own sizes, one at a time."""

    same_size = False

    def name(self, i: int) -> str:
        return self.source.files[int(self.subset[i])].stem


class SampledImages(Images):
    """Images of which each item is new in every epoch."""

    @property
    def fixed(self) -> bool:
        return False

    def __getitems__(self, places: Sequence[int]) -> dict:
        return default_collate([self[i] for i in places])

    def hold(self, *_) -> None:
        """Nothing, as no image is the same twice."""


def file_backed(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    """A tensor in a file without a name, which the disk has room for."""
    kind = np.uint8 if dtype == torch.uint8 else np.float32
    with tempfile.TemporaryFile() as file:
        reserve(file, int(np.prod(shape)) * dtype.itemsize)
        return torch.from_numpy(np.memmap(file, kind, "r+", shape=shape))


def reserve(file: BinaryIO, size: int) -> None:
    """Fills an empty file, so that a full disk is an error now and not a crash at a later write."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    block = bytes(2**20)  # macOS has no such call: zeros take the room
    for written in range(0, size, len(block)):
        file.write(block[: size - written])
    file.flush()


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


# ---------------------------------------------------------------- loaders


class Order(Sampler):
    """Batches of places in the order of (seed, epoch), from batch `first` on, where a pass resumes.

    A last batch of one image, which has no relations and no variance, or of fewer images than there
    are processes, joins the one before it.
    """

    def __init__(self, images: Images, batch_size: int, seed: int):
        self.images, self.batch_size, self.seed, self.first = images, batch_size, seed, 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.images), self.batch_size)
        return whole + (rest > (max(1, world() - 1) if whole else 0))

    def __iter__(self):
        order = np.random.default_rng((self.seed, self.images.epoch)).permutation(len(self.images))
        for batch in range(self.first, len(self)):
            last = len(order) if batch == len(self) - 1 else (batch + 1) * self.batch_size
            yield order[batch * self.batch_size : last].tolist()


class Loader(DataLoader):
    """Batches of a split; a pass over the images of a shuffled one can begin at any batch."""

    images: Images

    def begin_at(self, epoch: int, batch: int = 0) -> None:
        """The next pass is that of an epoch, from a batch on."""
        assert isinstance(self.batch_sampler, Order), "only a shuffled split has epochs"
        self.images.epoch, self.batch_sampler.first = epoch, batch

    def __iter__(self) -> Iterator[Batch]:
        """The batches of a pass; its workers end with it, also after an error.

        An error's traceback keeps the iterator, and its workers, until the garbage is collected,
        which then waits five seconds for each of them.
        """
        # A worker that gets a signal before `ignore_signals` would report it to the main process,
        # which would take it for a second one.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if self.num_workers else None
        try:
            batches = super().__iter__()
        finally:
            if mask is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield from batches
        finally:
            if isinstance(batches, _MultiProcessingDataLoaderIter):
                batches._shutdown_workers()


def build_loader(
    images: Images, batch_size: int, num_workers: int = 0, shuffle_seed: int | None = None
) -> Loader:
    """Batches of a split, in the order of a seed and the epoch, or of the split."""
    how = {"num_workers": num_workers, "worker_init_fn": ignore_signals, "collate_fn": to_batch}
    if shuffle_seed is None:
        loader = Loader(images, batch_size if images.same_size else 1, **how)
    else:
        loader = Loader(images, batch_sampler=Order(images, batch_size, shuffle_seed), **how)
    loader.images = images
    return loader


def to_batch(items: dict[str, Any]) -> Batch:
    """The tensors that a dataset gives for some places, as a batch."""
    return Batch(**items)


def ignore_signals(_: int) -> None:
    """Leaves the signals that reach all processes of a group to the main process.

    SIGTERM, by which the main process ends a worker, is obeyed a second later.
    """
    signal.set_wakeup_fd(-1)  # inherited from the main process
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(1))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # which `Loader` has blocked
