"""Distillation: the task of a batch, the layers that are compared, the adapters, and the losses."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from core import own
from core.errors import UserError
from core.registry import LOSSES, TASK_LOSSES, LossSpec, look_up


@dataclass(frozen=True)
class WeightedLoss:
    """A distillation loss (student's layer, teacher's layer) -> scalar, ready to be computed.

    Where its spec has an adapter of its "own", `distance` makes the module that computes it.
    """

    name: str
    weight: float
    distance: Callable
    spec: LossSpec
    layers: str | None  # the selection that it compares, whatever the others compare


def build_loss(
    name: str,
    weight: float | None = None,
    table: dict[str, LossSpec] = LOSSES,
    layers: str | None = None,
    settings: dict | None = None,
    **options,
) -> WeightedLoss:
    """The distillation loss of a name, with the table's weight and layers or with others.

    `settings` are arguments of a loss of the user's.
    """
    spec = table[name]
    if spec.adapter == "own":
        loss = look_up(table, name, "loss")
        distance = partial(loss, **{option: options[option] for option in spec.options})
    else:
        distance = with_options(table, name, options, settings)
    weight = spec.weight if weight is None else weight
    return WeightedLoss(name, weight, distance, spec, layers or spec.layers)


def build_task_loss(name: str, table: dict[str, LossSpec] = TASK_LOSSES, **options) -> Callable:
    """The task loss (output, target) -> scalar of a name."""
    return with_options(table, name, options)


def own_loss(name: str, loss: Callable, settings: dict) -> Callable:
    """A loss of the user's, a function or a class, whose errors are reported by their line."""
    path = own.source_of(name).path
    if isinstance(loss, type):
        with own.pointing_at(path):
            loss = loss(**settings)
        settings = {}

    def scalar(*layers: Tensor) -> Tensor:
        with own.pointing_at(path):
            value = loss(*layers, **settings)
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"{name} returns {shape}: a loss is one number")
        return value.reshape(())

    return scalar


def with_options(
    table: dict[str, LossSpec], name: str, options: dict, settings: dict | None = None
) -> Callable:
    """A loss of a table with the options that it reads: a class is made, a function bound."""
    loss = look_up(table, name, "loss")
    if own.is_own(name):
        return own_loss(name, loss, settings or {})
    read = {option: options[option] for option in table[name].options}
    return loss(**read) if isinstance(loss, type) else partial(loss, **read)
