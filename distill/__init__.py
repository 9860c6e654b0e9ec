"""Distillation: the stage, the selection of taps, the adapters, and the pool of losses."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from core.registry import LOSSES, TASK_LOSSES, LossSpec, look_up


class Term(NamedTuple):
    """A distillation loss (student's tap, teacher's tap) -> scalar, or what makes one of the taps' shapes; see `Loss`."""

    name: str
    weight: float
    distance: Callable
    adapter: str
    layers: str | None = None
    needs: tuple[str, ...] = ()
    together: bool = False


def build_term(
    name: str,
    weight: float | None = None,
    table: dict[str, LossSpec] = LOSSES,
    layers: str | None = None,
    **options,
) -> Term:
    """The distillation loss that a name stands for, with the table's weight and taps unless others are given."""
    line, loss = table[name], look_up(table, name, "loss")
    distance = (
        partial(loss, **{option: options[option] for option in line.options})
        if line.adapter == "own"
        else build_loss(table, name, **options)
    )
    return Term(
        name,
        line.weight if weight is None else weight,
        distance,
        line.adapter,
        layers or line.layers,
        line.needs,
        line.together,
    )


def build_task(name: str, table: dict[str, LossSpec] = TASK_LOSSES, **options) -> Callable:
    """The task loss (output, target) -> scalar that a name stands for."""
    return build_loss(table, name, **options)


def build_loss(table: dict[str, LossSpec], name: str, **options) -> Callable:
    """A loss of a table, given those of the options that its line lists; a class is made, a function is bound."""
    loss = look_up(table, name, "loss")
    options = {option: options[option] for option in table[name].options}
    return loss(**options) if isinstance(loss, type) else partial(loss, **options)
