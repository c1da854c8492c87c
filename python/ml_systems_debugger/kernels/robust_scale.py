"""Robust scales, and how far apart two samples are in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .divergence import wasserstein

__all__ = ["MAD_TO_SIGMA", "clipped_distance", "robust_scale"]

Floats = npt.NDArray[np.float64]

MAD_TO_SIGMA = 1.4826
"""Sigma of a normal law over its median absolute deviation."""

_IQR_TO_SIGMA = 1.349  # interquartile range of a normal law over its sigma
_FAR = 20.0  # scales beyond which a value counts as this far: one outlier is no skew


def robust_scale(values: Floats) -> float:
    """Return IQR / 1.349 of `values` [n]; their deviation where half of them are one value."""
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high - low) / _IQR_TO_SIGMA or float(np.std(values))


def clipped_distance(reference: Floats, other: Floats, scale: float) -> float:
    """Return W1 between ascending samples, in units of `scale` and clipped at 20 of them.

    Both are taken from the reference's median, so that one far value is no more
    than 20 scales away.
    """
    middle = float(np.median(reference))
    near = (np.clip((x - middle) / scale, -_FAR, _FAR) for x in (reference, other))
    return float(wasserstein(*near))
