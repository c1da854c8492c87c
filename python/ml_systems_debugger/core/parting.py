"""Where two series of one quantity part: their common places, and what differs there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .series import Series

__all__ = ["Common", "common_places"]


@dataclass(frozen=True, slots=True, eq=False)
class Common:
    """The values that two series have at the same places.

    A place is a step and, where a step holds several values, which of them it is.

    Parameters
    ----------
    steps : int64 [n]
    a, b : float64 or uint64 [n]
    """

    steps: npt.NDArray[np.int64]
    a: npt.NDArray[Any]
    b: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.steps)

    def differs(self) -> npt.NDArray[np.bool_]:
        """Return where the values differ, bool [n]; NaN equals NaN."""
        out: npt.NDArray[np.bool_] = self.a != self.b
        if self.a.dtype.kind == "f":
            out &= ~(np.isnan(self.a) & np.isnan(self.b))
        return out

    def first_parting(self, rtol: float = 0.0) -> int | None:
        """Return the index of the first place whose values differ by more than `rtol`.

        Parameters
        ----------
        rtol : float
            As a part of the larger value; digests are equal or not.
        """
        where = self.differs()
        if rtol > 0 and self.a.dtype.kind == "f":
            where &= self.difference() > rtol
        return int(np.argmax(where)) if where.any() else None

    def difference(self) -> npt.NDArray[np.float64]:
        """Return the differences as a part of the larger value, float64 [n].

        0 where both are the same; infinite where only one is finite.
        """
        with np.errstate(all="ignore"):
            size = np.abs(self.a - self.b) / np.maximum(
                np.maximum(np.abs(self.a), np.abs(self.b)), 1e-300
            )
        return np.where(self.differs(), np.where(np.isnan(size), math.inf, size), 0.0)

    def largest_difference(self) -> float:
        """Return the greatest of `difference`; 0 where there is nothing in common."""
        return float(self.difference().max()) if len(self) else 0.0


def common_places(one: Series, other: Series) -> Common:
    """Return the values that two series of numbers or digests have at the same places.

    Examples
    --------
    >>> from ml_systems_debugger.core import SeriesKey
    >>> key, values = SeriesKey("loss"), np.array([3.0, 2.0, 1.0])
    >>> a = Series(key, np.array([1, 2, 2]), values)
    >>> b = Series(key, np.array([2, 2, 3]), values)
    >>> found = common_places(a, b)
    >>> found.steps.tolist(), found.a.tolist(), found.b.tolist(), found.first_parting()
    ([2, 2], [2.0, 1.0], [3.0, 2.0], 0)
    """
    if np.array_equal(one.steps, other.steps):
        return Common(one.steps, one.values, other.values)
    _, mine, theirs = np.intersect1d(
        _places(one.steps), _places(other.steps), assume_unique=True, return_indices=True
    )
    return Common(one.steps[mine], one.values[mine], other.values[theirs])


def _places(steps: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return step and number within the step of every value, as one key each."""
    keys = np.empty(len(steps), dtype=[("step", np.int64), ("at", np.int64)])
    keys["step"] = steps
    keys["at"] = np.arange(len(steps)) - np.searchsorted(steps, steps, "left")
    return keys
