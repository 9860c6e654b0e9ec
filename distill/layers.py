"""Which layers of student and teacher are compared, and the adapters between layers of different shapes."""

from collections.abc import Sequence

from torch import Tensor, nn

from distill.feature import same_size


def selected_layers(selection: str, student: Sequence[str], teacher: Sequence[str]) -> list[str]:
    """The taps a selection names, in the student's order, among those that both networks have.

    U-Nets of different depth share enc1, latent, dec1, head, output and the levels that the shallower one has; `encoder`
    is the first encoder block, as in the original release. `stages` of classifiers are all maps behind the stem.
    """
    shared = [layer for layer in student if layer in teacher]
    groups = {
        "all": [layer for layer in shared if layer not in ("output", "pool")],
        "decoder": [layer for layer in shared if layer.startswith("dec") or layer == "head"],
        "stages": [layer for layer in shared if layer not in ("enc1", "output", "pool")],
        "encoder": ["enc1"],
        "first": ["enc1"],
        "latent": ["latent"],
        "output": ["output"],
        "pool": ["pool"],
    }
    chosen = {layer for word in selection.split("_") for layer in groups[word]}
    return [layer for layer in shared if layer in chosen]


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
