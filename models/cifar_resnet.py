"""Residual networks for small images of any size: a 3x3 stem, three stages, average pooling."""

from functools import partial

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from core.errors import UserError
from models.base import initialise
from models.classifier import Classifier


def residual_stage(
    block: type[BasicBlock | Bottleneck], c_in: int, width: int, count: int, stride: int, **groups
) -> nn.Sequential:
    """`count` residual blocks; a first one that changes size or channels has a 1x1 shortcut."""
    c_out = width * block.expansion
    shortcut = None
    if stride != 1 or c_in != c_out:
        projection = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        shortcut = nn.Sequential(projection, nn.BatchNorm2d(c_out))
    first = block(c_in, width, stride, shortcut, **groups)
    return nn.Sequential(first, *(block(c_out, width, **groups) for _ in range(count - 1)))


class CifarResNet(Classifier):
    """A convolution, three stages of `width`, 2 and 4 times as many channels, and a linear layer.

    It has 6 * blocks + 2 layers.
    """

    def __init__(self, c: int, classes: int, side: int, width: int = 16, blocks: int = 1):
        super().__init__(c, classes, side)
        if min(width, blocks) < 1:
            raise UserError(f"width {width}, blocks {blocks}: both must be at least 1")
        self.enc1 = nn.Sequential(
            nn.Conv2d(c, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.stage1 = residual_stage(BasicBlock, width, width, blocks, 1)
        self.stage2 = residual_stage(BasicBlock, width, 2 * width, blocks, 2)
        self.latent = residual_stage(BasicBlock, 2 * width, 4 * width, blocks, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Sequential(nn.Flatten(), nn.Linear(4 * width, classes))
        initialise(self)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        h = self.normalise(x)
        layers = {}
        for layer, part in self.named_children():
            h = self.run_block(part, h)
            layers[layer] = h
        return layers


resnet8 = partial(CifarResNet, blocks=1)
resnet20 = partial(CifarResNet, blocks=3)
resnet56 = partial(CifarResNet, blocks=9)
resnet112 = partial(CifarResNet, blocks=18)
