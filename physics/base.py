"""What a network sees of a clean image: measurements, noise on them, and a first image."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import UserError
from core.registry import FIRST_IMAGES, label_of
from data.batches import Batch

MOST_LMMSE = 10_000  # images that it is fitted to
LARGEST_LMMSE = 64  # n: beyond it an n² x n² covariance is too much for a workstation


def same(x, y) -> bool:
    """Whether two nests of plain data and tensors are equal."""
    if isinstance(x, dict) and isinstance(y, dict):
        return x.keys() == y.keys() and all(same(x[k], y[k]) for k in x)
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(map(same, x, y))
    return (
        torch.equal(x, y)
        if isinstance(x, Tensor) and isinstance(y, Tensor)
        else type(x) is type(y) and x == y
    )


def describe_first_image(config: dict) -> str:
    """First image and noise of a linear camera in words."""
    snr = config["awgn_snr"]
    return f"x0 {config['x0']}, {'no noise' if snr is None else f'noise at {snr:g} dB'}"


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
            covariance = torch.from_numpy(
                ledoit_wolf((pixels - mean).numpy(), assume_centered=True)[0]
            )
            cross = covariance @ rows.T  # (n², m)
            inner = rows @ cross
            if not inner.diagonal().any():
                raise UserError(
                    "x0 'lmmse': the training images do not differ in what is measured; it needs more of them"
                )
            ridge = variance + 1e-9 * inner.diagonal().mean()  # keeps repeated patterns solvable
            inner.diagonal().add_(ridge)
            self.mean[k], self.seen[k] = mean, rows @ mean
            self.gain[k] = torch.linalg.solve(inner, cross.T).T
        return self

    def forward(self, y: Tensor) -> Tensor:
        """Measured vectors (B, C, m) to images (B, C, n, n)."""
        x = self.mean + torch.einsum("cpm,bcm->bcp", self.gain, y - self.seen)
        return x.unflatten(-1, (int(x.shape[-1] ** 0.5), -1))


class Physics(nn.Module):
    """What a network sees of clean images x (B, C, n, n): measurements y, then a first image of y.

    The recipe is plain data that rebuilds it; `kept` is what a checkpoint needs beside the recipe.
    """

    level = None  # the recipe's noise level, which an evaluation may change
    measures_images = False  # whether what it measures is a picture
    appends_noise_level = (
        False  # whether the first image carries the noise level as one more channel
    )

    def __init__(self, config: dict):
        super().__init__()
        self.config = config

    @property
    def parts(self) -> list["Physics"]:
        """The cameras that a network has to cope with: this one."""
        return [self]

    @property
    def step(self) -> int:
        """What the sides of a picture must be multiples of: n where the camera sees just n x n pixels at a time."""
        any_size = self.measures_images and self.config.get("x0") != "lmmse"
        return self.config.get("factor", 1) if any_size else self.config["n"]

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """y, its noise drawn on the CPU, so that it is the same on every device."""
        raise NotImplementedError

    def back_projection(self, y: Tensor) -> Tensor:
        """An image (B, C, n, n) of y without any training."""
        raise NotImplementedError

    def measured(self, x: Tensor) -> Tensor | None:
        """The orthogonal projection of x on what is measured, where something is measured and the rest is not."""
        return None

    def first_image(self, y: Tensor) -> Tensor:
        """What the network sees of y."""
        return self.back_projection(y)

    def from_picture(self, picture: Tensor, sigma: float | None = None) -> Tensor:
        """The first image of a picture of any size that such a camera took."""
        return picture

    @torch.no_grad()
    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the network sees of the clean images x."""
        return self.first_image(self.measure(x, generator))

    def measure_batch(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The measurements of a batch."""
        return self.measure(batch.image, generator)

    @torch.no_grad()
    def observe_batch(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """What the network sees of a batch: the degraded picture of a pair, the first image of any other clean image."""
        if batch.degraded is None or batch.paired is None:
            return self.observe(batch.image, generator)
        x0, unpaired = batch.degraded.clone(), ~batch.paired
        if unpaired.any():
            # The noise level of pairs is not known, so its channel is left out.
            channels = x0.shape[1]
            x0[unpaired] = self.observe(batch.image[unpaired], generator)[:, :channels]
        return x0

    def example(self, device: torch.device) -> Tensor:
        """What the network sees of a black image."""
        return self.observe(
            torch.zeros(1, self.config["c"], self.config["n"], self.config["n"], device=device)
        )

    def changed(self, **config) -> "Physics":
        """The same camera with other values in its recipe; tensors are shared."""
        other = copy.copy(self)
        other.__dict__ |= {
            "config": self.config | config,
            "_modules": dict(self._modules),
            "_buffers": dict(self._buffers),
        }
        return other

    def at_noise(self, level) -> "Physics":
        """The same camera and first image at another noise level."""
        return self.changed(**{self.level: level})

    def baselines(self, images: Callable[[], Tensor] | None) -> dict[str, "Physics"]:
        """The same measurements with first images that need no training; `images` loads the training images, if there are any."""
        return {"back-projection": self}

    def refitted(self, images: Callable[[], Tensor]) -> "Physics":
        """With an estimator for its present noise, if its first image is one."""
        return self

    def kept(self) -> dict:
        return {}

    def state(self) -> list[dict]:
        """What a checkpoint keeps of every part."""
        return [part.kept() for part in self.parts]

    def same_first_image_as(self, other: "Physics") -> bool:
        """Whether both measure the same values and make the same first image of them."""
        return same(self.config, other.config) and same(self.state(), other.state())

    def same_measurements_as(self, other: "Physics") -> bool:
        """Whether both measure the same values, whatever they make of them."""
        mine, theirs = (
            [camera.config | {"x0": None}, *({**kept, "lmmse": None} for kept in camera.state())]
            for camera in (self, other)
        )
        return same(mine, theirs)

    @property
    def label(self) -> str:
        """The camera in a file name."""
        return label_of(self.config)

    @property
    def condition(self) -> str:
        """The camera and its noise in a file name."""
        return self.label

    def describe(self) -> str:
        """The camera in a line."""
        return self.label.replace("_", " ")


class Linear(Physics):
    """y = A(x) + n for a deepinv operator A that treats every channel alike, and the LMMSE estimate as a first image on request."""

    level = "awgn_snr"

    def __init__(self, operator: nn.Module, config: dict, index: Tensor):
        super().__init__(config)
        self.operator, self.lmmse = operator, None
        self.register_buffer(
            "index", index
        )  # where the measured values stand in a flattened y, in measuring order

    @property
    def m(self) -> int:
        return self.index.numel()

    def values(self, y: Tensor) -> Tensor:
        """The measured values of y, (B, C, m), in measuring order."""
        return y.flatten(2)[..., self.index]

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A(x), and white Gaussian noise on the measured values at `awgn_snr` dB of each image's own signal power."""
        y, snr = self.operator.A(x), self.config["awgn_snr"]
        if snr is None:
            return y
        values = self.values(y)
        variance = values.square().mean((1, 2), keepdim=True) * 10 ** (-snr / 10)  # (B, 1, 1)
        noise = torch.randn(values.shape, generator=generator).to(values)
        return y.flatten(2).index_copy(2, self.index, values + variance.sqrt() * noise).view_as(y)

    def back_projection(self, y: Tensor) -> Tensor:
        """A†y, which is Aᵀy where AAᵀ = I."""
        return self.operator.A_dagger(y)

    def measured(self, x: Tensor) -> Tensor | None:
        return self.operator.A_dagger(self.operator.A(x))

    def first_image(self, y: Tensor) -> Tensor:
        return self.back_projection(y) if self.lmmse is None else self.lmmse(self.values(y))

    @torch.no_grad()
    def rows(self, count: int | None = None) -> Tensor:
        """The first rows of A as a matrix (count, n²), or all m, in measuring order: Aᵀ of the unit measurements."""
        units = torch.arange(self.m, device=self.index.device)[:count].split(256)
        values = (
            F.one_hot(some, self.m).float()[:, None].expand(-1, self.config["c"], -1)
            for some in units
        )
        return torch.cat(
            [self.operator.A_adjoint(self.placed(some))[:, 0].flatten(1) for some in values]
        )

    def placed(self, values: Tensor) -> Tensor:
        """Measured values (B, C, m) as a y of the operator."""
        n, c = self.config["n"], self.config["c"]
        shape = self.operator.A(torch.zeros(1, c, n, n, device=self.index.device)).shape[2:]
        y = torch.zeros(len(values), c, shape.numel(), device=values.device)
        return y.index_copy(2, self.index, values).unflatten(2, shape)

    def noise_variance(self, rows: Tensor, images: Tensor) -> float:
        """The mean variance of the noise over the images."""
        snr = self.config["awgn_snr"]
        return (
            0.0
            if snr is None
            else (images.flatten(2) @ rows.T).square().mean().item() * 10 ** (-snr / 10)
        )

    def fit_lmmse(self, images: Tensor) -> LMMSE:
        """The LMMSE estimator of this camera at its noise level, from at most 10,000 training images."""
        n = self.config["n"]
        if n > LARGEST_LMMSE:
            raise UserError(
                f"x0 'lmmse' needs the n² x n² covariance of the images: n {n} is above the allowed {LARGEST_LMMSE}; use --x0 adjoint"
            )
        if len(images) < 2:
            raise UserError("x0 'lmmse' needs more than one training image")
        rows, images = self.rows().cpu(), images[:MOST_LMMSE]
        return LMMSE(images.shape[1], n, len(rows)).fit(
            rows, images, self.noise_variance(rows, images)
        )

    def with_first_image(self, lmmse: LMMSE | None) -> "Linear":
        """The same measurements with another first image: the LMMSE estimate, or back-projection."""
        other = self.changed(x0="adjoint" if lmmse is None else "lmmse")
        other.lmmse = lmmse
        return other

    def refitted(self, images: Callable[[], Tensor]) -> "Linear":
        return self if self.lmmse is None else self.with_first_image(self.fit_lmmse(images()))

    def baselines(self, images: Callable[[], Tensor] | None) -> dict[str, "Linear"]:
        cameras = {"back-projection": self.with_first_image(None)}
        if images is not None and self.config["n"] <= LARGEST_LMMSE:
            cameras["LMMSE"] = self.with_first_image(self.fit_lmmse(images()))
        return cameras

    def finished(self, images: Callable[[], Tensor] | None, kept: dict | None) -> "Linear":
        """With the estimator that the recipe's first image needs: the kept one, or one fitted to the training images."""
        if self.config["x0"] not in FIRST_IMAGES:
            raise UserError(
                f"unknown first image '{self.config['x0']}': choose from {', '.join(FIRST_IMAGES)}"
            )
        if self.config["x0"] == "adjoint":
            return self
        if kept is None:
            return self.with_first_image(self.fit_lmmse(images()))
        lmmse = LMMSE(self.config["c"], self.config["n"], self.m)
        lmmse.load_state_dict(kept["lmmse"])
        return self.with_first_image(lmmse)

    def kept(self) -> dict:
        return {"lmmse": self.lmmse and self.lmmse.state_dict()}

    @property
    def condition(self) -> str:
        snr = self.config.get("awgn_snr")
        return self.label if snr is None else f"{self.label}_snr_{snr:g}"

    def describe(self) -> str:
        """The camera, first image, noise, and number of measurements."""
        return f"{super().describe()}, {describe_first_image(self.config)}; {self.m} measurements of {self.config['n'] ** 2} pixels"
