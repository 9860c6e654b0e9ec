"""Physics: what a network sees of a clean image, and the meters that say how well it was restored."""

from collections.abc import Callable
from math import floor, log10
from pathlib import Path

import numpy as np
import torch
from deepinv.loss.metric import PSNR, SSIM
from deepinv.physics import DecomposablePhysics, SinglePixelCamera
from deepinv.physics.singlepixel import (
    cake_cutting_order,
    diagonal_index_matrix,
    hadamard_2d,
    hadamard_2d_ishift,
    sequency_order,
)
from torch import Tensor, nn

from tables import FIRST_IMAGES, ORDERINGS, PHYSICS, UserError, look_up

LARGEST_LMMSE = LARGEST_DENSE = 64  # n: beyond it an n² x n² matrix is too much for a workstation

# ---------------------------------------------------------------- orderings: (n, n) places, 0 is measured first


def _places(order: np.ndarray, n: int) -> Tensor:
    """Places from an order over the grid read column by column, as deepinv's sequency and cake cutting read it."""
    places = torch.empty(n * n, dtype=torch.int64)
    places[torch.from_numpy(order.astype(np.int64))] = torch.arange(n * n)
    return places.view(n, n).T.contiguous()


def sequency_places(n: int, **_) -> Tensor:
    return _places(sequency_order(n * n), n)


def cake_cutting_places(n: int, **_) -> Tensor:
    return _places(sequency_order(n * n)[cake_cutting_order(n * n)], n)


def zig_zag_places(n: int, **_) -> Tensor:
    return hadamard_2d_ishift(diagonal_index_matrix(n, n))


def xy_places(n: int, **_) -> Tensor:
    """Ascending XY + (X² + Y²) / 4 over the sequencies X, Y, ties as deepinv breaks them."""
    x, y = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    index = x * y + (x**2 + y**2) / 4
    order = torch.argsort((index / index.max()).view(-1))
    places = torch.empty_like(order)
    places[order] = torch.arange(n * n)
    return hadamard_2d_ishift(places.view(n, n))


def strip_places(n: int, **_) -> Tensor:
    """The original release: natural index i stands at gray_encode(bit_reverse(i)), and the grid of places is read row by row."""
    bits = n.bit_length() - 1
    reverse = [int(format(i, f"0{bits}b")[::-1], 2) if bits else 0 for i in range(n)]
    place = torch.tensor([r ^ (r >> 1) for r in reverse])
    return place[:, None] * n + place[None, :]


def variance_places(n: int, images: Callable[[], Tensor] | None, **_) -> Tensor:
    """Descending energy of the Hadamard coefficients over the training images."""
    if images is None:
        raise UserError("ordering 'variance' is chosen from training images: give a dataset")
    energy = sum(hadamard_2d(chunk).double().square().sum((0, 1)) for chunk in images().split(500))  # (n, n)
    order = torch.argsort(energy.view(-1), descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(n * n)
    return places.view(n, n)


def random_patterns(n: int, m: int, **_) -> Tensor:
    """Dense patterns of equally likely ±1: the first m rows of one fixed stream, so that ratios nest and seeds of runs agree."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (m, n * n), generator=generator).to(torch.int8) * 2 - 1


def file_patterns(path: str, n: int, m: int) -> Tensor:
    """The user's own .npy: a 0/1 mask or places 0 .. n²-1 over the (n, n) Hadamard grid in natural order, or a (rows, n²) matrix."""
    if not Path(path).is_file():
        raise UserError(f"ordering 'file:{path}': no such file")
    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise UserError(f"ordering 'file:{path}': not a .npy array of numbers ({error})") from None
    if (not np.issubdtype(array.dtype, np.number) and array.dtype != bool) or not np.isfinite(array).all():
        raise UserError(f"ordering 'file:{path}': holds {array.dtype} values that are not finite numbers")
    if array.shape == (n, n):
        flat = np.sort(array.reshape(-1))
        if np.array_equal(flat, np.arange(n * n)):
            return torch.from_numpy(array.astype(np.int64))
        if np.isin(flat, (0, 1)).all():
            if int(flat.sum()) != m:
                raise UserError(f"ordering 'file:{path}' keeps {int(flat.sum())} of {n * n} coefficients: --cr asks for {m}")
            return _places_of_mask(torch.from_numpy(array != 0))
        raise UserError(f"ordering 'file:{path}': an ({n}, {n}) array holds 0 and 1, or every place 0 .. {n * n - 1} once")
    if array.ndim == 2 and array.shape[1] == n * n:
        if len(array) < m:
            raise UserError(f"ordering 'file:{path}' has {len(array)} patterns: --cr asks for {m}")
        return torch.from_numpy(array.astype(np.float32))
    raise UserError(f"ordering 'file:{path}' has shape {array.shape}: allowed are ({n}, {n}) and (rows, {n * n})")


def _places_of_mask(mask: Tensor) -> Tensor:
    """Kept cells first, row by row."""
    order = torch.argsort(~mask.view(-1), stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel())
    return places.view(mask.shape)


# ---------------------------------------------------------------- operators


class DensePatterns(DecomposablePhysics):
    """A single-pixel camera with any m patterns; rows (m, n²), applied to every channel."""

    def __init__(self, rows: Tensor, img_size: tuple[int, int, int]):
        super().__init__(img_size=img_size)
        u, singular, vh = torch.linalg.svd(rows.float(), full_matrices=False)
        self.register_buffer("mask", singular[None])
        self.register_buffer("u", u)
        self.register_buffer("vh", vh)

    def V_adjoint(self, x: Tensor) -> Tensor:
        return x.flatten(2) @ self.vh.T  # (B, C, r)

    def V(self, y: Tensor) -> Tensor:
        return (y @ self.vh).reshape(len(y), *self.img_size)

    def U(self, y: Tensor) -> Tensor:
        return y @ self.u.T  # (B, C, m)

    def U_adjoint(self, y: Tensor) -> Tensor:
        return y @ self.u


class LMMSE(nn.Module):
    """The linear estimate of least mean squared error, per channel: E[x] + C Aᵀ (A C Aᵀ + σ² I)⁻¹ (y - A E[x])."""

    def __init__(self, c: int, n: int, m: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(c, n * n))
        self.register_buffer("seen", torch.zeros(c, m))  # A E[x]
        self.register_buffer("gain", torch.zeros(c, n * n, m))

    @torch.no_grad()
    def fit(self, rows: Tensor, images: Tensor, variance: float) -> "LMMSE":
        """From patterns (m, n²), training images and the noise variance; the covariance is shrunk as Ledoit and Wolf do."""
        from sklearn.covariance import ledoit_wolf

        rows = rows.double()
        for k in range(images.shape[1]):
            pixels = images[:, k].flatten(1).double()  # (N, n²)
            mean = pixels.mean(0)
            covariance = torch.from_numpy(ledoit_wolf((pixels - mean).numpy(), assume_centered=True)[0])
            cross = covariance @ rows.T  # (n², m)
            inner = rows @ cross
            ridge = variance + 1e-9 * inner.diagonal().mean()  # keeps repeated patterns solvable
            inner.diagonal().add_(ridge)
            self.mean[k], self.seen[k] = mean, rows @ mean
            self.gain[k] = torch.linalg.solve(inner, cross.T).T
        return self

    def forward(self, y: Tensor) -> Tensor:
        """Measured vectors (B, C, m) to images (B, C, n, n)."""
        x = self.mean + torch.einsum("cpm,bcm->bcp", self.gain, y - self.seen)
        return x.unflatten(-1, (int(x.shape[-1] ** 0.5), -1))


# ---------------------------------------------------------------- physics


class Physics(nn.Module):
    """A deepinv operator, noise on what it measures, and a first image: y = A(x) + n, x0 = A†y or the LMMSE estimate."""

    def __init__(self, operator: nn.Module, recipe: dict, patterns: Tensor, index: Tensor, lmmse: LMMSE | None = None):
        super().__init__()
        self.operator, self.recipe, self.patterns, self.lmmse = operator, recipe, patterns, lmmse
        self.register_buffer("index", index)  # where the measured values stand in a flattened y, in measuring order

    @property
    def parts(self) -> list["Physics"]:
        """The cameras that a network has to cope with: this one."""
        return [self]

    @property
    def m(self) -> int:
        return self.index.numel()

    def values(self, y: Tensor) -> Tensor:
        """The measured values of y, (B, C, m), in measuring order."""
        return y.flatten(2)[..., self.index]

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A(x), and white Gaussian noise on the measured values at `awgn_snr` dB of each image's own signal power."""
        y, snr = self.operator.A(x), self.recipe["awgn_snr"]
        if snr is None:
            return y
        values = self.values(y)
        variance = values.square().mean((1, 2), keepdim=True) * 10 ** (-snr / 10)  # (B, 1, 1)
        noise = torch.randn(values.shape, generator=generator).to(values)  # drawn on the CPU: the same on every device
        return y.flatten(2).index_copy(2, self.index, values + variance.sqrt() * noise).view_as(y)

    def back_projection(self, y: Tensor) -> Tensor:
        """A†y, which is Aᵀy where AAᵀ = I."""
        return self.operator.A_dagger(y)

    def first_image(self, y: Tensor) -> Tensor:
        return self.back_projection(y) if self.lmmse is None else self.lmmse(self.values(y))

    @torch.no_grad()
    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the network sees of the clean images x."""
        return self.first_image(self.measure(x, generator))

    @torch.no_grad()
    def rows(self) -> Tensor:
        """The patterns as a matrix (m, n²), in measuring order."""
        n, c = self.recipe["n"], self.recipe["c"]
        basis = torch.eye(n * n, device=self.index.device).view(n * n, 1, n, n).expand(-1, c, -1, -1)
        return torch.cat([self.values(self.operator.A(pixels))[:, 0] for pixels in basis.split(256)]).T

    def fit_lmmse(self, images: Tensor) -> LMMSE:
        """The LMMSE estimator of this camera at its noise level, from at most 10,000 training images."""
        n, snr, images = self.recipe["n"], self.recipe["awgn_snr"], images[:10_000]
        if n > LARGEST_LMMSE:
            raise UserError(f"x0 'lmmse' needs the n² x n² covariance of the images: n {n} is above the allowed {LARGEST_LMMSE}; use --x0 adjoint")
        rows = self.rows().cpu()
        variance = 0.0 if snr is None else (images.flatten(2) @ rows.T).square().mean().item() * 10 ** (-snr / 10)
        return LMMSE(images.shape[1], n, len(rows)).fit(rows, images, variance)

    def at_noise(self, awgn_snr: float | None) -> "Physics":
        """The same camera and first image at another noise level."""
        return Physics(self.operator, self.recipe | {"awgn_snr": awgn_snr}, self.patterns, self.index, self.lmmse)

    def seen_by(self, lmmse: LMMSE | None) -> "Physics":
        """The same measurements with another first image: the LMMSE estimate, or back-projection."""
        recipe = self.recipe | {"x0": "adjoint" if lmmse is None else "lmmse"}
        return Physics(self.operator, recipe, self.patterns, self.index, lmmse)

    def state(self) -> list[dict]:
        """What a checkpoint keeps beside the recipe: for each part its patterns, and its estimator if that is the first image."""
        return [{"patterns": part.patterns, "lmmse": part.lmmse and part.lmmse.state_dict()} for part in self.parts]

    def describe(self) -> str:
        """Ordering, first image, noise, and the expected and real number of measurements of every part."""
        n, snr = self.recipe["n"], self.recipe["awgn_snr"]
        noise = "no noise" if snr is None else f"noise at {snr:g} dB"
        counts = [f"cr {part.recipe['cr']:g} asks for {part.recipe['cr'] * n * n:.1f} of {n * n} and takes {part.m}" for part in self.parts]
        return f"{self.recipe['name']}, {self.recipe['ordering']}, x0 {self.recipe['x0']}, {noise}; measurements: {', '.join(counts)}"


class Mixture(Physics):
    """Several ratios of one camera; one is drawn for every batch."""

    def __init__(self, cameras: list[Physics], recipe: dict):
        nn.Module.__init__(self)
        self.cameras, self.recipe = nn.ModuleList(cameras), recipe

    @property
    def parts(self) -> list[Physics]:
        return list(self.cameras)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.parts[torch.randint(len(self.parts), (), generator=generator)].observe(x, generator)

    def at_noise(self, awgn_snr: float | None) -> "Mixture":
        return Mixture([part.at_noise(awgn_snr) for part in self.parts], self.recipe | {"awgn_snr": awgn_snr})


def measurements(cr: float, n: int) -> int:
    """m = floor(cr n²), at least 1, and not one less where cr n² is whole but for rounding."""
    if not 0 < cr <= 1:
        raise UserError(f"cr {cr:g}: a compression ratio lies in (0, 1]; 1 is full sampling")
    return max(1, floor(cr * n * n + 1e-6))


def patterns_of(ordering: str, n: int, m: int, images: Callable[[], Tensor] | None = None) -> Tensor:
    """Places (n, n) over the Hadamard grid in natural order, or dense patterns (rows, n²)."""
    if ordering.startswith("file:"):
        return file_patterns(ordering.removeprefix("file:"), n, m)
    if ordering != "random" and (n < 2 or n & (n - 1)):
        raise UserError(f"n {n}: ordering '{ordering}' measures Hadamard patterns, whose side is a power of two (2, 4, 8, 16, ...)")
    return look_up(ORDERINGS, ordering, "ordering")(n=n, m=m, images=images)


def is_hadamard(patterns: Tensor, n: int) -> bool:
    """Whether patterns are places over the (n, n) Hadamard grid, and not a matrix (rows, n²)."""
    return patterns.shape == (n, n)


def camera(recipe: dict, images: Callable[[], Tensor] | None, state: dict | None) -> Physics:
    """A single-pixel camera of one ratio."""
    n, size = recipe["n"], (recipe["c"], recipe["n"], recipe["n"])
    m = measurements(recipe["cr"], n)
    patterns = state["patterns"] if state else patterns_of(recipe["ordering"], n, m, images)
    if is_hadamard(patterns, n):
        index = patterns.view(-1).argsort()[:m]
        operator = SinglePixelCamera(m=m, img_size=size, fast=True, ordering="zig_zag")
        operator.mask = (patterns < m).float().expand(1, *size).contiguous()
        taken = int(operator.mask[0, 0].sum())
    else:
        if n > LARGEST_DENSE:
            raise UserError(f"n {n}: dense patterns need a singular value decomposition, allowed up to n {LARGEST_DENSE}")
        patterns = patterns[:m].clone()
        index = torch.arange(m)
        # Rows of unit norm, as the Hadamard patterns have; a user's own matrix is taken as it is.
        operator = DensePatterns(patterns / n if recipe["ordering"] == "random" else patterns, size)
        taken = operator.u.shape[0]
    if taken != m:
        raise UserError(f"cr {recipe['cr']:g} asks for {m} measurements of a {n} x {n} image, the patterns give {taken}")
    physics = Physics(operator, recipe, patterns, index)
    if recipe["x0"] == "lmmse":
        if state:
            physics.lmmse = LMMSE(recipe["c"], n, m)
            physics.lmmse.load_state_dict(state["lmmse"])
        else:
            physics.lmmse = physics.fit_lmmse(images())
    return physics


def single_pixel_camera(recipe: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None) -> Physics:
    """The camera of one ratio, or the mixture of several where `cr` is a list."""
    if recipe["x0"] not in FIRST_IMAGES:
        raise UserError(f"unknown first image '{recipe['x0']}': choose from {', '.join(FIRST_IMAGES)}")
    recipe = recipe | {"name": "spc"}  # cs is another word for it
    crs = recipe["cr"] if isinstance(recipe["cr"], list) else [recipe["cr"]]
    cameras = [camera(recipe | {"cr": cr}, images, state and state[k]) for k, cr in enumerate(crs)]
    return Mixture(cameras, recipe) if isinstance(recipe["cr"], list) else cameras[0]


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
