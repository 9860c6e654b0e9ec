"""Caches of what is the same in every epoch: first images, and the features of frozen teachers."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from core import distributed
from core.runtime import VALIDATION, seeded
from data.batches import Batch, Images, Loader, build_loader, bytes_of, map_tensors, tensors_in
from distill.task import Task
from physics.base import Physics

COMPUTED = ("x0", "teacher_x0", "teacher_features")  # the fields of a batch that can be kept


class Memory:
    """What a task computes of every training image, where it is not random and there is room."""

    def __init__(
        self,
        task: Task,
        images: Images,
        batch_size: int,
        device: torch.device,
        room: float,
        precision: Callable = nullcontext,
    ):
        self.kept: dict[str, Any] = {}  # fields of a batch, of all images
        if images.fixed and not task.physics.learns:
            loader = build_loader(images, batch_size)
            self._keep(task.add_observations, loader, device, room)
            if self.kept:
                with precision():
                    self._keep(
                        lambda batch, _: task.add_teacher_features(batch),
                        loader,
                        device,
                        room - bytes_of(self.kept),
                    )

    @torch.no_grad()
    def _keep(
        self,
        compute: Callable[[Batch, torch.Generator], Batch],
        loader: Loader,
        device: torch.device,
        room: float,
    ) -> None:
        """The fields that `compute` adds to a batch, for all images.

        The batches come in order, so that the results are the same whenever they are computed.
        """
        count = len(loader.images)
        kept: dict[str, Any] = {}
        for batch in loader:
            batch, generator = self.add(batch.to(device)), seeded(0)
            before = generator.get_state()
            result = compute(batch, generator)
            new = {name: getattr(result, name) for name in COMPUTED if getattr(batch, name) is None}
            if not kept:
                random = not torch.equal(before, generator.get_state())
                size = bytes_of(new) / len(batch) * count
                if random or not tensors_in(new) or size > room:
                    return
                kept = map_tensors(new, lambda tensor: tensor.new_empty(count, *tensor.shape[1:]))
            for all_images, some_images in zip(tensors_in(kept), tensors_in(new), strict=True):
                all_images[batch.index] = some_images
        self.kept |= {name: value for name, value in kept.items() if value is not None}

    def add(self, batch: Batch) -> Batch:
        """A batch with what is kept of its images."""
        return batch.replace(**map_tensors(self.kept, lambda tensor: tensor[batch.index]))


View = tuple[Batch, Tensor, Tensor]  # a batch, its measurements, its first image


class Views:
    """A split as a physics shows it, with the noise of a seed; kept where there is room."""

    def __init__(
        self, physics: Physics, loader: Loader, device: torch.device, seed: int, room: float = 0
    ):
        self.physics, self.loader, self.device = physics, loader, device
        self.seed, self.room = seed, room
        self.kept: list[View] | None = None

    def __iter__(self) -> Iterator[View]:
        """This process's share of the batches, once for each part of the physics."""
        if self.kept is not None:
            yield from self.kept
            return
        kept, left = [], self.room
        for part in self.physics.parts:
            generator = seeded(self.seed, VALIDATION)
            for k, batch in enumerate(self.loader):
                batch = batch.to(self.device)
                with torch.no_grad():
                    # Every process measures every batch, so that all draw the same noise.
                    y = part.measure_batch(batch, generator)
                    if k % distributed.world() == distributed.rank() % distributed.world():
                        view = batch, y, part.first_image(y)
                        left -= bytes_of([vars(batch), *view[1:]])
                        if left > 0:
                            kept.append(view)
                        yield view
        if left > 0:
            self.kept = kept
