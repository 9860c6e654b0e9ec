"""Interleaved times of candidates, and the limits of the machine."""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], object]
Times = dict[str, list[float]]  # seconds of every round


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_work(work: Work, device: torch.device) -> float:
    """Seconds of a piece of work, until the device has finished it."""
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def time_interleaved(
    candidates: dict[str, Work], rounds: int, device: torch.device, repeat: int = 1
) -> Times:
    """The time of every candidate in every round, after a round that does not count.

    A candidate's work is repeated in a round, and its time is that of one repetition.
    """
    times: Times = {name: [] for name in candidates}
    for round_ in range(1 + rounds):
        for name, work in candidates.items():
            seconds = time_work(lambda work=work: [work() for _ in range(repeat)], device) / repeat
            if round_:
                times[name].append(seconds)
    return times


def timing_rows(
    group: str, case: str, times: Times, images: int = 0, flops: float = 0.0, **more
) -> list[dict]:
    """A row a candidate: its median time, and its median ratio to the first over the rounds."""
    first = next(iter(times.values()))
    rows = []
    for name, seconds in times.items():
        row = {
            "group": group,
            "case": case,
            **more,
            "candidate": name,
            "seconds": median(seconds),
            "ratio": median(a / b for a, b in zip(seconds, first, strict=True)),
        }
        if images:
            row["images/s"] = images / row["seconds"]
        if flops:
            row["GFLOP/s"] = flops / row["seconds"] / 1e9
        rows.append(row)
    return rows


def count_flops(work: Work) -> int:
    """Multiplications and additions, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@torch.no_grad()
def peak_work(
    device: torch.device, bf16: bool, small: bool = False
) -> dict[str, tuple[Work, float]]:
    """Large 3x3 convolutions and products of matrices, each with its floating-point operations."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    side, batch = (8192, 512) if device.type == "cuda" else (1024, 16)
    if small:
        side, batch = 64, 1
    work: dict[str, tuple[Work, float]] = {}
    for channels in (64, 128, 256):
        x = torch.randn(batch, channels, 32, 32, device=device, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        layer = nn.Conv2d(
            channels, channels, 3, padding=1, bias=False, device=device, dtype=dtype
        ).to(memory_format=torch.channels_last)
        weight = layer.requires_grad_(False).weight
        flops = 2 * 9 * channels * x.numel()
        work[f"convolution, {channels} channels"] = (
            lambda x=x, weight=weight: F.conv2d(x, weight, padding=1),
            flops,
        )
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    return work | {f"matrices, {side} x {side}": (lambda: a @ b, 2 * side**3)}


def describe_machine(device: torch.device) -> str:
    """The machine and the versions in a line."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    chip = f"{torch.get_num_threads()} threads"
    if device.type == "cuda":
        chip = torch.cuda.get_device_name(device)
    return f"{processor}, {chip}, torch {torch.__version__}, {platform.system()}"


def process_memory_peak() -> int:
    """The most bytes that this process has held in memory."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
