"""Rows of mappings as columns."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import is_array, scalar_value
from ._numbers import parse_number
from ._table import Column, Table, moment, role_of, text_columns

__all__ = ["RowReader", "cells_to_column"]

_MAX_DEPTH = 8
_SHOWN = 5


class RowReader:
    """Collects rows (mappings from name to value) into columns, block by block.

    A nested mapping gives names with a slash: ``{"grad_norm": {"a": 1.0}}`` is
    ``grad_norm/a``. None is "not logged". Values that are neither numbers,
    text nor arrays are named in the table's `unread`.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.rows = 0
        self._parts: dict[str, list[tuple[int, int, Column]]] = {}
        self._odd: dict[str, list[tuple[int, str]]] = {}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a block of rows."""
        if not rows:
            return
        names = rows[0].keys()
        if sum(map(len, rows)) == len(names) * len(rows) and not _nested(rows[0]):
            try:
                columns = {name: [row[name] for row in rows] for name in names}
            except KeyError:
                columns = {}
            if columns:
                for name, cells in columns.items():
                    self._put(str(name), cells, None, len(rows))
                self.rows += len(rows)
                return
        self._add_mixed(rows)

    def _add_mixed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        gathered: dict[str, tuple[list[int], list[Any]]] = {}
        for at, row in enumerate(rows):
            for name, value in _flat(row) if _nested(row) else row.items():
                found = gathered.get(name)
                if found is None:
                    found = gathered[name] = ([], [])
                found[0].append(at)
                found[1].append(value)
        for name, (positions, cells) in gathered.items():
            self._put(str(name), cells, positions, len(rows))
        self.rows += len(rows)

    def _put(self, name: str, cells: list[Any], positions: list[int] | None, count: int) -> None:
        if positions is not None and len(positions) == count:
            positions = None
        column, odd = cells_to_column(name, cells, positions)
        if odd:
            self._odd.setdefault(name, []).extend((self.rows + at, what) for at, what in odd)
        parts = self._parts.setdefault(name, [])
        known = parts[-1][0] + parts[-1][1] if parts else 0
        if known < self.rows:  # rows in between that do not have it
            parts.append((known, self.rows - known, _nothing()))
        parts.append((self.rows, count, column))

    def table(self, line_of: Any = None, unread: Iterable[str] = ()) -> Table:
        """Return everything added."""
        columns = {}
        for name, parts in self._parts.items():
            known = parts[-1][0] + parts[-1][1]
            if known < self.rows:
                parts.append((known, self.rows - known, _nothing()))
            columns[name] = Column.joined(parts)
        self._parts.clear()
        table = Table(self.source, self.rows, columns, line_of, list(unread))
        words = dict(zip(columns, text_columns(list(columns)), strict=True))
        for name, column in columns.items():
            if column.kind.value == "text" and (not words[name] or role_of(name) == "timestamp"):
                columns[name] = _numbers_in(column)
        for name, odd in self._odd.items():
            shown = "; ".join(f"{table.place(row)}: {what}" for row, what in odd[:_SHOWN])
            more = len(odd) - _SHOWN
            table.unread.append(
                f"{name!r}: {len(odd)} values are no number, text or array: {shown}"
                + (f"; and {more} more" if more > 0 else "")
            )
        return table


def cells_to_column(
    name: str, cells: Sequence[Any], positions: Sequence[int] | None = None
) -> tuple[Column, list[tuple[int, str]]]:
    """Turn values of any type into a column.

    Parameters
    ----------
    name : str
        A digest is kept whole: its 64 bits do not fit a float.
    cells : sequence [m]
    positions : sequence of int [m], optional
        The rows they stand in; None for every row.

    Returns
    -------
    column : Column
        Of float64 where every value is a number; else of objects.
    odd : list of (int, str)
        Row and description of the values that are of no use.
    """
    rows = None if positions is None else np.array(positions, np.int64)
    if not name.partition("/")[0].endswith("_digest") and set(map(type, cells)) <= {float, int}:
        try:
            return Column(np.array(cells, dtype=np.float64), rows), []
        except OverflowError:
            pass  # an int beyond the largest float: one by one
    kept: list[int] = []
    values: list[Any] = []
    odd: list[tuple[int, str]] = []
    plain = True
    digest = name.partition("/")[0].endswith("_digest")
    for at, cell in enumerate(cells):
        row = at if positions is None else positions[at]
        if cell is None:
            continue
        value: Any = cell if digest and isinstance(cell, int) else scalar_value(cell)
        if value is None and isinstance(cell, (datetime.datetime, np.datetime64)):
            value = moment(cell)
        if value is None:
            value = _other(cell)
            plain = False
            if value is None:
                odd.append((row, f"{type(cell).__name__} {str(cell)[:40]!r}"))
                continue
        kept.append(row)
        values.append(value)
    if plain and not digest:
        array: Any = np.array(values, dtype=np.float64)
    else:
        array = np.empty(len(values), dtype=object)
        for at, value in enumerate(values):
            array[at] = value
        array, kept, more = _of_one_kind(array, kept, digest)
        odd = sorted([*odd, *more])
    whole = positions is None and len(kept) == len(cells)
    return Column(array, None if whole else np.array(kept, np.int64)), odd


def _other(cell: Any) -> Any:
    """Return text, an array, or a non-empty list of numbers as an array; else None."""
    if isinstance(cell, str):
        return cell if cell.strip() else None
    if is_array(cell):
        return cell
    if isinstance(cell, (list, tuple)) and cell and all(scalar_value(v) is not None for v in cell):
        return np.array([scalar_value(v) for v in cell], np.float64)
    return None


def _of_one_kind(
    values: Any, rows: list[int], digest: bool
) -> tuple[Any, list[int], list[tuple[int, str]]]:
    """Make a mixture of numbers, text and arrays one kind: the arrays, else all as text."""
    if digest or not len(values):
        return values, rows, []
    arrays = [is_array(value) for value in values]
    if not any(arrays):
        texts = np.empty(len(values), dtype=object)
        texts[:] = [v if isinstance(v, str) else repr(float(v)) for v in values]
        return texts, rows, []
    odd = [
        (row, f"{type(v).__name__} among arrays")
        for row, v, fits in zip(rows, values, arrays, strict=True)
        if not fits
    ]
    return values[arrays], [r for r, fits in zip(rows, arrays, strict=True) if fits], odd


def _numbers_in(column: Column) -> Column:
    """Read text as numbers; what is none is bad where it is the lesser part, else all stays."""
    rows, values, bad = [], [], list(column.bad)
    places = range(len(column.values)) if column.rows is None else column.rows.tolist()
    for row, text in zip(places, column.values, strict=True):
        try:
            value = parse_number(text)
        except ValueError:
            bad.append((row, text))
            continue
        if value is not None:
            rows.append(row)
            values.append(value)
    if not rows and not any(parts for parts in bad):
        return Column(np.empty(0), np.empty(0, np.int64))
    return Column(np.array(values, np.float64), np.array(rows, np.int64), bad)


def _nothing() -> Column:
    return Column(np.empty(0), np.empty(0, np.int64))


def _nested(row: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in row.values())


def _flat(row: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from _flat(value, f"{prefix}{name}/", depth + 1)
        else:
            yield f"{prefix}{name}", value
