"""Scores and example images of a checkpoint on the test set, and training-free baselines."""

import itertools
import shutil
from argparse import Namespace
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from algo_functions import Meter
from checkpoints.checkpoint import Checkpoint
from core.errors import CONTROL, UserError
from core.files import append_csv, check_header, folder_for, inside, significant, write_csv
from core.registry import FETCHED
from data.batches import Images, Loader, build_loader, present
from data_loader import build_splits
from evaluation.checkpoints import (
    build_meter,
    check_recorded,
    fit_to_images,
    load_test_images,
    physics_at_levels,
    short_name,
)
from models.base import Network
from physics.base import MOST_LMMSE, Linear, Physics
from physics.mosaic import Mosaic
from physics.paired import physics_for
from preparation.baselines import baselines_of
from preparation.setup import physics_of_recording, request_of
from recordings.frames import RecordedFrames
from report.figures import draw_grid, psnr_notes, save_image, select_detailed, stretch_contrast
from training.cache import Views
from training.validation import outputs

EXAMPLES = 6  # images on the contact sheet
CANDIDATES = 2000  # test images among which the examples are selected
TRAINING_DATA = {  # keys of a checkpoint's configuration that describe its training images
    "dataset": str,
    "data_root": str,
    "crop": str,
    "limit_train": int,
    "subset_seed": int,
    "gt": str,
    "lq": str,
    "pairs": str,
    "unpaired": str,
    "paired_share": float,
}
IMAGE_FOLDERS = ("originals", "measurements_backprojection", "reconstructions", "features")
COLUMNS = (  # of the results table; the first ten are the original release's
    "Date/Time", "Image Dim", "Dataset", "Batch Size", "CR", "Channels", "Physics", "PSNR Global",
    "SSIM Global", "Saved Batches", "Checkpoint", "Camera", "Ordering", "x0", "SNR", "Seed",
    "PSNR Clipped", "PSNR Pooled", "Images", "PSNR Back-projection", "PSNR LMMSE", "Crop Border",
    "Y Channel", "LMMSE Images", "PSNR TV", "PSNR Plug-and-play",
    "Self-ensemble",
)  # fmt: skip


# ---------------------------------------------------------------- scores


@dataclass(frozen=True)
class Estimate:
    """The scores of all estimated images, and the estimates of the examples by their index."""

    meter: Meter
    examples: dict[int, Tensor]


def estimate_images(
    network: Network,
    physics: Physics,
    loader: Loader,
    args: Namespace,
    device: torch.device,
    examples: Collection[int] = (),
) -> Estimate:
    """Estimates and scores every image from its measurements."""
    network, meter = network.to(device), build_meter(args)
    kept = {}
    for batch, _, output in outputs(network, Views(physics.to(device), loader, device, args.seed)):
        meter.add(output, present(batch.image))
        for index, image in zip(batch.index.tolist(), output, strict=True):
            if index in examples:
                kept[index] = image.cpu()
    return Estimate(meter, kept)


def estimate_baselines(
    physics: Physics,
    train: Tensor | None,
    loader: Loader,
    args: Namespace,
    device: torch.device,
    examples: Collection[int] = (),
) -> dict[str, Estimate]:
    """Estimates from the same measurements that need no trained network."""
    images = None if train is None else lambda: train
    baselines = baselines_of(physics, images, denoiser=args.denoiser)
    return {
        name: estimate_images(network, baseline, loader, args, device, examples)
        for name, (network, baseline) in baselines.items()
    }


def training_data_of(config: dict, args: Namespace) -> dict:
    """The training images that a checkpoint's configuration describes; empty if it names none.

    A public dataset is read from --data_root, any other one from where it was during training,
    because another folder may hold other images. --limit_train overrides their number.
    """
    if "dataset" not in config:
        return {}
    values = {name: config[name] for name in TRAINING_DATA if config.get(name) is not None}
    for name, value in values.items():
        kind = TRAINING_DATA[name]
        valid = type(value) is kind
        if valid and kind is str:
            valid = not CONTROL.search(value)
        if valid and kind is int:
            valid = value >= (0 if name == "subset_seed" else 1)
        if not valid:
            raise UserError(f"the checkpoint's config has an impossible {name} {value!r:.80}")
    if values["dataset"] == args.dataset and args.dataset in FETCHED:
        values["data_root"] = args.data_root
    if args.limit_train is not None:
        values["limit_train"] = args.limit_train
    return {"crop": "center"} | values


def load_lmmse_images(checkpoint: Checkpoint, args: Namespace, test: Images) -> Tensor | None:
    """The images to fit LMMSE to, those of the training; prints which, or why there are none."""
    config, physics = checkpoint.physics.config, checkpoint.physics.parts[0]
    n = config["n"]
    if test.paired or isinstance(test, RecordedFrames) or not isinstance(physics, Linear | Mosaic):
        return None  # a recording has no clean training images
    try:
        if not test.same_size and physics.step < n and not physics.config.get("block"):
            raise UserError(
                f"it estimates images of {n} x {n} pixels, and the test images have various sizes"
            )
        data = training_data_of(checkpoint.training_config, args)
        request = request_of(args, **data | {"n": n, "c": config["c"]})
        images = build_splits(request, wanted=("train",))["train"].stack()[:MOST_LMMSE]
        if len(images) < 2:
            raise UserError(
                f"it needs two training images, and the network was trained on {len(images)}"
            )
    except (UserError, OSError) as error:
        print(f"no LMMSE baseline: {error}")
        return None
    if not data:
        reason = "the checkpoint does not name its training images"
    elif args.limit_train is not None:
        reason = f"--limit_train {args.limit_train}"
    else:
        reason = "the network was trained on them"
    print(f"LMMSE is fitted to {len(images):,} training images of '{request.dataset}' ({reason})")
    return images


@dataclass(frozen=True)
class PhysicsResult:
    """The estimates of a network and of the baselines from the measurements of one physics."""

    network: Network
    physics: Physics
    condition: str  # the physics and its noise, in file names
    estimate: Estimate
    baselines: dict[str, Estimate]


@dataclass(frozen=True)
class CheckpointResult:
    """The results of a checkpoint with every physics of its own."""

    path: str
    name: str
    loader: Loader
    parts: list[PhysicsResult]
    examples: list[int]  # the indices of the images on the contact sheet
    lmmse_images: int | None  # training images that LMMSE was fitted to

    @property
    def images(self) -> Images:
        return cast(Images, self.loader.dataset)

    @property
    def growing(self) -> float | None:
        """The share of the images whose PSNR grows with every further ratio, if there are some."""
        ratios: list[Any] = [part.physics.config.get("cr") for part in self.parts]
        if len(ratios) < 2 or None in ratios:
            return None
        if not all(low < high for low, high in itertools.pairwise(ratios)):
            return None
        scores = torch.stack([part.estimate.meter.per_image()["psnr"] for part in self.parts])
        return (scores.diff(dim=0) > 0).all(0).double().mean().item()

    @property
    def rows(self) -> list[dict]:
        """The table of its scores."""
        rows = []
        for part in self.parts:
            for name, baseline in part.baselines.items():
                fitted_to = self.lmmse_images if name == "LMMSE" else None
                row = restoration_row(name, part.physics, baseline.meter.summary(), 0, fitted_to)
                rows.append(row)
            parameters = sum(w.numel() for w in part.network.parameters())
            scores = part.estimate.meter.summary()
            rows.append(restoration_row(short_name(self.name), part.physics, scores, parameters))
        return rows


def restoration_row(
    name: str, physics: Physics, scores: dict, parameters: int, lmmse_images: int | None = None
) -> dict:
    snr = physics.config.get("awgn_snr")
    return {
        "physics": physics.label.replace("_", " "),
        "ordering": physics.config.get("ordering"),
        "SNR": f"{snr:g} dB" if snr is not None else None,
        "PSNR": scores["psnr"],
        "PSNR std": scores["psnr_std"],
        "SSIM": scores["ssim"],
        "PSNR clipped": scores["psnr_clipped"],
        "PSNR pooled": scores["psnr_pooled"],
        "parameters": parameters,
        "images": scores["images"],
        "LMMSE images": lmmse_images,
        "estimate": name,
    }


def evaluate_checkpoint(
    path: str, name: str, checkpoint: Checkpoint, args: Namespace, device: torch.device
) -> CheckpointResult:
    """Evaluates a checkpoint at every noise level and ratio; writes nothing yet."""
    network = checkpoint.network.to(device)
    test = load_test_images(args, checkpoint.physics)
    check_recorded(physics_of_recording(test), checkpoint.physics, f"checkpoint {path}", args)
    physics = physics_for(test, checkpoint.physics, network)
    loader = build_loader(test, args.batch_size, args.num_workers)
    train = load_lmmse_images(checkpoint, args, test) if args.baselines else None
    examples = []
    if args.save_batches:
        candidates = (test[k]["image"] for k in range(min(len(test), CANDIDATES)))
        examples = select_detailed(candidates, EXAMPLES)
    check_header(results_table(args), COLUMNS)
    parts = []
    for part in (part for level in physics_at_levels(physics, args) for part in level.parts):
        condition = part.condition
        fitted_network, part = fit_to_images(network, part.to(device), test)
        print(f"{short_name(name)}: {part.describe()}")
        baselines = {}
        if args.baselines:
            baselines = estimate_baselines(part, train, loader, args, device, examples)
        estimate = estimate_images(fitted_network, part, loader, args, device, examples)
        parts.append(PhysicsResult(fitted_network, part, condition, estimate, baselines))
    lmmse_images = None if train is None else len(train)
    return CheckpointResult(path, name, loader, parts, examples, lmmse_images)


# ---------------------------------------------------------------- files


def results_table(args: Namespace) -> Path:
    """The CSV file to which every evaluation adds rows."""
    return Path(args.results) / "test" / "psnr_results.csv"


def write_restoration(result: CheckpointResult, args: Namespace, device: torch.device) -> None:
    """Writes the folder of a checkpoint, and adds its rows to the results table."""
    folder = folder_for(Path(args.results) / "test", result.name)
    for name in IMAGE_FOLDERS:
        for stale in list(folder.rglob(name)):
            shutil.rmtree(stale)
    per_image = []
    for part in result.parts:
        part_folder = inside(folder, part.condition) if len(result.parts) > 1 else folder
        write_first_batches(part, result.loader, part_folder, args, device)
        write_contact_sheet(part, result, part_folder)
        append_csv(results_table(args), COLUMNS, results_row(part, result, args))
        scores = part.estimate.meter.per_image()
        for i in range(len(result.images)):
            row = {"image": result.images.name(i), "condition": part.condition}
            row |= {name: significant(values[i].item()) for name, values in scores.items()}
            per_image.append(row)
    write_csv(folder / "per_image.csv", per_image)
    print(f"written to {folder}")


def write_first_batches(
    part: PhysicsResult, loader: Loader, folder: Path, args: Namespace, device: torch.device
) -> None:
    """Writes the images of the first batches, measured again with the same noise."""
    network, physics = part.network, part.physics
    count = 0
    passes = outputs(network, Views(physics, loader, device, args.seed))
    for batch, y, output in islice(passes, args.save_batches):
        with torch.no_grad():
            layers = network.features(physics.first_image(y))
            features = next(iter(layers.values()))[:, :1]
        kinds = (present(batch.image), physics.back_projection(y), output, features)
        for name, images in zip(IMAGE_FOLDERS, kinds, strict=True):
            for i, image in enumerate(images):
                file = folder / name / f"{count + i:05d}.png"
                save_image(stretch_contrast(image) if name == "features" else image, file)
        count += len(output)


def write_contact_sheet(part: PhysicsResult, result: CheckpointResult, folder: Path) -> None:
    """Draws the example images with their estimates and errors."""
    if not result.examples:
        return
    meter, estimates = part.estimate.meter, part.baselines | {"network": part.estimate}
    columns = {
        name: [estimate.examples[k] for k in result.examples]
        for name, estimate in estimates.items()
    }
    clean = [result.images[k]["image"] for k in result.examples]
    notes = psnr_notes(columns, clean, meter.border, meter.luma)
    draw_grid(columns, clean, folder / "grid.png", notes)


def results_row(part: PhysicsResult, result: CheckpointResult, args: Namespace) -> dict:
    """A row of the results table."""
    config, scores = part.physics.config, part.estimate.meter.summary()
    baselines = {
        name: estimate.meter.summary()["psnr"] for name, estimate in part.baselines.items()
    }
    return {
        "Date/Time": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        "Image Dim": config["n"] if result.images.same_size else "whole",
        "Dataset": args.dataset,
        "Batch Size": result.loader.batch_size,
        "CR": config.get("cr"),
        "Channels": config["c"],
        "Physics": config["name"],
        "PSNR Global": scores["psnr"],
        "SSIM Global": scores["ssim"],
        "Saved Batches": min(args.save_batches, len(result.loader)),
        "Checkpoint": result.path,
        "Camera": part.physics.label,
        "Ordering": config.get("ordering"),
        "x0": config.get("x0"),
        "SNR": config.get("awgn_snr"),
        "Seed": args.seed,
        "PSNR Clipped": scores["psnr_clipped"],
        "PSNR Pooled": scores["psnr_pooled"],
        "Images": scores["images"],
        "PSNR Back-projection": baselines.get("back-projection"),
        "PSNR LMMSE": baselines.get("LMMSE"),
        "Crop Border": args.crop_border,
        "Y Channel": args.y_channel,
        "LMMSE Images": result.lmmse_images if "LMMSE" in baselines else None,
        "PSNR TV": baselines.get("TV"),
        "PSNR Plug-and-play": baselines.get("plug-and-play"),
        "Self-ensemble": args.self_ensemble,
    }
