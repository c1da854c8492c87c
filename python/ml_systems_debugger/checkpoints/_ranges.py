"""Where the magnitudes of a tensor lie, and what narrower types would lose of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import frexp
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import count_below
from ..kernels.ranges import NARROW_FORMATS, exponent_counts
from .dtypes import DTYPES, Dtype

__all__ = ["TARGETS", "RangeCounts", "has_ranges", "range_counts"]

TARGETS = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
"""The types that checkpoints are narrowed to."""

_LOSSES = ("overflow", "subnormal", "zero")


@dataclass(slots=True)
class RangeCounts:
    """Exponents of the values of a tensor or a part of it; parts add up, in any order.

    Parameters
    ----------
    first : int
        Exponent e of ``counts[0]``, which is of the magnitudes in [2^e, 2^(e+1)).
    counts : uint64 array
        Without empty ends; empty where nothing is finite and normal in float32 (float64 for
        float64).
    alive : int
        Finite values that are not zero.
    lost : int64 array [targets, 3]
        What would overflow, become subnormal, become zero: exact, rounded to nearest, ties to
        even.
    """

    first: int
    counts: npt.NDArray[np.uint64]
    alive: int
    lost: npt.NDArray[np.int64]

    def add(self, other: RangeCounts) -> RangeCounts:
        """Return the sum of two parts."""
        parts = [p for p in (self, other) if len(p.counts)]
        first = min((p.first for p in parts), default=0)
        end = max((p.first + len(p.counts) for p in parts), default=first)
        counts = np.zeros(end - first, np.uint64)
        for part in parts:
            counts[part.first - first :][: len(part.counts)] += part.counts
        return RangeCounts(first, counts, self.alive + other.alive, self.lost + other.lost)

    def to_list(self) -> list[Any]:
        """Return plain terms; `from_list` takes them back."""
        return [self.first, self.counts.tolist(), self.alive, self.lost.tolist()]

    @classmethod
    def from_list(cls, terms: Any) -> RangeCounts:
        """Return what `to_list` gave; raises ValueError where it is damaged."""
        first, counts, alive, lost = terms
        table = np.array(lost, np.int64)
        if table.shape != (len(TARGETS), 3):
            raise ValueError(f"ranges of {len(TARGETS)} types, got {table.shape}")
        return cls(int(first), np.array(counts, np.uint64), int(alive), table)

    def share(self, target: str, *losses: str) -> float:
        """Return the share of these losses among the values that are finite and not zero."""
        row = self.lost[TARGETS.index(target)]
        count = sum(int(row[_LOSSES.index(loss)]) for loss in losses)
        return count / self.alive if self.alive else 0.0

    def vanishing(self, target: str) -> float:
        """Return the share that becomes zero under the best scale by a power of two.

        The scale puts the largest magnitude just below what the type holds, as tensors are
        scaled for 8-bit floats; ties and the border are told by whole exponents.
        """
        if not len(self.counts) or not self.alive:
            return 0.0
        bounds = NARROW_FORMATS[target]
        top = self.first + len(self.counts) - 1
        # The largest finite value need not fill its last power of two; one below always fits.
        shift = frexp(bounds.overflow)[1] - 2 - top
        least = frexp(bounds.smallest)[1] - 2 - shift
        below = self.counts[: max(0, least - self.first)].sum()
        return (int(below) + self.alive - int(self.counts.sum())) / self.alive

    def to_dict(self) -> dict[str, Any]:
        """Return JSON terms: the histogram, and counts and shares for each type."""
        terms: dict[str, Any] = {
            "alive": self.alive, "first_exponent": self.first, "exponents": self.counts.tolist(),
        }  # fmt: skip
        for target, row in zip(TARGETS, self.lost.tolist(), strict=True):
            terms[target] = {
                **dict(zip(_LOSSES, row, strict=True)), "outside": self.share(target, *_LOSSES),
            }  # fmt: skip
        return terms


def has_ranges(dtype: Dtype) -> bool:
    """Return whether values of this type have exponents to count."""
    number = dtype.floating and dtype.kernel is not None and not dtype.quantised
    return number and dtype.name != "float8_e8m0fnu"  # which is an exponent itself


def range_counts(
    raw: npt.NDArray[np.uint8], dtype: Dtype, stats: Mapping[str, Any] | Any
) -> RangeCounts:
    """Count the exponents of dense little-endian values, and what narrower types would lose.

    Parameters
    ----------
    raw : uint8 array
    dtype : Dtype
        One that `has_ranges`.
    stats : mapping or structured scalar
        ``count``, ``nan``, ``posinf``, ``neginf`` and ``zero`` of the same values.
    """
    kernel = str(dtype.kernel)
    found = exponent_counts(raw, dtype=kernel)
    bad = sum(int(stats[n]) for n in ("nan", "posinf", "neginf"))
    finite, zeros = int(stats["count"]) - bad, int(stats["zero"])
    out = RangeCounts(
        found.first, found.counts, finite - zeros, np.zeros((len(TARGETS), 3), np.int64)
    )
    below = _Below(raw, kernel, found.first, found.counts, int(found.small), zeros, finite)
    for at, target in enumerate(TARGETS):
        if not _is_narrower(DTYPES[target], dtype):
            continue
        overflow, tie_overflows, min_normal, smallest = NARROW_FORMATS[target]
        # Half the smallest subnormal is the tie between it and zero, which is even; the tie
        # below the smallest normal value goes to the latter.
        vanished = below(smallest / 2, inclusive=True)
        narrowed = below(min_normal - smallest / 2)
        kept = below(overflow, inclusive=not tie_overflows)
        out.lost[at] = finite - kept, narrowed - vanished, vanished - zeros
    return out


def _is_narrower(target: Dtype, dtype: Dtype) -> bool:
    """Return whether a type cannot hold all that the other does."""
    inner, outer = NARROW_FORMATS.get(dtype.name), NARROW_FORMATS[target.name]
    if inner is None:
        return True
    return outer.overflow < inner.overflow or outer.smallest > inner.smallest


@dataclass(frozen=True, slots=True)
class _Below:
    """How many magnitudes lie below a bound: out of the histogram where its border bin is empty."""

    raw: npt.NDArray[np.uint8]
    kernel: str
    first: int
    counts: npt.NDArray[np.uint64]
    small: int
    zeros: int
    finite: int

    def __call__(self, bound: float, *, inclusive: bool = False) -> int:
        border = frexp(bound)[1] - 1
        at = border - self.first
        if at >= len(self.counts) and border >= -126:
            return self.finite
        # The bin of the border decides; what is subnormal for the accumulator has no bins.
        if self.small == self.zeros and (not 0 <= at < len(self.counts) or not self.counts[at]):
            return self.zeros + int(self.counts[: max(0, at)].sum())
        return int(count_below(self.raw, bound, inclusive=inclusive, dtype=self.kernel))
