"""What was measured at the last steps, until the detectors have seen it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core import Series, SeriesKey, SeriesTable, SignalSet, TableKeys

__all__ = ["Place", "StepBuffer"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Place = slice | Places
"""Where in a group values belong."""


def _span(places: list[int]) -> Place:
    """Return indices as a slice where they are in order."""
    start = places[0] if places else 0
    if places == list(range(start, start + len(places))):
        return slice(start, start + len(places))
    return np.array(places, np.int64)


class _Group:
    """One quantity of many series, such as a norm for every parameter: a row for every step."""

    def __init__(self, steps: int) -> None:
        self.keys: list[SeriesKey] = []
        self.columns: Places = np.empty(0, np.int64)  # of the buffer
        self.span: Place = slice(0)  # the same
        self.rows: list[int] = []  # of the block: where anything was put
        self.values: Floats = np.empty((steps, 0))
        self.there: Bools = np.zeros((steps, 0), np.bool_)
        self.known: dict[bytes, TableKeys] = {}

    def grow(self) -> None:
        more = len(self.keys) - self.values.shape[1]
        if more > 0:
            self.values = np.pad(self.values, ((0, 0), (0, more)))
            self.there = np.pad(self.there, ((0, 0), (0, more)))

    def _keys_of(self, use: Bools | None) -> TableKeys:
        """Return the keys of columns: the same object for the same ones."""
        place = len(self.keys).to_bytes(8, "little") + (b"" if use is None else use.tobytes())
        found = self.known.get(place)
        if found is None:
            if len(self.known) >= 16:
                self.known.clear()
            keys = self.keys if use is None else [self.keys[i] for i in np.flatnonzero(use)]
            found = self.known[place] = TableKeys(keys)
        return found

    def drain(self, steps: Places, tables: list[SeriesTable], singles: list[Series]) -> None:
        """Add what is there, and begin anew."""
        if not self.rows:
            return
        block: slice | Places = slice(len(self.rows))
        if len(self.rows) < len(steps):
            block = np.array(self.rows, np.int64)
            steps = steps[block]
        values, there = self.values[block], self.there[block]
        if there.all():
            tables.append(SeriesTable.unchecked(self._keys_of(None), steps, values.copy()))
        else:
            full = np.asarray(there.all(axis=0), np.bool_)
            if full.any():
                kept = np.ascontiguousarray(values[:, full])
                tables.append(SeriesTable.unchecked(self._keys_of(full), steps, kept))
            for at in np.flatnonzero(there.any(axis=0) & ~full):
                use = there[:, at]
                singles.append(Series(self.keys[at], steps[use], values[use, at]))
        self.there[block] = False
        self.rows = []


class StepBuffer:
    """Values of many series over a few steps, as arrays [steps, series].

    A group is a quantity that many series have, mostly all at the same steps; a
    row of it is one copy. Where they were all there it goes on as one table.
    """

    def __init__(self, steps: int) -> None:
        self.capacity = steps
        self.keys: list[SeriesKey] = []
        self.steps: list[int] = []
        self._at: dict[SeriesKey, int] = {}
        self._groups: dict[str, _Group] = {}
        self._grouped: set[SeriesKey] = set()
        self._scalars: list[tuple[SeriesKey, float]] = []
        self._by_step: list[list[tuple[SeriesKey, float]]] = []
        self._known: dict[tuple[SeriesKey, ...], TableKeys] = {}
        self._joined: dict[tuple[TableKeys, ...], TableKeys] = {}

    @property
    def full(self) -> bool:
        """Whether no further step fits."""
        return len(self.steps) >= self.capacity

    def resize(self, steps: int) -> None:
        """Hold another number of steps from now on; it is empty."""
        self.capacity = steps
        for group in self._groups.values():
            group.values = np.empty((steps, group.values.shape[1]))
            group.there = np.zeros((steps, group.there.shape[1]), np.bool_)

    def begin(self, step: int) -> None:
        """Begin a step; what is put from now on belongs to it."""
        self.steps.append(step)
        self._scalars = []
        self._by_step.append(self._scalars)

    def group(self, name: str, keys: Sequence[SeriesKey]) -> Place:
        """Return where the values of `keys` belong in a group; what is new is added."""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(self.capacity)
        places, columns = [], []
        held = {key: at for at, key in enumerate(group.keys)}
        for key in keys:
            at = held.get(key)
            if at is None:
                at = held[key] = len(group.keys)
                group.keys.append(key)
                self._grouped.add(key)
                self._known.clear()  # a table of scalars may have held it
                columns.append(self._column(key))
            places.append(at)
        if columns:
            made = [*group.columns.tolist(), *columns]
            group.span = _span(made)
            group.columns = np.concatenate([group.columns, np.array(columns, np.int64)])
            group.grow()
        return _span(places)

    def keys_of(self, name: str, where: Place) -> list[SeriesKey]:
        """Return the keys of places in a group."""
        keys = self._groups[name].keys
        return keys[where] if isinstance(where, slice) else [keys[at] for at in where]

    def put_group(
        self, name: str, where: Place, values: Floats, there: Bools | None = None
    ) -> None:
        """Put values of a group at the newest step; `there` says which of them are any."""
        group, row = self._groups[name], len(self.steps) - 1
        if not group.rows or group.rows[-1] != row:
            group.rows.append(row)
        group.values[row, where] = values
        group.there[row, where] = True if there is None else there

    def put(self, key: SeriesKey, value: float) -> None:
        """Put one value."""
        self._scalars.append((key, value))

    def scalars(self) -> Sequence[tuple[SeriesKey, float]]:
        """Return what was put one by one at the newest step."""
        return self._scalars

    def fill(self, row: Floats) -> None:
        """Put the values of the newest step into their columns, as far as `row` reaches."""
        room, newest = len(row), len(self.steps) - 1
        for key, value in self._scalars:
            if (at := self._column(key)) < room:
                row[at] = value
        for group in self._groups.values():
            if not group.rows or group.rows[-1] != newest:
                continue
            use, values, where = group.there[newest], group.values[newest], group.span
            if isinstance(where, slice) and where.stop <= room:
                np.copyto(row[where], values, where=use)
            else:
                columns = group.columns
                use = use & (columns < room)
                row[columns[use]] = values[use]

    def columns(self) -> int:
        """Return how many columns `fill` knows, those of the newest step included."""
        for key, _ in self._scalars:
            self._column(key)
        return len(self.keys)

    def drain(self) -> SignalSet:
        """Return all of it as series and tables, and begin anew."""
        steps = np.array(self.steps, np.int64)
        tables: list[SeriesTable] = []
        singles: list[Series] = []
        self._drain_scalars(steps, tables, singles)
        for group in self._groups.values():
            group.drain(steps, tables, singles)
        self.steps = []
        return SignalSet.of_tables(self._merged(tables), singles)

    def _merged(self, tables: list[SeriesTable]) -> list[SeriesTable]:
        """Return one table for all that are of the same steps: each costs every detector a look."""
        by_steps: dict[bytes, list[SeriesTable]] = {}
        for table in tables:
            by_steps.setdefault(table.steps.tobytes(), []).append(table)
        return [
            group[0] if len(group) == 1
            else SeriesTable.unchecked(
                self._joined_keys(tuple(table.keys for table in group)),
                group[0].steps,
                np.concatenate([table.values for table in group], axis=1),
            )
            for group in by_steps.values()
        ]  # fmt: skip

    def _joined_keys(self, parts: tuple[TableKeys, ...]) -> TableKeys:
        found = self._joined.get(parts)
        if found is None:
            if len(self._joined) >= 16:
                self._joined.clear()
            keys = TableKeys(key for part in parts for key in part.keys)
            found = self._joined[parts] = keys
        return found

    def _drain_scalars(
        self, steps: Places, tables: list[SeriesTable], singles: list[Series]
    ) -> None:
        by_step, self._by_step = self._by_step, []
        first = [key for key, _ in by_step[0]]
        if all([key for key, _ in scalars] == first for scalars in by_step):
            keys = self._table_keys(tuple(first))
            if keys is not None:  # what most blocks of a run are
                values = np.array([[value for _, value in scalars] for scalars in by_step])
                tables.append(SeriesTable.unchecked(keys, steps, values))
                return
        found: dict[SeriesKey, tuple[list[int], list[float]]] = {}
        for row, scalars in enumerate(by_step):
            for key, value in scalars:
                if key in self._grouped:
                    continue  # measured and logged as well: what was measured counts
                rows, last = found.setdefault(key, ([], []))
                if rows and rows[-1] == row:
                    last[-1] = value  # the last word
                else:
                    rows.append(row)
                    last.append(value)
        full = tuple(key for key, (rows, _) in found.items() if len(rows) == len(steps))
        keys = self._table_keys(full)
        if keys is not None:
            values = np.array([found[key][1] for key in full]).T.copy()
            tables.append(SeriesTable.unchecked(keys, steps, values))
        for key, (rows, last) in found.items():
            if len(rows) < len(steps) or keys is None:
                singles.append(Series(key, steps[rows], np.array(last)))

    def _table_keys(self, keys: tuple[SeriesKey, ...]) -> TableKeys | None:
        """Return the keys of a table of scalars; None where they make none."""
        found = self._known.get(keys)
        if found is None:
            if not keys or len(set(keys)) < len(keys) or not self._grouped.isdisjoint(keys):
                return None
            if len(self._known) >= 16:
                self._known.clear()
            found = self._known[keys] = TableKeys(keys)
        return found

    def _column(self, key: SeriesKey) -> int:
        at = self._at.get(key)
        if at is None:
            at = self._at[key] = len(self.keys)
            self.keys.append(key)
        return at
