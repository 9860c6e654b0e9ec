"""The demo's table, figure and report: teacher, students and baselines on the same test images."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from algo_functions import Meter
from checkpoints.checkpoint import restore
from core.files import write_csv, write_text
from data.batches import Images, build_loader, present
from data_loader import build_splits
from models.base import Network
from physics.base import Physics
from preparation.baselines import baselines_of
from preparation.setup import request_of
from report.figures import draw_grid, psnr_notes, select_detailed
from report.statistics import paired
from report.tables import markdown
from training.cache import Views
from training.validation import outputs


@dataclass(frozen=True)
class Estimator:
    """A network with a physics; a baseline has no parameters."""

    network: Network
    physics: Physics
    parameters: int = 0


def report_restoration(
    trained: dict[str, str], args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Evaluates teacher, student alone and distilled student, in this order, and reports."""
    _, alone, distilled = trained
    splits = build_splits(request_of(args), wanted=("train", "test"))
    estimators = build_estimators(trained, splits["train"])
    truth, images, meters = estimate_all(estimators, splits["test"], device)
    rows = []
    for name, meter in meters.items():
        scores = meter.summary()
        row = {
            "": name,
            "PSNR": scores["psnr"],
            "PSNR std": scores["psnr_std"],
            "SSIM": scores["ssim"],
            "parameters": estimators[name].parameters,
            "images": scores["images"],
        }
        rows.append(row)
    gain = paired(meters[distilled].per_image()["psnr"], meters[alone].per_image()["psnr"])
    ordering = estimators[alone].physics.config["ordering"]
    text = f"""\
{markdown(rows)}

PSNR and SSIM are means over {len(truth)} test tiles of photographs that no network was trained on.
PSNR std is the standard deviation over these tiles.
Ordering {ordering}, no noise, {args.epochs} epochs, width {args.width}, seed {args.seed}.
Gain of distillation over the same student alone: {gain.mean:+.3f} dB \
(95 % interval over the tiles {gain.low:+.3f} .. {gain.high:+.3f} dB).
This is one seed: the gain can have the other sign with another seed."""
    print(f"\n{text}\n")
    write_csv(folder / "table.csv", rows)
    draw_examples(truth, images, trained, args.pictures, folder / "figure.png")
    write_text(folder / "report.md", f"# Demo\n\n{text}\n\n![truth and estimates](figure.png)\n")
    return {"rows": rows, "gain": gain.mean, "text": text}


def build_estimators(trained: dict[str, str], train: Images) -> dict[str, Estimator]:
    """The students' baselines, the students, the teacher's baselines, and the teacher."""
    teacher, alone, distilled = trained
    checkpoints = {name: restore(path, {}) for name, path in trained.items()}
    estimators = {}
    for owner, names in ((alone, (alone, distilled)), (teacher, (teacher,))):
        physics = checkpoints[owner].physics
        ratio = physics.config["cr"]
        for name, baseline in baselines_of(physics, train.stack).items():
            estimators[f"{name}, cr {ratio:g}"] = Estimator(*baseline)
        for name in names:
            network, physics = checkpoints[name].network, checkpoints[name].physics
            parameters = sum(w.numel() for w in network.parameters())
            estimators[name] = Estimator(network, physics, parameters)
    return estimators


def estimate_all(
    estimators: dict[str, Estimator], test: Images, device: torch.device
) -> tuple[Tensor, dict[str, Tensor], dict[str, Meter]]:
    """The truth, every estimate of it, and its scores."""
    loader = build_loader(test, 50)
    truth, images, meters = torch.empty(0), {}, {}
    for name, one in estimators.items():
        views = Views(one.physics.to(device), loader, device, seed=0)
        passes = outputs(one.network.to(device), views)
        pairs = [(present(batch.image), output) for batch, _, output in passes]
        truth = torch.cat([x for x, _ in pairs])
        images[name], meters[name] = torch.cat([output for _, output in pairs]), Meter()
        meters[name].add(images[name], truth)
    return truth, images, meters


def draw_examples(
    truth: Tensor, images: dict[str, Tensor], trained: dict[str, str], count: int, path: Path
) -> None:
    """A few test images, estimates of them, and the errors of these."""
    selected = select_detailed(truth, count)
    teacher, alone, distilled = trained
    ratio = alone.split(", ")[1]
    titles = {
        f"back-projection, {ratio}": "back-projection",
        f"LMMSE, {ratio}": "LMMSE",
        alone: "student alone",
        distilled: "distilled",
        teacher: "teacher",
    }
    columns = {title: images[name][selected] for name, title in titles.items()}
    draw_grid(columns, truth[selected], path, psnr_notes(columns, truth[selected]))
