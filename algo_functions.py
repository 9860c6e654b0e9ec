"""The factory of physics, and the meters that say how well an image was restored."""

from collections.abc import Callable
from math import log10

import torch
from deepinv.loss.metric import PSNR, SSIM
from torch import Tensor

from physics.base import Physics
from tables import PHYSICS, look_up


def build_physics(recipe: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None) -> Physics:
    """The physics that a recipe names; `images` loads the training images where the camera is fitted to them."""
    return look_up(PHYSICS, recipe["name"], "physics")(recipe, images, state)


# ---------------------------------------------------------------- meters

SMALLEST_SSIM = 6  # SSIM reflects five pixels at each border


@torch.no_grad()
def score(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Per image (B,), data range 1: PSNR and SSIM of the output as it is, PSNR of the clipped one, squared error."""
    ssim = SSIM()(output, target) if target.shape[-1] >= SMALLEST_SSIM else torch.full((len(target),), torch.nan)
    return {
        "psnr": PSNR()(output, target),
        "ssim": ssim,
        "psnr_clipped": PSNR()(output.clamp(0, 1), target),
        "mse": (output - target).square().mean((1, 2, 3)),
    }


class Meter:
    """Per-image scores of a pass over a dataset, and their summary."""

    def __init__(self):
        self.rows: dict[str, list[Tensor]] = {}

    def add(self, output: Tensor, target: Tensor) -> None:
        for name, values in score(output, target).items():
            self.rows.setdefault(name, []).append(values.cpu())

    def per_image(self) -> dict[str, Tensor]:
        return {name: torch.cat(values) for name, values in self.rows.items()}

    def summary(self) -> dict[str, float]:
        """Means over the images, the deviation of PSNR, and the pooled PSNR of the mean squared error."""
        rows = self.per_image()
        mean = {name: values.double().mean().item() for name, values in rows.items()}
        mse = mean.pop("mse")
        return mean | {
            "psnr_std": rows["psnr"].double().std(correction=0).item(),
            "psnr_pooled": -10 * log10(mse + 1e-8),
            "images": len(rows["psnr"]),
        }
