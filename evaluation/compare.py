"""The cost and the quality of networks: parameters, FLOPs, memory, latency, PSNR and SSIM."""

import time
import weakref
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from checkpoints.checkpoint import Checkpoint
from core.files import write_csv
from data.batches import build_loader
from evaluation.checkpoints import (
    build_meter,
    check_recorded,
    check_same_images,
    checkpoint_names,
    fit_to_images,
    load_test_images,
    physics_at_levels,
    short_name,
)
from physics.paired import physics_for
from preparation.setup import physics_of_recording
from report.figures import COLORS, panels, save_figure, use_decimal_labels, write_below
from training.cache import Views
from training.validation import evaluate


class LiveMemory(TorchDispatchMode):
    """The peak of the bytes of all tensors alive at once; the same on every device."""

    def __init__(self):
        super().__init__()
        self.now, self.peak = 0, 0
        self.counted: set[int] = set()  # addresses of storages

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
        if key in self.counted or key in inputs:
            return
        self.counted.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, key, size)

    def free(self, key: int, size: int) -> None:
        self.counted.discard(key)
        self.now -= size


@torch.no_grad()
def count_pass_flops(network: nn.Module, x: Tensor) -> int:
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
def time_passes(network: nn.Module, x: Tensor, runs: int) -> np.ndarray:
    """Seconds of each of the timed passes, after a warm-up."""

    def time_pass() -> float:
        began = time.perf_counter()
        network(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - began

    for _ in range(max(3, runs // 10)):
        time_pass()
    return np.array([time_pass() for _ in range(runs)])


def compare_checkpoints(
    checkpoints: dict[str, Checkpoint], args: Namespace, device: torch.device
) -> list[dict]:
    """A row a checkpoint; the ratios are to the first."""
    check_same_images(checkpoints)
    rows = [
        comparison_row(name, checkpoints[path], args, device)
        for path, name in checkpoint_names(checkpoints).items()
    ]
    first, latency = rows[0], f"ms, batch {args.batches[0]}"
    for row in rows:
        row["x fewer parameters"] = first["parameters"] / row["parameters"]
        row["x fewer FLOPs"] = first["MFLOPs"] / row["MFLOPs"]
        row["x faster"] = first[latency] / row[latency]
        row["PSNR gain"] = row["PSNR"] - first["PSNR"]
    return rows


def comparison_row(
    name: str, checkpoint: Checkpoint, args: Namespace, device: torch.device
) -> dict:
    """The cost and the quality of one checkpoint."""
    network = checkpoint.network.to(device)
    test, meter = load_test_images(args, checkpoint.physics), build_meter(args)
    check_recorded(physics_of_recording(test), checkpoint.physics, f"checkpoint {name}", args)
    (physics,) = physics_at_levels(checkpoint.physics.to(device), args)
    loader = build_loader(test, args.batch_size, args.num_workers)
    for part in physics_for(test, physics, network).parts:
        fitted_network, part = fit_to_images(network, part, test)
        evaluate(fitted_network, Views(part, loader, device, args.seed), meter)
    x = physics.parts[0].example(device)
    row = {
        "model": short_name(name),
        "physics": physics.condition.replace("_", " "),
        "parameters": sum(w.numel() for w in network.parameters()),
        "MFLOPs": count_pass_flops(network, x) / 1e6,
        "memory (MB)": peak_memory(network, x) / 1e6,
    }
    for size in args.batches:
        batch = x.expand(size, -1, -1, -1).contiguous()
        low, median, high = np.percentile(
            1e3 * time_passes(network, batch, args.runs), (25, 50, 75)
        )
        row[f"ms, batch {size}"] = float(median)
        row[f"± batch {size}"] = float(high - low) / 2
    scores = meter.summary()
    return row | {"PSNR": scores["psnr"], "SSIM": scores["ssim"], "images": scores["images"]}


def write_comparison(rows: list[dict], batch: int, folder: Path) -> None:
    """The table, and quality over latency."""
    write_csv(folder / "models.csv", rows)
    save_figure(plot_comparison(rows, batch), folder / "models.png")


def plot_comparison(rows: list[dict], batch: int) -> Figure:
    """PSNR over latency with half its interquartile range; the numbers are explained below."""
    figure, (axis,) = panels(1, 1, 6.5, 4)
    column, most = f"ms, batch {batch}", max(row["parameters"] for row in rows)
    legend = []
    for k, row in enumerate(rows):
        point, color = (row[column], row["PSNR"]), COLORS[k % len(COLORS)]
        area = max(300 * row["parameters"] / most, 15)
        half = row.get(f"± batch {batch}", 0.0)
        bars = [[min(half, 0.95 * row[column])], [half]]  # no time is below zero
        axis.errorbar(*point, xerr=bars, color=color, capsize=2)
        axis.scatter(*point, s=area, color=color, alpha=0.5)
        axis.annotate(str(k + 1), point, xytext=(0, 12), textcoords="offset points", ha="center")
        words = [row["model"], row.get("physics"), f"{row['parameters']:,} parameters"]
        words += [f"{row[column]:.3g} ms", f"{row['PSNR']:.2f} dB"]
        legend.append(f"{k + 1}: {', '.join(filter(None, words))}")
    axis.margins(0.15, 0.2)
    times = [row[column] for row in rows]
    if max(times) > 3 * min(times):
        axis.set_xscale("log")
        use_decimal_labels(axis.xaxis)
    axis.set(xlabel=f"latency of a batch of {batch} (ms, median)", ylabel="PSNR (dB)")
    axis.set_title("area: number of parameters; bars: half the interquartile range")
    axis.grid()
    write_below(figure, legend)
    return figure
