"""Times of contenders side by side, and what the machine can do at most."""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Times = dict[str, list[float]]  # seconds of every round


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long a piece of work takes, waited for."""
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began


def interleaved(
    contenders: dict[str, Callable[[], object]], rounds: int, device: torch.device, repeat: int = 1
) -> Times:
    """Every contender once a round, after a round that does not count; a round is so many repetitions."""
    times: Times = {name: [] for name in contenders}
    for round_ in range(1 + rounds):
        for name, work in contenders.items():
            taken = seconds(lambda work=work: [work() for _ in range(repeat)], device) / repeat
            if round_:
                times[name].append(taken)
    return times


def lines(
    group: str, case: str, times: Times, images: int = 0, flops: float = 0.0, **more
) -> list[dict]:
    """A line a contender: the median time, and the median over the rounds of its ratio to the first contender."""
    first = next(iter(times.values()))
    rows = []
    for name, taken in times.items():
        middle, ratio = median(taken), median(a / b for a, b in zip(taken, first, strict=True))
        row = {
            "group": group,
            "case": case,
            **more,
            "contender": name,
            "seconds": middle,
            "ratio": ratio,
        }
        rows.append(
            row
            | ({"images/s": images / middle} if images else {})
            | ({"GFLOP/s": flops / middle / 1e9} if flops else {})
        )
    return rows


def count_flops(work: Callable[[], object]) -> int:
    """Multiplications and additions, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@torch.no_grad()
def peaks(
    device: torch.device, bf16: bool, small: bool = False
) -> dict[str, tuple[Callable[[], object], float]]:
    """3x3 convolutions and products of matrices that keep the arithmetic busy, each with its floating-point operations."""
    kind = torch.bfloat16 if bf16 else torch.float32
    side = 64 if small else 8192 if device.type == "cuda" else 1024
    batch = 1 if small else 512 if device.type == "cuda" else 16
    found = {}
    for channels in (64, 128, 256):
        x = torch.randn(batch, channels, 32, 32, device=device, dtype=kind).contiguous(
            memory_format=torch.channels_last
        )
        layer = nn.Conv2d(
            channels, channels, 3, padding=1, bias=False, device=device, dtype=kind
        ).to(memory_format=torch.channels_last)
        layer.requires_grad_(False)
        found[f"convolution, {channels} channels"] = (
            lambda x=x, layer=layer: F.conv2d(x, layer.weight, padding=1),
            2 * 9 * channels * x.numel(),
        )
    a, b = torch.randn(2, side, side, device=device, dtype=kind)
    return found | {f"matrices, {side} x {side}": (lambda: a @ b, 2 * side**3)}


def facts(device: torch.device) -> str:
    """The machine and the versions in a line."""
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.is_file()
        else []
    )
    chip = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    return f"{names[0] if names else platform.processor() or platform.machine()}, {chip}, torch {torch.__version__}, {platform.system()}"


def memory_peak() -> int:
    """The most bytes that this process has held in memory."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(
            1024 * int(line.split()[1])
            for line in status.read_text().splitlines()
            if line.startswith("VmHWM")
        )
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if platform.system() == "Darwin" else 1024
    )
