"""Scores and pictures of a checkpoint on the test set, beside anchors that need no training."""

import shutil
from argparse import Namespace
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from algo_functions import Meter
from cli.flags import BARE
from core.errors import CONTROL, UserError
from core.files import append_csv, check_header, folder_for, inside, significant, write_csv
from core.registry import FETCHED
from data.batches import Images, build_loader
from data_loader import build_splits
from evaluation.piecewise import Piecewise
from models.base import FirstImage
from physics.base import LARGEST_LMMSE, MOST_LMMSE, Linear, Physics
from physics.mosaic import Mosaic
from physics.paired import physics_for
from report.figures import detailed, draw_grid, notes_of, save_image, stretched
from training.cache import Views
from training.checkpoint import RESTORER, Checkpoint, restore
from training.setup import request_of
from training.validation import outputs

GRID = 6  # pictures on the contact sheet
CHOICE = 2000  # test images among which they are chosen
LEARNT_FROM = {  # what a configuration says of the training images
    "dataset": str, "data_root": str, "crop": str, "limit_train": int, "gt": str, "lq": str, "pairs": str, "unpaired": str,
    "paired_share": float,
}  # fmt: skip
KINDS = (
    "originals",
    "measurements_backprojection",
    "reconstructions",
    "features",
)  # folders of pictures
COLUMNS = (  # of the results table; the first ten are the original release's
    "Date/Time", "Image Dim", "Dataset", "Batch Size", "CR", "Channels", "Physics", "PSNR Global", "SSIM Global", "Saved Batches",
    "Checkpoint", "Camera", "Ordering", "x0", "SNR", "Seed", "PSNR Clipped", "PSNR Pooled", "Images", "PSNR Back-projection", "PSNR LMMSE",
    "Crop Border", "Y Channel", "LMMSE Images",
)  # fmt: skip


Pictures = dict[int, Tensor]  # of the images on the contact sheet, by their places


class Estimate(NamedTuple):
    """How well images were estimated, and those of the contact sheet."""

    meter: Meter
    pictures: Pictures


def estimated(
    network: nn.Module,
    part: Physics,
    loader: DataLoader,
    args: Namespace,
    device: torch.device,
    places: Collection[int],
) -> Estimate:
    """What a network makes of all images that a camera has measured."""
    meter, pictures = meter_of(args), {}
    for batch, _, output in outputs(network, Views(part.to(device), loader, device, args.seed)):
        meter.add(output, batch.image)
        indices = batch.index.tolist()
        chosen = zip(indices, output, strict=True)
        pictures |= {k: image.cpu() for k, image in chosen if k in places}
    return Estimate(meter, pictures)


def baselines(
    part: Physics,
    train: Tensor | None,
    loader: DataLoader,
    args: Namespace,
    device: torch.device,
    places: Collection[int] = (),
) -> dict[str, Estimate]:
    """First images that need no training, of the same measurements of one camera."""
    network = FirstImage(part.config["c"])
    cameras = part.baselines(None if train is None else lambda: train)
    return {
        name: estimated(network, camera, loader, args, device, places)
        for name, camera in cameras.items()
    }


def meter_of(args: Namespace) -> Meter:
    return Meter(args.crop_border, args.y_channel)


def test_images(args: Namespace, physics: Physics) -> Images:
    """The test images that a camera can look at."""
    n, c = physics.config["n"], physics.config["c"]
    return build_splits(request_of(args, n=n, c=c, multiple=physics.step), wanted=("test",))["test"]


def fitted(network: nn.Module, part: Physics, images: Images) -> tuple[nn.Module, Physics]:
    """Network and camera as they look at the images: block by block where these are larger and the camera takes just n x n pixels."""
    n = part.config["n"]
    return (
        (network, part)
        if images.same_size or part.step < n
        else (Piecewise(network, n), Mosaic(part))
    )


def opened(path: str, args: Namespace, kind: str | None = None) -> Checkpoint:
    """A checkpoint, with what the flags tell of a bare one: a single-pixel camera, or the noise of a denoiser."""
    given = {name: getattr(args, name) for name in ("c", *BARE)}
    told = (
        {"name": "denoise", "n": args.n, "sigma": args.sigma[0], "x0": "adjoint"}
        if args.n and args.sigma
        else None
    )
    return restore(path, given, told, kind)


def restored(path: str, args: Namespace) -> Checkpoint:
    """A checkpoint that restores images."""
    return opened(path, args, RESTORER)


def check_alike(checkpoints: dict[str, Checkpoint]) -> None:
    """Refuses networks that cannot be shown the same clean images."""
    sizes = {
        path: (found.physics.config["n"], found.physics.config["c"])
        for path, found in checkpoints.items()
    }
    first = next(iter(sizes))
    for path, (n, c) in sizes.items():
        if (n, c) != sizes[first]:
            raise UserError(
                f"{path} looks at images of {n} pixels and {c} channels, {first} of {sizes[first][0]} and {sizes[first][1]}"
            )


def learnt_from(trained_with: dict, args: Namespace) -> dict:
    """What a checkpoint's configuration says of its training images, where it says anything.

    A public dataset lies where the command line says; any other one where it lay, as another place may hold other images.
    --limit_train asks for another number of them.
    """
    if "dataset" not in trained_with:
        return {}
    given = {name: trained_with[name] for name in LEARNT_FROM if trained_with.get(name) is not None}
    for name, value in given.items():
        kind = LEARNT_FROM[name]
        strange = kind is str and CONTROL.search(value) if type(value) is kind else True
        if strange or (kind is int and value < 1):
            raise UserError(f"the checkpoint's configuration has {name} {value!r:.80}")
    if given["dataset"] == args.dataset and args.dataset in FETCHED:
        given["data_root"] = args.data_root
    limit = {} if args.limit_train is None else {"limit_train": args.limit_train}
    return {"crop": "center"} | given | limit


def training_images(found: Checkpoint, args: Namespace, test: Images) -> Tensor | None:
    """What LMMSE is fitted to: images that the network learnt from; a line says which, or why there are none."""
    config, camera = found.physics.config, found.physics.parts[0]
    n, size = config["n"], f"{config['n']} x {config['n']}"
    if test.paired or not isinstance(camera, Linear):
        return None
    try:
        if n > LARGEST_LMMSE:
            raise UserError(f"it is made for up to {LARGEST_LMMSE} pixels a side, not for {size}")
        if not test.same_size and camera.step < n:
            raise UserError(f"it restores {size} pixels, and these pictures have their own sizes")
        asked = learnt_from(found.training_config, args)
        request = request_of(args, **asked | {"n": n, "c": config["c"]})
        images = build_splits(request, wanted=("train",))["train"].stack()[:MOST_LMMSE]
        if len(images) < 2:
            raise UserError(f"the network learnt from {len(images)} image, and it needs two")
    except (UserError, OSError) as error:
        print(f"no LMMSE row: {error}")
        return None
    whose = "the network learnt from them"
    if not asked:
        whose = "the checkpoint does not say what the network learnt from"
    elif args.limit_train is not None:
        whose = f"--limit_train {args.limit_train}"
    print(f"LMMSE is fitted to {len(images):,} training images of '{request.dataset}': {whose}")
    return images


def name_of(path: str | Path) -> str:
    """A checkpoint's name; the best and the last of a run are told apart by the run."""
    path = Path(path)
    return (
        f"{path.parent.name}_{path.stem}"
        if path.stem in ("best", "last", "last_before", "teacher")
        else path.stem
    )


def names_of(checkpoints: dict[str, Checkpoint]) -> dict[str, str]:
    """A folder name for each path; equal names are told apart by the content."""
    names = {path: name_of(path) for path in checkpoints}
    counts = Counter(names.values())
    return {
        path: name if counts[name] == 1 else f"{name}_{checkpoints[path].digest}"
        for path, name in names.items()
    }


def table_row(
    name: str, part: Physics, scores: dict, parameters: int, fitted_to: int | None = None
) -> dict:
    return {
        "camera": part.label.replace("_", " "),
        "ordering": part.config.get("ordering"),
        "SNR": f"{snr:g} dB" if (snr := part.config.get("awgn_snr")) is not None else None,
        "PSNR": scores["psnr"],
        "± images": scores["psnr_std"],
        "SSIM": scores["ssim"],
        "PSNR clipped": scores["psnr_clipped"],
        "PSNR pooled": scores["psnr_pooled"],
        "parameters": parameters,
        "images": scores["images"],
        "fitted to (images)": fitted_to,
        "estimate": name,
    }


class Tested(NamedTuple):
    """How well a network restores what one camera saw, beside first images that need no training."""

    network: nn.Module
    part: Physics
    label: str
    estimate: Estimate
    beside: dict[str, Estimate]


class Tests(NamedTuple):
    """All cameras of a checkpoint, and the images that they looked at."""

    path: str
    name: str
    loader: DataLoader
    parts: list[Tested]
    places: list[int]  # of the images on the contact sheet
    fitted_to: int | None  # training images of LMMSE

    @property
    def rows(self) -> list[dict]:
        """Its table."""
        rows = []
        for network, part, _, estimate, beside in self.parts:
            for name, baseline in beside.items():
                count = self.fitted_to if name == "LMMSE" else None
                rows.append(table_row(name, part, baseline.meter.summary(), 0, count))
            parameters = sum(w.numel() for w in network.parameters())
            rows.append(table_row(self.name, part, estimate.meter.summary(), parameters))
        return rows


def test_checkpoint(
    path: str, name: str, found: Checkpoint, args: Namespace, device: torch.device
) -> Tests:
    """Evaluates one checkpoint at every noise level and ratio; nothing is written yet."""
    network = found.network.to(device)
    test = test_images(args, found.physics)
    physics = physics_for(test, found.physics, network)
    loader = build_loader(test, args.batch_size, args.num_workers)
    train = training_images(found, args, test) if args.baselines else None
    candidates = (test[k]["image"] for k in range(min(len(test), CHOICE)))
    places = detailed(candidates, GRID) if args.save_batches else []
    check_header(results_of(args), COLUMNS)
    parts = []
    for part in (part for camera in at_levels(physics, args) for part in camera.parts):
        label = part.condition
        seeing, part = fitted(network, part.to(device), test)
        print(f"{path}: {part.describe()}")
        beside = baselines(part, train, loader, args, device, places) if args.baselines else {}
        estimate = estimated(seeing, part, loader, args, device, places)
        parts.append(Tested(seeing, part, label, estimate, beside))
    return Tests(path, name, loader, parts, places, None if train is None else len(train))


def results_of(args: Namespace) -> Path:
    """The table that all evaluations add to."""
    return Path(args.results) / "test" / "psnr_results.csv"


def write(tests: Tests, args: Namespace, device: torch.device) -> None:
    """The folder of a checkpoint, and its rows in the table of all."""
    folder, test = folder_for(Path(args.results) / "test", tests.name), tests.loader.dataset
    for kind in KINDS:
        for stale in list(folder.rglob(kind)):
            shutil.rmtree(stale)
    per_image = []
    for tested in tests.parts:
        where = inside(folder, tested.label) if len(tests.parts) > 1 else folder
        write_pictures(tested, tests.loader, where, args, device)
        write_sheet(tested, tests, where)
        append_result(tested, tests, args)
        table = tested.estimate.meter.per_image()
        for i in range(len(test)):
            per_image.append(
                {"image": test.name(i), "condition": tested.label}
                | {name: significant(values[i].item()) for name, values in table.items()}
            )
    write_csv(folder / "per_image.csv", per_image)
    print(f"written to {folder}")


def at_levels(physics: Physics, args: Namespace) -> list[Physics]:
    """The camera at the noise levels that the flags name, or as it is."""
    for flag in ("awgn_snr", "sigma"):
        if getattr(args, flag) and flag != physics.level:
            raise UserError(
                f"{flag}: the noise of physics '{physics.config['name']}' is set by {f'--{physics.level}' if physics.level else 'its config'}"
            )
    levels = physics.level and getattr(args, physics.level)
    return [physics.at_noise(level) for level in levels] if levels else [physics]


def write_pictures(
    tested: Tested, loader: DataLoader, folder: Path, args: Namespace, device: torch.device
) -> None:
    """Pictures of the first batches, which are looked at again as they were."""
    network, part, count = tested.network, tested.part, 0
    passed = outputs(network, Views(part, loader, device, args.seed))
    for batch, y, output in islice(passed, args.save_batches):
        image, projection = batch.image, part.back_projection(y)
        with torch.no_grad():
            features = network.features(part.first_image(y))["enc1"][:, :1]
        for kind, pictures in zip(KINDS, (image, projection, output, features), strict=True):
            for i, picture in enumerate(pictures):
                save_image(
                    stretched(picture) if kind == "features" else picture,
                    folder / kind / f"{count + i:05d}.png",
                )
        count += len(image)


def write_sheet(tested: Tested, tests: Tests, folder: Path) -> None:
    """Some detailed images with their estimates and errors."""
    if not tests.places:
        return
    meter, estimates = tested.estimate.meter, tested.beside | {"network": tested.estimate}
    columns = {
        name: [estimate.pictures[k] for k in tests.places] for name, estimate in estimates.items()
    }
    clean = [tests.loader.dataset[k]["image"] for k in tests.places]
    notes = notes_of(columns, clean, meter.border, meter.luma)
    draw_grid(columns, clean, folder / "grid.png", notes)


def append_result(tested: Tested, tests: Tests, args: Namespace) -> None:
    """One row of the results table; the first columns are the original release's."""
    part, beside, loader = tested.part, tested.beside, tests.loader
    config, scores = part.config, tested.estimate.meter.summary()
    row = {
        "Date/Time": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        "Image Dim": config["n"] if loader.dataset.same_size else "whole",
        "Dataset": args.dataset,
        "Batch Size": loader.batch_size,
        "CR": config.get("cr"),
        "Channels": config["c"],
        "Physics": config["name"],
        "PSNR Global": scores["psnr"],
        "SSIM Global": scores["ssim"],
        "Saved Batches": min(args.save_batches, len(loader)),
        "Checkpoint": tests.path,
        "Camera": part.label,
        "Ordering": config.get("ordering"),
        "x0": config.get("x0"),
        "SNR": config.get("awgn_snr"),
        "Seed": args.seed,
        "PSNR Clipped": scores["psnr_clipped"],
        "PSNR Pooled": scores["psnr_pooled"],
        "Images": scores["images"],
        "PSNR Back-projection": beside["back-projection"].meter.summary()["psnr"]
        if beside
        else None,
        "PSNR LMMSE": beside["LMMSE"].meter.summary()["psnr"] if "LMMSE" in beside else None,
        "Crop Border": args.crop_border,
        "Y Channel": args.y_channel,
        "LMMSE Images": tests.fitted_to if "LMMSE" in beside else None,
    }
    append_csv(results_of(args), COLUMNS, row)
