"""Small trained bridges between taps of different shapes; they stay outside the student's weights."""

from torch import Tensor, nn

from distill.feature import same_size


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
