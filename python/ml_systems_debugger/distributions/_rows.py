"""Which rows of an endless table are kept: the same whatever the chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["RowSampler"]

Places = npt.NDArray[np.int64]


class RowSampler:
    """Keeps at most `capacity` rows, one of every 2^level, chosen by their place alone.

    When full, every other kept row goes. Within a stride the row is drawn by a
    hash of its place, so that no period of the data meets the stride. All
    columns of a table keep the same rows.

    Examples
    --------
    >>> sampler = RowSampler(4)
    >>> old, new = sampler.add(100)
    >>> len(new), sampler.level
    (3, 5)
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.level = 0
        self.seen = 0
        self.places: Places = np.empty(0, np.int64)

    def add(self, rows: int) -> tuple[Places, Places]:
        """Take `rows` more; return which of the kept ones stay and which new ones come.

        Both are indices: into what was kept, and into the rows that came.
        """
        start, stop = self.seen, self.seen + rows
        while (stop >> self.level) + 1 > self.capacity:
            self.level += 1
        stay = np.flatnonzero(self._chosen(self.places >> self.level) == self.places)
        strides = np.arange(start >> self.level, (max(stop - 1, start) >> self.level) + 1)
        new = self._chosen(strides)
        new = new[(new >= start) & (new < stop)]
        self.places = np.concatenate([self.places[stay], new])
        self.seen = stop
        return stay, new - start

    def _chosen(self, strides: Places) -> Places:
        """Return the row kept of each stride: of its two halves' rows, level by level."""
        rows = strides.astype(np.int64)
        for level in range(self.level, 0, -1):
            rows = 2 * rows + _bit(rows, level)
        return rows


def _bit(places: Places, level: int) -> Places:
    """Return one hashed bit for each place of a level (the finaliser of SplitMix64)."""
    x = places.astype(np.uint64) + np.uint64(level << 56) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits: Places = ((x ^ (x >> np.uint64(31))) & np.uint64(1)).astype(np.int64)
    return bits
