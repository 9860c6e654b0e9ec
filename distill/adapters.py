"""Small trained bridges between taps of different shapes; they stay outside the student's weights."""

import torch.nn.functional as F
from torch import Tensor, nn


class Adapter(nn.Module):
    """Gives the student's map the teacher's channels by a 1x1 convolution, and pools the larger map down to the smaller."""

    def __init__(self, c_s: int, c_t: int):
        super().__init__()
        self.project = nn.Identity() if c_s == c_t else nn.Conv2d(c_s, c_t, 1)

    def forward(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        size = [min(a, b) for a, b in zip(s.shape[-2:], t.shape[-2:], strict=True)]
        s, t = (F.adaptive_avg_pool2d(f, size) if list(f.shape[-2:]) != size else f for f in (s, t))
        return self.project(s), t
