"""Unrolled proximal gradient descent: steps towards the measured values, with a denoiser each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from models.base import Restorer, initialise
from models.measured import Measured

SHRINK = 2  # side of the pixels that a denoiser joins into channels
MAPS = 2  # that a denoiser reads beside the image: the noise level and the ratio


class Denoiser(nn.Module):
    """Removes what a step brought into the image, at half of its resolution."""

    def __init__(self, c: int, channels: int, remembers: bool):
        super().__init__()
        pixels = c * SHRINK**2
        self.first = nn.Conv2d(pixels + MAPS, channels, 3, padding=1)
        # Of the features of the stage before, which the first stage has none of.
        self.memory = nn.Conv2d(channels, channels, 1, bias=False) if remembers else None
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, pixels, 3, padding=1)

    def forward(self, image: Tensor, maps: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The change of the image, and the features for the next stage."""
        h = F.pixel_unshuffle(image, SHRINK)
        h = torch.cat((h, maps.expand(-1, -1, *h.shape[2:])), dim=1)
        h = self.first(h)
        if before is not None and self.memory is not None:
            h = h + self.memory(before)
        h = h.relu()
        features = (h + self.body(h)).relu()
        return F.pixel_shuffle(self.last(features), SHRINK), features


class Unrolled(Restorer):
    """Stages of x <- x + step Aᵀ W (y - A x), then x <- x + denoiser(x).

    The measured values, their noise and the patterns are behind the first image. Layers: enc1 (the
    features of the first stage), stage2 .., latent (of the last stage), head (the change of the
    last denoiser), output.
    """

    reads_measurements = True

    def __init__(
        self, c: int = 1, n: int = 32, stages: int = 4, channels: int = 24, share: bool = False
    ):
        super().__init__(c)
        if stages < 2 or channels < 1:
            raise UserError(f"stages {stages}, channels {channels}: at least 2 and 1")
        self.n, self.stages = n, stages
        denoisers = [Denoiser(c, channels, share or k > 0) for k in range(1 if share else stages)]
        self.denoisers = nn.ModuleList(denoisers)
        self.steps = nn.Parameter(torch.ones(stages))
        self.log_trust = nn.Parameter(torch.full((stages,), -4.0))  # of the image's own variance
        initialise(self)
        for denoiser in denoisers:
            nn.init.zeros_(denoiser.last.weight)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        measured = Measured(x, self.c, self.n)
        image, maps, before = x[:, : self.c], measured.maps(), None
        layers: dict[str, Tensor] = {}
        names = ["enc1", *(f"stage{k}" for k in range(2, self.stages)), "latent"]
        change = torch.zeros_like(image)
        for k, name in enumerate(names):
            correction = measured.correction(image, self.log_trust[k].exp())
            image = image + self.steps[k] * correction
            denoiser = self.denoisers[k % len(self.denoisers)]
            change, before = self.run_block(denoiser, image, maps, before)
            layers[name], image = before, image + change
        return layers | {"head": change, "output": image}
