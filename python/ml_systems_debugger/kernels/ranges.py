"""Where the magnitudes of an array lie, and what a narrower dtype would lose of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._core import count_below
from .._core import exponent_counts as _counts
from .nonfinite import count_nonfinite

__all__ = ["NARROW_FORMATS", "ExponentCounts", "Narrowing", "exponent_counts", "narrowing"]


class _Format(NamedTuple):
    """Bounds on magnitudes, under rounding to nearest, ties to even."""

    overflow: float  # from here on a value becomes infinite or NaN
    tie_overflows: bool  # whether a value exactly there does
    min_normal: float
    smallest: float  # the smallest subnormal


# Half a unit above the largest finite value: a tie goes to the even neighbour.
NARROW_FORMATS = {
    "float16": _Format(65520.0, True, 2.0**-14, 2.0**-24),
    "bfloat16": _Format(2.0**127 * (2 - 2.0**-8), True, 2.0**-126, 2.0**-133),
    "float8_e4m3fn": _Format(464.0, False, 2.0**-6, 2.0**-9),
    "float8_e5m2": _Format(61440.0, True, 2.0**-14, 2.0**-16),
    "float8_e4m3fnuz": _Format(248.0, True, 2.0**-7, 2.0**-10),
    "float8_e5m2fnuz": _Format(61440.0, True, 2.0**-15, 2.0**-17),
}
"""Formats that `narrowing` knows, by their names. Bounds: IEEE 754-2019, and the OCP 8-bit
floating point specification 1.0 (the ``fnuz`` types as in ml_dtypes)."""


class ExponentCounts(NamedTuple):
    """How many elements have each binary exponent."""

    first: int
    """Exponent e of ``counts[0]``, which is of the magnitudes in [2^e, 2^(e+1))."""
    counts: npt.NDArray[np.uint64]
    """[n], without empty ends; empty where nothing is finite and normal."""
    small: int
    """Zeros, and what is subnormal even for the accumulator (float32; float64 for float64)."""
    nonfinite: int


def exponent_counts(x: Any, *, dtype: str | None = None) -> ExponentCounts:
    """Count the elements of an array by the binary exponent of their magnitude.

    Parameters
    ----------
    x : array
        Any shape; see `ml_systems_debugger.kernels` for what is understood.
    dtype : str, optional
        What raw bytes hold, as ``"bfloat16"``.

    Examples
    --------
    >>> import numpy as np
    >>> exponent_counts(np.array([0.0, 0.5, 1.0, 1.5, 8.0], np.float32))
    ExponentCounts(first=-1, counts=array([1, 2, 0, 0, 1], dtype=uint64), small=1, nonfinite=0)
    """
    counts, bias = _counts(x, dtype=dtype)
    normal = counts[1:-1]
    seen = np.flatnonzero(normal)
    low, high = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
    return ExponentCounts(low + 1 - bias, normal[low:high].copy(), int(counts[0]), int(counts[-1]))


class Narrowing(NamedTuple):
    """What rounding to a narrower dtype would do to the finite values of an array."""

    finite: int
    overflow: int
    """Would become infinite or NaN."""
    subnormal: int
    """Would become subnormal, and keep fewer digits."""
    zero: int
    """Are not zero, and would become so."""

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of overflow, subnormal and zero among the finite values; NaN where there is none."""
        if self.finite == 0:
            return (float("nan"),) * 3
        return (
            self.overflow / self.finite, self.subnormal / self.finite, self.zero / self.finite
        )  # fmt: skip


def narrowing(x: Any, to: str, *, dtype: str | None = None) -> Narrowing:
    """Count what would overflow, become subnormal or vanish in a narrower dtype.

    Exact under rounding to nearest, ties to even. Values that `x` holds as
    subnormals already are counted like any others.

    Parameters
    ----------
    x : array
        Any shape; see `ml_systems_debugger.kernels` for what is understood.
    to : str
        One of `NARROW_FORMATS`.
    dtype : str, optional
        What raw bytes hold, as ``"bfloat16"``.

    Raises
    ------
    ValueError
        Where `to` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> narrowing(np.array([1e-9, 1e-6, 1.0, 1e6], np.float32), "float16")
    Narrowing(finite=4, overflow=1, subnormal=1, zero=1)
    """
    if to not in NARROW_FORMATS:
        raise ValueError(f"to: one of {', '.join(NARROW_FORMATS)}, got {to!r}")
    overflow, tie_overflows, min_normal, smallest = NARROW_FORMATS[to]

    def below(bound: float, *, inclusive: bool = False) -> int:
        return count_below(x, bound, inclusive=inclusive, dtype=dtype)

    size = int(_counts(x, dtype=dtype)[0].sum())
    finite = size - sum(count_nonfinite(x, dtype=dtype))
    zeros = below(0.0, inclusive=True)
    # Half the smallest subnormal lies between zero and it: the tie goes to zero, which is even.
    vanished = below(smallest / 2, inclusive=True)
    # The tie between the largest subnormal and the smallest normal value goes to the latter.
    narrowed = below(min_normal - smallest / 2)
    kept = below(overflow, inclusive=not tie_overflows)
    return Narrowing(finite, finite - kept, narrowed - vanished, vanished - zeros)
