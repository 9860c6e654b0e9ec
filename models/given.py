"""Teachers that are given as they are: a module of the user's, or a torch.export program."""

import inspect
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from core import own
from core.errors import UserError
from models.base import Restorer
from models.measured import Measured
from models.own_network import check_image


class ReadsValues(Restorer):
    """A module of the user's that takes (y, physics), as deepinv's own reconstructors do.

    y has the measured values on the grid of the Hadamard patterns, and 0 elsewhere.
    """

    reads_measurements = True

    def __init__(self, c: int, n: int, key: str, module: nn.Module, operator):
        super().__init__(c)
        self.n, self.key, self.operator = n, key, operator
        self.module = module

    def features(self, x: Tensor) -> dict[str, Tensor]:
        measured = Measured(x, self.c, self.n)
        y = measured.values * measured.mask
        with own.pointing_at(own.source_of(self.key).path):
            output = self.module(y, self.operator)
        check_image(output, x[:, : self.c], self.key)
        return {"output": output}


class Exported(Restorer):
    """A program of torch.export that takes a first image and returns an image."""

    def __init__(self, c: int, path: str, module: nn.Module):
        super().__init__(c)
        self.path = path
        self.module = module

    def train(self, mode: bool = True) -> "Exported":
        """A program has one mode, in which it was exported."""
        self.training = mode
        return self

    def features(self, x: Tensor) -> dict[str, Tensor]:
        image = x[:, : self.c]
        try:
            output = self.module(x)
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"teacher {self.path}: it cannot take first images {tuple(x.shape)}: {reason}"
            ) from error
        check_image(output, image, self.path)
        return {"output": output}


def takes_values(module: nn.Module) -> bool:
    """Whether a module takes (y, physics) and not a first image alone."""
    parameters = inspect.signature(module.forward).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind in (0, 1)]
    return len(needed) > 1


def load_program(path: str | Path) -> nn.Module:
    """A torch.export program of a file, of which nothing but its graph of tensors is read.

    torch.export.load unpickles what it does not know; here that is refused.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"teacher {path}: no such file")
    try:
        with no_unpickling():
            return torch.export.load(path).module()
    except Exception as error:  # whatever torch makes of a damaged or hostile file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"teacher {path} is no program of torch.export: {reason}") from None


@contextmanager
def no_unpickling() -> Iterator[None]:
    """torch.load reads weights only, and nothing else is unpickled."""
    load = torch.load

    def weights_only(*args, **more):
        return load(*args, **more | {"weights_only": True})

    def refuse(*_, **__):
        raise pickle.UnpicklingError("it holds Python objects, which are not read")

    with (
        patch.object(torch, "load", weights_only),
        patch.object(pickle, "loads", refuse),
        patch.object(torch._C, "_pickle_load_obj", refuse),
    ):
        yield
