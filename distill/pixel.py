"""A loss that asks the student's first features for the pixels that only the teacher saw."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError


class ISRD(nn.Module):
    """mean |crop(PReLU(PixelShuffle_r(conv1x1(s)))) - x_t| (Pixel Distillation)

    x_t is the teacher's normalised input, and r the smallest factor by which the map covers it. The
    convolution has no bias, and PReLU a slope for each colour.
    """

    def __init__(
        self, s: torch.Size, t: torch.Size, labels: Sequence[int], teacher_input: torch.Size
    ):
        super().__init__()
        if any(a > b for a, b in zip(s[-2:], teacher_input[-2:], strict=True)):
            raise UserError(
                f"loss 'isrd': a feature map of {s[-2]} x {s[-1]} pixels is larger than the "
                f"teacher's image of {teacher_input[-2]} x {teacher_input[-1]} pixels; "
                "choose a teacher with a larger input"
            )
        r = max(-(-b // a) for a, b in zip(s[-2:], teacher_input[-2:], strict=True))
        self.enlarge = nn.Sequential(
            nn.Conv2d(s[1], teacher_input[1] * r**2, 1, bias=False),
            nn.PixelShuffle(r),
            nn.PReLU(teacher_input[1]),
        )

    def forward(self, s: Tensor, t: Tensor, *, teacher_input: Tensor) -> Tensor:
        return F.l1_loss(
            self.enlarge(s)[..., : teacher_input.shape[-2], : teacher_input.shape[-1]],
            teacher_input,
        )
