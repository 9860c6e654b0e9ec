"""The single-pixel camera: Hadamard or dense patterns, one ratio or a mixture of several."""

import copy
from collections.abc import Callable, Sequence
from math import floor
from typing import Any, Self

import torch
from deepinv.physics import DecomposablePhysics, SinglePixelCamera
from torch import Tensor

from core.blocks import split_blocks
from core.errors import UserError
from core.hadamard import hadamard_2d
from core.inputs import check_dense
from core.registry import LIGHT
from data.batches import Batch, present
from physics.base import Linear, Operator, Physics, describe_first_image
from physics.light import Light, check_light
from physics.mosaic import Mosaic
from physics.orderings import is_hadamard, patterns_of

LATER = LIGHT | {"noise": None, "block": None, "cr_range": None, "measurements": False}

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

    def with_measurements(self) -> Self | None:
        readable = is_hadamard(self.patterns, self.config["n"])
        return self.with_config(measurements=True) if readable else None

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

    # ------------------------------------------------ photons

    @property
    def amplitudes(self) -> Tensor:
        """What a row of A is of its pattern in [-1, 1], whose largest entry is 1 or -1, (m,)."""
        n = self.config["n"]
        if is_hadamard(self.patterns, n) or self.config["ordering"] == "random":
            return torch.full((self.m,), 1 / n, dtype=torch.float64)
        return self.patterns.double().abs().amax(1)

    def split_light(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """|H| x and H x of the patterns H in [-1, 1], (B, C, m), on the CPU.

        They are what a pair of patterns gives together, and its difference.
        """
        n, x = self.config["n"], x.detach().cpu().double()
        if is_hadamard(self.patterns, n):
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

    def has_patterns_of(self, other: "SinglePixel") -> bool:
        """Whether every pattern of another camera is recorded by this one."""
        n = self.config["n"]
        if is_hadamard(self.patterns, n) and is_hadamard(other.patterns, n):
            return set(other.index.tolist()) <= set(self.index.tolist())
        same_kind = self.patterns.shape[1] == other.patterns.shape[1] and other.m <= self.m
        return same_kind and torch.equal(
            self.patterns[: other.m].float(), other.patterns[: other.m].float()
        )

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
        return describe_ratios(self.config, [self])


class BlockCamera(Mosaic):
    """A single-pixel camera that measures the blocks of an image one after the other."""

    physics: SinglePixel

    @property
    def image_config(self) -> dict:
        return {name: self.config[name] for name in ("n", "block")}

    @property
    def m(self) -> int:
        return self.physics.m

    @property
    def patterns(self) -> Tensor:
        return self.physics.patterns

    def at_ratio(self, cr: float) -> Self:
        return self.with_physics(self.physics.at_ratio(cr))


Component = SinglePixel | BlockCamera


class Mixture(Physics):
    """Several ratios of one camera, of which one is sampled for every batch.

    `widest` is the camera of the highest ratio of a range, in which the ratio of a batch is then
    sampled log-uniformly; the several are those at which a network is validated and tested.
    """

    levels = SinglePixel.levels

    def __init__(
        self, components: Sequence[Component], config: dict, widest: Component | None = None
    ):
        super().__init__(config)
        self.cameras = torch.nn.ModuleList(components)  # the name in files of interrupted runs
        self.single_pixels = tuple(components)
        self.widest = widest

    @property
    def block(self) -> int:
        return self.parts[0].block

    @property
    def step(self) -> int:
        return self.parts[0].step

    @property
    def parts(self) -> Sequence[Component]:
        return self.single_pixels

    @property
    def appends_noise_level(self) -> bool:
        return self.parts[0].appends_noise_level

    @property
    def appends_measurements(self) -> bool:
        return self.parts[0].appends_measurements

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_part(generator).observe(x, generator)

    def sample_part(self, generator: torch.Generator | None = None) -> Component:
        """The camera of a batch."""
        if self.widest is None:
            k = int(torch.randint(len(self.parts), (), generator=generator))
            return self.parts[k]
        low, high = self.config["cr_range"]
        share = torch.rand((), generator=generator, dtype=torch.float64).item()
        return self.widest.at_ratio(low * (high / low) ** share)

    def at_ratios(self, cr: float | list[float]) -> Physics:
        """The camera of one of its ratios, or the mixture of several of them."""
        ratios = cr if isinstance(cr, list) else [cr]
        parts = [self.at_ratio(one) for one in ratios]
        if len(parts) == 1:
            return parts[0]
        return Mixture(parts, self.config | {"cr": ratios, "cr_range": None})

    def at_ratio(self, cr: float) -> Component:
        """The camera of one of its ratios, or of any in its range."""
        for part in self.parts:
            if part.config["cr"] == cr:
                return part
        if self.widest is None:
            own = ", ".join(f"{part.config['cr']:g}" for part in self.parts)
            raise UserError(f"its network is for the ratios {own}, not for cr {cr:g}")
        low, high = self.config["cr_range"]
        if not low <= cr <= high:
            raise UserError(
                f"its network is for ratios from {low:g} to {high:g}, not for cr {cr:g}"
            )
        return self.widest.at_ratio(cr)

    def with_each(self, change: Callable[[Component], Component], config: dict) -> "Mixture":
        """The mixture of changed cameras."""
        widest = None if self.widest is None else change(self.widest)
        return Mixture([change(part) for part in self.parts], config, widest)

    def measure_recorded(self, batch: Batch) -> Tensor:
        raise UserError("a recording needs a network of one ratio: give --cr, not --crs_expert")

    def refit(self, images: Callable[[], Tensor]) -> "Mixture":
        return self.with_each(lambda part: part.refit(images), self.config)

    def at_noise(self, **noise: float | list[float] | None) -> "Mixture":
        config = self.config | dict.fromkeys(self.levels) | noise
        return self.with_each(lambda part: part.at_noise(**noise), config)

    def describe(self) -> str:
        return describe_ratios(self.config, self.parts)


def describe_ratios(config: dict, parts: Sequence[Component]) -> str:
    """Ordering, first image, noise, and the expected and real number of measurements."""
    counts = []
    for part in parts:
        cr, pixels = part.config["cr"], part.block**2
        counts.append(f"cr {cr:g} asks for {cr * pixels:.1f} of {pixels} and takes {part.m}")
    light = Light.of(config)
    first = describe_first_image(config)
    if light is not None:
        first = f"x0 {config['x0']}, {light.describe()}"
    words = f"spc, {config['ordering']}, {first}; measurements: {', '.join(counts)}"
    if config["block"] is not None:
        words += f", in blocks of {parts[0].block} x {parts[0].block}"
    if config["cr_range"] is not None:
        words += "; trained at cr {:g} to {:g}".format(*config["cr_range"])
    return words


def build_one_ratio(
    config: dict, images: Callable[[], Tensor] | None, kept: dict | None
) -> SinglePixel:
    """A single-pixel camera of one ratio."""
    n = config["n"]
    size: Any = (config["c"], n, n)  # deepinv declares a tuple of one number
    m = count_measurements(config["cr"], n)
    patterns = kept["patterns"] if kept else patterns_of(config["ordering"], n, m, images)
    if is_hadamard(patterns, n):
        index = patterns.view(-1).argsort()[:m]
        operator = HadamardPatterns(m=m, img_size=size, fast=True, ordering="zig_zag")
        operator.mask = (patterns < m).float().expand(1, *size).contiguous()
        taken = int(operator.mask[0, 0].sum())
    else:
        if config["measurements"]:
            raise UserError(
                f"ordering '{config['ordering']}': --network unrolled, --consistency range, and "
                "teachers that are not trained read measurements on the grid of the Hadamard "
                "patterns; choose another --ordering"
            )
        check_dense(n)
        patterns = patterns[:m].clone()
        index = torch.arange(m)
        # Rows of unit norm, as the Hadamard patterns have; a user's own matrix is left as it is.
        operator = DensePatterns(patterns / n if config["ordering"] == "random" else patterns, size)
        taken = operator.u.shape[0]
    if taken != m:
        raise UserError(
            f"cr {config['cr']:g} asks for {m} measurements of a {n} x {n} image, "
            f"but the patterns give {taken}"
        )
    return SinglePixel(operator, config, patterns, index).prepare_first_image(images, kept)


def single_pixel_camera(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Physics:
    """The camera of one ratio, or the mixture of several where `cr` is a list."""
    # cs is another word for it, and files of earlier versions lack what came later.
    config = LATER | config | {"name": "spc"}
    check_light(config)
    if not isinstance(config["cr"], list):
        return build_component(config, images, state[0] if state else None)
    components = [
        build_component(config | {"cr": cr, "cr_range": None}, images, state[k] if state else None)
        for k, cr in enumerate(config["cr"])
    ]
    if config["cr_range"] is None:
        return Mixture(components, config)
    check_range(config, components[0])
    widest = config | {"cr": config["cr_range"][1], "cr_range": None}
    kept = state[0] if state else None
    return Mixture(components, config, build_component(widest, images, kept))


def build_component(
    config: dict, images: Callable[[], Tensor] | None, kept: dict | None
) -> Component:
    """A camera of one ratio, which measures an image as a whole or block by block."""
    block, n = config["block"], config["n"]
    if block is None:
        return build_one_ratio(config, images, kept)
    if n % block or n == block:
        raise UserError(f"block {block}: n {n} must be a larger multiple of it")
    blocks = None if images is None else lambda: split_blocks(images(), block)
    camera = build_one_ratio(config | {"n": block, "block": None}, blocks, kept)
    return BlockCamera(camera, config)


def check_range(config: dict, camera: Component) -> None:
    """Refuses a range of ratios of a camera that cannot have any ratio."""
    low, high = config["cr_range"]
    if not 0 < low < high <= 1:
        raise UserError(f"cr_range {low:g} {high:g}: give two ratios in (0, 1], the lower first")
    if config["x0"] == "lmmse":
        raise UserError("x0 lmmse is fitted to one ratio; leave it out where --cr_range is given")
    if not is_hadamard(camera.patterns, camera.block):
        raise UserError(
            f"ordering '{config['ordering']}': a range of ratios needs Hadamard patterns"
        )
