"""Residual networks for small images: a 3x3 stem, three stages, global average pooling; any image size."""

from functools import partial

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from core.errors import UserError
from models.base import he
from models.classifier import Classifier


def stage(
    block: type[BasicBlock | Bottleneck], c_in: int, width: int, count: int, stride: int, **groups
) -> nn.Sequential:
    """`count` residual blocks; where the first changes size or channels, its shortcut is a 1x1 convolution."""
    c_out = width * block.expansion
    same = stride == 1 and c_in == c_out
    shortcut = (
        None
        if same
        else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    )
    return nn.Sequential(
        block(c_in, width, stride, shortcut, **groups),
        *(block(c_out, width, **groups) for _ in range(count - 1)),
    )


class CifarResNet(Classifier):
    """6 * blocks + 2 layers: a convolution, three stages of `width`, 2 and 4 times as many channels, and a linear layer."""

    def __init__(self, c: int, classes: int, side: int, width: int = 16, blocks: int = 1):
        super().__init__(c, classes, side)
        if min(width, blocks) < 1:
            raise UserError(f"width {width}, blocks {blocks}: both are at least 1")
        self.enc1 = nn.Sequential(
            nn.Conv2d(c, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.stage1 = stage(BasicBlock, width, width, blocks, 1)
        self.stage2 = stage(BasicBlock, width, 2 * width, blocks, 2)
        self.latent = stage(BasicBlock, 2 * width, 4 * width, blocks, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Sequential(nn.Flatten(), nn.Linear(4 * width, classes))
        he(self)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        h, layers = self.normalised(x), {}
        for layer, part in self.named_children():
            h = layers[layer] = self.run(part, h)
        return layers


resnet8 = partial(CifarResNet, blocks=1)
resnet20 = partial(CifarResNet, blocks=3)
resnet56 = partial(CifarResNet, blocks=9)
resnet112 = partial(CifarResNet, blocks=18)
