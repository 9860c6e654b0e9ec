"""A single-pixel camera that learns its patterns while a network learns to read them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.hadamard import hadamard_2d
from core.inputs import check_dense
from physics.base import Linear
from physics.orderings import variance_places
from physics.single_pixel import SinglePixel, count_measurements


class LearnedPatterns(nn.Module):
    """m patterns of ±1, which are the signs of real weights; the first one is all ones and stays.

    So 0/1 suffices to show them: y = 2 y01 - y1, where y1 is the value of the first. Signs have no
    gradient, so the weights get that of the patterns as it is, as long as they are in [-1, 1]
    (the straight-through estimator).
    """

    def __init__(self, signs: Tensor, n: int):
        """`signs` are the patterns to begin with, as rows of ±1 (m, n²), the first all ones."""
        super().__init__()
        self.n = n
        # How far a weight is from the change of its sign differs from pixel to pixel.
        distance = torch.rand(signs[1:].shape, generator=torch.Generator().manual_seed(0))
        self.weights = nn.Parameter(signs[1:] * distance)

    def signs(self) -> Tensor:
        """The patterns as rows of ±1, (m, n²)."""
        signs = torch.where(self.weights >= 0, 1.0, -1.0)
        passed = self.weights.clamp(-1, 1)
        learned = signs + (passed - passed.detach())
        return torch.cat((torch.ones(1, self.n**2, device=signs.device), learned))

    def rows(self) -> Tensor:
        """The patterns with a norm of 1, as the Hadamard patterns have it."""
        return self.signs() / self.n

    def A(self, x: Tensor, **_) -> Tensor:
        return x.flatten(2) @ self.rows().T  # (B, C, m)

    def A_adjoint(self, y: Tensor, **_) -> Tensor:
        return (y @ self.rows()).unflatten(2, (self.n, self.n))

    def A_dagger(self, y: Tensor, **_) -> Tensor:
        """Aᵀ (A Aᵀ)⁻¹ y, in double precision."""
        rows = self.rows().double()
        solved = torch.linalg.solve(rows @ rows.T, y.double().transpose(1, 2)).transpose(1, 2)
        return (solved @ rows).unflatten(2, (self.n, self.n)).to(y)


class LearningCamera(SinglePixel):
    """A camera in training: its patterns are weights; a checkpoint keeps their signs."""

    operator: LearnedPatterns

    def __init__(self, operator: LearnedPatterns, config: dict):
        Linear.__init__(self, operator, config, torch.arange(len(operator.weights) + 1))

    @property
    def patterns(self) -> Tensor:
        """The patterns as they are now, int8 on the CPU."""
        return self.operator.signs().detach().to("cpu", torch.int8)


def learning_camera(config: dict, images: Callable[[], Tensor] | None) -> LearningCamera:
    """A camera whose patterns begin as the Hadamard patterns of most energy in the images."""
    n = config["n"]
    check_dense(n)
    if images is None:
        raise UserError("ordering 'learned': only a training learns patterns; give a checkpoint")
    if config["x0"] == "lmmse":
        raise UserError("ordering 'learned': x0 lmmse is fitted to fixed patterns; leave it out")
    if config["photons"] is not None:
        raise UserError(
            "ordering 'learned': photons are counted without a gradient; learn the patterns with "
            "--noise, and test the network with --photons"
        )
    m = count_measurements(config["cr"], n)
    if m < 2:
        raise UserError(f"ordering 'learned': cr {config['cr']:g} leaves no pattern to be learned")
    energies = variance_places(n, images)
    order = energies.view(-1).argsort().tolist()
    chosen = [0, *(place for place in order if place)][:m]  # 0 is the pattern of all ones
    units = torch.zeros(m, n * n)
    units[torch.arange(m), chosen] = 1
    signs = hadamard_2d(units.unflatten(1, (n, n))).flatten(1).sign()
    return LearningCamera(LearnedPatterns(signs, n), config)
