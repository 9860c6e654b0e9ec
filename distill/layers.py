"""Which layers are compared, what losses need of them, and the adapters between shapes."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from core.errors import UserError
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

    U-Nets of different depth share enc1, latent, dec1, head, output and what the shallower has.
    """
    groups = (SELECTIONS | CLASS_SELECTIONS)[selection]
    shared = [layer for layer in student if layer in teacher]
    return [layer for layer in shared if any(GROUPS[group](layer) for group in groups)]


class Adapter(nn.Module):
    """Gives the student's map the teacher's channels, and both maps the smaller size.

    `always`: a convolution even where the channels agree.
    """

    def __init__(self, c_s: int, c_t: int, always: bool = False):
        super().__init__()
        self.project = nn.Conv2d(c_s, c_t, 1) if always or c_s != c_t else nn.Identity()

    def forward(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        s, t = same_size(s, t)
        return self.project(s), t


def need_map(loss: str, s: Tensor, t: Tensor) -> None:
    if s.dim() != 4 or t.dim() != 4:
        raise UserError(
            f"loss '{loss}' compares feature maps, but a selected layer is a vector: "
            "choose --type_dist latent"
        )


def need_places(loss: str, s: Tensor, t: Tensor) -> None:
    if all(min(sides) == 1 for sides in zip(s.shape[-2:], t.shape[-2:], strict=True)):
        raise UserError(
            f"loss '{loss}' compares the pixels of a feature map, but a selected layer has only "
            "one: choose another --type_dist, or fewer --scales"
        )


def need_channels(loss: str, s: Tensor, t: Tensor) -> None:
    if t.shape[1] == 1 or s.shape[1] == 1:
        raise UserError(
            f"loss '{loss}' compares the channels of a layer, but 'output' and 'head' of grey "
            "images have one: choose --type_dist latent"
        )


def need_samples(loss: str, s: Tensor, t: Tensor) -> None:
    if len(s) < 2:
        raise UserError(
            f"loss '{loss}' compares the images of a batch, but this batch holds one: "
            "choose a --batch_size that leaves no image alone"
        )


def need_logits(loss: str, s: Tensor, t: Tensor) -> None:
    if s.dim() != 2 or s.shape[1] < 2:
        raise UserError(
            f"loss '{loss}' compares the logits of two or more classes, not a layer of shape "
            f"{tuple(s.shape[1:])}: choose --type_dist output"
        )
    if s.shape != t.shape:
        raise UserError(
            f"loss '{loss}': the teacher has {t.shape[1]} classes and the student {s.shape[1]}; "
            "choose a teacher of the same classes"
        )


NEEDS = {
    "map": need_map,
    "places": need_places,
    "channels": need_channels,
    "samples": need_samples,
    "logits": need_logits,
}


def check_layers(loss: str, needs: Sequence[str], s: Tensor, t: Tensor) -> None:
    """Refuses two layers that lack what a loss needs."""
    for need in needs:
        NEEDS[need](loss, s, t)
