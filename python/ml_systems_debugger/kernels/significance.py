"""Tests of counts: chi-square over cells, two proportions, many hypotheses at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, exp, lgamma, log, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import ConfigurationError
from ._series import floats
from .divergence import js_divergence

__all__ = [
    "benjamini_hochberg",
    "chi_square_p_value",
    "homogeneity",
    "js_distance",
    "two_proportions_p_value",
]

_LEAST_EXPECTED = 5.0  # Cochran's rule (Biometrics 10, 1954)


def chi_square_p_value(statistic: float, degrees: int) -> float:
    """Return the probability of a chi-square of at least `statistic` with `degrees` of freedom.

    By the finite sums that the upper incomplete gamma function has at whole and
    half arguments; exact to rounding.

    Examples
    --------
    >>> round(chi_square_p_value(3.841459, 1), 4), round(chi_square_p_value(18.307, 10), 4)
    (0.05, 0.05)
    """
    if degrees < 1:
        raise ConfigurationError(f"degrees is at least 1, got {degrees!r}")
    if not statistic > 0:
        return 1.0
    half = statistic / 2
    if degrees % 2:
        total = erfc(sqrt(half))
        # x^(k - 1/2) e^-x / Gamma(k + 1/2), term by term.
        term = exp(-half + 0.5 * log(half)) / (0.5 * sqrt(pi)) if half < 700 else 0.0
        for k in range(1, (degrees - 1) // 2 + 1):
            total += term
            term *= half / (k + 0.5)
        return min(total, 1.0)
    logs = (-half + i * log(half) - lgamma(i + 1) for i in range(degrees // 2))
    return min(sum(exp(value) for value in logs), 1.0)


def two_proportions_p_value(hits: float, n: float, others: float, m: float) -> float:
    """Return the two-sided p-value of `hits` of `n` against `others` of `m` (pooled z-test).

    Examples
    --------
    >>> round(two_proportions_p_value(10, 100, 20, 100), 4)
    0.0477
    """
    if n <= 0 or m <= 0:
        raise ConfigurationError(f"n and m are above 0, got {n!r} and {m!r}")
    pooled = (hits + others) / (n + m)
    if pooled <= 0.0 or pooled >= 1.0:
        return 1.0
    z = abs(hits / n - others / m) / sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return erfc(z / sqrt(2))


def homogeneity(p: npt.ArrayLike, q: npt.ArrayLike) -> tuple[float, int, float]:
    """Test whether two rows of counts come from one distribution (Pearson's chi-square).

    Parameters
    ----------
    p, q : counts [cells]
        Cells of which less than five are expected on a side (Cochran's rule)
        are joined into one.

    Returns
    -------
    (float, int, float)
        The statistic, its degrees of freedom (0 where one cell is left) and the
        p-value.

    Raises
    ------
    ValueError
        If lengths differ or a side is empty.

    Examples
    --------
    >>> statistic, degrees, p = homogeneity([50, 30, 20], [30, 40, 30])
    >>> round(statistic, 2), degrees, round(p, 3)
    (8.43, 2, 0.015)
    """
    a, b = floats(p), floats(q)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"p and q: counts of the same cells, got shapes {a.shape} and {b.shape}")
    n, m = float(a.sum()), float(b.sum())
    if n <= 0 or m <= 0:
        raise ValueError(f"{'p' if n <= 0 else 'q'}: something must be in it")
    small = (a + b) * min(n, m) / (n + m) < _LEAST_EXPECTED
    if small.any():
        a = np.append(a[~small], a[small].sum())
        b = np.append(b[~small], b[small].sum())
        if len(a) > 1 and (a[-1] + b[-1]) * min(n, m) / (n + m) < _LEAST_EXPECTED:
            a[-2], b[-2] = a[-2] + a[-1], b[-2] + b[-1]
            a, b = a[:-1], b[:-1]
    if len(a) < 2:
        return 0.0, 0, 1.0
    pooled = (a + b) / (n + m)
    statistic = float((((a / n - b / m) ** 2) / pooled).sum() / (1 / n + 1 / m))
    return statistic, len(a) - 1, chi_square_p_value(statistic, len(a) - 1)


def js_distance(p: npt.NDArray[Any], q: npt.NDArray[Any]) -> float:
    """Return the Jensen-Shannon distance (base 2) of counts [cells] beyond what chance explains.

    That is, of the divergence less its null mean and two null deviations; 0
    where a side is empty.
    """
    n, m = float(p.sum()), float(q.sum())
    if not n or not m:
        return 0.0
    used = int(np.count_nonzero(p + q))
    noise = (1 / n + 1 / m) / (8 * log(2))
    level = (used - 1 + 2 * sqrt(2 * max(used - 1, 0))) * noise
    return sqrt(max(js_divergence(p, q, base=2) - level, 0.0))


def benjamini_hochberg(p_values: Sequence[float], q: float) -> list[bool]:
    """Return which hypotheses are rejected at false-discovery rate `q` (JRSS B 57, 1995).

    Examples
    --------
    >>> benjamini_hochberg([0.001, 0.02, 0.5], 0.03)
    [True, True, False]
    """
    order = np.argsort(p_values, kind="stable")
    passed = 0
    for rank, at in enumerate(order.tolist(), 1):
        if p_values[at] <= q * rank / len(p_values):
            passed = rank
    kept = set(order[:passed].tolist())
    return [i in kept for i in range(len(p_values))]
