"""The single-pixel camera of one ratio, with Hadamard or dense patterns."""

import copy
from math import floor
from typing import Self

import torch
from deepinv.physics import DecomposablePhysics, SinglePixelCamera
from torch import Tensor

from core.errors import UserError
from core.hadamard import hadamard_2d
from data.batches import Batch, present
from physics.base import Linear, Operator, Physics, describe_noise
from physics.light import Light, check_light
from physics.orderings import is_hadamard

OF_SIGNS = ("random", "learned")  # orderings whose patterns are ±1, rows of A with a norm of 1

# ---------------------------------------------------------------- operators


class HadamardPatterns(SinglePixelCamera):
    """deepinv's camera with a faster transform; its mask holds zeros and ones, hence A† = Aᵀ."""

    mask: Tensor

    def A(self, x: Tensor, **_) -> Tensor:
        return hadamard_2d(x).mul_(self.mask)

    def A_adjoint(self, y: Tensor, **_) -> Tensor:
        return hadamard_2d(y * self.mask)

    def A_dagger(self, y: Tensor, **_) -> Tensor:
        return self.A_adjoint(y)

    def V_adjoint(self, x: Tensor) -> Tensor:
        return hadamard_2d(x)

    def V(self, y: Tensor) -> Tensor:
        return hadamard_2d(y)

    def with_mask(self, mask: Tensor) -> Self:
        """The camera of other patterns, without building it afresh."""
        other = copy.copy(self)
        other.__dict__ |= {"_buffers": self._buffers | {"mask": mask}}
        return other


class DensePatterns(DecomposablePhysics):
    """A single-pixel camera with any m patterns, as rows (m, n²) for every channel."""

    mask: Tensor
    u: Tensor
    vh: Tensor

    def __init__(self, rows: Tensor, img_size: tuple[int, int, int]):
        super().__init__(img_size=img_size)
        self.size = img_size
        u, singular, vh = torch.linalg.svd(rows.float(), full_matrices=False)
        self.register_buffer("mask", singular[None])
        self.register_buffer("u", u)
        self.register_buffer("vh", vh)

    def V_adjoint(self, x: Tensor) -> Tensor:
        return x.flatten(2) @ self.vh.T  # (B, C, r)

    def V(self, y: Tensor) -> Tensor:
        return (y @ self.vh).reshape(len(y), *self.size)

    def U(self, y: Tensor) -> Tensor:
        return y @ self.u.T  # (B, C, m)

    def U_adjoint(self, y: Tensor) -> Tensor:
        return y @ self.u


# ---------------------------------------------------------------- physics


def count_measurements(cr: float, n: int) -> int:
    """m = floor(cr n²), at least 1; a cr n² that is whole but for rounding is whole."""
    if not 0 < cr <= 1:
        raise UserError(f"cr {cr:g}: a ratio must be in (0, 1]; 1 is full sampling")
    return max(1, floor(cr * n * n + 1e-6))


class SinglePixel(Linear):
    """A single-pixel camera of one ratio, with the patterns that it measures.

    Where it counts photons, y has the noise level of each image as a further channel: the standard
    deviation of a value. For a network that reads measurements y ends with the variances of the
    noise of all values, and the first image with the values, these variances, and a mask of what
    was measured, which all have a place on the grid of the Hadamard patterns.
    """

    levels = ("awgn_snr", "noise", "photons")

    def __init__(self, operator: Operator, config: dict, patterns: Tensor, index: Tensor):
        super().__init__(operator, config, index)
        self.patterns = patterns

    @property
    def light(self) -> Light | None:
        return Light.of(self.config)

    @property
    def appends_noise_level(self) -> bool:
        return self.config["photons"] is not None

    @property
    def appends_measurements(self) -> bool:
        return self.config["measurements"]

    @property
    def is_hadamard(self) -> bool:
        """Whether y is a grid of Hadamard coefficients, and not a list of values."""
        return is_hadamard(self.patterns, self.config["n"])

    def with_measurements(self) -> Self | None:
        return self.with_config(measurements=True) if self.is_hadamard else None

    def at_noise(self, **noise: float | list[float] | None) -> Self:
        other = super().at_noise(**noise)
        check_light(other.config)
        return other

    def at_ratio(self, cr: float) -> Self:
        """The same camera with the first of its Hadamard patterns, as many as a ratio asks for."""
        m = count_measurements(cr, self.config["n"])
        assert m <= self.m and isinstance(self.operator, HadamardPatterns), "fewer of them"
        other = self.with_config(cr=cr)
        other.index = self.index[:m]
        mask = (self.patterns < m).to(self.operator.mask).expand_as(self.operator.mask)
        other.operator = self.operator.with_mask(mask.contiguous())
        return other

    def rows(self, count: int | None = None) -> Tensor:
        if self.is_hadamard:
            return super().rows(count)
        rows = self.patterns[: self.m][:count].float().to(self.index.device)
        return rows / self.config["n"] if self.config["ordering"] in OF_SIGNS else rows

    # ------------------------------------------------ photons

    @property
    def amplitudes(self) -> Tensor:
        """What a row of A is of its pattern in [-1, 1], whose largest entry is 1 or -1, (m,)."""
        n = self.config["n"]
        if self.is_hadamard or self.config["ordering"] in OF_SIGNS:
            return torch.full((self.m,), 1 / n, dtype=torch.float64)
        return self.patterns.double().abs().amax(1)

    def split_light(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """|H| x and H x of the patterns H in [-1, 1], (B, C, m), on the CPU.

        They are what a pair of patterns gives together, and its difference.
        """
        n, x = self.config["n"], x.detach().cpu().double()
        if self.is_hadamard:
            difference = n * hadamard_2d(x).flatten(2)[..., self.index.cpu()]
            return x.sum((2, 3))[..., None].expand_as(difference), difference
        patterns = self.patterns.double()
        patterns = patterns / patterns.abs().amax(1, keepdim=True)
        return x.flatten(2) @ patterns.abs().T, x.flatten(2) @ patterns.T

    def count_photons(
        self, x: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """y+ and y- of every pair, (B, C, m, 2), and alpha (B, 1, 1), on the CPU."""
        assert self.light is not None, "a camera that counts photons"
        alpha = self.light.sample_alpha(len(x), self.m, generator)
        return self.light.counts(*self.split_light(x), alpha, generator), alpha

    def values_of_counts(self, counts: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """The measured values and the variances of their noise, both (B, C, m), from counts."""
        assert self.light is not None, "a camera that counts photons"
        amplitudes = self.amplitudes
        values = amplitudes * self.light.estimate(counts, alpha)
        return values, amplitudes**2 * self.light.estimated_variance(counts, alpha)

    def expected_variance(self, images: Tensor) -> Tensor:
        """The variance of the noise of every value, (C, m), the mean over the images."""
        assert self.light is not None, "a camera that counts photons"
        total, _ = self.split_light(images.mean(0, keepdim=True))
        return self.amplitudes**2 * self.light.expected_variance(total, self.m)[0]

    # ------------------------------------------------ y

    @property
    def has_white_noise(self) -> bool:
        return super().has_white_noise or self.config["noise"] is not None

    def white_variance(self, values: Tensor) -> Tensor:
        """The variance (B, 1, 1) of white noise: `noise`² on every value, or at `awgn_snr` dB."""
        noise = self.config["noise"]
        if noise is None:
            return super().white_variance(values)
        return torch.full_like(values[:, :1, :1], noise**2)

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A(x) + n, with white noise or photon noise, or none."""
        if self.light is not None:
            values, variance = self.values_of_counts(*self.count_photons(x, generator))
            return self.place_values(values.to(x), variance.to(x))
        y = super().measure(x, generator)
        if not self.appends_measurements:
            return y
        clean = self.values(self.operator.A(x))
        return self.place_values(self.values(y), self.white_variance(clean).expand_as(clean))

    def place_values(self, values: Tensor, variance: Tensor | None = None) -> Tensor:
        """Measured values (B, C, m), and the variances of their noise, as a y of this physics.

        The noise level is their root mean. Without them the noise is white, or there is none.
        """
        y = self.grid(values)
        channels = [y]
        if variance is None:
            variance = self.white_variance(values).expand_as(values)
        if self.appends_noise_level:
            level = variance.mean((1, 2)).clamp_min(0).sqrt()  # (B,)
            level = level.view(-1, *[1] * (y.dim() - 1)).expand(-1, 1, *y.shape[2:])
            channels.append(level)
        if self.appends_measurements:
            channels.append(self.grid(variance))
        return torch.cat(channels, dim=1) if len(channels) > 1 else y

    # ------------------------------------------------ recordings

    def measured_in(self, recorded: Tensor) -> Tensor:
        """1 where recorded values, laid out as y, are its own, else 0: (1, C, ...)."""
        own = torch.zeros_like(recorded[:1])
        return own.flatten(2).index_fill(2, self.index, 1.0).view_as(own)

    def measure_recorded(self, batch: Batch) -> Tensor:
        """Its own measurements among those that were recorded, with the recorded noise."""
        recorded, variance = present(batch.recorded), present(batch.variance)
        own = [values.flatten(2)[..., self.index] for values in (recorded, variance)]
        return self.place_values(*own)

    def check_part(self, other: Physics, owner: str) -> None:
        """Refuses the physics of a network that needs values which this one does not record."""
        for name in ("n", "c"):
            if other.config[name] != self.config[name]:
                raise UserError(
                    f"{owner} sees images of {name} {other.config[name]}, "
                    f"and the recording has {name} {self.config[name]}"
                )
        if not isinstance(other, SinglePixel):
            raise UserError(
                f"{owner} has physics '{other.config['name']}' of several ratios or another "
                "camera: a recording needs a single-pixel camera of one ratio"
            )
        if not self.has_patterns_of(other):
            raise UserError(
                f"{owner} measures {other.m} values by ordering '{other.config['ordering']}' at cr "
                f"{other.config['cr']:g}, which are not all among the {self.m} recorded ones by "
                f"ordering '{self.config['ordering']}' at cr {self.config['cr']:g}"
            )
        if other.is_hadamard != self.is_hadamard:  # their values have other places in y
            kinds = {True: "the Hadamard grid", False: "rows of a matrix"}
            raise UserError(
                f"{owner} has its patterns by ordering '{other.config['ordering']}' as "
                f"{kinds[other.is_hadamard]}, and the recording by ordering "
                f"'{self.config['ordering']}' as {kinds[self.is_hadamard]}: train the network with "
                "the ordering of the recording"
            )

    def has_patterns_of(self, other: "SinglePixel") -> bool:
        """Whether every pattern of another camera is recorded by this one."""
        if self.is_hadamard and other.is_hadamard:
            return set(other.index.tolist()) <= set(self.index.tolist())
        if other.m > self.m or self.config["n"] != other.config["n"]:
            return False
        return torch.allclose(self.rows(other.m), other.rows(), atol=1e-5)

    def values(self, y: Tensor) -> Tensor:
        return super().values(y[:, : self.config["c"]])

    def back_projection(self, y: Tensor) -> Tensor:
        return super().back_projection(y[:, : self.config["c"]])

    def first_image(self, y: Tensor) -> Tensor:
        c, channels = self.config["c"], [super().first_image(y)]
        if self.appends_noise_level:
            level = y[:, c].flatten(1)[:, :1, None, None]
            channels.append(level.expand(-1, 1, *channels[0].shape[2:]))
        if self.appends_measurements:
            mask = self.measured_in(y[:, :1]).expand(len(y), -1, -1, -1)
            channels += [y[:, :c], y[:, -c:], mask]
        return torch.cat(channels, dim=1) if len(channels) > 1 else channels[0]

    def noise_variance(self, images: Tensor) -> float | Tensor:
        if self.light is not None:
            return self.expected_variance(images)
        noise = self.config["noise"]
        return super().noise_variance(images) if noise is None else noise**2

    def kept(self) -> dict:
        return super().kept() | {"patterns": self.patterns}

    def describe(self) -> str:
        return describe_ratios(self.config, self.block, {self.config["cr"]: self.m})


def describe_ratios(config: dict, block: int, taken: dict[float, int]) -> str:
    """Ordering, first image, noise, and for every ratio what it asks for and what it takes."""
    counts = [
        f"cr {cr:g} asks for {cr * block**2:.1f} of {block**2} and takes {m}"
        for cr, m in taken.items()
    ]
    first = f"x0 {config['x0']}, {describe_any_noise(config)}"
    words = f"spc, {config['ordering']}, {first}; measurements: {', '.join(counts)}"
    if config["block"] is not None:
        words += f", in blocks of {block} x {block}"
    if config["cr_range"] is not None:
        words += "; trained at cr {:g} to {:g}".format(*config["cr_range"])
    return words


def describe_any_noise(config: dict) -> str:
    """The photons of a single-pixel camera, or its Gaussian noise, in words."""
    light = Light.of(config)
    return describe_noise(config) if light is None else light.describe()
