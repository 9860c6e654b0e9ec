"""A physics of the user's own, which any linear operator with its adjoint can be."""

from collections.abc import Callable

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from core import own
from core.errors import UserError
from physics.base import Linear

ADJOINT = 1e-3  # the largest difference between <A x, u> and <x, Aᵀ u>, as a share of |A x| |u|


class OwnOperator:
    """An operator of the user's, an error in which is reported by the user's line."""

    def __init__(self, key: str, operator: LinearPhysics):
        self.key, self.operator = key, operator

    def A(self, x: Tensor, /) -> Tensor:
        with own.pointing_at(own.source_of(self.key).path):
            return self.operator.A(x)

    def A_adjoint(self, y: Tensor, /) -> Tensor:
        with own.pointing_at(own.source_of(self.key).path):
            return self.operator.A_adjoint(y)

    def A_dagger(self, y: Tensor, /) -> Tensor:
        """The operator's own, or deepinv's iterations."""
        with own.pointing_at(own.source_of(self.key).path):
            return self.operator.A_dagger(y)


def own_physics(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Linear:
    """The physics of a config, whose code must be in a file that the command line named."""
    key, n, c = config["name"], config["n"], config["c"]
    own.report_change(key, config["digest"], "the network was trained")
    function = own.load(key)
    arguments = own.settings_for(function, key, config.get("settings", {}), {"n": n, "c": c})
    with own.pointing_at(own.source_of(key).path):
        made = function(**arguments)
    operator = OwnOperator(key, made if isinstance(made, LinearPhysics) else linear(key, made))
    count = check_operator(operator, n, c)
    physics = Linear(operator, config, torch.arange(count))
    return physics.prepare_first_image(images, state[0] if state else None)


def linear(key: str, made) -> LinearPhysics:
    """An object with A and A_adjoint as a physics of deepinv, which inverts it by iterations."""
    if not (hasattr(made, "A") and hasattr(made, "A_adjoint")):
        raise UserError(f"physics {key} makes {type(made).__name__}: it needs A and A_adjoint")
    return LinearPhysics(A=lambda x, **_: made.A(x), A_adjoint=lambda y, **_: made.A_adjoint(y))


@torch.no_grad()
def check_operator(operator: OwnOperator, n: int, c: int) -> int:
    """How many values an image gives in a channel; refuses what is no operator or no adjoint."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, c, n, n, generator=generator)  # of no mean, which most operators keep
    y, key = operator.A(x), operator.key
    if not isinstance(y, Tensor) or y.shape[:2] != (2, c):
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise UserError(f"physics {key}: A makes {shape} of (2, {c}, {n}, {n}), not (2, {c}, ...)")
    u = torch.randn(y.shape, generator=generator)
    back = operator.A_adjoint(u)
    if not isinstance(back, Tensor) or back.shape != x.shape:
        shape = tuple(back.shape) if isinstance(back, Tensor) else type(back).__name__
        raise UserError(f"physics {key}: A_adjoint makes {shape}, not images {tuple(x.shape)}")
    check_adjoint(operator, x, y)  # random images and values alone are almost orthogonal
    check_adjoint(operator, back, u)
    return y[0, 0].numel()


def check_adjoint(operator: OwnOperator, x: Tensor, u: Tensor) -> None:
    """Refuses an operator of which <A x, u> is not <x, Aᵀ u>."""
    y = operator.A(x)
    left, right = (y * u).sum().item(), (x * operator.A_adjoint(u)).sum().item()
    if not abs(left - right) <= ADJOINT * (y.norm() * u.norm()).item():
        raise UserError(
            f"physics {operator.key}: A_adjoint is not the adjoint of A: "
            f"<A x, u> is {left:.4g}, and <x, A_adjoint u> is {right:.4g}"
        )
