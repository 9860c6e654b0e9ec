"""A loss that tells the teacher's view of an image from its views of others, with a memory of all images."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from core.errors import UserError

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

    The student's v against the memory m of the teacher, and the reverse; K negatives of other classes, N - 1 at most, N the
    number of training images. Z is fixed by the first batch that trains.
    """

    order: Tensor  # (N,) the images class by class
    size: Tensor  # (N,) of each image's class
    gap: Tensor  # (N,) where its class begins in the order
    memory_s: Tensor  # (N, FEATURES) of the student
    memory_t: Tensor
    log_z_s: Tensor
    log_z_t: Tensor

    def __init__(
        self,
        s: torch.Size,
        t: torch.Size,
        labels: Sequence[int],
        teacher_input: torch.Size,
        *,
        crd_tau: float,
        crd_negatives: int,
    ):
        super().__init__()
        count = len(labels)
        if count < 2 or crd_negatives < 1 or crd_tau <= 0:
            raise UserError(
                f"loss 'crd' tells images apart: {count} training images, crd_negatives {crd_negatives} and crd_tau {crd_tau:g} cannot; "
                "give two images, one negative and a tau above 0 at least"
            )
        if min(labels) == max(labels):
            raise UserError(
                f"loss 'crd' tells images of one class from those of others: all {count} training images are of one; "
                "give a larger --limit_train"
            )
        self.tau, self.negatives = crd_tau, min(crd_negatives, count - 1)
        self._sort(torch.tensor(labels))
        self.embed_s, self.embed_t = Embedding(s[1]), Embedding(t[1])
        for side in "st":
            self.register_buffer(f"memory_{side}", F.normalize(torch.randn(count, FEATURES)))
            self.register_buffer(
                f"log_z_{side}", torch.tensor(-math.inf)
            )  # of Z / N; Z = 0 before the first batch

    def _sort(self, labels: Tensor) -> None:
        """Lays the images out class by class, so that those of other classes stand around one gap."""
        _, classes, sizes = labels.unique(return_inverse=True, return_counts=True)
        size, gap = sizes[classes], (sizes.cumsum(0) - sizes)[classes]
        layout = {"order": classes.argsort(stable=True), "size": size, "gap": gap}
        for name, values in layout.items():
            self.register_buffer(name, values, persistent=False)
        self.some_have_enough = (len(labels) - sizes >= self.negatives).any().item()

    def others(self, index: Tensor, generator: Generator | None) -> Tensor:
        """K images of other classes (B, K), each at most once, or where there are fewer than K of them drawn with replacement."""
        shape, count, device = (len(index), self.negatives), len(self.order), index.device
        seed = int(torch.randint(2**62, (), generator=generator))
        rng = Generator(device).manual_seed(seed)  # numbers for all images are drawn where they are
        size, gap = self.size[index, None], self.gap[index, None]
        left = count - size
        draws = torch.rand(shape, generator=rng, device=device, dtype=torch.float64)
        places = (draws * left).long()
        if self.some_have_enough:
            keys = torch.rand(len(index), count, generator=rng, device=device)
            keys = keys.masked_fill(torch.arange(count, device=device) >= left, -1.0)
            once = keys.topk(self.negatives, sorted=False).indices
            places = torch.where(left >= self.negatives, once, places)
        return self.order[places + (places >= gap) * size]

    def forward(
        self, s: Tensor, t: Tensor, *, index: Tensor, generator: Generator | None
    ) -> Tensor:
        v_s, v_t = self.embed_s(s), self.embed_t(t)
        images = torch.cat([index[:, None], self.others(index, generator)], 1)  # (B, 1 + K)
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
