"""Runs of values that are not finite, and the finite ones before them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["GAP", "RING", "growth", "last_finite", "runs_of"]

GAP = 8  # good values that end an occurrence: fewer between two bad ones make it one
RING = 8  # last finite values kept, for what came before


def growth(sizes: npt.NDArray[np.float64]) -> float:
    """Return by what factor the largest of the later half exceeds the middle of the earlier."""
    half = max(1, len(sizes) // 2)
    before, after = float(np.median(sizes[:half])), float(np.max(sizes[half:], initial=0.0))
    return max(after, float(sizes[-1])) / before if before > 0 else 1.0


def runs_of(
    where: npt.NDArray[np.intp], good: npt.NDArray[np.bool_] | None
) -> Iterator[tuple[int, int, int]]:
    """Yield (first, last, number) of bad indices with at most GAP finite values between them."""
    if not len(where) or good is None:
        return
    finite = np.cumsum(good)
    cuts = np.flatnonzero(np.diff(finite[where]) > GAP) + 1
    for a, b in pairwise([0, *cuts.tolist(), len(where)]):
        yield int(where[a]), int(where[b - 1]), b - a


def last_finite(
    ring: npt.NDArray[np.float64], values: npt.NDArray[np.float64], stop: int
) -> npt.NDArray[np.float64]:
    """Return the last finite values up to index `stop`, newest last, NaN where there are fewer."""
    width = RING
    known = np.empty(0)
    while stop > 0:
        low = max(0, stop - width)
        part = values[low:stop]
        known = part[np.isfinite(part)]
        if len(known) >= RING or low == 0:
            break
        width *= 4
    held = np.concatenate([ring[np.isfinite(ring)], known])[-RING:]
    return np.concatenate([np.full(RING - len(held), np.nan), held])
