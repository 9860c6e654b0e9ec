"""Blind degradation in two stages, as real photographs suffer it: blur, resize, noise and JPEG, twice, every strength drawn anew."""

import io
from collections.abc import Callable, Sequence
from math import ceil, cos, log2, pi, sin

import numpy as np
import torch
from PIL import Image
from scipy.special import j1
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import rgb_to_grayscale

from core.errors import UserError
from core.presets import PRESETS, SMALLEST_KERNEL, check
from core.registry import words
from physics.base import Physics

MODES = ("area", "bilinear", "bicubic")
PROFILES: dict[
    str, Callable[[Tensor, float], Tensor]
] = {  # of a kernel, over the squared Mahalanobis distance q
    "": lambda q, beta: torch.exp(-q / 2),
    "generalized": lambda q, beta: torch.exp(-(q**beta) / 2),
    "plateau": lambda q, beta: 1 / (1 + q**beta),
}
EXPONENTS = {"generalized": "betag_range", "plateau": "betap_range"}


class Draws:
    """What one generator draws, on the CPU."""

    def __init__(self, generator: Generator | None):
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def whether(self, probability: float) -> bool:
        return self.between(0, 1) < probability

    def one_of(self, values: Sequence, weights: Sequence[float] | None = None):
        weights = torch.tensor(weights or [1] * len(values), dtype=torch.float32)
        return values[torch.multinomial(weights, 1, generator=self.generator).item()]

    def exponent(self, low: float, high: float) -> float:
        """Below or above 1 equally often."""
        return self.between(low, 1) if self.whether(0.5) else self.between(1, high)


# ---------------------------------------------------------------- kernels (size, size), of sum one


def grid(size: int) -> tuple[Tensor, Tensor]:
    """x and y of every place, from the centre."""
    places = torch.arange(size, dtype=torch.float64) - size // 2
    return torch.meshgrid(places, places, indexing="xy")


def blur_kernel(
    size: int, profile: str, sigma: tuple[float, float], angle: float = 0.0, beta: float = 1.0
) -> Tensor:
    """A profile of q = pᵀ Σ⁻¹ p, where Σ has the deviations sigma along axes that are turned by the angle."""
    x, y = grid(size)
    along, across = cos(angle) * x + sin(angle) * y, cos(angle) * y - sin(angle) * x
    kernel = PROFILES[profile]((along / sigma[0]) ** 2 + (across / sigma[1]) ** 2, beta)
    return kernel / kernel.sum()


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """The circular low-pass ω J₁(ω r) / (2π r), which is ω² / 4π at r = 0."""
    x, y = grid(size)
    r = torch.hypot(x, y)
    r[size // 2, size // 2] = 1
    kernel = cutoff * torch.from_numpy(j1((cutoff * r).numpy())) / (2 * pi * r)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * pi)
    return kernel / kernel.sum()


def drawn_size(preset: dict, side: int, draws: Draws) -> int:
    """An odd size up to the preset's, and half of it is smaller than the image's side."""
    return min(
        draws.one_of(range(SMALLEST_KERNEL, preset["blur_kernel_size"] + 1, 2)), 2 * side - 1
    )


def drawn_kernel(preset: dict, side: int, draws: Draws) -> Tensor:
    size = drawn_size(preset, side, draws)
    if draws.whether(preset["sinc_prob"]):
        return sinc_kernel(size, draws.between(pi / 3 if size < 13 else pi / 5, pi))
    profile, _, shape = draws.one_of(preset["kernel_list"], preset["kernel_prob"]).rpartition("_")
    width = draws.between(*preset["blur_sigma"])
    sigma, angle = (width, width), 0.0
    if shape == "aniso":
        sigma, angle = (width, draws.between(*preset["blur_sigma"])), draws.between(-pi, pi)
    return blur_kernel(
        size, profile, sigma, angle, draws.exponent(*preset[EXPONENTS[profile]]) if profile else 1.0
    )


# ---------------------------------------------------------------- steps of one image (C, H, W)


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel filtered, mirrored at the border."""
    padded = F.pad(x[:, None], [len(kernel) // 2] * 4, mode="reflect")
    return F.conv2d(padded, kernel.to(x)[None, None])[:, 0]


def resized(x: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
    return F.interpolate(x[None], size, mode=draws.one_of(MODES))[0]


def drawn_sides(preset: dict, size: tuple[int, int], stage: str, draws: Draws) -> tuple[int, int]:
    """Larger than a size, smaller, or the same."""
    low, high = preset[f"resize_range{stage}"]
    scale = draws.between(
        *draws.one_of([(1, high), (low, 1), (1, 1)], preset[f"resize_prob{stage}"])
    )
    height, width = (max(1, int(side * scale)) for side in size)
    return height, width


def gaussian_noise(x: Tensor, sigma: float, grey: bool, draws: Draws) -> Tensor:
    """sigma / 255 n, and grey noise is the same in all channels."""
    return sigma / 255 * torch.randn(1 if grey else len(x), *x.shape[1:], generator=draws.generator)


def poisson_noise(x: Tensor, scale: float, grey: bool, draws: Draws) -> Tensor:
    """scale (k / v - x), k of Poisson's law with mean v x, where x has 8 bits and v is the power of two above its number of levels."""
    x = ((rgb_to_grayscale(x) if grey else x) * 255).round().clamp(0, 255) / 255
    v = 2 ** ceil(log2(len(x.unique())))
    return scale * (torch.poisson(v * x, generator=draws.generator) / v - x)


def noisy(x: Tensor, preset: dict, stage: str, draws: Draws) -> Tensor:
    normal = draws.whether(preset[f"gaussian_noise_prob{stage}"])
    noise, strength = (
        (gaussian_noise, "noise_range") if normal else (poisson_noise, "poisson_scale_range")
    )
    level, grey = (
        draws.between(*preset[strength + stage]),
        draws.whether(preset[f"gray_noise_prob{stage}"]),
    )
    return (x + noise(x, level, grey, draws)).clamp(0, 1)


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Through JPEG in memory."""
    pixels = (x.clamp(0, 1) * 255).round().byte().movedim(0, -1).squeeze(-1).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return (
        torch.from_numpy(np.array(Image.open(file), dtype=np.float32))
        .view(*x.shape[1:], -1)
        .movedim(-1, 0)
        / 255
    )


def compressed(x: Tensor, preset: dict, stage: str, draws: Draws) -> Tensor:
    low, high = preset[f"jpeg_range{stage}"]
    return jpeg(x, draws.one_of(range(low, high + 1)))


def brought_back(x: Tensor, preset: dict, size: tuple[int, int], draws: Draws) -> Tensor:
    """The image in its own size, through a last sinc filter or not."""
    x = resized(x, size, draws)
    if draws.whether(preset["final_sinc_prob"]):
        x = filtered(
            x, sinc_kernel(drawn_size(preset, min(size), draws), draws.between(pi / 3, pi))
        )
    return x


def degraded(x: Tensor, preset: dict, draws: Draws) -> Tensor:
    """Two stages of blur, resize, noise and JPEG; the second JPEG comes before or after the own size."""
    size = x.shape[-2:]
    x = filtered(x, drawn_kernel(preset, min(size), draws))
    x = resized(x, drawn_sides(preset, size, "", draws), draws)
    x = compressed(noisy(x, preset, "", draws), preset, "", draws)
    if draws.whether(preset["second_blur_prob"]):
        x = filtered(x, drawn_kernel(preset, min(x.shape[-2:]), draws))
    x = resized(x, drawn_sides(preset, size, "2", draws), draws)
    x = noisy(x, preset, "2", draws)
    if draws.whether(0.5):
        x = compressed(brought_back(x, preset, size, draws), preset, "2", draws)
    else:
        x = brought_back(compressed(x, preset, "2", draws), preset, size, draws)
    return x.clamp(0, 1)


def values_of(chosen: str | dict) -> dict:
    """The values of a preset, or the user's own."""
    return PRESETS[chosen] if isinstance(chosen, str) else chosen


def nearest(values: dict) -> tuple[str, list[str]]:
    """The preset from which the fewest values differ, and their names."""
    changes = {
        name: [value for value in preset if values[value] != preset[value]]
        for name, preset in PRESETS.items()
    }
    return min(changes.items(), key=lambda item: len(item[1]))


class Degraded(Physics):
    """y = the image through two stages of blur, resize, noise and JPEG, each image with its own draw; it is itself the first image."""

    measures_images = True

    @torch.no_grad()
    def measure(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        preset = values_of(self.config["degradation"])
        seeds = torch.randint(
            2**62, (len(x),), generator=generator
        ).tolist()  # so that no image depends on those before it
        images = (
            degraded(image, preset, Draws(Generator().manual_seed(seed)))
            for image, seed in zip(x.cpu(), seeds, strict=True)
        )
        return torch.stack(list(images)).to(x)

    def back_projection(self, y: Tensor) -> Tensor:
        return y

    def describe(self) -> str:
        chosen = self.config["degradation"]
        if isinstance(chosen, str):
            return f"degrade, preset {chosen}"
        name, changes = nearest(chosen)
        told = ", ".join(f"{value} {chosen[value]}" for value in changes)
        return f"degrade, {words(chosen)}: preset {name} with {told}"


def degrade(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Degraded:
    if isinstance(config["degradation"], dict):
        check(config["degradation"])
    elif config["degradation"] not in PRESETS:
        raise UserError(
            f"unknown degradation '{config['degradation']}': choose from {', '.join(PRESETS)}"
        )
    return Degraded(config)
