"""What a network costs and what it gives."""

import time
import weakref
from argparse import Namespace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from core.files import write_csv
from data.batches import build_loader
from evaluation.restoration import at_levels, check_alike, fitted, meter_of, names_of, test_images
from physics.paired import physics_for
from report.figures import COLORS, panels, plain_numbers, save, write_below
from training.cache import Views
from training.checkpoint import Checkpoint
from training.validation import evaluate


class LiveMemory(TorchDispatchMode):
    """The bytes of the tensors that are alive at once while it is active, at their peak; the same on every device."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = {
            x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)
        }
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self.count(x.untyped_storage(), inputs)
        return result

    def count(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known or key in inputs:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, key, size)

    def free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@torch.no_grad()
def flops(network: nn.Module, x: Tensor) -> int:
    """Multiplications and additions of one pass, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops()


@torch.no_grad()
def peak_memory(network: nn.Module, x: Tensor) -> int:
    """Bytes of activations alive at once in one pass."""
    with LiveMemory() as memory:
        network(x)
    return memory.peak


@torch.no_grad()
def latencies(network: nn.Module, x: Tensor, runs: int) -> np.ndarray:
    """Seconds of each of the timed passes, after a warm-up, each waited for."""

    def once() -> float:
        began = time.perf_counter()
        network(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - began

    for _ in range(max(3, runs // 10)):
        once()
    return np.array([once() for _ in range(runs)])


def compare(
    checkpoints: dict[str, Checkpoint], args: Namespace, device: torch.device
) -> list[dict]:
    """A row a checkpoint; what is `x` counts against the first."""
    rows = []
    check_alike(checkpoints)
    for path, name in names_of(checkpoints).items():
        network, (physics,) = (
            checkpoints[path].network.to(device),
            at_levels(checkpoints[path].physics.to(device), args),
        )
        test, meter = test_images(args, physics), meter_of(args)
        loader = build_loader(test, args.batch_size, args.num_workers)
        for part in physics_for(test, physics, network).parts:
            seeing, camera = fitted(network, part, test)
            evaluate(seeing, Views(camera, loader, device, args.seed), meter)
        scores = meter.summary()
        first = physics.parts[0].example(device)
        row = {
            "model": name,
            "camera": physics.condition.replace("_", " "),
            "parameters": sum(w.numel() for w in network.parameters()),
            "MFLOPs": flops(network, first) / 1e6,
            "memory (MB)": peak_memory(network, first) / 1e6,
        }
        for size in args.batches:
            times = 1e3 * latencies(network, first.expand(size, -1, -1, -1).contiguous(), args.runs)
            low, middle, high = np.percentile(times, (25, 50, 75))
            row |= {f"ms, batch {size}": float(middle), f"± batch {size}": float(high - low) / 2}
        rows.append(
            row | {"PSNR": scores["psnr"], "SSIM": scores["ssim"], "images": scores["images"]}
        )
    for row in rows:
        row["x fewer parameters"] = rows[0]["parameters"] / row["parameters"]
        row["x fewer FLOPs"] = rows[0]["MFLOPs"] / row["MFLOPs"]
        row["x faster"] = (
            rows[0][f"ms, batch {args.batches[0]}"] / row[f"ms, batch {args.batches[0]}"]
        )
        row["PSNR gained"] = row["PSNR"] - rows[0]["PSNR"]
    return rows


def write(rows: list[dict], batch: int, folder: Path) -> None:
    """The table, and quality against latency."""
    write_csv(folder / "models.csv", rows)
    save(draw(rows, batch), folder / "models.png")


def draw(rows: list[dict], batch: int) -> plt.Figure:
    """PSNR against latency with half its interquartile range; networks have numbers, which the text below explains."""
    figure, (axis,) = panels(1, 1, 6.5, 4)
    column, most, lines = f"ms, batch {batch}", max(row["parameters"] for row in rows), []
    for k, row in enumerate(rows):
        place, color = (row[column], row["PSNR"]), COLORS[k % len(COLORS)]
        area = max(300 * row["parameters"] / most, 15)
        half = row.get(f"± batch {batch}", 0.0)
        bars = [[min(half, 0.95 * row[column])], [half]]  # no time is below zero
        axis.errorbar(*place, xerr=bars, color=color, capsize=2)
        axis.scatter(*place, s=area, color=color, alpha=0.5)
        axis.annotate(str(k + 1), place, xytext=(0, 12), textcoords="offset points", ha="center")
        about = [row["model"], row.get("camera"), f"{row['parameters']:,} parameters"]
        about += [f"{row[column]:.3g} ms", f"{row['PSNR']:.2f} dB"]
        lines.append(f"{k + 1}: {', '.join(filter(None, about))}")
    axis.margins(0.15, 0.2)
    times = [row[column] for row in rows]
    if max(times) > 3 * min(times):
        axis.set_xscale("log")
        plain_numbers(axis.xaxis)
    axis.set(xlabel=f"latency of a batch of {batch} (ms, median)", ylabel="PSNR (dB)")
    axis.set_title("area: number of parameters; bars: half the interquartile range")
    axis.grid()
    write_below(figure, lines)
    return figure
