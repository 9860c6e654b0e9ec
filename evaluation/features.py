"""The features of networks tap by tap on the same images: measures, similarity, and what changed from the first network to the others."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from string import ascii_lowercase
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from core.errors import UserError
from core.registry import FEATURE_MEASURES, LABELLED, look_up
from core.runtime import PROBE, seeded
from data.batches import Images, build_loader
from data_loader import build_splits
from evaluation import restoration
from physics.base import Physics
from physics.paired import physics_for
from training.cache import Views
from training.checkpoint import Checkpoint
from training.classification import check_crop
from training.setup import request_of

IMAGES = (2, 4096)  # as few and as many as CKA relates, every one to every other
ROOM = 2**30  # bytes of features that are held for it at a time
VALUES = 4096  # of a batch, drawn for the histogram of a tap


class Subject(NamedTuple):
    """A network behind a camera, which tables and pictures call by a letter."""

    letter: str
    name: str
    network: nn.Module
    camera: Physics


Seen = list[dict[str, Tensor]]  # the taps (B, C, H, W) of every subject


def images_of(found: dict[str, Checkpoint], args: Namespace) -> Images:
    """The clean test images that all networks were made for."""
    restoration.check_alike(found)
    (first, one), *others = found.items()
    classes = one.is_classifier
    for path, other in others:
        if (other.is_classifier) != classes:
            does, others_do = (
                ("tells classes", "restores images")
                if classes
                else ("restores images", "tells classes")
            )
            raise UserError(
                f"checkpoint {path} {others_do}, {first} {does}: choose networks of one kind"
            )
    if not classes:
        return restoration.test_images(args, one.physics)
    for path, other in found.items():
        check_crop(path, other, args.crop)
        if other.crop != one.crop:
            raise UserError(
                f"{path} learnt from pictures with crop {other.crop}, {first} with crop {one.crop}"
            )
    n, c = one.physics.config["n"], one.physics.config["c"]
    return build_splits(
        request_of(args, n=n, c=c, crop=one.crop, labelled=True), ("test",), table=LABELLED
    )["test"]


def subjects_of(
    found: dict[str, Checkpoint], images: Images, args: Namespace, device: torch.device
) -> list[Subject]:
    """Every network behind every camera of its own, at every noise level that was asked for."""
    seen = []
    for path, name in restoration.names_of(found).items():
        network = found[path].network.to(device)
        levels = restoration.at_levels(found[path].physics, args)
        cameras = [part for camera in levels for part in physics_for(images, camera, network).parts]
        seen += [
            (f"{name}_{camera.condition}" if len(cameras) > 1 else name, network, camera.to(device))
            for camera in cameras
        ]
    if len({name for name, *_ in seen}) < len(seen):
        raise UserError(f"{' and '.join(found)}: one checkpoint is given twice")
    if not 1 < len(seen) <= len(ascii_lowercase):
        raise UserError(
            f"{len(seen)} networks behind their cameras: 2 to {len(ascii_lowercase)} can be compared"
        )
    if not IMAGES[0] <= len(images) <= IMAGES[1]:
        raise UserError(
            f"{len(images)} test images: {IMAGES[0]} to {IMAGES[1]} can be compared, choose with --limit_test"
        )
    return [Subject(letter, *one) for letter, one in zip(ascii_lowercase, seen, strict=False)]


def walk(
    subjects: list[Subject], images: Images, args: Namespace, device: torch.device
) -> Callable[[int], Iterator[tuple[int, Tensor, Seen]]]:
    """What goes over the images from a given one on: the place of a batch's first image, the clean images, all taps of all subjects."""
    loader = build_loader(images, args.batch_size, args.num_workers)
    views = [Views(subject.camera, loader, device, args.seed) for subject in subjects]

    @torch.no_grad()
    def batches(start: int = 0) -> Iterator[tuple[int, Tensor, Seen]]:
        place = 0
        for shown in zip(*views, strict=True):
            first_images = [x0 for _, _, x0 in shown]
            if place >= start:
                found = [
                    subject.network.features(x0)
                    for subject, x0 in zip(subjects, first_images, strict=True)
                ]
                yield (
                    place,
                    shown[0][0].image,
                    [
                        {
                            layer: f if f.dim() == 4 else f[..., None, None]
                            for layer, f in layers.items()
                        }
                        for layers in found
                    ],
                )
            place += len(first_images[0])

    return batches


class Tap:
    """What is kept of one tap of a network while the batches go by."""

    def __init__(self, measures: dict[str, Callable], seed: int):
        self.measures, self.generator = measures, seeded(seed, PROBE)
        self.sums: dict[
            str, Tensor
        ] = {}  # of a measure's defined values: how many, sum, sum of squares (3, C)
        self.change: Tensor | None = (
            None  # ‖b - a‖² and ‖a‖² of every channel (2, C), where a has this shape
        )
        self.values: list[Tensor] = []  # some, for a histogram
        self.shown: Tensor | None = None  # one image's maps (C, H, W)

    def add(self, f: Tensor, reference: Tensor | None, shown: int) -> None:
        if self.shown is None:
            self.shown = f[shown].cpu()
        self.values.append(
            f.flatten()[
                torch.randint(f.numel(), (VALUES,), generator=self.generator).to(f.device)
            ].cpu()
        )
        f = f.double()
        if f.shape[2:].numel() > 1:  # vectors have no maps
            for name, measure in self.measures.items():
                values = measure(f)
                sums = torch.stack(
                    ((~values.isnan()).sum(0), values.nansum(0), values.square().nansum(0))
                ).cpu()
                self.sums[name] = self.sums.get(name, 0) + sums
        if reference is not None and reference.shape == f.shape:
            squares = torch.stack(
                (
                    (f - reference).square().sum((0, 2, 3)),
                    reference.double().square().sum((0, 2, 3)),
                )
            ).cpu()
            self.change = squares if self.change is None else self.change + squares


def gathered(
    subjects: list[Subject], batches: Callable, measures: list[str], seed: int
) -> list[dict[str, Tap]]:
    """Every tap of every subject, held against the first one's; the image that is shown is the most varied of the first batch."""
    functions = {name: look_up(FEATURE_MEASURES, name, "measure") for name in measures}
    kept: list[dict[str, Tap]] = []
    for _, clean, seen in batches():
        shown = int(clean.flatten(1).std(1).argmax())
        kept = kept or [{layer: Tap(functions, seed) for layer in layers} for layers in seen]
        for subject, layers, found in zip(subjects, kept, seen, strict=True):
            for name, f in found.items():
                if not f.isfinite().all():
                    raise UserError(f"tap {name} of {subject.name} is not finite")
                layers[name].add(f, seen[0].get(name), shown)
    return kept


def grams(batches: Callable, count: int, room: int = ROOM) -> list[dict[str, Tensor]]:
    """X Xᵀ (N, N) of every tap of every subject, X its flattened features (N, D), of which no more are held at a time than there is room for."""
    products: list[dict[str, Tensor]] = []
    start = 0
    while start < count:
        held, left, end = [], room, start
        for place, _, seen in batches(start):
            rows = [
                {layer: f.flatten(1).double() for layer, f in layers.items()} for layers in seen
            ]
            products = products or [
                {layer: x.new_empty(count, count) for layer, x in layers.items()} for layers in rows
            ]
            if left > 0:
                held.append((place, rows))
                end += len(next(iter(rows[0].values())))
                left -= sum(x.nbytes for layers in rows for x in layers.values())
            for other, theirs in held:
                for product, mine, held_rows in zip(products, rows, theirs, strict=True):
                    for layer, x in mine.items():
                        block = x @ held_rows[layer].T
                        product[layer][place : place + len(x), other : other + block.shape[1]] = (
                            block
                        )
                        product[layer][other : other + block.shape[1], place : place + len(x)] = (
                            block.T
                        )
        start = end
    return products


def centred(gram: Tensor) -> Tensor:
    """H K H / ‖H K H‖_F, H = I - 1/N; nan where no two samples differ"""
    k = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    size = k.norm()
    return k / size.where(size > len(gram) * torch.finfo(k.dtype).eps * gram.norm(), torch.nan)


def cka(k: list[Tensor], l: list[Tensor]) -> Tensor:  # noqa: E741
    """<H K H, H L H>_F / (‖H K H‖_F ‖H L H‖_F) of the Gram matrices of every two taps: linear CKA (Kornblith et al. 2019, eq. 3)"""
    return (
        torch.stack([centred(gram).flatten() for gram in k])
        @ torch.stack([centred(gram).flatten() for gram in l]).T
    )


def relative(squares: Tensor) -> Tensor:
    """‖b - a‖ / ‖a‖ of squares (2, ...): 0 where nothing changed, infinite where only a is zero"""
    return torch.where(squares[0] == 0, 0, squares[0] / squares[1]).sqrt()


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter as a matrix with a row for each output channel."""
    found = {}
    for place, layer in network.named_modules():
        for name, weight in layer.named_parameters(place, recurse=False):
            weight = torch.atleast_1d(weight.detach().double().cpu())
            outputs_second = isinstance(layer, _ConvTransposeNd) and weight.dim() > 1
            weight = weight.transpose(0, 1) if outputs_second else weight
            found[name] = weight.reshape(len(weight), -1)
    return found


def weight_changes(network: nn.Module, reference: nn.Module) -> dict[str, Tensor] | None:
    """‖b - a‖² and ‖a‖² of every output channel of every parameter (2, C), where the architectures are the same."""
    b, a = weights_of(network), weights_of(reference)
    if {name: w.shape for name, w in b.items()} != {name: w.shape for name, w in a.items()}:
        return None
    return {
        name: torch.stack(((w - a[name]).square().sum(1), a[name].square().sum(1)))
        for name, w in b.items()
    }
