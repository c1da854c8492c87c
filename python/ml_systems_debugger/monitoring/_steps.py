"""What was measured at the last steps, until the detectors have seen it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core import Series, SeriesKey, SignalSet

__all__ = ["StepBuffer"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class StepBuffer:
    """Values of many series over a few steps, as one array [steps, series].

    A group is a run of series that are always measured together, such as one
    norm for every parameter; a row of it is one copy.
    """

    def __init__(self, steps: int) -> None:
        self.capacity = steps
        self.keys: list[SeriesKey] = []
        self.steps: list[int] = []
        self._at: dict[SeriesKey, int] = {}
        self._groups: dict[str, slice] = {}
        self._scalars: list[tuple[SeriesKey, float]] = []
        self._values: Floats = np.empty((steps, 0))
        self._there: npt.NDArray[np.bool_] = np.zeros((steps, 0), np.bool_)

    @property
    def full(self) -> bool:
        """Whether no further step fits."""
        return len(self.steps) >= self.capacity

    def begin(self, step: int) -> None:
        """Begin a step; what is put from now on belongs to it."""
        self.steps.append(step)
        self._scalars.clear()

    def group(self, name: str, keys: Sequence[SeriesKey]) -> None:
        """Make a group, once."""
        if name in self._groups:
            return
        start = len(self.keys)
        for key in keys:
            self._at.setdefault(key, len(self.keys))
            self.keys.append(key)
        self._grow()
        self._groups[name] = slice(start, len(self.keys))

    def has(self, name: str) -> bool:
        """Return whether the group is there."""
        return name in self._groups

    def put_group(self, name: str, values: Floats) -> None:
        """Put the values of a whole group."""
        row, where = len(self.steps) - 1, self._groups[name]
        self._values[row, where] = values
        self._there[row, where] = True

    def put(self, key: SeriesKey, value: float) -> None:
        """Put one value."""
        at = self._at.get(key)
        if at is None:
            at = self._at[key] = len(self.keys)
            self.keys.append(key)
            self._grow()
        row = len(self.steps) - 1
        self._values[row, at] = value
        self._there[row, at] = True
        self._scalars.append((key, value))

    def scalars(self) -> Sequence[tuple[SeriesKey, float]]:
        """Return what was put one by one at the newest step."""
        return self._scalars

    def last(self) -> tuple[Places, Floats]:
        """Return the columns that the newest step has, and their values."""
        row = len(self.steps) - 1
        columns = np.flatnonzero(self._there[row])
        return columns, self._values[row, columns]

    def drain(self) -> SignalSet:
        """Return all of it as series, and begin anew."""
        count = len(self.steps)
        steps = np.array(self.steps, np.int64)
        there = self._there[:count]
        counts = there.sum(axis=0).tolist()
        values = self._values[:count].T.copy()  # one row per series: they are handed out
        found = []
        for at, key in enumerate(self.keys):
            if counts[at] == count:
                found.append(Series(key, steps, values[at]))
            elif counts[at]:
                use = there[:, at]
                found.append(Series(key, steps[use], values[at, use]))
        self._there[:count] = False
        self.steps = []
        return SignalSet(found)

    def _grow(self) -> None:
        width = self._values.shape[1]
        if len(self.keys) <= width:
            return
        more = max(len(self.keys), 2 * width) - width
        self._values = np.pad(self._values, ((0, 0), (0, more)), constant_values=np.nan)
        self._there = np.pad(self._there, ((0, 0), (0, more)))
