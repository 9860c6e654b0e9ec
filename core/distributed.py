"""Several processes that train one network: shares of a batch, and what is gathered from all."""

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
            sys.stdout = open(os.devnull, "w")  # only the first one prints  # noqa: SIM115


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() and not SINGLE_PROCESS else 1


def share(count: int) -> range:
    """The places of this process among `count`, in shares as equal as possible."""
    return range(count * rank() // world(), count * (rank() + 1) // world())


def total(x: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if world() > 1:
        dist.all_reduce(x)
    return x


def add_gradients(weights: Sequence[Tensor]) -> None:
    """Replaces every process's gradients by their sum."""
    if world() == 1:
        return
    gradients = []
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        gradients.append(weight.grad)
    flat = total(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = flat.split([weight.numel() for weight in weights])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def average_statistics(module: nn.Module | None) -> None:
    """Replaces the running statistics, which each process has of its own images, by their mean."""
    if world() == 1 or module is None:
        return
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            for buffer in (layer.running_mean, layer.running_var):
                if buffer is not None:
                    total(buffer).div_(world())


def gather_objects(x) -> list:
    """Every process's object, in the order of the ranks."""
    if world() == 1:
        return [x]
    objects = [None] * world()
    dist.all_gather_object(objects, x)
    return objects


def wait() -> None:
    """Waits until all processes call this."""
    if world() > 1:
        dist.barrier()


@contextmanager
def single_process() -> Iterator[None]:
    """A part in which one process does all of the work, and nothing is gathered."""
    global SINGLE_PROCESS
    before, SINGLE_PROCESS = SINGLE_PROCESS, True
    try:
        yield
    finally:
        SINGLE_PROCESS = before


def gather_samples(x: Tensor) -> Tensor:
    """The samples (B, ...) of all processes, in the order of the ranks, with their gradients."""
    if world() == 1:
        return x
    counts = gather_objects(len(x))
    padded = torch.cat((x, x.new_zeros(max(counts) - len(x), *x.shape[1:])))
    parts = all_gather(padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
