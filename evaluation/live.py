"""Images of a stream of measured vectors, one at a time, as a camera measures them."""

import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from models.base import Network, to_device
from physics.base import Linear
from physics.single_pixel import SinglePixel

Vector = np.ndarray | Tensor


def needs_variance(network: Network, physics: Linear) -> bool:
    """Whether a network reads a noise level that the measured values alone do not tell."""
    reads = network.reads_noise_level or network.reads_measurements
    return reads and isinstance(physics, SinglePixel) and physics.light is not None


def place(physics: Linear, values: Tensor, variance: Tensor | None = None) -> Tensor:
    """Measured values (B, C, m), and the variances of their noise if they are known, as a y."""
    if variance is None:
        return physics.place_values(values)
    if not isinstance(physics, SinglePixel):
        raise UserError(
            f"physics '{physics.label}' reads no variances of the noise, so leave them out"
        )
    return physics.place_values(values, variance)


class Live:
    """A network and its physics, which make an image of one measured vector after the other."""

    def __init__(self, network: Network, physics: Linear, device: torch.device):
        self.network = to_device(network, device).eval()
        self.physics, self.device = physics.to(device), device
        self.needs_variance = needs_variance(network, physics)
        self.prepare()

    def prepare(self) -> None:
        """Makes a first pass, which takes longer than all others.

        It is not made in inference mode: what it leaves in caches, such as the matrices of the
        Hadamard transform, is used by trainings too.
        """
        black = torch.zeros(1, self.physics.config["c"], self.physics.m, device=self.device)
        with torch.inference_mode(False), torch.no_grad():
            self.restore(black, torch.zeros_like(black) if self.needs_variance else None)

    def restore(self, values: Tensor, variance: Tensor | None) -> Tensor:
        return self.network(self.physics.first_image(place(self.physics, values, variance)))

    def frame(self, values: Vector, name: str) -> Tensor:
        """A vector (C, m) or (m,) as a batch of one frame, (1, C, m)."""
        c, m = self.physics.config["c"], self.physics.m
        if tuple(values.shape) not in [(c, m)] + [(m,)] * (c == 1):
            raise UserError(
                f"{name} of shape {tuple(values.shape)}: a frame has {c} channels of {m} values, "
                f"so its shape is ({c}, {m})"
            )
        return torch.as_tensor(values, dtype=torch.float32, device=self.device).view(1, c, m)

    @torch.inference_mode()
    def __call__(self, values: Vector, variance: Vector | None = None) -> Tensor:
        """The image (C, n, n) of a vector in the units of the physics.

        The variances of its noise are needed where the camera counts photons and the network reads
        the noise level.
        """
        if variance is not None:
            return self.restore(self.frame(values, "values"), self.frame(variance, "variances"))[0]
        if self.needs_variance:
            raise UserError(
                "this network reads the noise level: give the variances of the values, too"
            )
        return self.restore(self.frame(values, "values"), None)[0]

    def reconstruct(self, stream: Iterable[Vector | tuple[Vector, Vector]]) -> Iterator[Tensor]:
        """An image for each vector of a stream, or for each pair of values and variances."""
        for frame in stream:
            yield self(*frame) if isinstance(frame, tuple) else self(frame)


def percentile_99(seconds: list[float]) -> float:
    """The time that 99 of 100 frames do not exceed."""
    return float(np.quantile(seconds, 0.99))


def time_frames(live: Live, stream: Iterable[tuple[Tensor, Tensor | None]]) -> Tensor:
    """The images (frames, C, n, n) of a stream; prints how long they took."""
    images, seconds = [], []
    for values, variance in stream:
        began = time.perf_counter()
        images.append(live(values, variance).cpu())
        seconds.append(time.perf_counter() - began)
    median, slowest = 1e3 * float(np.median(seconds)), 1e3 * percentile_99(seconds)
    print(
        f"{len(seconds)} frames, one at a time: median {median:.1f} ms, 99th percentile "
        f"{slowest:.1f} ms, {len(seconds) / sum(seconds):.0f} frames a second"
    )
    return torch.stack(images)
