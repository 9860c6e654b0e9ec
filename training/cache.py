"""What is the same in every epoch is computed once: what networks see of fixed images, and what frozen teachers make of it."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core import distributed
from core.runtime import VALIDATION, seeded
from data.batches import Images, build_loader
from physics.base import Physics


def on(device: torch.device, batch: dict) -> dict:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def size_of(tensors: dict[str, Tensor]) -> int:
    """Bytes; a tensor that has two names counts once."""
    return sum(
        tensor.nbytes for tensor in {id(tensor): tensor for tensor in tensors.values()}.values()
    )


class Memory:
    """For every training image what a stage sees and is taught, as far as nothing of it is drawn and there is room for it."""

    def __init__(
        self,
        stage: nn.Module,
        images: Images,
        batch_size: int,
        device: torch.device,
        room: float,
        precisely: Callable = nullcontext,
    ):
        self.kept: dict[str, Tensor] = {}
        if images.fixed:
            loader = build_loader(images, batch_size)
            self._keep(stage.see, loader, device, room)
            if self.kept:
                with precisely():
                    self._keep(
                        lambda batch, _: stage.teach(batch),
                        loader,
                        device,
                        room - size_of(self.kept),
                    )

    @torch.no_grad()
    def _keep(
        self,
        work: Callable[[dict, torch.Generator], dict],
        loader: DataLoader,
        device: torch.device,
        room: float,
    ) -> None:
        """The results of some work on all batches: in order, so that they are the same whenever they are made."""
        new: dict[str, Tensor] = {}
        for batch in loader:
            batch, generator = self.add(on(device, batch)), seeded(0)
            before = generator.get_state()
            found = {
                name: value for name, value in work(batch, generator).items() if name not in batch
            }
            if not new:
                drawn = not torch.equal(before, generator.get_state())
                if (
                    drawn
                    or not found
                    or size_of(found) / len(batch["index"]) * len(loader.dataset) > room
                ):
                    return
                first = {id(value): name for name, value in reversed(found.items())}
                same = {
                    name: first[id(value)] for name, value in found.items()
                }  # one tensor for what is seen alike
                new = {
                    name: found[name].new_empty(len(loader.dataset), *found[name].shape[1:])
                    for name in first.values()
                }
            for name, values in new.items():
                values[batch["index"]] = found[name]
        self.kept |= {name: new[other] for name, other in same.items()}

    def add(self, batch: dict) -> dict:
        """A batch with what is known of its images."""
        return batch | {name: values[batch["index"]] for name, values in self.kept.items()}


class Views:
    """A split as a camera shows it, with the noise that a seed draws: batch, measurements, first image; kept where there is room."""

    def __init__(
        self, physics: Physics, loader: DataLoader, device: torch.device, seed: int, room: float = 0
    ):
        self.physics, self.loader, self.device, self.seed, self.room = (
            physics,
            loader,
            device,
            seed,
            room,
        )
        self.kept: list[tuple] | None = None

    def __iter__(self) -> Iterator[tuple[dict, Tensor, Tensor]]:
        """Our share of the batches of several processes, once for each camera."""
        if self.kept is not None:
            yield from self.kept
            return
        kept, left = [], self.room
        for part in self.physics.parts:
            generator = seeded(self.seed, VALIDATION)
            for k, batch in enumerate(self.loader):
                batch = on(self.device, batch)
                with torch.no_grad():
                    y = part.measure_batch(
                        batch, generator
                    )  # by every process, so that all draw the same noise
                    if k % distributed.world() == distributed.rank() % distributed.world():
                        view = batch, y, part.first_image(y)
                        left -= size_of(batch | {"y": y, "x0": view[2]})
                        if left > 0:
                            kept.append(view)
                        yield view
        if left > 0:
            self.kept = kept
