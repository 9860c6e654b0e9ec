"""What a user brings, by the names FILE.py:NAME: a network, a loss, a camera, images, a teacher."""

import torch
from deepinv.physics import LinearPhysics
from torch import nn


class MyNet(nn.Module):
    def __init__(self, width=16, c=1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.head = nn.Conv2d(width, c, 3, padding=1)

    def forward(self, x0):
        return x0 + self.head(self.body(x0).relu())


def my_loss(student, teacher):
    return (student - teacher).abs().mean()


def my_camera(n, m=256):
    rows = torch.randn(m, n * n, generator=torch.Generator().manual_seed(0)) / n
    return LinearPhysics(
        A=lambda x, **_: x.flatten(2) @ rows.T,
        A_adjoint=lambda y, **_: (y @ rows).unflatten(2, (n, n)),
    )


def my_images(n):
    """400 discs in [0, 1]; a dict of x_train, x_test (and y_...) brings its own splits."""
    axis = torch.linspace(-1, 1, n)
    centres = torch.rand(400, 2, 1, 1, generator=torch.Generator().manual_seed(0)) - 0.5
    distance = (axis - centres[:, 0]) ** 2 + (axis[:, None] - centres[:, 1]) ** 2
    return (distance < 0.2).float()


class MyTeacher(nn.Module):
    """Takes what a network sees; forward(self, y, physics) would take values and a camera."""

    def forward(self, x0):
        return nn.functional.avg_pool2d(x0, 3, stride=1, padding=1)
