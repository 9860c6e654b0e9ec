"""A loss that tells the teacher's view of an image from its views of others, with a memory of all images."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tables import UserError

FEATURES = 128  # of an embedding
MOMENTUM = 0.5  # of the memory


class Embedding(nn.Module):
    """A tap, averaged over its places, as a unit vector."""

    def __init__(self, channels: int):
        super().__init__()
        self.project = nn.Linear(channels, FEATURES)

    def forward(self, f: Tensor) -> Tensor:
        return F.normalize(self.project(f.flatten(2).mean(2) if f.dim() > 2 else f))


class CRD(nn.Module):
    """- mean_i [log D(positive) + sum over negatives of log(1 - D)], D = P / (P + K / N), P = exp(v · m / tau) / Z (arXiv:1910.10699)

    The student's v against the memory m of the teacher, and the reverse; K negatives of the N training images, N - 1 at most.
    Z is fixed by the first batch that trains.
    """

    def __init__(
        self,
        s: torch.Size,
        t: torch.Size,
        count: int,
        seen: torch.Size,
        *,
        crd_tau: float,
        crd_negatives: int,
    ):
        super().__init__()
        if count < 2 or crd_negatives < 1 or crd_tau <= 0:
            raise UserError(
                f"loss 'crd' tells images apart: {count} training images, crd_negatives {crd_negatives} and crd_tau {crd_tau:g} cannot; "
                "give two images, one negative and a tau above 0 at least"
            )
        self.tau, self.negatives = crd_tau, min(crd_negatives, count - 1)
        self.embed_s, self.embed_t = Embedding(s[1]), Embedding(t[1])
        for side in "st":
            self.register_buffer(f"memory_{side}", F.normalize(torch.randn(count, FEATURES)))
            self.register_buffer(
                f"log_z_{side}", torch.tensor(-math.inf)
            )  # of Z / N; Z = 0 before the first batch

    def forward(
        self, s: Tensor, t: Tensor, *, index: Tensor, generator: Generator | None
    ) -> Tensor:
        v_s, v_t = self.embed_s(s), self.embed_t(t)
        negatives = torch.randint(
            len(self.memory_s) - 1, (len(s), self.negatives), generator=generator
        ).to(s.device)
        images = torch.cat(
            [index[:, None], negatives + (negatives >= index[:, None])], 1
        )  # (B, 1 + K), the positive first
        learns = self.training and torch.is_grad_enabled()
        loss = self.contrast(v_s, self.memory_t, self.log_z_s, images, learns) + self.contrast(
            v_t, self.memory_s, self.log_z_t, images, learns
        )
        if learns:
            for memory, v in ((self.memory_s, v_s), (self.memory_t, v_t)):
                memory[index] = F.normalize(MOMENTUM * memory[index] + (1 - MOMENTUM) * v.detach())
        return loss

    def contrast(
        self, v: Tensor, memory: Tensor, log_z: Tensor, images: Tensor, learns: bool
    ) -> Tensor:
        scores = (v @ memory.clone().T).gather(
            1, images
        ) / self.tau  # the memory changes before the backward pass
        first = scores.detach().flatten().logsumexp(0) - math.log(scores.numel())
        z = torch.where(log_z.isneginf(), first, log_z)
        if learns:
            log_z.copy_(z)
        odds = scores - z - math.log(self.negatives)  # log P / (K / N)
        return -(F.logsigmoid(odds[:, 0]) + F.logsigmoid(-odds[:, 1:]).sum(1)).mean()
