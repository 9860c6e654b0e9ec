"""Statistics of features, layer by layer: measures, similarity, and changes between networks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from core.errors import UserError
from core.registry import FEATURE_MEASURES, look_up
from core.runtime import PROBE, seeded
from features.subjects import Batches, Subject

MEMORY = 2**30  # bytes of features that are kept for CKA at a time
SAMPLES = 4096  # values of a batch for the histogram of a layer


# ---------------------------------------------------------------- statistics of layers


class LayerStatistics:
    """What is accumulated of one layer over the batches."""

    def __init__(self, measures: dict[str, Callable], seed: int):
        self.measures, self.generator = measures, seeded(seed, PROBE)
        # of a measure's defined values: count, sum, sum of squares (3, C)
        self.sums: dict[str, Tensor] = {}
        # ‖b - a‖² and ‖a‖² of every channel (2, C), where a has this shape
        self.change: Tensor | None = None
        self.samples: list[Tensor] = []  # for a histogram
        self.example: Tensor | None = None  # the maps (C, H, W) of one image

    @property
    def maps(self) -> Tensor:
        """The maps (C, H, W) of the example image."""
        assert self.example is not None, "no batch was added yet"
        return self.example

    def add(self, f: Tensor, reference: Tensor | None, example: int) -> None:
        if self.example is None:
            self.example = f[example].cpu()
        places = torch.randint(f.numel(), (SAMPLES,), generator=self.generator)
        self.samples.append(f.flatten()[places.to(f.device)].cpu())
        f = f.double()
        if f.shape[2:].numel() > 1:  # vectors have no maps
            for name, measure in self.measures.items():
                values = measure(f)
                parts = ((~values.isnan()).sum(0), values.nansum(0), values.square().nansum(0))
                sums = torch.stack(parts).cpu()
                self.sums[name] = self.sums[name] + sums if name in self.sums else sums
        if reference is not None and reference.shape == f.shape:
            difference = (f - reference).square().sum((0, 2, 3))
            squares = torch.stack((difference, reference.double().square().sum((0, 2, 3)))).cpu()
            self.change = squares if self.change is None else self.change + squares


def collect_statistics(
    subjects: list[Subject], batches: Batches, measures: list[str], seed: int
) -> list[dict[str, LayerStatistics]]:
    """The statistics of every layer of every subject, compared with the first one's.

    The example image is that of the most varied scene of the first batch.
    """
    functions = {name: look_up(FEATURE_MEASURES, name, "measure") for name in measures}
    statistics: list[dict[str, LayerStatistics]] = []
    for _, scenes, features in batches():
        example = int(scenes.flatten(1).std(1).argmax())
        if not statistics:
            statistics = [
                {layer: LayerStatistics(functions, seed) for layer in layers} for layers in features
            ]
        for subject, kept, layers in zip(subjects, statistics, features, strict=True):
            for name, f in layers.items():
                if not f.isfinite().all():
                    raise UserError(f"layer {name} of {subject.name} is not finite")
                kept[name].add(f, features[0].get(name), example)
    return statistics


# ---------------------------------------------------------------- similarity


def compute_grams(batches: Batches, count: int, memory: int = MEMORY) -> list[dict[str, Tensor]]:
    """X Xᵀ (N, N) of every layer of every subject, X its flattened features (N, D).

    As many batches as fit into the memory are kept and multiplied by all following ones.
    """
    grams: list[dict[str, Tensor]] = []
    start = 0
    while start < count:
        kept, left, end = [], memory, start
        for index, _, features in batches(start):
            rows = [
                {layer: f.flatten(1).double() for layer, f in layers.items()} for layers in features
            ]
            if not grams:
                grams = [
                    {layer: x.new_empty(count, count) for layer, x in layers.items()}
                    for layers in rows
                ]
            if left > 0:
                kept.append((index, rows))
                end += len(next(iter(rows[0].values())))
                left -= sum(x.nbytes for layers in rows for x in layers.values())
            for other_index, other_rows in kept:
                for gram, mine, others in zip(grams, rows, other_rows, strict=True):
                    for layer, x in mine.items():
                        block = x @ others[layer].T
                        i = slice(index, index + len(x))
                        j = slice(other_index, other_index + block.shape[1])
                        gram[layer][i, j] = block
                        gram[layer][j, i] = block.T
        start = end
    return grams


def center_gram(gram: Tensor) -> Tensor:
    """H K H / ‖H K H‖_F, H = I - 1/N; nan where no two samples differ"""
    k = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    size = k.norm()
    return k / size.where(size > len(gram) * torch.finfo(k.dtype).eps * gram.norm(), torch.nan)


def cka(k: list[Tensor], l: list[Tensor]) -> Tensor:  # noqa: E741
    """<H K H, H L H>_F / (‖H K H‖_F ‖H L H‖_F) of the Gram matrices of every two layers.

    Linear CKA (Kornblith et al. 2019, eq. 3).
    """
    centered_k = torch.stack([center_gram(gram).flatten() for gram in k])
    centered_l = torch.stack([center_gram(gram).flatten() for gram in l])
    return centered_k @ centered_l.T


# ---------------------------------------------------------------- changes


def relative_change(squares: Tensor) -> Tensor:
    """‖b - a‖ / ‖a‖ of squares (2, ...): 0 where nothing changed, infinite where only a is zero"""
    return torch.where(squares[0] == 0, 0, squares[0] / squares[1]).sqrt()


def weight_matrices(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter as a matrix with a row for each output channel."""
    matrices = {}
    for prefix, layer in network.named_modules():
        for name, weight in layer.named_parameters(prefix, recurse=False):
            weight = torch.atleast_1d(weight.detach().double().cpu())
            if isinstance(layer, _ConvTransposeNd) and weight.dim() > 1:
                weight = weight.transpose(0, 1)  # its output channels come second
            matrices[name] = weight.reshape(len(weight), -1)
    return matrices


def weight_changes(network: nn.Module, reference: nn.Module) -> dict[str, Tensor] | None:
    """‖b - a‖² and ‖a‖² of every output channel of every parameter (2, C).

    There are none between different architectures.
    """
    b, a = weight_matrices(network), weight_matrices(reference)
    if {name: w.shape for name, w in b.items()} != {name: w.shape for name, w in a.items()}:
        return None
    return {
        name: torch.stack(((w - a[name]).square().sum(1), a[name].square().sum(1)))
        for name, w in b.items()
    }
