"""Array kernels in plain NumPy and Python: slow, and obviously right."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Statistics",
    "count_nonfinite",
    "digest",
    "exponent_counts",
    "first_nonfinite",
    "global_norm",
    "has_nonfinite",
    "l1_norm",
    "l2_norm",
    "max_norm",
    "narrowing",
    "tensor_stats",
]

_WORD = 0xFFFF_FFFF_FFFF_FFFF


def _doubles(x: Any) -> npt.NDArray[np.float64]:
    """Return all elements as float64 [n], in C order (exact for floats of 64 bits or less)."""
    found = np.asarray(x)
    if found.dtype.kind == "c":
        found = np.ascontiguousarray(found).view(found.real.dtype)
    with np.errstate(all="ignore"):
        return np.ravel(found, order="C").astype(np.float64)


def has_nonfinite(x: Any) -> bool:
    """Return whether any element is NaN or infinite."""
    return not bool(np.isfinite(_doubles(x)).all())


def count_nonfinite(x: Any) -> tuple[int, int, int]:
    """Return how many elements are NaN, +inf and -inf."""
    v = _doubles(x)
    return int(np.isnan(v).sum()), int((v == np.inf).sum()), int((v == -np.inf).sum())


def first_nonfinite(x: Any) -> int | None:
    """Return the flat index of the first NaN or infinity, or None."""
    found = np.flatnonzero(~np.isfinite(_doubles(x)))
    return int(found[0]) if len(found) else None


def _root_of_squares(v: npt.NDArray[np.float64]) -> float:
    if not np.isfinite(v).all():
        return math.nan if np.isnan(v).any() else math.inf
    # `hypot` scales by the largest magnitude; `fsum` adds without rounding.
    largest = float(np.abs(v).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    power = math.ldexp(1.0, max(min(math.frexp(largest)[1], 1000), -1000))
    return power * math.sqrt(math.fsum((v / power) ** 2))


def l2_norm(x: Any) -> float:
    """Return the square root of the sum of squares."""
    return _root_of_squares(_doubles(x))


def global_norm(xs: Any) -> float:
    """Return the L2 norm over many arrays."""
    parts = [_doubles(x) for x in xs]
    return _root_of_squares(np.concatenate(parts) if parts else np.empty(0))


def l1_norm(x: Any) -> float:
    """Return the sum of magnitudes."""
    v = np.abs(_doubles(x))
    if np.isfinite(v).all():
        try:
            return math.fsum(v)
        except OverflowError:  # more than a double holds
            return math.inf
    return math.nan if np.isnan(v).any() else math.inf


def max_norm(x: Any) -> float:
    """Return the largest magnitude; 0 for no element, NaN where one is NaN."""
    v = np.abs(_doubles(x))
    return math.nan if np.isnan(v).any() else float(v.max(initial=0.0))


class Statistics(NamedTuple):
    """The fields of `ml_systems_debugger.kernels.TensorStats`, by their names."""

    size: int
    nan: int
    posinf: int
    neginf: int
    zero: int
    subnormal: int
    min: float
    max: float
    absmax: float
    mean: float
    std: float
    l1: float
    l2: float


def tensor_stats(x: Any, min_normal: float) -> Statistics:
    """Return every statistic over the finite values.

    Parameters
    ----------
    x : array
    min_normal : float
        Smallest normal magnitude of the element type; 0 for integers.
    """
    v = _doubles(x)
    nan, posinf, neginf = count_nonfinite(v)
    f = v[np.isfinite(v)]
    zero = int((f == 0).sum())
    subnormal = int((np.abs(f) < min_normal).sum()) - zero if min_normal else 0
    if not len(f):
        nothing = math.nan
        return Statistics(
            len(v), nan, posinf, neginf, 0, 0, nothing, nothing, nothing, nothing, nothing, 0.0, 0.0
        )
    mean = math.fsum(f / len(f))
    std = _root_of_squares(f - mean) / math.sqrt(len(f))
    low, high = float(f.min()), float(f.max())
    return Statistics(
        len(v), nan, posinf, neginf, zero, subnormal, low, high, max(high, -low), mean, std,
        l1_norm(f), l2_norm(f),
    )  # fmt: skip


def digest(x: Any) -> int:
    """Return the sum over 8-byte words of mix(word xor place), mod 2^64.

    The last word is filled up with zeros; its place counts from 1.
    """
    raw = np.ascontiguousarray(x).tobytes()
    raw += bytes(-len(raw) % 8)
    total = 0
    for place, word in enumerate(np.frombuffer(raw, "<u8").tolist(), start=1):
        mixed = word ^ (place * 0x9E37_79B9_7F4A_7C15 & _WORD)
        total += (mixed & 0xFFFF_FFFF) * (mixed >> 32) + mixed
    return total & _WORD


def exponent_counts(x: Any) -> dict[int, int]:
    """Return how many finite elements, zeros aside, have each binary exponent."""
    counts: dict[int, int] = {}
    for value in _doubles(x).tolist():
        if value != 0 and math.isfinite(value):
            exponent = math.frexp(value)[1] - 1
            counts[exponent] = counts.get(exponent, 0) + 1
    return counts


def narrowing(x: Any, narrow: npt.DTypeLike, min_normal: float) -> tuple[int, int, int, int]:
    """Return finite, overflowing, becoming subnormal, becoming zero: by doing it.

    Parameters
    ----------
    x : array
    narrow : dtype that NumPy can cast to
    min_normal : float
        Its smallest normal magnitude.
    """
    v = _doubles(x)
    v = v[np.isfinite(v)]
    with np.errstate(all="ignore"):
        after = v.astype(narrow).astype(np.float64)
    subnormal = (after != 0) & (np.abs(after) < min_normal)
    return (
        len(v), int((~np.isfinite(after)).sum()), int(subnormal.sum()),
        int(((after == 0) & (v != 0)).sum()),
    )  # fmt: skip
