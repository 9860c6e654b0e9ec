"""One image, or one file of measurements, in; one restored image out."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from algo_functions import score
from core.errors import UserError
from core.files import write_csv
from core.runtime import seeded
from data.images import (
    check_image,
    is_enlarged,
    open_image,
    pictures_in,
    read_picture,
    report_enlarged,
)
from data_loader import Request
from evaluation.measurements import read_measurements, select_physics
from models.base import Network
from physics.base import Linear, Physics
from report.figures import draw_grid, save_image

GRID = 16  # pixels: a network that pools gives the same in a tile that begins on a multiple of it
TILE, OVERLAP = 512, 32  # pixels, of images that are not simulated


# ---------------------------------------------------------------- tiles


def tile_starts(length: int, tile: int, overlap: int, grid: int = 1) -> list[int]:
    """Where tiles begin, on multiples of a grid; the last ends with the length, or is shorter."""
    last = -(-max(length - tile, 0) // grid) * grid
    step = max((tile - overlap) // grid, 1) * grid
    return [*range(0, last, step), last]


def tile_weight(tile: int, overlap: int) -> Tensor:
    """The weight along a side: one inside, falling to almost zero over the overlap."""
    edge = (torch.arange(tile) + 1.0) / (overlap + 1)
    return torch.minimum(edge, edge.flip(0)).clamp_max(1)


def apply_in_tiles(
    f: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, grid: int = 1
) -> Tensor:
    """f of tiles of x, blended where they overlap."""
    height, width = x.shape[-2:]
    total, weights = torch.zeros(()), torch.zeros(())
    for top in tile_starts(height, tile, overlap, grid):
        for left in tile_starts(width, tile, overlap, grid):
            part = f(x[..., top : top + tile, left : left + tile])
            rows, columns = part.shape[-2:]
            weight = torch.outer(tile_weight(rows, overlap), tile_weight(columns, overlap)).to(part)
            padding = (left, width - left - columns, top, height - top - rows)
            total = F.pad(part * weight, padding) + total
            weights = F.pad(weight, padding) + weights
    return total / weights


# ---------------------------------------------------------------- images


def restore_image(
    network: Network, physics: Physics, image: Tensor, args: Namespace
) -> tuple[Tensor, Tensor]:
    """The first image and the network's output for an image (1, C, H, W)."""
    simulated = args.simulate or not physics.measures_images
    if simulated:
        tile, overlap = physics.config["n"], args.overlap or 0
    else:
        tile = args.tile or TILE
        overlap = OVERLAP if args.overlap is None else args.overlap
    if overlap >= tile:
        raise UserError(f"overlap {overlap}: it must be smaller than the tile of {tile} pixels")
    reads_sigma = "sigma" in physics.levels and (simulated or network.reads_noise_level)
    if args.sigma is not None and not reads_sigma:
        raise UserError(
            f"sigma {args.sigma:g}: neither this network nor its physics, '{physics.label}', "
            "takes a noise level"
        )
    if simulated:
        return simulate_and_restore(network, physics, image, tile, overlap, args)
    if physics.config.get("x0") == "lmmse":
        raise UserError(
            "x0 lmmse is fitted to one image size: "
            "give clean images and --simulate, or train with --x0 adjoint"
        )
    with torch.no_grad():
        first = physics.from_picture(image, args.sigma if reads_sigma else 0.0)
        output = apply_in_tiles(network, first, tile, overlap, GRID)
    return first[:, : image.shape[1]], output


@torch.no_grad()
def simulate_and_restore(
    network: Network, physics: Physics, image: Tensor, tile: int, overlap: int, args: Namespace
) -> tuple[Tensor, Tensor]:
    """The same for a clean image, which is measured tile by tile first."""
    for flag in ("tile", "truth"):
        if getattr(args, flag):
            raise UserError(
                f"{flag} {getattr(args, flag)}: a simulation measures clean images, "
                f"which are the truth, in tiles of {tile} pixels"
            )
    if args.sigma is not None:
        physics = physics.at_noise(sigma=args.sigma)
    generator = seeded(args.seed)
    channels, height, width = image.shape[-3:]
    right, below = (
        max(tile - side, 0) if overlap else -side % tile  # so that no pixel is measured twice
        for side in (width, height)
    )
    scene = F.pad(image, (0, right, 0, below), mode="replicate")  # a tile has n x n pixels
    first_images = []

    def measure_and_restore(part: Tensor) -> Tensor:
        first_images.append(physics.observe(part, generator))
        return network(first_images[-1])

    output = apply_in_tiles(measure_and_restore, scene, tile, overlap)
    remaining = iter(first_images)
    first = apply_in_tiles(lambda _: next(remaining)[:, :channels], scene, tile, overlap)
    print(f"simulated {len(first_images)} tiles of {tile} x {tile} pixels: {physics.describe()}")
    return first[..., :height, :width], output[..., :height, :width]


def read_truth(path: Path, args: Namespace, c: int) -> Tensor | None:
    """The clean image of --truth that belongs to an image, if there is one."""
    if args.truth is None:
        return None
    truth = Path(args.truth)
    if truth.is_dir():
        same_name = [other for other in pictures_in(truth) if other.stem == path.stem]
        if len(same_name) != 1:
            raise UserError(
                f"truth: {truth} holds {len(same_name)} images named {path.stem}; one is needed"
            )
        truth = same_name[0]
    return read_picture(truth, c)[None]


def list_inputs(args: Namespace) -> list[Path]:
    """The image files of the command line."""
    paths: list[Path] = []
    for word in map(Path, args.inputs):
        paths += pictures_in(word) if word.is_dir() else [word]
    if not paths:
        raise UserError(f"{' '.join(args.inputs)}: no images")
    for path in paths:
        check_image(path)
    return paths


def restore_files(
    network: Network, physics: Physics, args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Restores image files; writes each result, and a figure of before and after."""
    physics = select_physics(physics, args)
    simulated, c = args.simulate or not physics.measures_images, physics.config["c"]
    paths = list_inputs(args)
    if len({path.stem for path in paths}) < len(paths):
        raise UserError(
            f"{' '.join(args.inputs)}: two images have the same name, "
            "and so would the files of their results; rename one of them"
        )
    scores = {}
    for path in paths:
        image = read_picture(path, c)[None].to(device)
        truth = image if simulated else read_truth(path, args, c)
        first, output = restore_image(network, physics, image, args)
        if truth is not None and truth.shape != output.shape:
            raise UserError(
                f"the truth of {path} has shape {tuple(truth.shape[1:])}, "
                f"the result {tuple(output.shape[1:])}"
            )
        columns = {"before": first, "after": output}
        file, notes = folder / f"{path.stem}.png", None
        message = str(file)
        if truth is not None:
            psnr = {
                name: score(estimate, truth.to(device))["psnr"].item()
                for name, estimate in columns.items()
            }
            scores[path.stem] = psnr
            notes = {name: [f"{value:.2f} dB"] for name, value in psnr.items()}
            message += f"  PSNR {psnr['before']:.2f} dB before, {psnr['after']:.2f} dB after"
        print(message)
        save_image(output[0], file)
        draw_grid(columns, truth, folder / f"{path.stem}_before_after.png", notes)
    return {"folder": str(folder), "psnr": scores}


# ---------------------------------------------------------------- classes


@torch.no_grad()
def classify_files(
    classes: list[str],
    crop: str,
    network: Network,
    physics: Physics,
    args: Namespace,
    folder: Path,
    device: torch.device,
) -> dict:
    """Prints and writes the three likeliest classes of image files or of measured frames."""
    if args.live:
        raise UserError("live: a classifier returns a class, not an image; leave out --live")
    for flag in ("simulate", "truth", "tile", "overlap"):
        if getattr(args, flag) is not None and getattr(args, flag) is not False:
            raise UserError(
                f"{flag}: a classifier takes the whole image and returns a class; "
                f"leave out --{flag}"
            )
    if args.sigma is not None and "sigma" not in physics.levels:
        raise UserError(
            f"sigma {args.sigma:g}: the classifier's physics, '{physics.label}', "
            "takes no noise level"
        )
    selected = select_physics(physics, args)
    if args.measurements:
        frames = read_measurements(network, selected, args, device)
        assert isinstance(selected, Linear), "a physics that has values"
        names, batches = frames.names, frames.batches(selected, device)
        first = torch.cat([selected.first_image(y) for y in batches])
    else:
        if args.sigma is not None:
            selected = physics.at_noise(sigma=args.sigma)
        names = [str(path) for path in list_inputs(args)]
        first = observe_files(names, crop, selected, args, device)
    probabilities, indices = network(first).softmax(1).topk(min(3, len(classes)))
    answers, rows = {}, []
    for name, *both in zip(names, indices.tolist(), probabilities.tolist(), strict=True):
        answer = [(classes[k], p) for k, p in zip(*both, strict=True)]
        print(f"{name}  " + "  ".join(f"{title} {p:.3f}" for title, p in answer))
        row = {"picture": name}
        for k, (title, p) in enumerate(answer, 1):
            row |= {f"class {k}": title, f"probability {k}": p}
        rows.append(row)
        answers[name] = answer
    write_csv(folder / "classes.csv", rows)
    return {"folder": str(folder), "classes": answers}


def observe_files(
    names: list[str], crop: str, physics: Physics, args: Namespace, device: torch.device
) -> Tensor:
    """The first images of image files that are cut and resized as in the training."""
    request = Request(n=physics.config["n"], c=physics.config["c"], crop=crop)
    enlarged = [is_enlarged(name, check_image(Path(name)), request.n) for name in names]
    report_enlarged(" ".join(args.inputs), sum(enlarged), len(names), request.n)
    images = (open_image(Path(name), request)[None].to(device) for name in names)
    return torch.cat([physics.observe(image, seeded(args.seed)) for image in images])
