"""Estimates that need no trained network, beside which every network is shown."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from checkpoints.checkpoint import RESTORER, restore
from core.errors import UserError
from data.batches import Images
from models.base import FirstImage, Network, Restorer
from models.untrained import PlugAndPlay, TotalVariation
from physics.base import Physics
from physics.single_pixel import SinglePixel
from recordings.frames import RecordedFrames

WEIGHTS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # of total variation that are tried
TRIED_ON = 32  # training images


class Baseline(NamedTuple):
    network: Network
    physics: Physics


def baselines_of(
    physics: Physics,
    images: Callable[[], Tensor] | None,
    recorded: Images | None = None,
    denoiser: str | None = None,
) -> dict[str, Baseline]:
    """Back-projection, LMMSE, total variation and plug-and-play, where the physics has them.

    `images` loads clean training images, to which they are fitted, if there are any. Of a recording
    the noise of every value is known. `denoiser` is the checkpoint for plug-and-play.
    """
    first_image = FirstImage(physics.config["c"])
    found = physics.baselines(None if isinstance(recorded, RecordedFrames) else images)
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
    if denoiser is not None:
        if reading is None:
            raise UserError(
                "plug-and-play needs a single-pixel camera with Hadamard patterns, not "
                f"{physics.describe()}"
            )
        baselines["plug-and-play"] = Baseline(plugged_in(denoiser, physics), reading)
    return baselines


@torch.no_grad()
def total_variation(physics: Physics, images: Callable[[], Tensor] | None = None) -> TotalVariation:
    """Total variation with the weight that is best on training images; without noise all are."""
    n, c = physics.block, physics.config["c"]
    noisy = any(physics.config.get(level) is not None for level in physics.levels)
    if images is None or not noisy:
        return TotalVariation(c, n)
    x = images()
    x = x[:: max(1, len(x) // TRIED_ON)][:TRIED_ON].to(next(physics.buffers()).device)
    x0 = physics.observe(x, torch.Generator().manual_seed(0))
    networks = [TotalVariation(c, n, weight) for weight in WEIGHTS]
    return min(networks, key=lambda network: (network(x0) - x).square().mean().item())


def plugged_in(path: str, physics: Physics) -> PlugAndPlay:
    """Plug-and-play with the denoiser of a checkpoint, for the measurements of a physics."""
    checkpoint = restore(path, kind=RESTORER)
    network, own = checkpoint.network, checkpoint.physics.config
    assert isinstance(network, Restorer), "a checkpoint that restores images"
    if own["name"] != "denoise" or not network.reads_noise_level:
        raise UserError(
            f"denoiser {path} was trained for '{own['name']}' with network "
            f"'{checkpoint.network_config['name']}': it must remove noise of a level that it is "
            "told, as zoo:plug_in_denoiser does; main_unet.py --physics denoise --network drunet "
            "--sigma 0 50 trains one"
        )
    if own["c"] != physics.config["c"]:
        raise UserError(
            f"denoiser {path} has {own['c']} channels, the images have {physics.config['c']}"
        )
    return PlugAndPlay(network, physics.block)
