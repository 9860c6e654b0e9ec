"""The values of blind degradation: presets, and what a user may put in the place of each value."""

import math
from collections.abc import Callable
from typing import NamedTuple

from core.errors import UserError

# Wang et al., "Real-ESRGAN", 2021. A name that ends in 2 is of the second stage; noise is on the
# 0..255 scale.
REAL_ESRGAN = {
    "blur_kernel_size": 21,  # the largest
    "kernel_list": [
        "iso",
        "aniso",
        "generalized_iso",
        "generalized_aniso",
        "plateau_iso",
        "plateau_aniso",
    ],
    "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
    "sinc_prob": 0.1,
    "blur_sigma": [0.2, 3],
    "betag_range": [0.5, 4],
    "betap_range": [1, 2],
    "resize_prob": [0.2, 0.7, 0.1],  # up, down, keep
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,  # else Poisson
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
    "second_blur_prob": 0.8,
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [30, 95],
    "final_sinc_prob": 0.8,
}

PRESETS = {
    "real_esrgan": REAL_ESRGAN,
    # For images of about 32 x 32: half the kernel's size and width, half the noise, half as often a
    # second blur; scales and the lowest quality half as far from 1 and 100.
    "mild": REAL_ESRGAN
    | {
        "blur_kernel_size": 11,
        "blur_sigma": [0.2, 1.5],
        "resize_range": [0.575, 1.25],
        "noise_range": [1, 15],
        "poisson_scale_range": [0.05, 1.5],
        "jpeg_range": [65, 95],
        "second_blur_prob": 0.4,
        "resize_range2": [0.65, 1.1],
        "noise_range2": [1, 12.5],
        "poisson_scale_range2": [0.05, 1.25],
        "jpeg_range2": [65, 95],
        "final_sinc_prob": 0.4,
    },
}

SMALLEST_KERNEL, LARGEST_KERNEL = 7, 99


class Rule(NamedTuple):
    """Whether a value is allowed, and which ones are, in words."""

    allows: Callable[[object], bool]
    words: str


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_size(value) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and value % 2 == 1 and SMALLEST_KERNEL <= value <= LARGEST_KERNEL


def is_probability(value) -> bool:
    return is_number(value) and 0 <= value <= 1


def are_probabilities(value) -> bool:
    listed = isinstance(value, list) and all(map(is_probability, value))
    return listed and math.isclose(sum(value), 1, abs_tol=1e-6)


def are_kernels(value) -> bool:
    """Different ones of the kernels."""
    kernels = REAL_ESRGAN["kernel_list"]
    return isinstance(value, list) and len(value) == len([k for k in kernels if k in value]) > 0


def between(low: float, high: float, whole: bool = False, around_one: bool = False) -> Rule:
    """Two numbers low <= a <= b <= high, perhaps whole, perhaps on both sides of 1."""

    def allows(value) -> bool:
        if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
            return False
        a, b = value
        if whole and not all(isinstance(end, int) for end in value):
            return False
        return low <= a <= b <= high and (a <= 1 <= b or not around_one)

    numbers = "whole numbers" if whole else "numbers"
    sides = ", the first at most 1 and the second at least 1" if around_one else ""
    return Rule(allows, f"two {numbers} [low, high] from {low:g} to {high:g}{sides}")


PROBABILITY = Rule(is_probability, "a probability from 0 to 1")
RESIZE = Rule(
    lambda value: are_probabilities(value) and len(value) == 3,
    "three probabilities [up, down, keep] that sum to 1",
)
SCALE = between(0.01, 8, around_one=True)
NOISE = between(0, 255)
POISSON = between(0, 100)
JPEG = between(1, 100, whole=True)
EXPONENT = between(0.01, 100, around_one=True)
RULES = {  # in the order of the presets
    "blur_kernel_size": Rule(
        is_size, f"an odd whole number from {SMALLEST_KERNEL} to {LARGEST_KERNEL}"
    ),
    "kernel_list": Rule(are_kernels, f"a list of {', '.join(REAL_ESRGAN['kernel_list'])}"),
    "kernel_prob": Rule(are_probabilities, "a list of probabilities that sum to 1"),
    "sinc_prob": PROBABILITY,
    "blur_sigma": between(0.01, 100),
    "betag_range": EXPONENT,
    "betap_range": EXPONENT,
    "resize_prob": RESIZE,
    "resize_range": SCALE,
    "gaussian_noise_prob": PROBABILITY,
    "noise_range": NOISE,
    "poisson_scale_range": POISSON,
    "gray_noise_prob": PROBABILITY,
    "jpeg_range": JPEG,
    "second_blur_prob": PROBABILITY,
    "resize_prob2": RESIZE,
    "resize_range2": SCALE,
    "gaussian_noise_prob2": PROBABILITY,
    "noise_range2": NOISE,
    "poisson_scale_range2": POISSON,
    "gray_noise_prob2": PROBABILITY,
    "jpeg_range2": JPEG,
    "final_sinc_prob": PROBABILITY,
}


def check_values(values: dict) -> None:
    """Refuses values of which one is missing, unknown, or not allowed."""
    for name in (*values, *RULES):
        if name not in RULES:
            raise UserError(
                f"unknown value '{name}' of the degradation: choose from preset, {', '.join(RULES)}"
            )
        if name not in values:
            raise UserError(f"the degradation's {name} is missing")
        if not RULES[name].allows(values[name]):
            raise UserError(f"the degradation's {name} {values[name]} is not {RULES[name].words}")
    kernels, shares = len(values["kernel_list"]), len(values["kernel_prob"])
    if kernels != shares:
        raise UserError(
            f"the degradation's kernel_prob has {shares} values for the {kernels} of kernel_list"
        )


def complete_values(settings: dict) -> str | dict:
    """A preset's values with some of them replaced; where that makes a preset, its name."""
    preset = settings.get("preset", "real_esrgan")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UserError(
            f"unknown preset '{preset}' of the degradation: choose from {', '.join(PRESETS)}"
        )
    own = {name: value for name, value in settings.items() if name != "preset"}
    values = PRESETS[preset] | own
    check_values(values)
    return next((name for name, known in PRESETS.items() if known == values), values)
