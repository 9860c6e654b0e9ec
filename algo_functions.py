"""The factory of physics, and the meters that say how well an image was restored."""

from collections.abc import Callable
from math import log10

import torch
from deepinv.loss.metric import PSNR, SSIM
from torch import Tensor

from physics.base import Physics
from tables import PHYSICS, UserError, look_up


def build_physics(recipe: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None) -> Physics:
    """The physics that a recipe names; `images` loads the training images where the camera is fitted to them."""
    return look_up(PHYSICS, recipe["name"], "physics")(recipe, images, state)


# ---------------------------------------------------------------- meters

SMALLEST_SSIM = 6  # SSIM reflects five pixels at each border


LUMA = (65.481, 128.553, 24.966)  # of BT.601, which takes 16 .. 235 of 255


def looked_at(image: Tensor, border: int, luma: bool) -> Tensor:
    """An image without its border, or its luma (16 + 65.481 R + 128.553 G + 24.966 B) / 255."""
    if 2 * border >= min(image.shape[-2:]):
        raise UserError(f"crop_border {border}: nothing is left of an image of {image.shape[-2]} x {image.shape[-1]} pixels")
    if luma and image.shape[1] != 3:
        raise UserError("y_channel: only RGB images (--c 3) have a luma channel of their own")
    image = image[..., border : image.shape[-2] - border, border : image.shape[-1] - border]
    return (16 + torch.einsum("bchw,c->bhw", image, image.new_tensor(LUMA))[:, None]) / 255 if luma else image


@torch.no_grad()
def score(output: Tensor, target: Tensor, border: int = 0, luma: bool = False) -> dict[str, Tensor]:
    """Per image (B,), data range 1: PSNR and SSIM of the output as it is, PSNR of the clipped one, squared error."""
    clipped, output, target = (looked_at(image, border, luma) for image in (output.clamp(0, 1), output, target))
    ssim = SSIM()(output, target) if min(target.shape[-2:]) >= SMALLEST_SSIM else torch.full((len(target),), torch.nan)
    return {
        "psnr": PSNR()(output, target),
        "ssim": ssim,
        "psnr_clipped": PSNR()(clipped, target),
        "mse": (output - target).square().mean((1, 2, 3)),
    }


class Meter:
    """Per-image scores of a pass over a dataset, without a border or on luma alone where that is asked, and their summary."""

    def __init__(self, border: int = 0, luma: bool = False):
        self.border, self.luma = border, luma
        self.rows: dict[str, list[Tensor]] = {}

    def add(self, output: Tensor, target: Tensor) -> None:
        for name, values in score(output, target, self.border, self.luma).items():
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
