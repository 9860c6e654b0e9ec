"""Single-pixel cameras of a config: of one ratio or several, of whole images or of blocks."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from core.blocks import split_blocks
from core.errors import UserError
from core.inputs import check_dense
from core.registry import LIGHT
from data.batches import Batch
from physics.base import Physics
from physics.learned import learning_camera
from physics.light import check_light
from physics.mosaic import Mosaic
from physics.orderings import is_hadamard, patterns_of
from physics.single_pixel import (
    OF_SIGNS,
    DensePatterns,
    HadamardPatterns,
    SinglePixel,
    count_measurements,
    describe_ratios,
)

LATER = LIGHT | {"noise": None, "block": None, "cr_range": None, "measurements": False}


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
        taken = {part.config["cr"]: part.m for part in self.parts}
        return describe_ratios(self.config, self.block, taken)


def refuse_measurements(config: dict) -> None:
    """Refuses networks that read measurements of patterns other than Hadamard's."""
    if config["measurements"]:
        raise UserError(
            f"ordering '{config['ordering']}': --network unrolled, --consistency range, and "
            "teachers that are not trained read measurements on the grid of the Hadamard patterns; "
            "choose another --ordering"
        )


def build_one_ratio(
    config: dict, images: Callable[[], Tensor] | None, kept: dict | None
) -> SinglePixel:
    """A single-pixel camera of one ratio."""
    n, ordering = config["n"], config["ordering"]
    size: Any = (config["c"], n, n)  # deepinv declares a tuple of one number
    m = count_measurements(config["cr"], n)
    if ordering == "learned" and kept is None:
        refuse_measurements(config)
        return learning_camera(config, images)
    patterns = kept["patterns"] if kept else patterns_of(ordering, n, m, images)
    if is_hadamard(patterns, n):
        index = patterns.view(-1).argsort()[:m]
        operator = HadamardPatterns(m=m, img_size=size, fast=True, ordering="zig_zag")
        operator.mask = (patterns < m).float().expand(1, *size).contiguous()
        taken = int(operator.mask[0, 0].sum())
    else:
        refuse_measurements(config)
        check_dense(n)
        patterns = patterns[:m].clone()
        index = torch.arange(m)
        # Rows of unit norm, as the Hadamard patterns have; a user's own matrix is left as it is.
        operator = DensePatterns(patterns / n if ordering in OF_SIGNS else patterns, size)
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
    if config["ordering"] == "learned" and state is None:
        raise UserError("ordering 'learned': patterns are learned for one ratio; give one --cr")
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
