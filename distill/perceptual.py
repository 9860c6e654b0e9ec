"""The perceptual distance of two images: that of their features in a VGG-19 trained on ImageNet."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from models.classifier import DEVIATION, MEAN  # of ImageNet, on which VGG was trained
from models.weights import read_weights

LAYER_WEIGHTS = {  # conv1_2, conv2_2, conv3_4, conv4_4, conv5_4, before their ReLU
    "features.2": 0.1,
    "features.7": 0.1,
    "features.16": 1.0,
    "features.25": 1.0,
    "features.34": 1.0,
}
SMALLEST = 16  # pixels a side that are left by four poolings


def load_vgg() -> nn.Module:
    """torchvision's VGG-19 with its weights from torch's cache; nothing is downloaded."""
    from torchvision.models import VGG19_Weights, vgg19
    from torchvision.models.feature_extraction import create_feature_extractor

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG19_Weights.DEFAULT.url).name
    if not path.is_file():
        raise UserError(
            f"loss 'perceptual' needs the weights of VGG-19 in {path}; to fetch them, run: "
            "python -c \"import torchvision; torchvision.models.vgg19(weights='DEFAULT')\""
        )

    def read() -> dict[str, Tensor]:
        return torch.load(path, map_location="cpu", weights_only=True)

    with torch.device("meta"):  # its 144 million first weights are not drawn
        vgg = vgg19(weights=None)
    vgg.load_state_dict(read_weights(path, read, vgg.state_dict()), assign=True)
    vgg = vgg.float().eval().requires_grad_(False)
    for layer in vgg.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # the features are compared as they are before the ReLU
    return create_feature_extractor(vgg, list(LAYER_WEIGHTS))


def gram(f: Tensor) -> Tensor:
    """The correlations of a sample's channels, (B, C, C)."""
    f = f.flatten(2)
    return f @ f.mT / (f.shape[1] * f.shape[2])


class Perceptual:
    """sum over layers of w_l mean |V_l(s) - V_l(t)|, in VGG's features V.

    The same of their Gram matrices is added, times `style_weight`.
    """

    def __init__(self, style_weight: float = 0.0):
        self.style_weight, self.vgg = style_weight, load_vgg()

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """VGG's features of images in [0, 1], by layer."""
        mean = torch.tensor(MEAN, device=image.device).view(1, 3, 1, 1)
        deviation = torch.tensor(DEVIATION, device=image.device).view(1, 3, 1, 1)
        return self.vgg((image.expand(-1, 3, -1, -1) - mean) / deviation)

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        if s.shape[1] not in (1, 3):
            raise UserError(
                f"loss 'perceptual' compares images, and this layer has {s.shape[1]} channels: "
                "choose --type_dist output"
            )
        if min(s.shape[-2:]) < SMALLEST:
            raise UserError(
                f"loss 'perceptual' needs images of at least {SMALLEST} pixels a side, "
                f"not {min(s.shape[-2:])}"
            )
        self.vgg.to(s.device)
        features_s, features_t = self.features(s), self.features(t)
        loss = s.new_zeros(())
        for layer, weight in LAYER_WEIGHTS.items():
            a, b = features_s[layer], features_t[layer]
            loss = loss + weight * F.l1_loss(a, b)
            if self.style_weight:
                loss = loss + self.style_weight * weight * F.l1_loss(gram(a), gram(b))
        return loss
