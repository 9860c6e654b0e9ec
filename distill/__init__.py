"""Distillation: the stage, the selection of taps, the adapters, and the pool of losses."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tables import LOSSES, TASK_LOSSES, Loss, look_up


class Term(NamedTuple):
    """A distillation loss (student's tap, teacher's tap) -> scalar, its weight, and when an adapter bridges the taps."""

    name: str
    weight: float
    distance: Callable
    bridge: str


def build_term(name: str, weight: float | None = None, **options) -> Term:
    """The distillation loss that a name stands for, with the table's weight unless another is given."""
    line = LOSSES[name]
    return Term(name, line.weight if weight is None else weight, build_loss(LOSSES, name, **options), line.bridge)


def build_task(name: str, **options) -> Callable:
    """The task loss (output, target) -> scalar that a name stands for."""
    return build_loss(TASK_LOSSES, name, **options)


def build_loss(table: dict[str, Loss], name: str, **options) -> Callable:
    """A loss of a table, given those of the options that its line lists; a class is made, a function is bound."""
    loss = look_up(table, name, "loss")
    options = {option: options[option] for option in table[name].options}
    return loss(**options) if isinstance(loss, type) else partial(loss, **options)
