"""Networks with published ImageNet weights, and how these are loaded."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.registry import CLASSIFIERS
from models.classifier import Classifier

PRETRAINED = [name for name, line in CLASSIFIERS.items() if "pretrained" in line.flags]


class Pretrained(Classifier):
    """A library's network as `body`, under the name by which its weights are `published`."""

    body: nn.Module
    published: str

    def fetch(self, download: bool) -> tuple[dict[str, Tensor], Sequence[float], Sequence[float]]:
        """The published weights, and the mean and deviation with which they were trained."""
        raise NotImplementedError


def missing_weights(published: str, path: Path) -> UserError:
    return UserError(
        f"the published weights of '{published}' are not in {path}: --download fetches them"
    )


def load_pretrained(network: Classifier, name: str, download: bool = False) -> None:
    """Loads ImageNet's published weights out of the user's cache.

    The last layer keeps its own weights where the number of classes is another. The first
    convolution absorbs our normalisation: with x = d g + m, and trained on (x - m') / d', w
    becomes w d / d' with a shift of sum w (m - m') / d'; grey images have three equal channels.
    """
    if name not in PRETRAINED:
        raise UserError(f"no published weights of '{name}': choose from {', '.join(PRETRAINED)}")
    if network.c not in (1, 3):
        raise UserError(f"published weights are for 1 or 3 channels, not {network.c}")
    assert isinstance(network, Pretrained), f"'{name}' has no published weights"
    weights, mean, deviation = network.fetch(download)
    layers = dict(network.body.named_modules())
    adapt_first_convolution(weights, layers, network, mean, deviation)
    own = network.body.state_dict()
    last = [key for key, layer in layers.items() if isinstance(layer, nn.Linear)][-1]
    if network.classes != len(weights[f"{last}.bias"]):
        weights |= {key: value for key, value in own.items() if key.startswith(f"{last}.")}
    for key, value in own.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in weights or weights[key].shape != value.shape:
            raise UserError(
                f"the published weights of '{name}' are for its default width, stem and patch: "
                f"{key} is {tuple(value.shape)} here"
            )
    network.body.load_state_dict(weights)


def adapt_first_convolution(
    weights: dict[str, Tensor],
    layers: dict[str, nn.Module],
    network: Classifier,
    mean: Sequence[float],
    deviation: Sequence[float],
) -> None:
    """Replaces the normalisation of published weights by the network's own, in place."""
    first = next(key for key, layer in layers.items() if isinstance(layer, nn.Conv2d))
    w = weights[f"{first}.weight"]
    old_mean, old_deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, deviation))
    shift = (w * ((network.mean.cpu() - old_mean) / old_deviation)).sum((1, 2, 3))
    w = w * (network.deviation.cpu() / old_deviation)
    weights[f"{first}.weight"] = w if network.c == 3 else w.sum(1, keepdim=True)
    if f"{first}.bias" in weights:
        weights[f"{first}.bias"] = weights[f"{first}.bias"] + shift
    else:
        norm = next(key for key, layer in layers.items() if isinstance(layer, nn.BatchNorm2d))
        weights[f"{norm}.running_mean"] = weights[f"{norm}.running_mean"] - shift
