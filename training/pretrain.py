"""What a loss learns of the teacher before the student begins."""

from argparse import Namespace
from collections.abc import Callable

import torch

from core.files import write_csv
from core.runtime import PREPARATION, Stop, seeded
from data.batches import Loader
from distill.task import Task, total_of
from report.figures import draw_lines
from training.cache import Memory
from training.run import Run

RATE = 1e-3  # of Adam


def pretrain(
    task: Task,
    loader: Loader,
    memory: Memory,
    stop: Stop,
    args: Namespace,
    run: Run,
    device: torch.device,
    state: dict,
    save: Callable[[], None],
) -> None:
    """Trains what the task has to learn first, for --prepare_epochs passes.

    Its losses are written and drawn. `state` is changed: it says how far the pretraining is.
    """
    weights = task.pretrained_parameters()
    if not weights:
        return
    optimizer, rows = torch.optim.Adam(weights, lr=RATE), state.setdefault("rows", [])
    if rows:
        optimizer.load_state_dict(state["optimizer"])
    for weight in weights:
        weight.requires_grad_(True)
    count = len(loader.images)
    for epoch in range(len(rows), args.prepare_epochs):
        loader.begin_at(epoch)
        sums: dict[str, float] = {}
        for k, batch in enumerate(loader):
            stop.check()
            generator = seeded(args.seed, PREPARATION, epoch * len(loader) + k)
            losses = task.pretrain(memory.add(batch.to(device)), generator)
            optimizer.zero_grad()
            total_of(losses.values()).backward()
            optimizer.step()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() * len(batch)
        means = {name: value / count for name, value in sums.items()}
        rows.append({"epoch": epoch + 1} | means)
        state["optimizer"] = optimizer.state_dict()
        save()
        text = "  ".join(f"{name} {value:.3e}" for name, value in means.items())
        print(f"pretrained {epoch + 1}/{args.prepare_epochs}  {text}")
    for weight in weights:
        weight.requires_grad_(False)
    write_csv(run.folder / "prepared.csv", rows)
    draw_lines(rows, "epoch", run.folder / "prepared.png")
