"""Physics of restoration: noise, a small image, blur, and magnetic resonance."""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from deepinv.physics import MRI, Blur, Denoising
from deepinv.physics.functional import gaussian_blur
from deepinv.physics.generator import (
    EquispacedMaskGenerator,
    GaussianMaskGenerator,
    RandomMaskGenerator,
)
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import UserError
from physics.base import Linear


def ends_of(value: float | list[float]) -> tuple[float, float]:
    """A number, or the two ends of a range, as two ends."""
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


class Noisy(Linear):
    """y = x + sigma / 255 n, with sigma fixed or sampled for each image.

    The map of sigma / 255 is one more channel of y.
    """

    levels = ("sigma",)
    measures_images = True

    @property
    def appends_noise_level(self) -> bool:
        return True

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        low, high = ends_of(self.config["sigma"])
        sigma = (low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator)) / 255
        noise = torch.randn(x.shape, generator=generator)
        level = sigma.to(x).expand(-1, 1, *x.shape[-2:])  # (B, 1, n, n)
        return torch.cat((x + (sigma * noise).to(x), level), dim=1)

    def from_picture(self, picture: Tensor, sigma: float | None = None) -> Tensor:
        low, high = ends_of(self.config["sigma"] if sigma is None else sigma)
        if low != high:
            raise UserError(
                f"sigma: the network was trained with noise from {low:g} to {high:g}; "
                "give the noise of the pictures by --sigma"
            )
        return torch.cat((picture, torch.full_like(picture[:, :1], low / 255)), dim=1)

    def place_values(self, values: Tensor) -> Tensor:
        picture = values.unflatten(2, (self.config["n"], -1))
        return torch.cat((picture, torch.zeros_like(picture[:, :1])), dim=1)

    def values(self, y: Tensor) -> Tensor:
        return y[:, : self.config["c"]].flatten(2)

    def back_projection(self, y: Tensor) -> Tensor:
        return y[:, : self.config["c"]]

    def first_image(self, y: Tensor) -> Tensor:
        return torch.cat((super().first_image(y), y[:, self.config["c"] :]), dim=1)

    def noise_variance(self, images: Tensor) -> float:
        low, high = ends_of(self.config["sigma"])
        return (low * low + low * high + high * high) / 3 / 255**2  # the mean over the range

    def describe(self) -> str:
        return f"{self.label.replace('_', ' ')} of 255, x0 {self.config['x0']}"


def keys_kernel(d: Tensor) -> Tensor:
    """Keys' bicubic kernel with a = -1/2, of distances in pixels."""
    d = d.abs()
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0))


KERNELS = {  # of super-resolution, over distances in pixels of the small image
    "bicubic": keys_kernel,
    "bilinear": lambda d: (1 - d.abs()).clamp_min(0),
    "box": lambda d: (d.abs() <= 0.5).to(d),
    "gaussian": lambda d: torch.exp(-(d**2) / (2 * 0.5**2)),
}


@lru_cache(maxsize=64)
def resampling_matrix(n: int, m: int, kernel: str, device: torch.device) -> Tensor:
    """The matrix (m, n) that resamples n pixels to m, each row of sum one.

    Where m < n the kernel is widened against aliasing.
    """
    scale = n / m
    centres = (torch.arange(m, dtype=torch.float64) + 0.5) * scale - 0.5
    distances = torch.arange(n, dtype=torch.float64) - centres[:, None]
    weights = KERNELS[kernel](distances / max(scale, 1))
    return (weights / weights.sum(1, keepdim=True)).float().to(device)


class Resized(nn.Module):
    """A x = R x Rᵀ, with a resampling matrix R.

    It is written by hand since deepinv's decimation is shifted by a pixel against interpolation for
    some factors, and wraps around at the border.
    """

    def __init__(self, factor: int, kernel: str):
        super().__init__()
        self.factor, self.kernel = factor, kernel

    def down(self, side: int, device: torch.device) -> Tensor:
        return resampling_matrix(side, side // self.factor, self.kernel, device)

    def A(self, x: Tensor) -> Tensor:
        rows, columns = (self.down(side, x.device) for side in x.shape[-2:])
        return rows @ x @ columns.T

    def A_adjoint(self, y: Tensor) -> Tensor:
        rows, columns = (self.down(side * self.factor, y.device) for side in y.shape[-2:])
        return rows.T @ y @ columns

    def A_dagger(self, y: Tensor) -> Tensor:
        down = (self.down(side * self.factor, y.device) for side in y.shape[-2:])
        rows, columns = (torch.linalg.pinv(matrix) for matrix in down)
        return rows @ y @ columns.T

    def interpolate(self, y: Tensor) -> Tensor:
        rows, columns = (
            resampling_matrix(side, side * self.factor, "bicubic", y.device)
            for side in y.shape[-2:]
        )
        return rows @ y @ columns.T


class SmallImage(Linear):
    """y = the image resized by a whole factor; bicubic interpolation gives the first image."""

    measures_images = True
    operator: Resized

    def back_projection(self, y: Tensor) -> Tensor:
        return self.operator.interpolate(y)

    def from_picture(self, picture: Tensor, sigma: float | None = None) -> Tensor:
        factor = self.config["factor"]
        return F.interpolate(picture, scale_factor=factor, mode="bicubic", antialias=True)


class Blurred(Linear):
    """y = the image filtered, mirrored at the border; y is the first image."""

    measures_images = True

    def back_projection(self, y: Tensor) -> Tensor:
        return y

    def project(self, x: Tensor) -> None:
        """None, as everything is measured, some of it faintly."""


class RealMRI(nn.Module):
    """deepinv's MRI of real images (B, C, n, n), by channel.

    k-space has a real and an imaginary part, (B, C, 2, n, n).
    """

    def __init__(self, mask: Tensor):
        super().__init__()
        self.mri = MRI(mask=mask)

    def A(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)[:, None]  # (B C, 1, n, n)
        y = self.mri.A(torch.cat((flat, torch.zeros_like(flat)), dim=1))
        return y.unflatten(0, x.shape[:2])

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.mri.A_adjoint(y.flatten(0, 1))[:, 0].unflatten(0, y.shape[:2])

    A_dagger = A_adjoint  # the zero-filled image


class KSpace(Linear):
    """y = some lines of the image's Fourier transform; zero-filled, they give the first image."""

    def __init__(self, operator: RealMRI, config: dict, mask: Tensor):
        n = config["n"]
        super().__init__(operator, config, mask.expand(2, n, n).flatten().nonzero()[:, 0])
        self.mask = mask

    def project(self, x: Tensor) -> Tensor:
        """A real image's spectrum at -k is the conjugate of that at k: one measures both."""
        opposite = self.mask.flip(-2, -1)  # the centre of an even side is one right of the middle
        opposite = opposite.roll([1 - side % 2 for side in opposite.shape[-2:]], (-2, -1))
        both = RealMRI(self.mask.maximum(opposite).to(x.device))
        return both.A_dagger(both.A(x))

    def kept(self) -> dict:
        return super().kept() | {"mask": self.mask}


def denoise(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Linear:
    if isinstance(config["sigma"], list) and len(config["sigma"]) != 2:
        raise UserError(f"sigma {config['sigma']}: give one number, or the two ends of a range")
    physics = Noisy(Denoising(), config, torch.arange(config["n"] ** 2))
    return physics.prepare_first_image(images, state[0] if state else None)


def super_resolution(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Linear:
    n, factor, kernel = config["n"], config["factor"], config["kernel"]
    if n % factor or n == factor:
        raise UserError(
            f"factor {factor}: the side of the images, {n}, must be a larger multiple of it"
        )
    if kernel not in KERNELS:
        raise UserError(f"kernel '{kernel}': super-resolution takes {', '.join(KERNELS)}")
    physics = SmallImage(Resized(factor, kernel), config, torch.arange((n // factor) ** 2))
    return physics.prepare_first_image(images, state[0] if state else None)


BLURS = {  # of an odd width in pixels, but for the Gaussian's standard deviation
    "gaussian": lambda width: gaussian_blur(sigma=(width, width)),
    "box": lambda width: torch.full((1, 1, int(width), int(width)), 1 / width**2),
    "motion": lambda width: torch.eye(int(width))[None, None] / width,
}


def blur(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Linear:
    n, name, width = config["n"], config["kernel"], config["blur_width"]
    if name not in BLURS:
        raise UserError(f"kernel '{name}': blur takes {', '.join(BLURS)}")
    if name != "gaussian" and width % 2 != 1:
        raise UserError(
            f"blur_width {width:g}: a {name} kernel must be an odd number of pixels wide"
        )
    kernel = BLURS[name](width)
    if kernel.shape[-1] > n:
        raise UserError(
            f"blur_width {width:g}: the kernel of {kernel.shape[-1]} pixels is larger than "
            f"the image of {n}"
        )
    operator: Any = Blur(kernel, padding="reflect")  # deepinv types its filter's default wrongly
    physics = Blurred(operator, config, torch.arange(n**2))
    return physics.prepare_first_image(images, state[0] if state else None)


MASKS = {
    "gaussian": GaussianMaskGenerator,
    "uniform": EquispacedMaskGenerator,
    "random": RandomMaskGenerator,
}


def sample_mask(config: dict) -> Tensor:
    """The lines (n, n) of k-space that are measured, the same ones for a config."""
    n, acceleration = config["n"], config["acceleration"]
    fixed = torch.Generator().manual_seed(0)
    try:
        with warnings.catch_warnings(action="ignore"):
            masks = MASKS[config["mask_type"]]((n, n), acceleration=acceleration, rng=fixed)
            return masks.step(batch_size=1, seed=0)["mask"][0, 0]
    except (ValueError, RuntimeError) as error:
        raise UserError(f"acceleration {acceleration} at n {n}: {error}") from None


def mri(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Linear:
    n = config["n"]
    mask = state[0]["mask"] if state else sample_mask(config)
    if mask.sum() * config["acceleration"] < mask.numel() / 2:
        raise UserError(
            f"acceleration {config['acceleration']} leaves {int(mask[0].sum())} of {n} lines: "
            "choose a smaller one, or a larger --n"
        )
    physics = KSpace(RealMRI(mask), config, mask)
    return physics.prepare_first_image(images, state[0] if state else None)
