"""The camera of pairs: it measures nothing, as the degraded pictures are given."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.errors import UserError
from data.batches import Batch
from physics.base import Physics


class Given(Physics):
    """y = the degraded picture of a pair, which is its own first image."""

    measures_images = True

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise UserError(
            "physics 'given' measures nothing: it sees the degraded pictures of --dataset paired alone"
        )

    def measure_batch(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        return self.measure(batch.image) if batch.degraded is None else batch.degraded

    def back_projection(self, y: Tensor) -> Tensor:
        return y

    def example(self, device: torch.device) -> Tensor:
        return torch.zeros(1, self.config["c"], self.config["n"], self.config["n"], device=device)


def given(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Given:
    return Given(config)


def physics_for(images, camera: Physics, network: nn.Module) -> Physics:
    """What an evaluation on a split sees: the degraded pictures of pairs, else what the camera measures."""
    if images.paired and camera.appends_noise_level and network.reads_noise_level:
        raise UserError(
            f"physics '{camera.config['name']}' tells this network the noise level, which is unknown of pairs: choose another of them"
        )
    if not images.paired and isinstance(camera, Given):
        raise UserError(
            "physics 'given' measures nothing: it needs the pairs of --dataset paired; a bare file is told a denoiser's --n and --sigma"
        )
    return (
        Given({"name": "given", "n": camera.config["n"], "c": camera.config["c"]})
        if images.paired
        else camera
    )
