"""Measures of feature maps: functions (B, C, H, W) -> (B, C) of every image and channel alone.

f is one map, F f its Fourier transform with the lowest frequency in the middle, m_k its central
moments over the pixels. A measure is nan where its formula is 0 / 0: shares of a map of zeros,
shapes of a map that does not vary, ratios to a mean of zero.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import pad_to_multiple

ROUNDING = torch.finfo(torch.float32).eps  # the precision of what networks compute


def share(part: Tensor, whole: Tensor) -> Tensor:
    """‖part‖² / ‖whole‖²"""
    return part.square().sum((-2, -1)) / whole.square().sum((-2, -1))


def wavelet(f: Tensor) -> Tensor:
    """‖f - P f‖² / ‖f‖², the energy of Haar's details; P f holds the mean of every 2 x 2 block"""
    # An odd border is repeated.
    f = pad_to_multiple(f, 2)
    return share(f - F.interpolate(F.avg_pool2d(f, 2), scale_factor=2.0), f)


def low_pass_residual(f: Tensor) -> Tensor:
    """‖f - G f‖² / ‖f‖², G f the circular convolution with (1, 2, 1) / 4 along rows and columns"""
    low = f
    for side in (-2, -1):
        low = (low.roll(1, side) + 2 * low + low.roll(-1, side)) / 4
    return share(f - low, f)


def fourier(f: Tensor) -> Tensor:
    """|F f|, the lowest frequency in the middle"""
    return torch.fft.fftshift(torch.fft.fft2(f), dim=(-2, -1)).abs()


def high_frequency(f: Tensor) -> Tensor:
    """sum of |F f|² where |ν| > 1/4 cycles a pixel / sum of |F f|²"""
    # 1/4 is half of the highest frequency along a side.
    rows, columns = (
        torch.fft.fftshift(torch.fft.fftfreq(side, device=f.device)).square()
        for side in f.shape[-2:]
    )
    amplitudes = fourier(f)
    return share(amplitudes * (rows[:, None] + columns > 1 / 16), amplitudes)


def spectral_entropy(f: Tensor) -> Tensor:
    """-sum p log p / log(HW), p = |F f|² / sum of |F f|²: 0 for one frequency, 1 for white noise"""
    energies = fourier(f).flatten(2).square()
    p = energies / energies.sum(2, keepdim=True)
    return torch.special.entr(p).sum(2) / math.log(energies.shape[2])


def std(f: Tensor) -> Tensor:
    """sqrt(m_2)"""
    return f.flatten(2).std(2, correction=0)


def moment(f: Tensor, k: int) -> Tensor:
    """m_k / m_2^(k/2)"""
    f = f.flatten(2)
    mean, deviation = f.mean(2, keepdim=True), f.std(2, correction=0, keepdim=True)
    deviation = deviation.where(deviation > ROUNDING * mean.abs(), torch.nan)
    return ((f - mean) / deviation).pow(k).mean(2)


def skewness(f: Tensor) -> Tensor:
    """m_3 / m_2^(3/2)"""
    return moment(f, 3)


def kurtosis(f: Tensor) -> Tensor:
    """m_4 / m_2², 3 of a Gaussian"""
    return moment(f, 4)


def iqr(f: Tensor) -> Tensor:
    """the third quartile less the first, values between two pixels interpolated"""
    values = f.flatten(2).sort(2).values  # torch.quantile takes no large tensors
    ranks = torch.tensor((0.25, 0.75), dtype=f.dtype, device=f.device) * (values.shape[2] - 1)
    below, above = values[..., ranks.floor().long()], values[..., ranks.ceil().long()]
    first, third = torch.lerp(below, above, ranks.frac()).unbind(2)
    return third - first


def variation(f: Tensor) -> Tensor:
    """sqrt(m_2) / mean, the coefficient of variation, with the mean's sign"""
    mean, deviation = f.flatten(2).mean(2), std(f)
    return deviation / mean.where(mean.abs() > ROUNDING * deviation, torch.nan)
