"""The demo's table, figure and report: teacher, students and training-free anchors on the same held-out images."""

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from algo_functions import Meter
from core.files import write_csv, write_text
from data.batches import Images, build_loader
from data_loader import build_splits
from models.base import FirstImage
from report.figures import detailed, draw_grid, notes_of
from report.statistics import paired
from report.tables import markdown
from training.cache import Views
from training.checkpoint import restore
from training.setup import request_of
from training.validation import outputs


def tell(trained: dict[str, str], args: Namespace, folder: Path, device: torch.device) -> dict:
    """Evaluates teacher, student alone and distilled student, in this order, and writes what was seen."""
    teacher, alone, distilled = trained
    restored = {name: restore(path) for name, path in trained.items()}
    splits = build_splits(request_of(args), wanted=("train", "test"))
    estimates = {}
    for name in (alone, teacher):
        camera = restored[name].physics
        for baseline, physics in camera.baselines(splits["train"].stack).items():
            estimates[f"{baseline}, cr {camera.config['cr']:g}"] = (
                FirstImage(camera.config["c"]),
                physics,
                0,
            )
        for trained_name in (alone, distilled) if name == alone else (teacher,):
            network, physics = restored[trained_name].network, restored[trained_name].physics
            estimates[trained_name] = (
                network,
                physics,
                sum(w.numel() for w in network.parameters()),
            )
    truth, images, meters = run_all(estimates, splits["test"], device)
    summaries = {name: meter.summary() for name, meter in meters.items()}
    rows = [
        {
            "": name,
            "PSNR": s["psnr"],
            "± images": s["psnr_std"],
            "SSIM": s["ssim"],
            "parameters": estimates[name][2],
            "images": s["images"],
        }
        for name, s in summaries.items()
    ]
    gain = paired(meters[distilled].per_image()["psnr"], meters[alone].per_image()["psnr"])
    config = restored[alone].physics.config
    text = (
        f"{markdown(rows)}\n\nPSNR and SSIM are means over the {len(truth)} test tiles of photographs that no network has seen; "
        f"the spread is that of the tiles.\nOrdering {config['ordering']}, no noise, {args.epochs} epochs, width {args.width}, seed {args.seed}.\n"
        f"Distillation against the same student alone: {gain.mean:+.3f} dB, 95 % interval over the tiles {gain.low:+.3f} .. {gain.high:+.3f} dB. "
        "One seed: another one can change its sign."
    )
    print(f"\n{text}\n")
    write_csv(folder / "table.csv", rows)
    draw_story(truth, images, (alone, distilled, teacher), args.pictures, folder / "figure.png")
    write_text(folder / "report.md", f"# Demo\n\n{text}\n\n![truth and estimates](figure.png)\n")
    return {"rows": rows, "gain": gain.mean, "text": text}


def run_all(
    estimates: dict, test: Images, device: torch.device
) -> tuple[Tensor, dict[str, Tensor], dict[str, Meter]]:
    """The truth, every estimate of it, and its scores."""
    loader = build_loader(test, 50)
    images, meters = {}, {}
    for name, (network, physics, _) in estimates.items():
        passed = outputs(network.to(device), Views(physics.to(device), loader, device, seed=0))
        pairs = [(batch.image, output) for batch, _, output in passed]
        truth = torch.cat([x for x, _ in pairs])
        images[name], meters[name] = torch.cat([output for _, output in pairs]), Meter()
        meters[name].add(images[name], truth)
    return truth, images, meters


def draw_story(
    truth: Tensor, images: dict[str, Tensor], networks: tuple[str, str, str], count: int, path: Path
) -> None:
    """A few test images, estimates of them, and the errors of these."""
    chosen = detailed(truth, count)
    alone, distilled, teacher = networks
    cr = alone.split(", ")[1]
    names = {
        f"back-projection, {cr}": "back-projection",
        f"LMMSE, {cr}": "LMMSE",
        alone: "student alone",
        distilled: "distilled",
        teacher: "teacher",
    }
    columns = {short: images[name][chosen] for name, short in names.items()}
    draw_grid(columns, truth[chosen], path, notes_of(columns, truth[chosen]))
