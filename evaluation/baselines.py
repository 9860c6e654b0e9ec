"""Estimates that need no trained network, beside which every network is shown."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from data.batches import Images
from models.base import FirstImage, Network
from models.untrained import TotalVariation
from physics.base import Physics
from physics.single_pixel import SinglePixel
from recordings.frames import RecordedFrames

WEIGHTS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # of total variation that are tried
TRIED_ON = 32  # training images


class Baseline(NamedTuple):
    network: Network
    physics: Physics


def baselines_of(
    physics: Physics, images: Callable[[], Tensor] | None, recorded: Images | None = None
) -> dict[str, Baseline]:
    """Back-projection, LMMSE and total variation, where the physics has them.

    `images` loads clean training images, to which they are fitted, if there are any. Of a recording
    the noise of every value is known.
    """
    first_image = FirstImage(physics.config["c"])
    found = physics.baselines(images)
    if isinstance(recorded, RecordedFrames) and images is not None:
        assert isinstance(physics, SinglePixel), "a recording is made by one camera"
        recording = recorded.recording
        variance = recording.place(recording.variance.mean(0, keepdim=True)).flatten(2)
        lmmse = physics.fit_lmmse(images(), variance[0, :, physics.index])
        found["LMMSE"] = physics.with_first_image(lmmse)
    baselines = {name: Baseline(first_image, view) for name, view in found.items()}
    reading = physics.with_measurements()
    if reading is not None:
        baselines["TV"] = Baseline(total_variation(reading, images), reading)
    return baselines


@torch.no_grad()
def total_variation(physics: Physics, images: Callable[[], Tensor] | None = None) -> TotalVariation:
    """Total variation with the weight that is best on training images; without noise all are."""
    n, c = physics.config["n"], physics.config["c"]
    networks = [TotalVariation(c, n, weight) for weight in WEIGHTS]
    noisy = any(physics.config.get(level) is not None for level in physics.levels)
    if images is None or not noisy:
        return TotalVariation(c, n)
    x = images()[:TRIED_ON].to(next(physics.buffers()).device)
    x0 = physics.observe(x, torch.Generator().manual_seed(0))
    return min(networks, key=lambda network: (network(x0) - x).square().mean().item())
