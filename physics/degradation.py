"""Blind degradation of photographs: blur, resize, noise and JPEG, twice, of random strengths."""

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
from core.registry import words
from physics.base import Physics
from physics.presets import PRESETS, SMALLEST_KERNEL, check_values

MODES = ("area", "bilinear", "bicubic")
# The profiles of kernels, over the squared Mahalanobis distance q.
PROFILES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "": lambda q, beta: torch.exp(-q / 2),
    "generalized": lambda q, beta: torch.exp(-(q**beta) / 2),
    "plateau": lambda q, beta: 1 / (1 + q**beta),
}
EXPONENTS = {"generalized": "betag_range", "plateau": "betap_range"}


class Sampler:
    """Random choices of one generator, on the CPU."""

    def __init__(self, generator: Generator | None):
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def whether(self, probability: float) -> bool:
        return self.between(0, 1) < probability

    def one_of(self, values: Sequence, weights: Sequence[float] | None = None):
        probabilities = torch.tensor(weights or [1] * len(values), dtype=torch.float32)
        return values[int(torch.multinomial(probabilities, 1, generator=self.generator))]

    def exponent(self, low: float, high: float) -> float:
        """Below or above 1 equally often."""
        return self.between(low, 1) if self.whether(0.5) else self.between(1, high)


# ---------------------------------------------------------------- kernels (size, size), of sum one


def grid(size: int) -> tuple[Tensor, Tensor]:
    """x and y of every place, from the centre."""
    places = torch.arange(size, dtype=torch.float64) - size // 2
    x, y = torch.meshgrid(places, places, indexing="xy")
    return x, y


def blur_kernel(
    size: int, profile: str, sigma: tuple[float, float], angle: float = 0.0, beta: float = 1.0
) -> Tensor:
    """A profile of q = pᵀ Σ⁻¹ p; Σ has the deviations sigma along axes at the angle."""
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


def sample_size(preset: dict, side: int, sampler: Sampler) -> int:
    """An odd size up to the preset's, half of which is smaller than the image's side."""
    sizes = range(SMALLEST_KERNEL, preset["blur_kernel_size"] + 1, 2)
    return min(sampler.one_of(sizes), 2 * side - 1)


def sample_kernel(preset: dict, side: int, sampler: Sampler) -> Tensor:
    size = sample_size(preset, side, sampler)
    if sampler.whether(preset["sinc_prob"]):
        return sinc_kernel(size, sampler.between(pi / 3 if size < 13 else pi / 5, pi))
    profile, _, shape = sampler.one_of(preset["kernel_list"], preset["kernel_prob"]).rpartition("_")
    width = sampler.between(*preset["blur_sigma"])
    sigma, angle = (width, width), 0.0
    if shape == "aniso":
        sigma, angle = (width, sampler.between(*preset["blur_sigma"])), sampler.between(-pi, pi)
    beta = sampler.exponent(*preset[EXPONENTS[profile]]) if profile else 1.0
    return blur_kernel(size, profile, sigma, angle, beta)


# ---------------------------------------------------------------- steps of one image (C, H, W)


def filter_image(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel filtered, mirrored at the border."""
    padded = F.pad(x[:, None], [len(kernel) // 2] * 4, mode="reflect")
    return F.conv2d(padded, kernel.to(x)[None, None])[:, 0]


def resize_image(x: Tensor, size: tuple[int, int], sampler: Sampler) -> Tensor:
    return F.interpolate(x[None], size, mode=sampler.one_of(MODES))[0]


def sample_sides(
    preset: dict, size: tuple[int, int], stage: str, sampler: Sampler
) -> tuple[int, int]:
    """Larger than a size, smaller, or the same."""
    low, high = preset[f"resize_range{stage}"]
    ranges = [(1, high), (low, 1), (1, 1)]  # up, down, keep
    scale = sampler.between(*sampler.one_of(ranges, preset[f"resize_prob{stage}"]))
    height, width = (max(1, int(side * scale)) for side in size)
    return height, width


def gaussian_noise(x: Tensor, sigma: float, grey: bool, sampler: Sampler) -> Tensor:
    """sigma / 255 n, where grey noise is the same in all channels."""
    channels = 1 if grey else len(x)
    return sigma / 255 * torch.randn(channels, *x.shape[1:], generator=sampler.generator)


def poisson_noise(x: Tensor, scale: float, grey: bool, sampler: Sampler) -> Tensor:
    """scale (k / v - x), k of Poisson's law with mean v x, in 8 bits.

    v is the power of two above the number of levels of x.
    """
    x = ((rgb_to_grayscale(x) if grey else x) * 255).round().clamp(0, 255) / 255
    v = 2 ** ceil(log2(len(x.unique())))
    return scale * (torch.poisson(v * x, generator=sampler.generator) / v - x)


def add_noise(x: Tensor, preset: dict, stage: str, sampler: Sampler) -> Tensor:
    """Gaussian or Poisson noise of a random strength."""
    if sampler.whether(preset[f"gaussian_noise_prob{stage}"]):
        noise, strength = gaussian_noise, "noise_range"
    else:
        noise, strength = poisson_noise, "poisson_scale_range"
    level = sampler.between(*preset[strength + stage])
    grey = sampler.whether(preset[f"gray_noise_prob{stage}"])
    return (x + noise(x, level, grey, sampler)).clamp(0, 1)


def jpeg(x: Tensor, quality: int) -> Tensor:
    """The image after JPEG, which is written and read in memory."""
    pixels = (x.clamp(0, 1) * 255).round().byte().movedim(0, -1).squeeze(-1).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    array = np.array(Image.open(file), dtype=np.float32)
    return torch.from_numpy(array).view(*x.shape[1:], -1).movedim(-1, 0) / 255


def compress(x: Tensor, preset: dict, stage: str, sampler: Sampler) -> Tensor:
    low, high = preset[f"jpeg_range{stage}"]
    return jpeg(x, sampler.one_of(range(low, high + 1)))


def restore_size(x: Tensor, preset: dict, size: tuple[int, int], sampler: Sampler) -> Tensor:
    """The image in its own size, perhaps through a last sinc filter."""
    x = resize_image(x, size, sampler)
    if sampler.whether(preset["final_sinc_prob"]):
        kernel_size = sample_size(preset, min(size), sampler)
        x = filter_image(x, sinc_kernel(kernel_size, sampler.between(pi / 3, pi)))
    return x


def degrade_image(x: Tensor, preset: dict, sampler: Sampler) -> Tensor:
    """Two stages of blur, resize, noise and JPEG; the last JPEG is before or after the own size."""
    size = (x.shape[-2], x.shape[-1])
    x = filter_image(x, sample_kernel(preset, min(size), sampler))
    x = resize_image(x, sample_sides(preset, size, "", sampler), sampler)
    x = compress(add_noise(x, preset, "", sampler), preset, "", sampler)
    if sampler.whether(preset["second_blur_prob"]):
        x = filter_image(x, sample_kernel(preset, min(x.shape[-2:]), sampler))
    x = resize_image(x, sample_sides(preset, size, "2", sampler), sampler)
    x = add_noise(x, preset, "2", sampler)
    if sampler.whether(0.5):
        x = compress(restore_size(x, preset, size, sampler), preset, "2", sampler)
    else:
        x = restore_size(compress(x, preset, "2", sampler), preset, size, sampler)
    return x.clamp(0, 1)


def values_of(setting: str | dict) -> dict:
    """The values of a preset, or the user's own."""
    return PRESETS[setting] if isinstance(setting, str) else setting


def closest_preset(values: dict) -> tuple[str, list[str]]:
    """The preset from which the fewest values differ, and their names."""
    changes = {
        name: [value for value in preset if values[value] != preset[value]]
        for name, preset in PRESETS.items()
    }
    return min(changes.items(), key=lambda item: len(item[1]))


class Degraded(Physics):
    """y = the image after two stages of blur, resize, noise and JPEG; y is the first image."""

    measures_images = True

    @torch.no_grad()
    def measure(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        preset = values_of(self.config["degradation"])
        # A seed for each image, so that none depends on those before it.
        seeds = torch.randint(2**62, (len(x),), generator=generator).tolist()
        images = [
            degrade_image(image, preset, Sampler(Generator().manual_seed(seed)))
            for image, seed in zip(x.cpu(), seeds, strict=True)
        ]
        return torch.stack(images).to(x)

    def back_projection(self, y: Tensor) -> Tensor:
        return y

    def describe(self) -> str:
        setting = self.config["degradation"]
        if isinstance(setting, str):
            return f"degrade, preset {setting}"
        name, changes = closest_preset(setting)
        changed = ", ".join(f"{value} {setting[value]}" for value in changes)
        return f"degrade, {words(setting)}: preset {name} with {changed}"


def degrade(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Degraded:
    if isinstance(config["degradation"], dict):
        check_values(config["degradation"])
    elif config["degradation"] not in PRESETS:
        raise UserError(
            f"unknown degradation '{config['degradation']}': choose from {', '.join(PRESETS)}"
        )
    return Degraded(config)
