"""One picture, or one file of measurements, in; one restored picture out."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algo_functions import score
from core.errors import UserError
from core.files import durable, write_csv
from core.inputs import existing_file
from core.runtime import seeded
from data.arrays import BAD_ARRAY, read_npy
from data.images import (
    check_image,
    is_enlarged,
    open_image,
    pictures_in,
    read_picture,
    report_enlarged,
)
from data_loader import Request
from physics.base import Linear, Physics
from report.figures import draw_grid, save_image

GRID = 16  # pixels: networks that pool see the same in a tile as in the whole picture where tiles begin on multiples


def starts(length: int, tile: int, overlap: int, grid: int = 1) -> list[int]:
    """Where tiles begin so that they cover a length, on multiples of a grid; the last one is flush with its end, or shorter."""
    last = -(-max(length - tile, 0) // grid) * grid
    return [*range(0, last, max((tile - overlap) // grid, 1) * grid), last]


def ramp(tile: int, overlap: int) -> Tensor:
    """A tile's weight along a side: one inside, falling to almost zero over the overlap."""
    edge = (torch.arange(tile) + 1.0) / (overlap + 1)
    return torch.minimum(edge, edge.flip(0)).clamp_max(1)


def tiled(
    f: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, grid: int = 1
) -> Tensor:
    """f of tiles of x, blended where they overlap."""
    height, width = x.shape[-2:]
    total, weights = 0, 0
    for top in starts(height, tile, overlap, grid):
        for left in starts(width, tile, overlap, grid):
            part = f(x[..., top : top + tile, left : left + tile])
            weight = torch.outer(*(ramp(side, overlap) for side in part.shape[-2:])).to(part)
            place = (left, width - left - part.shape[-1], top, height - top - part.shape[-2])
            total = total + F.pad(part * weight, place)
            weights = weights + F.pad(weight, place)
    return total / weights


@torch.no_grad()
def restored(
    network: nn.Module, physics: Physics, picture: Tensor, args: Namespace
) -> tuple[Tensor, Tensor]:
    """What the network sees of a picture (1, C, H, W), and what it makes of it."""
    simulated = args.simulate or not physics.measures_images
    n, generator = physics.config["n"], seeded(args.seed)
    tile, overlap = (
        (n, args.overlap or 0)
        if simulated
        else (args.tile or 512, 32 if args.overlap is None else args.overlap)
    )
    if overlap >= tile:
        raise UserError(f"overlap {overlap}: it must be smaller than the tile, {tile}")
    told = physics.appends_noise_level and (simulated or network.reads_noise_level)
    if args.sigma is not None and not told:
        raise UserError(
            f"sigma {args.sigma:g}: neither this network nor its camera, '{physics.label}', reads a noise level"
        )
    if not simulated:
        if physics.config.get("x0") == "lmmse":
            raise UserError(
                "x0 lmmse belongs to one size of picture: give clean scenes and --simulate, or train with --x0 adjoint"
            )
        first = physics.from_picture(picture, args.sigma if told else 0.0)
        return first[:, : picture.shape[1]], tiled(network, first, tile, overlap, GRID)
    for flag in ("tile", "truth"):
        if getattr(args, flag):
            raise UserError(
                f"{flag} {getattr(args, flag)}: a simulated camera looks at clean pictures, the truth itself, in tiles of {n} pixels"
            )
    physics = physics.at_noise(args.sigma) if args.sigma is not None else physics
    height, width = picture.shape[-2:]
    scene = F.pad(
        picture, (0, max(n - width, 0), 0, max(n - height, 0)), mode="replicate"
    )  # the camera sees n x n pixels
    firsts = []

    def observe_batch(part: Tensor) -> Tensor:
        firsts.append(physics.observe(part, generator))
        return network(firsts[-1])

    output = tiled(observe_batch, scene, n, overlap)
    seen = iter(firsts)
    first = tiled(lambda _: next(seen)[:, : picture.shape[1]], scene, n, overlap)
    print(f"simulated: {len(firsts)} views of {n} x {n} pixels by {physics.describe()}")
    return first[..., :height, :width], output[..., :height, :width]


def truth_of(path: Path, args: Namespace, c: int) -> Tensor | None:
    """The clean picture that belongs to a picture: the one that --truth names, or in simulation the picture itself."""
    if args.truth is None:
        return None
    truth = Path(args.truth)
    if truth.is_dir():
        named = [other for other in pictures_in(truth) if other.stem == path.stem]
        if len(named) != 1:
            raise UserError(f"truth: {truth} holds {len(named)} pictures named {path.stem}")
        truth = named[0]
    return read_picture(truth, c)[None]


def inputs_of(args: Namespace) -> list[Path]:
    """The pictures that the command line names."""
    paths = [
        picture
        for word in args.inputs
        for picture in (pictures_in(Path(word)) if Path(word).is_dir() else [Path(word)])
    ]
    if not paths:
        raise UserError(f"{' '.join(args.inputs)}: no pictures")
    for path in paths:
        check_image(path)
    return paths


def one_of(physics: Physics, args: Namespace) -> Physics:
    """The camera, or the one of a mixture that --cr names."""
    parts = [part for part in physics.parts if args.cr in (None, part.config.get("cr"))]
    if len(parts) > 1:
        ratios = ", ".join(f"{part.config['cr']:g}" for part in parts)
        raise UserError(f"which camera of the mixture? give --cr, one of {ratios}")
    return parts[0]


def from_pictures(
    network: nn.Module, physics: Physics, args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Restores pictures; writes each, and a picture of before and after."""
    physics, c, scores = one_of(physics, args), physics.config["c"], {}
    simulated, paths = args.simulate or not physics.measures_images, inputs_of(args)
    if len({path.stem for path in paths}) < len(paths):
        raise UserError(
            f"{' '.join(args.inputs)}: two pictures of the same name, which their results have too"
        )
    for path in paths:
        picture = read_picture(path, c)[None].to(device)
        truth = picture if simulated else truth_of(path, args, c)
        first, output = restored(network, physics, picture, args)
        columns = {"before": first, "after": output}
        if truth is not None and truth.shape != output.shape:
            raise UserError(
                f"truth of {path} is {tuple(truth.shape[1:])}, the result is {tuple(output.shape[1:])}"
            )
        said = str(folder / f"{path.stem}.png")
        if truth is not None:
            before, after = (
                score(image, truth.to(device))["psnr"].item() for image in columns.values()
            )
            scores[path.stem] = {"before": before, "after": after}
            said += f"  PSNR {before:.2f} dB before, {after:.2f} dB after"
        print(said)
        save_image(output[0], folder / f"{path.stem}.png")
        notes = (
            {name: [f"{scores[path.stem][name]:.2f} dB"] for name in columns}
            if truth is not None
            else None
        )
        draw_grid(columns, truth, folder / f"{path.stem}_before_after.png", notes)
    return {"folder": str(folder), "psnr": scores}


def frames_in(path: str, m: int, c: int) -> tuple[Tensor, bool]:
    """The frames of a file as values (frames, C, m), and whether they came in pairs; pairs stand one behind the other, positive first."""
    existing_file(path, "measurements")
    try:
        array = read_npy(path)
    except BAD_ARRAY as error:
        raise UserError(f"measurements {path}: not a .npy array ({error})") from None
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise UserError(f"measurements {path}: not an array of finite numbers")
    if array.size == 0 or array.ndim > 3 or array.shape[-1] not in (m, 2 * m):
        raise UserError(
            f"measurements {path} has shape {array.shape}: the camera takes {m} values a frame, or {2 * m} in pairs"
        )
    values = torch.from_numpy(array.astype(np.float64)).reshape(
        -1, *array.shape[-2:-1] if array.ndim == 3 else (1,), array.shape[-1]
    )
    if values.shape[1] != c:
        raise UserError(
            f"measurements {path} has {values.shape[1]} channels, the camera {c}: expected shape (frames, {c}, values)"
        )
    paired = values.shape[-1] == 2 * m
    return values[..., 0::2] - values[..., 1::2] if paired else values, paired


def scaled(values: Tensor, physics: Linear, scale: float | str | None, paired: bool) -> Tensor:
    """Values in the camera's units.

    A number multiplies; `auto` makes the brightest place of each frame's back-projection 1. Without either, differences of
    pairs are multiplied by the patterns' amplitude, as the manifest says for one mirror a pixel, and single values are taken as they are.
    """
    if scale == "auto":
        brightest = physics.back_projection(physics.place_values(values.float())).flatten(1).amax(1)
        if (brightest <= 0).any():
            raise UserError("scale auto: a frame whose back-projection has no bright place")
        return values / brightest.double()[:, None, None]
    return values * (
        scale if scale is not None else physics.rows(1).abs().max().item() if paired else 1.0
    )


def measured(physics: Physics, args: Namespace, device: torch.device) -> list[Tensor]:
    """The measurements of a file, up to 64 frames at a time."""
    physics = one_of(physics, args)
    if not isinstance(physics, Linear):
        raise UserError(
            f"measurements {args.measurements}: the checkpoint's camera, '{physics.label}', gives pictures and no values; give pictures instead"
        )
    values, paired = frames_in(args.measurements, physics.m, physics.config["c"])
    values = scaled(values.to(device), physics, args.scale, paired)
    return [physics.place_values(some) for some in values.float().split(64)]


@torch.no_grad()
def from_measurements(
    network: nn.Module, physics: Physics, args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Reconstructs frames from measured values; writes them as pictures and, unrounded, as one array."""
    part = one_of(physics, args)
    pairs = [
        (part.back_projection(y), network(part.first_image(y)))
        for y in measured(part, args, device)
    ]
    first, output = (torch.cat(images) for images in zip(*pairs, strict=True))
    for k, image in enumerate(output):
        save_image(image, folder / f"frame_{k:05d}.png")
    draw_grid({"before": first[:8], "after": output[:8]}, None, folder / "before_after.png")
    durable(
        folder / "reconstructions.npy", lambda temporary: np.save(temporary, output.cpu().numpy())
    )
    print(f"{len(output)} frames of {part.m} values: {folder}")
    return {"folder": str(folder), "frames": len(output)}


@torch.no_grad()
def classes_of(
    classes: list[str],
    crop: str,
    network: nn.Module,
    physics: Physics,
    args: Namespace,
    folder: Path,
    device: torch.device,
) -> dict:
    """The three likeliest classes of pictures, seen as the classifier's camera sees them, or of measured frames; printed, and written as a table."""
    for flag in ("simulate", "truth", "tile", "overlap"):
        if getattr(args, flag) is not None and getattr(args, flag) is not False:
            raise UserError(
                f"{flag}: a classifier's camera looks at the whole picture, and the answer is a class"
            )
    if args.sigma is not None and physics.level != "sigma":
        raise UserError(
            f"sigma {args.sigma:g}: the classifier's camera, '{physics.label}', reads no noise level"
        )
    if args.measurements:
        first = torch.cat(
            [one_of(physics, args).first_image(y) for y in measured(physics, args, device)]
        )
        names = [f"frame_{k:05d}" for k in range(len(first))]
    else:
        part = one_of(physics, args) if args.sigma is None else physics.at_noise(args.sigma)
        request = Request(n=physics.config["n"], c=physics.config["c"], crop=crop)
        names = [str(path) for path in inputs_of(args)]
        small = [is_enlarged(name, check_image(Path(name)), request.n) for name in names]
        report_enlarged(" ".join(args.inputs), sum(small), len(names), request.n)
        first = torch.cat(
            [
                part.observe(open_image(Path(name), request)[None].to(device), seeded(args.seed))
                for name in names
            ]
        )
    chances, places = network(first).softmax(1).topk(min(3, len(classes)))
    answers = [
        [(classes[k], p) for k, p in zip(*both, strict=True)]
        for both in zip(places.tolist(), chances.tolist(), strict=True)
    ]
    rows = []
    for name, answer in zip(names, answers, strict=True):
        print(f"{name}  " + "  ".join(f"{title} {chance:.3f}" for title, chance in answer))
        ranked = [
            {f"class {k}": title, f"probability {k}": chance}
            for k, (title, chance) in enumerate(answer, 1)
        ]
        rows.append(
            {"picture": name}
            | {column: value for place in ranked for column, value in place.items()}
        )
    write_csv(folder / "classes.csv", rows)
    return {"folder": str(folder), "classes": dict(zip(names, answers, strict=True))}
