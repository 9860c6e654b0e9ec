"""What the page shows of a picture: measurements, estimates, errors, time; no HTTP here."""

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from functools import lru_cache
from threading import Lock

import torch
from deepinv.physics.singlepixel import hadamard_2d_shift
from torch import Tensor

from algo_functions import build_physics, score
from checkpoints.checkpoint import RESTORER, Checkpoint, restore
from core.blocks import assemble_blocks, split_blocks
from core.errors import UserError
from core.registry import ORDERINGS, PHYSICS
from physics.base import Physics
from physics.single_pixel import SinglePixel, describe_any_noise
from physics.stationary import StationaryLMMSE
from preparation.baselines import total_variation

N = 64  # pixels of a tile's side, which is measured on its own
SIZES = (64, 128, 256)
RATIOS = (0.05, 0.1, 0.25, 0.5)
PHOTONS = (None, 50.0, 20.0, 5.0)
PATTERNS = 8  # that are shown
FITTED_TO = 200  # pictures, for LMMSE
ERRORS = 4  # times which an error is drawn
OTHERS = ("variance", "learned", "random")  # found on images, or not Hadamard's


def orderings() -> list[str]:
    return [name for name in ORDERINGS if name not in OTHERS]


class Bench:
    """The networks on the page, and what they make of a picture."""

    def __init__(self, paths: dict[str, str], images: Callable[[], Tensor]):
        self.checkpoints = {name: open_network(path) for name, path in paths.items()}
        self.lock = Lock()
        self.camera = lru_cache(64)(self._camera)
        self.lmmse = lru_cache(64)(self._lmmse)
        self.images = lru_cache(1)(images)

    def options(self) -> dict:
        """What can be chosen on the page."""
        return {
            "sizes": SIZES,
            "ratios": RATIOS,
            "photons": PHOTONS,
            "orderings": orderings(),
            "networks": {name: one.physics.config["cr"] for name, one in self.checkpoints.items()},
        }

    def restore(self, request: dict) -> dict:
        """All estimates of a picture, with their errors."""
        size = choice(request, "size", SIZES)
        ratio, photons = choice(request, "ratio", RATIOS), choice(request, "photons", PHOTONS)
        ordering, rate = choice(request, "ordering", orderings()), number(request, "rate", 1, 1e6)
        picture = picture_of(request, size)
        with self.lock, torch.no_grad():
            return self._restore(picture, ratio, ordering, photons, rate)

    def _restore(
        self, picture: Tensor, ratio: float, ordering: str, photons: float | None, rate: float
    ) -> dict:
        camera = self.camera(ratio, ordering, photons)
        x = split_blocks(picture[None], N)
        first = {
            "back-projection": camera,
            "LMMSE": self.lmmse(ratio, ordering, photons),
        }
        estimates = [
            {"name": name, "note": f"{100 * ratio:g} %"} | self.shown(observed(one, x), picture)
            for name, one in first.items()
        ]
        measured = camera.with_measurements()
        if measured is not None:
            shown = self.shown(total_variation(measured)(observed(measured, x)), picture)
            estimates.append({"name": "TV", "note": f"{100 * ratio:g} %"} | shown)
        estimates += self.of_networks(x, picture, ratio, ordering, photons)
        shots = camera.m * len(x)
        return {
            "picture": encoded(picture),
            "mask": encoded(hadamard_2d_shift((camera.patterns < camera.m).float())),
            "patterns": [encoded((row.view(N, N) > 0).float()) for row in camera.rows(PATTERNS)],
            "estimates": estimates,
            "shots": shots,
            "seconds": shots / rate,
        }

    def of_networks(
        self, x: Tensor, picture: Tensor, ratio: float, ordering: str, photons: float | None
    ) -> list[dict]:
        """The networks of the ratio, and as a comparison those that see more."""
        found = []
        for name, checkpoint in self.checkpoints.items():
            config = checkpoint.physics.config
            if config["ordering"] != ordering or config["cr"] < ratio:
                continue
            trained = config.get("photons")
            if trained is not None and (photons is None or config["cr"] > ratio):
                continue
            physics = checkpoint.physics.at_noise(photons=photons)
            note = f"{100 * config['cr']:g} %"
            noise = describe_any_noise(config)
            if noise != describe_any_noise(physics.config):
                note += f", trained with {noise}"
            shown = self.shown(checkpoint.network(observed(physics, x)), picture)
            found.append({"name": name, "note": note} | shown)
        return sorted(found, key=lambda one: float(one["note"].split()[0]))

    def shown(self, tiles: Tensor, picture: Tensor) -> dict:
        """An estimate as the page draws it: picture, error, PSNR and SSIM."""
        side = picture.shape[-1] // N
        image = assemble_blocks(tiles[:, :1], side, side)[0]
        scores = score(image[None], picture[None])
        error = ERRORS * (image - picture).abs()
        return {
            "image": encoded(image),
            "error": encoded(error),
            "psnr": scores["psnr"].item(),
            "ssim": scores["ssim"].item(),
        }

    def _camera(self, ratio: float, ordering: str, photons: float | None) -> SinglePixel:
        flags = PHYSICS["spc"].flags
        config = {name: None if value is ... else value for name, value in flags.items()}
        config |= {"name": "spc", "n": N, "c": 1, "cr": ratio, "ordering": ordering}
        camera = build_physics(config | {"photons": photons})
        assert isinstance(camera, SinglePixel), "one ratio and whole images"
        return camera

    def _lmmse(self, ratio: float, ordering: str, photons: float | None) -> Physics:
        """With a stationary covariance: fitted in 20 ms, and that of all pixels in seconds."""
        camera, images = self.camera(ratio, ordering, photons), self.images()
        lmmse = StationaryLMMSE(1, N, camera.m)
        noise = camera.noise_variance(images)
        return camera.with_first_image(lmmse.fit(camera.clean_values, images, noise))


def open_network(path: str) -> Checkpoint:
    """A network of the page, which must be of its camera."""
    checkpoint = restore(path, kind=RESTORER)
    physics = checkpoint.physics
    if not isinstance(physics, SinglePixel) or (physics.config["n"], physics.config["c"]) != (N, 1):
        raise UserError(
            f"checkpoint {path}: the page shows networks of a single-pixel camera with one ratio, "
            f"n {N} and one channel"
        )
    return checkpoint


def observed(physics: Physics, x: Tensor) -> Tensor:
    """What a network sees of clean tiles; the noise is the same at every call."""
    return physics.observe(x, torch.Generator().manual_seed(0))


def choice(request: dict, name: str, allowed):
    """A value of a request, which must be one of a list."""
    value = request.get(name)
    if isinstance(value, bool | list | dict) or value not in allowed:
        listed = ", ".join("none" if item is None else str(item) for item in allowed)
        raise UserError(f"{name}: choose from {listed}")
    return value


def number(request: dict, name: str, low: float, high: float) -> float:
    """A number of a request, between two others."""
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{name}: a number from {low:g} to {high:g} is needed")
    return float(value)


def picture_of(request: dict, size: int) -> Tensor:
    """The picture of a request (1, s, s): one byte a pixel, as text."""
    try:
        data = b64decode(request.get("picture", ""), validate=True)
    except (NotBase64, TypeError, ValueError):
        raise UserError("picture: the bytes of an image are needed") from None
    if len(data) != size * size:
        raise UserError(f"picture: {size} x {size} bytes are needed, and {len(data):,} came")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(1, size, size) / 255


def encoded(image: Tensor) -> dict:
    """An image (.., h, w) in [0, 1] of one or three channels as text, one byte a value."""
    shown = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    channels = shown.reshape(-1, *shown.shape[-2:])
    c, h, w = channels.shape
    assert c in (1, 3), "a grey image, or red, green and blue"
    pixels = channels.movedim(0, -1).contiguous()  # (h, w, c)
    return {"h": h, "w": w, "c": c, "bytes": b64encode(pixels.numpy().tobytes()).decode()}
