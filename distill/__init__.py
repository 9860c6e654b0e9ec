"""Distillation: the stage, the selection of taps, the adapters, and the pool of losses."""

from collections.abc import Callable
from functools import partial

from tables import LOSSES, look_up


def build_loss(name: str, **options) -> Callable:
    """The loss (student's tap, teacher's tap) -> scalar that a name stands for; it takes the options that its table line lists."""
    loss = look_up(LOSSES, name, "loss")
    return partial(loss, **{option: options[option] for option in LOSSES[name].options})
