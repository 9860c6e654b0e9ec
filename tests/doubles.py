"""What stands in for a part of a training in tests."""

from collections.abc import Callable

import torch

from data.batches import Batch
from distill.task import Task
from training import loop, setup


def batch_of(image: torch.Tensor, **more) -> Batch:
    return Batch(image=image, index=torch.arange(len(image)), **more)


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
