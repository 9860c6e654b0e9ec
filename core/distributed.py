"""Several processes that train one network: which part of a batch is ours, and what all of them know together."""

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.modules.batchnorm import _BatchNorm

SINGLE_PROCESS = False


def start(device: torch.device) -> None:
    """Joins the processes that torchrun started, if it did."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
        if rank():
            sys.stdout = open(os.devnull, "w")  # one of them speaks  # noqa: SIM115


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() and not SINGLE_PROCESS else 1


def share(count: int) -> range:
    """Our places among `count`, as even as can be."""
    return range(count * rank() // world(), count * (rank() + 1) // world())


def total(x: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if world() > 1:
        dist.all_reduce(x)
    return x


def add_gradients(weights: Sequence[Tensor]) -> None:
    """Gives every process the sum of all gradients."""
    if world() > 1:
        for weight in weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        flat = total(torch.cat([weight.grad.flatten() for weight in weights]))
        for weight, part in zip(
            weights, flat.split([weight.numel() for weight in weights]), strict=True
        ):
            weight.grad.copy_(part.view_as(weight))


def average_statistics(module: nn.Module | None) -> None:
    """Gives every process the mean of the running statistics that each has of its own images."""
    if world() > 1 and module is not None:
        for layer in module.modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                for buffer in (layer.running_mean, layer.running_var):
                    total(buffer).div_(world())


def gather_objects(x) -> list:
    """Every process's object, in the order of the ranks."""
    found = [None] * world()
    if world() > 1:
        dist.all_gather_object(found, x)
        return found
    return [x]


def wait() -> None:
    """Until all processes are here."""
    if world() > 1:
        dist.barrier()


@contextmanager
def single_process() -> Iterator[None]:
    """Where a process does all of the work, and nothing is gathered."""
    global SINGLE_PROCESS
    before, SINGLE_PROCESS = SINGLE_PROCESS, True
    try:
        yield
    finally:
        SINGLE_PROCESS = before


def gather_samples(x: Tensor) -> Tensor:
    """The samples (B, ...) of all processes, in the order of the ranks; gradients find their way back."""
    if world() == 1:
        return x
    counts = gather_objects(len(x))
    padded = torch.cat((x, x.new_zeros(max(counts) - len(x), *x.shape[1:])))
    parts = all_gather(padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
