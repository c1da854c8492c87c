"""Intervals for counts: what a share of a few runs says of all runs."""

from __future__ import annotations

import math

__all__ = ["wilson"]

_Z = 1.959963984540054  # 95 %


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion.

    Source: Wilson, JASA 22, 1927. It stays inside [0, 1] and has a width at 0
    and at `total` hits too.

    Examples
    --------
    >>> [round(x, 3) for x in wilson(0, 64)]
    [0.0, 0.057]
    """
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    scale = 1 + _Z * _Z / total
    middle = (share + _Z * _Z / (2 * total)) / scale
    half = _Z * math.sqrt(share * (1 - share) / total + _Z * _Z / (4 * total * total)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)
