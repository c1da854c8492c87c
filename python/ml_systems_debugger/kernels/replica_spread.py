"""`replica_spread`: which replica stands apart, per step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._core import replica_spread as _replica_spread
from ._series import floats

__all__ = ["replica_spread"]


def replica_spread(values: npt.ArrayLike) -> npt.NDArray[np.void]:
    """Return, per step over replicas, how far they lie apart.

    Parameters
    ----------
    values : float64 [steps, replicas]
        Any strides. NaN and the infinities are left out.

    Returns
    -------
    structured array [steps]
        ``median``, ``mad`` (1.4826 times the median absolute deviation),
        ``min``, ``max``; ``worst``, the replica farthest from the median (the
        first of equals; -1 where no value is finite) and its robust ``z``
        (infinite where the others agree exactly, 0 where all do); ``finite``,
        how many values counted. NaN where there is none.

    Raises
    ------
    ValueError
        If `values` has not two dimensions.

    Notes
    -----
    With three replicas or fewer the MAD is one of the distances itself: z then
    says little, and equality of the others much.

    Examples
    --------
    >>> found = replica_spread([[1.0, 1.1, 0.9, 5.0]])[0]
    >>> int(found["worst"]), round(float(found["z"]), 2)
    (3, 26.64)
    """
    return _replica_spread(floats(values))
