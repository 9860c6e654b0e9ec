"""What a loss learns of the teacher before the student begins."""

from argparse import Namespace
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import DataLoader

from core.files import write_csv
from core.runtime import PREPARATION, Stop, seeded
from report.figures import draw_lines
from training.cache import Memory, on
from training.run import Run

RATE = 1e-3  # of Adam


def prepare(
    stage: nn.Module,
    loader: DataLoader,
    memory: Memory,
    stop: Stop,
    args: Namespace,
    run: Run,
    device: torch.device,
    far: dict,
    save: Callable[[], None],
) -> None:
    """Trains what the stage has to prepare for --prepare_epochs passes; its losses are written and drawn. `far` tells how far it is."""
    weights = stage.prepared()
    if not weights:
        return
    optimizer, rows = torch.optim.Adam(weights, lr=RATE), far.setdefault("rows", [])
    if rows:
        optimizer.load_state_dict(far["optimizer"])
    for weight in weights:
        weight.requires_grad_(True)
    for epoch in range(len(rows), args.prepare_epochs):
        loader.dataset.epoch, loader.batch_sampler.first, sums = epoch, 0, {}
        for k, batch in enumerate(loader):
            stop.check()
            losses = stage.prepare(
                memory.add(on(device, batch)),
                seeded(args.seed, PREPARATION, epoch * len(loader) + k),
            )
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            sums = {
                name: sums.get(name, 0.0) + loss.item() * len(batch["image"])
                for name, loss in losses.items()
            }
        means = {name: value / len(loader.dataset) for name, value in sums.items()}
        rows.append({"epoch": epoch + 1} | means)
        far["optimizer"] = optimizer.state_dict()
        save()
        print(
            f"prepared {epoch + 1}/{args.prepare_epochs}  "
            + "  ".join(f"{name} {value:.3e}" for name, value in means.items())
        )
    for weight in weights:
        weight.requires_grad_(False)
    write_csv(run.folder / "prepared.csv", rows)
    draw_lines(rows, "epoch", run.folder / "prepared.png")
