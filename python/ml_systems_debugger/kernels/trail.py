"""The trail of a series: its whole history in one bounded row of float64, as a fold.

A row starts as zeros. It holds running extremes, a robust running level and
scale, the excursion above that level that is going on, the last 64 values as
they were, and a table of at most 192 medians that covers the history evenly
(the remedian of Rousseeuw and Bassett, JASA 85, 1990, in base 3). It depends
on the values and their order alone, never on how they were cut into chunks.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from .._core import TRAIL_SIZE, trail_fold, trail_fold_table

__all__ = [
    "SETTINGS_SIZE",
    "TRAIL_SIZE",
    "Field",
    "Reason",
    "early",
    "ring",
    "settings",
    "table",
    "trail_fold",
    "trail_fold_table",
]

EARLY = 8
RING = 64
TABLE = 192


class Field(IntEnum):
    """Offsets into a row, as ``cpp/include/mlsd/trail.hpp`` names them."""

    COUNT = 0
    NON_FINITE = 1
    FIRST_BAD_STEP = 2
    FIRST = 3
    FIRST_STEP = 4
    LAST = 5
    LAST_STEP = 6
    MIN = 7
    MIN_STEP = 8
    MAX = 9
    MAX_STEP = 10
    LEVEL = 11
    SCALE = 12
    FAST = 13
    BEST = 14
    BEST_STEP = 15
    WORST = 16
    RETURNS = 17
    NEXT_CHECK = 18
    REASON = 19
    WATCH = 20
    ACTIVE = 21
    START_STEP = 22
    START_INDEX = 23
    BEFORE = 24
    BASE_LEVEL = 25
    BASE_SCALE = 26
    BOUND = 27
    LENGTH = 28
    CALM = 29
    PEAK = 30
    PEAK_STEP = 31
    NEXT_TRIGGER = 32
    ZEROS = 33
    ZERO_STEP = 34
    ENTRIES = 35
    EXPONENT = 36
    PENDING_STEP = 37
    PENDING = 38


_EARLY_VALUES = 39
_RING_VALUES = _EARLY_VALUES + EARLY
_RING_STEPS = _RING_VALUES + RING
_TABLE_VALUES = _RING_STEPS + RING
_TABLE_STEPS = _TABLE_VALUES + TABLE


SETTINGS_SIZE = 10
"""Length of what `settings` returns."""


class Reason(IntEnum):
    """Why `trail_fold` stopped behind a value."""

    NOTHING = 0
    CHECK = 1
    """A check is due (counts grow by an eighth) and the values call for one."""
    TRIGGER = 2
    """An excursion has lasted 16, 32, 64, ... values; 4 more for each one that came back before."""
    RETURNED = 3
    """An excursion that had triggered is over."""
    BROKE = 4
    """The first non-finite value."""


def settings(
    *,
    logarithm: bool = False,
    sign: int = 1,
    sigmas: float = 6.0,
    floor: float = 0.0,
    relative: float = 0.0,
    early: float = 1.0,
    always: bool = False,
    rise: float = 0.0,
    rise_of_gain: float = 0.0,
    rise_of_best: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Return the settings of `trail_fold` as the array that it takes.

    Parameters
    ----------
    logarithm : bool
        Fold log|x| (x of at least 1e-300) instead of x.
    sign : int
        1 where a rise is bad, -1 where a fall is: values are then folded negated.
    sigmas, floor, relative, early : float
        An excursion begins above ``level + max(sigmas * scale, least)`` with
        ``least = floor + relative * |level|``, times `early` while fewer than 8
        values are known.
    always : bool
        Stop at every check.
    rise, rise_of_gain, rise_of_best : float
        Else stop where the running mean stands above the best level by the
        greatest of `rise`, `rise_of_gain` of (first - best), and
        `rise_of_best` of abs(best).
    """
    return np.array(
        [logarithm, sign, sigmas, floor, relative, early, always, rise, rise_of_gain, rise_of_best],
        dtype=np.float64,
    )


def early(row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the first values (at most 8)."""
    known = min(EARLY, int(row[Field.COUNT]))
    return np.array(row[_EARLY_VALUES : _EARLY_VALUES + known])


def ring(row: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the last values (at most 64), oldest first, and their steps."""
    count = int(row[Field.COUNT])
    values = row[_RING_VALUES:_RING_STEPS]
    steps = row[_RING_STEPS:_TABLE_VALUES]
    if count <= RING:
        return values[:count].copy(), steps[:count].copy()
    at = count % RING
    return np.roll(values, -at), np.roll(steps, -at)


def table(
    row: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    """Return the table's medians, the first step of each, and how many values each covers."""
    used = int(row[Field.ENTRIES])
    return (
        row[_TABLE_VALUES : _TABLE_VALUES + used].copy(),
        row[_TABLE_STEPS : _TABLE_STEPS + used].copy(),
        3 ** int(row[Field.EXPONENT]),
    )
