"""The base classes of physics: from a clean image to measurements, noise, and a first image."""

import copy
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import UserError
from core.registry import FIRST_IMAGES, label_of
from data.batches import Batch, present
from physics.lmmse import LARGEST_LMMSE, LMMSE, MOST_LMMSE
from physics.stationary import StationaryLMMSE


def is_equal(x, y) -> bool:
    """Whether two nests of dicts, lists, values and tensors are equal."""
    if isinstance(x, dict) and isinstance(y, dict):
        return x.keys() == y.keys() and all(is_equal(x[k], y[k]) for k in x)
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(map(is_equal, x, y))
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return torch.equal(x, y)
    return type(x) is type(y) and x == y


def describe_first_image(config: dict) -> str:
    """First image and Gaussian noise of a linear physics in words."""
    return f"x0 {config['x0']}, {describe_noise(config)}"


def describe_noise(config: dict) -> str:
    """Gaussian noise of a linear physics in words."""
    snr, noise = config["awgn_snr"], config.get("noise")
    if noise is not None:
        return f"noise of {noise:g} on every value"
    return "no noise" if snr is None else f"noise at {snr:g} dB"


class Operator(Protocol):
    """What a linear physics needs of an operator, which is deepinv's contract."""

    def A(self, x: Tensor, /) -> Tensor: ...

    def A_adjoint(self, y: Tensor, /) -> Tensor: ...

    def A_dagger(self, y: Tensor, /) -> Tensor: ...


class Physics(nn.Module):
    """From clean images x (B, C, n, n) to measurements y, and from y to a first image.

    Its config is plain data that rebuilds it; `kept` is what a checkpoint needs beside the config.
    A new physics is a subclass that defines `measure` and `back_projection`, and a function of
    (config, images, state) that makes it, which its registry line names.
    """

    levels: tuple[str, ...] = ()  # the noise levels in the config, which an evaluation may change
    measures_images: bool = False  # whether y is an image

    def __init__(self, config: dict):
        super().__init__()
        self.config = config

    @property
    def appends_noise_level(self) -> bool:
        """Whether y and the first image have the noise level as a further channel."""
        return False

    @property
    def appends_measurements(self) -> bool:
        """Whether the first image ends with the measured values, their variances, and a mask."""
        return False

    @property
    def parts(self) -> "Sequence[Physics]":
        """The physics of which one is used for a batch: this one, or those of a mixture."""
        return [self]

    @property
    def block(self) -> int:
        """The side of what is measured at once: n, unless larger images are measured in blocks."""
        return self.config["n"]

    @property
    def step(self) -> int:
        """What the sides of an image must be multiples of; n where only n x n can be measured."""
        any_size = self.measures_images and self.config.get("x0") != "lmmse"
        return self.config.get("factor", 1) if any_size else self.config["n"]

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """y, with noise sampled on the CPU, so that it is the same on every device."""
        raise NotImplementedError

    def back_projection(self, y: Tensor) -> Tensor:
        """An image (B, C, n, n) from y, without any training."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor | None:
        """The orthogonal projection of x on what is measured, or None if there is none."""
        return None

    def first_image(self, y: Tensor) -> Tensor:
        """The input of the network, from y."""
        return self.back_projection(y)

    def from_picture(self, picture: Tensor, sigma: float | None = None) -> Tensor:
        """The first image of a measured picture of any size."""
        return picture

    @property
    def learns(self) -> bool:
        """Whether something of it is learned with the network, so that it never stays the same."""
        return any(weight.requires_grad for weight in self.parameters())

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The first images of clean images x, with a gradient where the physics learns."""
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            return self.first_image(self.measure(x, generator))

    def measure_batch(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The measurements of a batch: its own among those that were recorded, or new ones."""
        if batch.recorded is not None:
            return self.measure_recorded(batch)
        return self.measure(present(batch.image), generator)

    def measure_recorded(self, batch: Batch) -> Tensor:
        """Its own measurements among those that were recorded."""
        raise UserError(
            f"physics '{self.config['name']}' cannot read dataset 'recorded', which holds the "
            "values of a single-pixel camera"
        )

    def observe_batch(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The input of the network: the degraded image of a pair, else the first image."""
        if batch.recorded is not None:
            return self.first_image(self.measure_recorded(batch))
        if batch.degraded is None or batch.paired is None:
            return self.observe(present(batch.image), generator)
        x0, unpaired = batch.degraded.clone(), ~batch.paired
        if unpaired.any():
            # The noise level of pairs is not known, so its channel is left out.
            image, channels = present(batch.image), x0.shape[1]
            x0[unpaired] = self.observe(image[unpaired], generator)[:, :channels]
        return x0

    def example(self, device: torch.device) -> Tensor:
        """The first image of a black image."""
        n = self.config["n"]
        return self.observe(torch.zeros(1, self.config["c"], n, n, device=device))

    def with_config(self, **config) -> Self:
        """The same physics with other values in its config; tensors are shared."""
        other = copy.copy(self)
        other.__dict__ |= {
            "config": self.config | config,
            "_modules": dict(self._modules),
            "_buffers": dict(self._buffers),
        }
        return other

    def at_noise(self, **noise: float | list[float] | None) -> Self:
        """The same physics and first image with another noise, such as awgn_snr=20.

        The noise levels that are not named are none.
        """
        assert noise.keys() & {*self.levels}, f"physics '{self.config['name']}' has no {noise}"
        return self.with_config(**dict.fromkeys(self.levels) | noise)

    def baselines(self, images: Callable[[], Tensor] | None) -> dict[str, "Physics"]:
        """The same measurements with first images that need no training, by name.

        `images` loads the training images, if there are any.
        """
        return {"back-projection": self}

    def with_measurements(self) -> "Physics | None":
        """The same physics for networks that read measurements, or None if they cannot."""
        return None

    def refit(self, images: Callable[[], Tensor]) -> Self:
        """The same physics with its LMMSE estimate, if it has one, fitted to its present noise."""
        return self

    def kept(self) -> dict:
        """The tensors that a checkpoint keeps beside the config."""
        return {}

    def state(self) -> list[dict]:
        """What a checkpoint keeps of each part."""
        return [part.kept() for part in self.parts]

    def same_first_image_as(self, other: "Physics") -> bool:
        """Whether both measure the same values and make the same first image of them."""
        return is_equal(self.config, other.config) and is_equal(self.state(), other.state())

    def same_measurements_as(self, other: "Physics") -> bool:
        """Whether both measure the same values, whatever their first images are."""
        return is_equal(self.measurement_identity(), other.measurement_identity())

    def measurement_identity(self) -> list[dict]:
        """Config and state without the first image."""
        states = [kept | {"lmmse": None} for kept in self.state()]
        return [self.config | {"x0": None, "measurements": None}, *states]

    @property
    def label(self) -> str:
        """The physics in a file name."""
        return label_of(self.config)

    @property
    def condition(self) -> str:
        """The physics and its noise in a file name."""
        return self.label

    def describe(self) -> str:
        """The physics in a line."""
        return self.label.replace("_", " ")


class Linear(Physics):
    """y = A(x) + n for an operator A that is the same for every channel.

    On request the first image is the LMMSE estimate instead of back-projection.
    """

    levels = ("awgn_snr",)
    index: Tensor
    operator: Operator
    lmmse: LMMSE | StationaryLMMSE | None

    def __init__(self, operator: Operator, config: dict, index: Tensor):
        super().__init__(config)
        self.operator, self.lmmse = operator, None
        # Where the measured values are in a flattened y, in measuring order.
        self.register_buffer("index", index)

    @property
    def m(self) -> int:
        return self.index.numel()

    def values(self, y: Tensor) -> Tensor:
        """The measured values of y, (B, C, m), in measuring order."""
        return y.flatten(2)[..., self.index]

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A(x) + n, with white noise or none."""
        y = self.operator.A(x)
        if not self.has_white_noise:
            return y
        values = self.values(y)
        variance = self.white_variance(values)
        noise = torch.randn(values.shape, generator=generator).to(values)
        # Of a black image it is 0, where a square root has no gradient.
        deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        return y.flatten(2).index_copy(2, self.index, values + deviation * noise).view_as(y)

    @property
    def has_white_noise(self) -> bool:
        return self.config["awgn_snr"] is not None

    def white_variance(self, values: Tensor) -> Tensor:
        """The variance (B, 1, 1) of white noise at `awgn_snr` dB below the power of the values."""
        snr = self.config["awgn_snr"]
        power = values.square().mean((1, 2), keepdim=True)
        return power * (0 if snr is None else 10 ** (-snr / 10))

    def back_projection(self, y: Tensor) -> Tensor:
        """A†y, which is Aᵀy where AAᵀ = I."""
        return self.operator.A_dagger(y)

    def project(self, x: Tensor) -> Tensor | None:
        return self.operator.A_dagger(self.operator.A(x))

    def first_image(self, y: Tensor) -> Tensor:
        if self.lmmse is None:
            return self.back_projection(y)
        if isinstance(self.lmmse, StationaryLMMSE):
            return self.lmmse(self.values(y), self.clean_values, self.adjoint)
        return self.lmmse(self.values(y))

    def clean_values(self, x: Tensor) -> Tensor:
        """The values (B, C, m) of images without noise."""
        return self.values(self.operator.A(x))

    def adjoint(self, values: Tensor) -> Tensor:
        """Aᵀ of values (B, C, m), which are images."""
        return self.operator.A_adjoint(self.grid(values))

    @torch.no_grad()
    def rows(self, count: int | None = None) -> Tensor:
        """The first rows of A as a matrix (count, n²), or all m: Aᵀ of the unit measurements."""
        rows = []
        for places in torch.arange(self.m, device=self.index.device)[:count].split(256):
            units = F.one_hot(places, self.m).float()[:, None].expand(-1, self.config["c"], -1)
            images = self.operator.A_adjoint(self.grid(units))
            rows.append(images[:, 0].flatten(1))
        return torch.cat(rows)

    def place_values(self, values: Tensor) -> Tensor:
        """Measured values (B, C, m) as a y of this physics."""
        return self.grid(values)

    def grid(self, values: Tensor) -> Tensor:
        """Measured values (B, C, m) as a y of the operator."""
        n, c = self.config["n"], self.config["c"]
        shape = self.operator.A(torch.zeros(1, c, n, n, device=self.index.device)).shape[2:]
        y = torch.zeros(len(values), c, shape.numel(), device=values.device)
        return y.index_copy(2, self.index, values).unflatten(2, shape)

    def noise_variance(self, images: Tensor) -> float | Tensor:
        """The mean variance of the noise over the images, perhaps of each value, (C, m)."""
        snr = self.config["awgn_snr"]
        if snr is None:
            return 0.0
        squares = [self.clean_values(some).square().mean((1, 2)) for some in images.split(64)]
        return torch.cat(squares).mean().item() * 10 ** (-snr / 10)

    def new_lmmse(self) -> LMMSE | StationaryLMMSE:
        """An estimator that is not fitted yet: of any covariance where its size allows it."""
        kind = LMMSE if self.config["n"] <= LARGEST_LMMSE else StationaryLMMSE
        return kind(self.config["c"], self.config["n"], self.m)

    @torch.no_grad()
    def fit_lmmse(self, images: Tensor, variance: Tensor | None = None) -> LMMSE | StationaryLMMSE:
        """The LMMSE estimator from at most 10,000 training images.

        Its noise is that of this physics, or has the given variance (C, m).
        """
        if len(images) < 2:
            raise UserError("x0 'lmmse' needs more than one training image")
        lmmse, images = self.new_lmmse(), images[:MOST_LMMSE].to(self.index.device)
        noise = self.noise_variance(images) if variance is None else variance
        if isinstance(lmmse, StationaryLMMSE):
            return lmmse.to(images.device).fit(self.clean_values, images, noise)
        noise = noise.cpu() if isinstance(noise, Tensor) else noise
        return lmmse.fit(self.rows().cpu(), images.cpu(), noise)

    def with_first_image(self, lmmse: LMMSE | StationaryLMMSE | None) -> Self:
        """The same measurements with another first image: the LMMSE estimate or back-projection."""
        other = self.with_config(x0="adjoint" if lmmse is None else "lmmse")
        other.lmmse = lmmse
        return other

    def refit(self, images: Callable[[], Tensor]) -> Self:
        return self if self.lmmse is None else self.with_first_image(self.fit_lmmse(images()))

    def baselines(self, images: Callable[[], Tensor] | None) -> dict[str, Physics]:
        baselines: dict[str, Physics] = {"back-projection": self.with_first_image(None)}
        if images is not None:
            baselines["LMMSE"] = self.with_first_image(self.fit_lmmse(images()))
        return baselines

    def prepare_first_image(self, images: Callable[[], Tensor] | None, kept: dict | None) -> Self:
        """The physics with the estimator that its config names: the kept one, or a new one."""
        if self.config["x0"] not in FIRST_IMAGES:
            raise UserError(
                f"unknown first image '{self.config['x0']}': choose from {', '.join(FIRST_IMAGES)}"
            )
        if self.config["x0"] == "adjoint":
            return self
        if kept is not None:
            lmmse = self.new_lmmse()
            lmmse.load_state_dict(kept["lmmse"])
            return self.with_first_image(lmmse)
        if images is None:
            raise UserError("x0 'lmmse' is fitted to training images: give a dataset")
        return self.with_first_image(self.fit_lmmse(images()))

    def kept(self) -> dict:
        return {"lmmse": self.lmmse and self.lmmse.state_dict()}

    @property
    def condition(self) -> str:
        snr = self.config.get("awgn_snr")
        return self.label if snr is None else f"{self.label}_snr_{snr:g}"

    def describe(self) -> str:
        """The physics, first image, noise, and number of measurements."""
        first, pixels = describe_first_image(self.config), self.config["n"] ** 2
        return f"{super().describe()}, {first}; {self.m} measurements of {pixels} pixels"
