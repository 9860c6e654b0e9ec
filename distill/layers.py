"""Which layers of student and teacher are compared, and the adapters between layers of different shapes."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from core.registry import CLASS_SELECTIONS, SELECTIONS
from distill.feature import same_size

GROUPS: dict[str, Callable[[str], bool]] = {  # which layers a group of a selection holds
    "first": lambda layer: layer == "enc1",
    "latent": lambda layer: layer == "latent",
    "decoder": lambda layer: layer.startswith("dec") or layer == "head",
    "output": lambda layer: layer == "output",
    "pool": lambda layer: layer == "pool",
    "stages": lambda layer: layer not in ("enc1", "output", "pool"),  # a classifier's other maps
    "all": lambda layer: layer not in ("output", "pool"),
}


def selected_layers(selection: str, student: Sequence[str], teacher: Sequence[str]) -> list[str]:
    """The layers of a selection that both networks have, in the student's order.

    U-Nets of different depth share enc1, latent, dec1, head, output and the levels of the shallower.
    """
    groups = (SELECTIONS | CLASS_SELECTIONS)[selection]
    shared = [layer for layer in student if layer in teacher]
    return [layer for layer in shared if any(GROUPS[group](layer) for group in groups)]


class Adapter(nn.Module):
    """Gives the student's map the teacher's channels by a 1x1 convolution, and pools the larger map down to the smaller.

    `always`: a convolution even where the channels agree.
    """

    def __init__(self, c_s: int, c_t: int, always: bool = False):
        super().__init__()
        self.project = nn.Conv2d(c_s, c_t, 1) if always or c_s != c_t else nn.Identity()

    def forward(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        s, t = same_size(s, t)
        return self.project(s), t
