"""Where an array is not finite: any, how many, which first."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core import count_nonfinite as _count
from .._core import first_nonfinite, has_nonfinite

__all__ = ["NonfiniteCounts", "count_nonfinite", "first_nonfinite", "has_nonfinite"]


class NonfiniteCounts(NamedTuple):
    """How many elements are NaN, positive infinity and negative infinity."""

    nan: int
    posinf: int
    neginf: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.nan + self.posinf + self.neginf


def count_nonfinite(x: Any, *, dtype: str | None = None) -> NonfiniteCounts:
    """Count the non-finite elements of an array.

    Parameters
    ----------
    x : array
        Any shape; see `ml_systems_debugger.kernels` for what is understood.
    dtype : str, optional
        What raw bytes hold, as ``"bfloat16"``.

    Examples
    --------
    >>> import numpy as np
    >>> count_nonfinite(np.array([1.0, np.nan, -np.inf]))
    NonfiniteCounts(nan=1, posinf=0, neginf=1)
    """
    return NonfiniteCounts(*_count(x, dtype=dtype))
