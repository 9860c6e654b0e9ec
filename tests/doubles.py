"""What stands in for a part of a training in tests."""

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from algo_functions import build_physics
from core import own, registry
from data.batches import Batch
from distill.task import Task
from models.base import Network
from preparation import setup
from training import loop


def batch_of(image: torch.Tensor, **more) -> Batch:
    return Batch(image=image, index=torch.arange(len(image)), **more)


def gaussian_of(pixels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of images (N, n²), shrunk towards a stationary process, pixel by pixel."""
    count, n = len(pixels), int(pixels.shape[1] ** 0.5)
    mean, level = pixels.mean(0), pixels.mean()
    grey = (pixels - level).reshape(count, n, n)
    shifts = [(i, j) for i in range(n) for j in range(n)]
    alike = np.array([(grey * np.roll(grey, shift, (1, 2))).mean() for shift in shifts])
    places = np.array(shifts)
    apart = (places[:, None] - places[None]) % n
    stationary = alike[apart[..., 0] * n + apart[..., 1]]
    stationary += 1e-3 * alike[0] * np.eye(n * n)
    mixed = (1 - share) * np.cov(pixels.T, bias=True) + share * stationary
    return (1 - share) * mean + share * level, mixed


def skip_training(
    monkeypatch, scores: dict | None = None, keep: Callable = lambda task: task
) -> list:
    """From now on scripts prepare their tasks, which are kept in the list, and train none."""
    tasks: list = []

    def fit_of(task: Task, *_, **__):
        tasks.append(keep(task))
        raise setup.Finished(scores or {})

    monkeypatch.setattr(setup, "fit_of", fit_of)
    return tasks


def interrupt_where(monkeypatch, condition: Callable[[loop.Fit], bool]) -> Callable[[], None]:
    """Ctrl-C at the beginning of a round where a condition holds; gives back what undoes it."""
    start_round = loop.Fit._start_round

    def interrupted(fit: loop.Fit) -> None:
        if condition(fit):
            raise KeyboardInterrupt
        start_round(fit)

    monkeypatch.setattr(loop.Fit, "_start_round", interrupted)
    return lambda: monkeypatch.setattr(loop.Fit, "_start_round", start_round)


# ---------------------------------------------------------------- recordings

SIDE, FACTOR = 8, 0.7  # of a small camera, and of its linear student
CAMERA = {"name": "spc", "n": SIDE, "c": 1, "ordering": "xy", "x0": "adjoint", "awgn_snr": None}


class Scaled(Network):
    """x̂ = a x0, whose Jacobian is known."""

    def __init__(self, factor: float = FACTOR):
        super().__init__(1)
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def features(self, x: Tensor) -> dict[str, Tensor]:
        return {"output": self.factor * x}


def camera(cr: float, **config):
    return build_physics(CAMERA | {"cr": cr} | config)


def recorded_batch(x: Tensor, physics, deviation: float, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    y = physics.operator.A(x)
    measured = physics.measured_in(y).expand_as(y)
    noise = deviation * torch.randn(y.shape, generator=generator)
    return Batch(
        image=None,
        index=torch.arange(len(x)),
        recorded=(y + noise) * measured,
        variance=deviation**2 * measured,
    )


@contextmanager
def own_code_forgotten(monkeypatch):
    """Own code that a test names is forgotten after it, in the tables too."""
    monkeypatch.setattr(own, "SOURCES", {})
    tables = [(table, dict(table)) for table in vars(registry).values() if isinstance(table, dict)]
    yield
    for table, before in tables:
        table.clear()
        table.update(before)
