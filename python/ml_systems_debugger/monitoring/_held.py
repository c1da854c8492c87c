"""Chunks of a live run that are held back, to be judged as one."""

from __future__ import annotations

import numpy as np

from ..core import Series, SeriesKey, SeriesKind, SeriesTable, SignalSet, TableKeys

__all__ = ["Held", "urgent"]

_VALUES = 1 << 19
"""Numbers that are held at most: 4 MiB."""
_LAYOUTS = 64


class Held:
    """Chunks that the detectors of one latency have not seen yet.

    A detector is a fold: it finds in one chunk what it finds in its parts.

    Parameters
    ----------
    latency : int
        Steps that are held at most.
    """

    def __init__(self, latency: int) -> None:
        self._latency = latency
        self._chunks: list[SignalSet] = []
        self._steps = self._values = 0
        self._apart: dict[tuple[TableKeys, ...], bool] = {}

    def add(self, chunk: SignalSet, steps: int) -> bool:
        """Hold a chunk of `steps` steps; return whether all are to be judged now."""
        self._chunks.append(chunk)
        self._steps += steps
        self._values += len(chunk)
        return self._steps >= self._latency or self._values >= _VALUES

    def take(self) -> list[SignalSet]:
        """Return what is held as few chunks, in order; nothing is held any more."""
        chunks, self._chunks = self._chunks, []
        self._steps = self._values = 0
        taken: list[SignalSet] = []
        start = 0
        known: tuple[TableKeys, ...] = ()
        alone: set[SeriesKey] = set()
        for at, chunk in enumerate(chunks):
            keys = (*known, *(t.keys for t in chunk.tables if t.keys not in known))
            single = alone | {one.key for one in chunk.singles}
            # A series that changes between tables would be in two of them.
            if at > start and not (self._disjoint(keys) and _outside(single, keys)):
                taken.append(_joined(chunks[start:at]))
                start = at
                keys = tuple(table.keys for table in chunk.tables)
                single = {one.key for one in chunk.singles}
            known, alone = keys, single
        if start < len(chunks):
            taken.append(_joined(chunks[start:]))
        return taken

    def _disjoint(self, keys: tuple[TableKeys, ...]) -> bool:
        """Return whether no series is in two tables; looked at once for each set of layouts."""
        found = self._apart.get(keys)
        if found is None:
            if len(self._apart) >= _LAYOUTS:
                self._apart.clear()
            found = len({key for one in keys for key in one.keys}) == sum(map(len, keys))
            self._apart[keys] = found
        return found


def urgent(chunk: SignalSet) -> bool:
    """Return whether a chunk holds what is not finite, or no number: that is not held back."""
    return not (
        all(table.finite for table in chunk.tables)
        and all(
            one.kind is SeriesKind.SCALAR and bool(np.isfinite(one.values).all())
            for one in chunk.singles
        )
    )


def _outside(single: set[SeriesKey], keys: tuple[TableKeys, ...]) -> bool:
    return not single or all(single.isdisjoint(one.keys) for one in keys)


def _joined(chunks: list[SignalSet]) -> SignalSet:
    if len(chunks) == 1:
        return chunks[0]
    tables: dict[TableKeys, list[SeriesTable]] = {}
    singles: dict[SeriesKey, list[Series]] = {}
    for chunk in chunks:
        for table in chunk.tables:
            tables.setdefault(table.keys, []).append(table)
        for one in chunk.singles:
            singles.setdefault(one.key, []).append(one)
    return SignalSet.of_tables(
        [_one_table(keys, parts) for keys, parts in tables.items()],
        [_one_series(key, parts) for key, parts in singles.items()],
    )


def _one_table(keys: TableKeys, parts: list[SeriesTable]) -> SeriesTable:
    if len(parts) == 1:
        return parts[0]
    steps = np.concatenate([part.steps for part in parts])
    return SeriesTable.unchecked(keys, steps, np.concatenate([part.values for part in parts]))


def _one_series(key: SeriesKey, parts: list[Series]) -> Series:
    if len(parts) == 1:
        return parts[0]
    steps = np.concatenate([part.steps for part in parts])
    return Series(key, steps, np.concatenate([part.values for part in parts]))
