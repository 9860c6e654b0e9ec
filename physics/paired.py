"""The physics of pairs: their degraded pictures are given, so it measures nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from core.errors import UserError
from data.batches import Batch, Images, present
from models.base import Network
from physics.base import Physics


class Given(Physics):
    """y = the degraded picture of a pair, which is its own first image."""

    measures_images = True

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise UserError(
            "physics 'given' measures nothing: it reads the degraded pictures of --dataset paired"
        )

    def measure_batch(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.measure(present(batch.image)) if batch.degraded is None else batch.degraded

    def back_projection(self, y: Tensor) -> Tensor:
        return y

    def example(self, device: torch.device) -> Tensor:
        n = self.config["n"]
        return torch.zeros(1, self.config["c"], n, n, device=device)


def given(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Given:
    return Given(config)


def physics_for(images: Images, physics: Physics, network: Network) -> Physics:
    """The physics of an evaluation on a split: the given pictures of pairs, else `physics`."""
    if not images.paired:
        if isinstance(physics, Given):
            raise UserError(
                "physics 'given' measures nothing: it needs the pairs of --dataset paired; "
                "for a bare file give --n and --sigma of its denoiser"
            )
        return physics
    if network.reads_measurements:
        raise UserError(
            "this network reads the measurements, which pairs of pictures do not have; "
            "choose another network"
        )
    if physics.appends_noise_level and network.reads_noise_level:
        raise UserError(
            f"physics '{physics.config['name']}': this network reads the noise level, "
            "which is unknown for pairs; choose another network"
        )
    return Given({"name": "given", "n": physics.config["n"], "c": physics.config["c"]})
