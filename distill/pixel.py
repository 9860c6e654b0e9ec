"""A loss that asks the student's first features for the pixels that only the teacher saw."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from distill.relation import need_map


class ISRD(nn.Module):
    """mean |crop(PReLU(PixelShuffle_r(conv1x1(s)))) - seen|, r the smallest whole factor that covers `seen` (Pixel Distillation)

    `seen` is the teacher's input as its normalisation gives it; the convolution has no bias, and PReLU a slope for each colour.
    """

    def __init__(self, s: torch.Size, t: torch.Size, labels: Sequence[int], seen: torch.Size):
        super().__init__()
        need_map("isrd", s)
        if any(a > b for a, b in zip(s[-2:], seen[-2:], strict=True)):
            raise UserError(
                f"loss 'isrd': a map of {s[-2]} x {s[-1]} places is larger than the teacher's image of {seen[-2]} x {seen[-1]} pixels; "
                "choose a teacher that sees more"
            )
        r = max(-(-b // a) for a, b in zip(s[-2:], seen[-2:], strict=True))
        self.enlarge = nn.Sequential(
            nn.Conv2d(s[1], seen[1] * r**2, 1, bias=False), nn.PixelShuffle(r), nn.PReLU(seen[1])
        )

    def forward(self, s: Tensor, t: Tensor, *, seen: Tensor) -> Tensor:
        return F.l1_loss(self.enlarge(s)[..., : seen.shape[-2], : seen.shape[-1]], seen)
