"""`theil_sen`: the slope of noisy points, with an interval."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy.typing as npt

from .._core import theil_sen as _theil_sen
from ..core.parameters import check_range
from ._series import floats

__all__ = ["TheilSen", "theil_sen"]


class TheilSen(NamedTuple):
    """Slope, intercept, and the ends of the slope's interval; NaN where no two x differ."""

    slope: float
    intercept: float
    low: float
    high: float


def theil_sen(x: npt.ArrayLike, y: npt.ArrayLike, confidence: float = 0.95) -> TheilSen:
    """Return Sen's slope of `y` over `x`.

    The median of the slopes of all pairs with different x; the intercept is
    ``median(y) - slope * median(x)``; the interval from the variance of
    Kendall's statistic with ties (Sen, JASA 63, 1968, eq. 2.6).

    Parameters
    ----------
    x, y : float64 [n]
        Finite, at most 4096 points: the cost grows with n squared. For a long
        history use the table of `BlockMeans`.
    confidence : float
        Of the interval, in (0, 1).

    Raises
    ------
    ValueError
        If lengths differ, there are too many points, or one is not finite.

    Examples
    --------
    >>> theil_sen([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 5.0, 100.0]).slope
    17.5
    """
    check_range("confidence", confidence, 0.0, 1.0, open_low=True)
    z = NormalDist().inv_cdf(0.5 + 0.5 * min(confidence, 1.0 - 1e-12))
    return TheilSen(*_theil_sen(floats(x), floats(y), z))
