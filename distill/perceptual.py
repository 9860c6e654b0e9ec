"""The distance between two images in the eyes of a VGG-19 that was trained to classify."""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from models.classifier import DEVIATION, MEAN  # of ImageNet, on which VGG was trained
from models.weights import weights_in

LAYERS = {
    2: 0.1,
    7: 0.1,
    16: 1.0,
    25: 1.0,
    34: 1.0,
}  # conv1_2, conv2_2, conv3_4, conv4_4, conv5_4 before their ReLU


def load_vgg() -> nn.Module:
    """torchvision's VGG-19 with its weights from torch's cache; nothing is downloaded."""
    from torchvision.models import VGG19_Weights, vgg19

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG19_Weights.DEFAULT.url).name
    if not path.is_file():
        raise UserError(
            f"loss 'perceptual' needs the weights of VGG-19 in {path}: "
            "python -c \"import torchvision; torchvision.models.vgg19(weights='DEFAULT')\" fetches them"
        )
    with torch.device("meta"):  # its 144 million weights are not drawn, they are those of the file
        vgg = vgg19(weights=None)
    vgg.load_state_dict(
        weights_in(
            path, lambda: torch.load(path, map_location="cpu", weights_only=True), vgg.state_dict()
        ),
        assign=True,
    )
    layers = vgg.features[: max(LAYERS) + 1].float().eval().requires_grad_(False)
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # what is compared stands before it
    return layers


def gram(f: Tensor) -> Tensor:
    """How a sample's channels go together, (B, C, C)."""
    f = f.flatten(2)
    return f @ f.mT / (f.shape[1] * f.shape[2])


class Perceptual:
    """sum over layers of w_l mean |V_l(s) - V_l(t)|, and `style_weight` times the same of their Gram matrices."""

    def __init__(self, style_weight: float = 0.0):
        self.style_weight, self.vgg = style_weight, load_vgg()

    def seen(self, image: Tensor) -> Iterator[Tensor]:
        """The features of images in [0, 1] at the layers."""
        mean, deviation = (
            torch.tensor(v, device=image.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION)
        )
        h = (image.expand(-1, 3, -1, -1) - mean) / deviation
        for k, layer in enumerate(self.vgg):
            h = layer(h)
            if k in LAYERS:
                yield h

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        if s.shape[1] not in (1, 3):
            raise UserError(
                f"loss 'perceptual' looks at images, not at a tap of {s.shape[1]} channels: choose --type_dist output"
            )
        if min(s.shape[-2:]) < 16:
            raise UserError(
                f"loss 'perceptual' needs images of 16 pixels a side, not {min(s.shape[-2:])}"
            )
        self.vgg.to(s.device)
        loss = s.new_zeros(())
        for weight, a, b in zip(LAYERS.values(), self.seen(s), self.seen(t), strict=True):
            loss = loss + weight * F.l1_loss(a, b)
            if self.style_weight:
                loss = loss + self.style_weight * weight * F.l1_loss(gram(a), gram(b))
        return loss
