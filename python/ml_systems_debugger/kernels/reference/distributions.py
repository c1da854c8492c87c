"""Twins of the kernels over distributions: slow, plain Python, one element at a time."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

__all__ = [
    "bin_counts", "js_divergence", "kl_divergence", "ks_statistic", "psi", "total_variation",
    "wasserstein",
]  # fmt: skip


def bin_counts(x: Sequence[float], cuts: Sequence[float]) -> list[int]:
    """Return counts of the bins between cuts, then of NaN, -infinity, +infinity."""
    counts = [0] * (len(cuts) + 4)
    for value in x:
        if math.isnan(value):
            counts[-3] += 1
        elif math.isinf(value):
            counts[-2 if value < 0 else -1] += 1
        else:
            counts[bisect_right(cuts, value)] += 1
    return counts


def _scaled(p: Sequence[float]) -> list[float]:
    total = math.fsum(p)
    return [v / total for v in p]


def kl_divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """Return the sum of p log(p / q), in nats."""
    terms = []
    for a, b in zip(_scaled(p), _scaled(q), strict=True):
        if a > 0 and b == 0:
            return math.inf
        terms.append(a * (math.log(a) - math.log(b)) if a > 0 else 0.0)
    return math.fsum(terms)


def js_divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """Return half of KL(p, m) + KL(q, m), in nats."""
    x, y = _scaled(p), _scaled(q)
    middle = [(a + b) / 2 for a, b in zip(x, y, strict=True)]
    return 0.5 * (kl_divergence(x, middle) + kl_divergence(y, middle))


def psi(p: Sequence[float], q: Sequence[float]) -> float:
    """Return the sum of (p - q) log(p / q)."""
    return kl_divergence(p, q) + kl_divergence(q, p)


def total_variation(p: Sequence[float], q: Sequence[float]) -> float:
    """Return half the sum of abs(p - q)."""
    return 0.5 * math.fsum(abs(a - b) for a, b in zip(_scaled(p), _scaled(q), strict=True))


def _share(x: Sequence[float], at: float) -> float:
    return sum(v <= at for v in x) / len(x)


def ks_statistic(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the largest distance between two empirical distribution functions."""
    return max(abs(_share(x, at) - _share(y, at)) for at in {*x, *y})


def wasserstein(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the area between them."""
    places = sorted({*x, *y})
    return math.fsum(
        abs(_share(x, low) - _share(y, low)) * (high - low) for low, high in pairwise(places)
    )
