"""What noise is reckoned with: quantiles of Student's t, and derivatives of the gamma function's logarithm."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Final

_EXPANDED: Final = 20.0
"""Degrees of freedom from which on an expansion is exact enough, to a thousandth."""
_STEPS: Final = 4000
_HIGHEST: Final = 1000.0


@lru_cache(maxsize=1024)
def quantile(freedom: float, beyond: float) -> float:
    """Of Student's t, of which `beyond` lies beyond on both sides."""
    d = max(1.0, freedom)
    return _expanded(d, beyond) if d >= _EXPANDED else _integrated(d, beyond)


def _integrated(d: float, beyond: float) -> float:
    """With t as sqrt(d) times the tangent of an angle the density is the cosine to the power d - 1: summed inwards from
    the far end until half of `beyond` is passed."""
    step = math.pi / 2 / _STEPS
    heights = [math.sin((place + 0.5) * step) ** (d - 1) for place in range(_STEPS)]
    left = beyond * sum(heights)
    for place, height in enumerate(heights):
        if height >= left:
            return math.sqrt(d) / math.tan((place + left / height) * step)
        left -= height
    return 0.0


def _expanded(d: float, beyond: float) -> float:
    """By the expansion around the normal (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(1 - beyond / 2)
    return (
        z
        + (z**3 + z) / (4 * d)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * d**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * d**3)
    )


def digamma(x: float) -> float:
    below = 0.0
    while x < 8:
        below -= 1 / x
        x += 1
    return below + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)


def trigamma(x: float) -> float:
    below = 0.0
    while x < 8:
        below += 1 / x**2
        x += 1
    return below + 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5) + 1 / (42 * x**7)


def trigamma_inverse(value: float) -> float:
    """By halving: it only falls."""
    low, high = 1e-3, _HIGHEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if trigamma(middle) > value else (low, middle)
    return low
