"""From a `Table` to series: steps, replicas, layers, splits, restarts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SchemaError, Series, SeriesKey, SeriesKind, SignalSet, canonical, resolve
from ..core.names import QuantityName
from ._groups import Group, groups_of, key_of
from ._joint import Joint, Piece
from ._restarts import Order, ordered
from ._table import Column, Table, counted, epoch_seconds, role_of
from ._trust import hidden_losses, with_absences

__all__ = ["assemble"]

_SHOWN_BAD_CELLS = 5


def assemble(
    table: Table, mapping: Mapping[str, str] | None = None, joint: Joint | None = None
) -> SignalSet:
    """Turn a table into series.

    Parameters
    ----------
    table : Table
    mapping : mapping, optional
        Column name to the name it should be read under.
    joint : Joint, optional
        Of the earlier pieces of the same source; without it the table is the
        whole source. Whether all columns of `mapping` are there, and whether a
        series fell silent, only the whole can tell.

    Raises
    ------
    SchemaError
        If a column of `mapping` is not there, if most cells of the step
        column are no whole numbers, or if a known quantity has more text than
        numbers; with file, line, column and value.
    """
    _rename(table, mapping or {}, joint)
    frame = _Frame(table, joint)
    pieces = list(frame.pieces())
    if joint is None:
        order = ordered([(p.owner, p.rows, p.steps) for p in pieces], frame.epochs)
    else:
        order = joint.ordered([Piece(p.key, p.rows, p.steps) for p in pieces], frame.epochs)
        joint.rows += table.rows
    series = [one for p, o in zip(pieces, order.parts, strict=True) for one in p.series(o)]
    metadata = {"source": table.source, "rows": table.rows, **table.metadata}
    if frame.step_name is not None and table.roles is None:
        metadata["step_column"] = frame.step_name
    if order.notes:
        metadata["order"] = order.notes
    if hidden := hidden_losses(series):
        metadata["not_trustworthy"] = hidden
    if joint is None:
        series, absences = with_absences(series)
        if absences:
            metadata["absences"] = absences
    return SignalSet(series, metadata, [*table.unread, *frame.unread])


def _rename(table: Table, mapping: Mapping[str, str], joint: Joint | None) -> None:
    if joint is not None:
        mapping = {old: new for old, new in mapping.items() if old in table.columns}
        joint.mapped.update(mapping)
    for old, new in mapping.items():
        if old not in table.columns:
            known = ", ".join(map(repr, list(table.columns)[:20]))
            raise SchemaError(
                f"no such column to read as {new!r}; there are {known}",
                source=table.source,
                column=old,
            )
        if new in table.columns and new not in mapping:
            table.columns[f"{new} (as written)"] = table.columns.pop(new)
    if mapping:
        table.columns = {mapping.get(name, name): c for name, c in table.columns.items()}


@dataclass(slots=True)
class _Piece:
    """The measurements of one key, restarts not yet told apart."""

    key: SeriesKey
    raw: str
    values: npt.NDArray[Any]
    steps: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64] | None
    times: npt.NDArray[np.float64] | None

    @property
    def owner(self) -> tuple[Any, ...]:
        """Series of one owner restart together."""
        return self.key.replica_id, self.key.run

    def series(self, order: Order) -> Iterator[Series]:
        raw = self.raw if self.raw != self.key.name else ""
        values, times, steps = self.values, self.times, order.steps
        if order.permutation is not None:
            values = values[order.permutation]
            times = None if times is None else times[order.permutation]
        for number, part in order.segments:
            yield Series(
                self.key._replace(segment=number),
                steps[part],
                values[part],
                None if times is None else times[part],
                raw,
            )


class _Frame:
    """The roles of a table's columns, and its measurements by key."""

    def __init__(self, table: Table, joint: Joint | None = None) -> None:
        self.table = table
        self.joint = joint
        self.unread: list[str] = []
        self.long_name = self._text_column("long_name")
        long_value = table.with_role("long_value")
        self.long_value = long_value if self.long_name is not None else None
        if self.long_value is None:
            self.long_name = None
        self.roles = {
            role: self._text_column(role) for role in ("replica_id", "layer_name", "run", "split")
        }
        self.step_name = table.with_role("step")
        self.time_name, self.times = self._find_times()
        self.epochs = self._find_epochs()
        self.dropped: npt.NDArray[np.int64] | None = None
        self.steps = None if self.step_name is None else self._read_steps(self.step_name)
        if joint is not None:
            self.steps = self._going_on(joint, self.steps)

    def _text_column(self, role: str) -> str | None:
        name = self.table.with_role(role)
        if name is None:
            return None
        column = self.table.columns[name]
        if role in ("long_name", "split") and column.kind is not SeriesKind.TEXT:
            return None
        return name

    def _find_times(self) -> tuple[str | None, npt.NDArray[np.float64] | None]:
        name = self.table.with_role("timestamp")
        if name is None:
            return None, None
        column = self.table.columns[name]
        missing: Any = None if column.values.dtype == object else np.nan
        times = epoch_seconds(column.dense(self.table.rows, missing))
        if times is None and self.table.roles is None:
            return None, None
        return name, times

    def _find_epochs(self) -> npt.NDArray[np.float64] | None:
        for name, column in self.table.columns.items():
            if canonical(name)[:2] == ("epoch", None) and column.values.dtype != object:
                return column.dense(self.table.rows, np.nan)
        return None

    def _read_steps(self, name: str) -> npt.NDArray[np.int64]:
        """Return the step of every row; a row without one belongs to the step before it."""
        table, column = self.table, self.table.columns[name]
        if column.values.dtype == np.int64 and column.rows is None:
            return column.values
        if column.values.dtype == object:
            bad = [(int(r), str(v)) for r, v in zip(_rows_of(column), column.values, strict=True)]
            column = Column(np.empty(0), np.empty(0, np.int64), bad)
        whole = np.isfinite(column.values) & (column.values == np.floor(column.values))
        whole &= np.abs(column.values) < 2.0**62
        if not whole.all():
            rows = _rows_of(column)
            odd = [(int(rows[at]), repr(float(column.values[at]))) for at in np.flatnonzero(~whole)]
            column = Column(column.values[whole], rows[whole], sorted([*column.bad, *odd]))
        if column.bad:
            if len(column.bad) > len(column.values):
                self._refuse(name, column.bad[0], "a step is a whole number")
            self._report_bad(name, column.bad, "the rows were not read")
            self.dropped = np.array([row for row, _ in column.bad], np.int64)
        steps = column.values.astype(np.int64)
        if column.rows is None:
            return steps
        if not len(steps):
            return np.arange(table.rows, dtype=np.int64)
        last = np.searchsorted(column.rows, np.arange(table.rows), "right") - 1
        return steps[np.maximum(last, 0)]

    def _going_on(
        self, joint: Joint, steps: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.int64] | None:
        """Return the steps behind those of earlier pieces: rows before the first have the last."""
        rows = self.table.rows
        if self.step_name is None or steps is None:
            return None if joint.step is None else np.full(rows, joint.step, np.int64)
        column = self.table.columns[self.step_name]
        if not len(column.values) and not column.bad:
            return steps + joint.rows if joint.step is None else np.full(rows, joint.step)
        first = 0 if column.rows is None else int(column.rows[0]) if len(column.rows) else rows
        if first and joint.step is not None:
            steps = steps.copy()
            steps[:first] = joint.step
        joint.step = int(steps[-1]) if rows else joint.step
        return steps

    def _refuse(self, name: str, bad: tuple[int, str], reason: str) -> None:
        line_of = self.table.line_of
        raise SchemaError(
            reason,
            source=self.table.source,
            line=None if line_of is None else line_of(bad[0]),
            column=name,
            value=bad[1],
        )

    def _report_bad(self, name: str, bad: list[tuple[int, str]], outcome: str) -> None:
        shown = "; ".join(
            f"{self.table.place(row)}: {text[:40]!r}" for row, text in bad[:_SHOWN_BAD_CELLS]
        )
        more = len(bad) - _SHOWN_BAD_CELLS
        self.unread.append(
            f"column {name!r}: {counted(len(bad), 'cell')} without a number, {outcome}: {shown}"
            + (f"; and {more} more" if more > 0 else "")
        )

    def pieces(self) -> Iterator[_Piece]:
        """Yield the measurements of every key, in order of column and of first appearance."""
        roles = {self.step_name, self.time_name, self.long_name, *self.roles.values()}
        measured = [name for name in self.table.columns if name not in roles]
        groups = list(groups_of(self.table, self.long_name, self.roles, self.steps))
        joint = self.joint
        if joint is not None and self.steps is None:
            joint.count_on(groups)
        taken_apart = resolve if joint is None else joint.resolved
        if self.long_name is not None:
            names = dict.fromkeys(group.metric or self.long_value or "" for group in groups)
            found = taken_apart(names)
            measured = [name for name in measured if name == self.long_value]
        else:
            found = taken_apart(name for name in self.table.columns if name not in roles)
            # `time` that holds durations is no time stamp: it keeps its own name.
            found = {n: QuantityName(n) if role_of(n) else parts for n, parts in found.items()}
        for name in measured:
            column = self._checked(name, self.table.columns[name])
            if len(column.values):
                yield from self._of_column(name, column, groups, found)

    def _checked(self, name: str, column: Column) -> Column:
        if column.bad:
            if canonical(name).known and len(column.bad) > len(column.values):
                self._refuse(name, column.bad[0], f"{canonical(name).name} is a number")
            if not len(column.values):  # nothing but text: a column of words, kept as such
                rows = np.array([row for row, _ in column.bad], np.int64)
                texts = np.empty(len(rows), dtype=object)
                texts[:] = [text for _, text in column.bad]
                return Column(texts, rows)
            self._report_bad(name, column.bad, "not read")
        if canonical(name).name.endswith("_digest"):
            return self._digests(name, column)
        if self.dropped is not None:
            rows = _rows_of(column)
            kept = ~np.isin(rows, self.dropped)
            column = Column(column.values[kept], rows[kept])
        return column

    def _digests(self, name: str, column: Column) -> Column:
        """Digests are whole numbers of 64 bits, in decimal or hexadecimal; no float holds them."""
        rows, values, bad = [], [], []
        for row, cell in zip(_rows_of(column).tolist(), column.values.tolist(), strict=True):
            try:
                number = int(cell, 0) if isinstance(cell, str) else int(cell)
            except (ValueError, OverflowError):
                bad.append((row, str(cell)))
                continue
            rows.append(row)
            values.append(number & 0xFFFF_FFFF_FFFF_FFFF)
        if bad:
            self._report_bad(name, bad, "not read")
        return Column(np.array(values, np.uint64), np.array(rows, np.int64))

    def _of_column(
        self,
        name: str,
        column: Column,
        groups: list[Group],
        found: Mapping[str, QuantityName],
    ) -> Iterator[_Piece]:
        positions: npt.NDArray[np.int64] | None = None
        if column.rows is not None and groups[0].rows is not None:
            positions = np.full(self.table.rows, -1, np.int64)
            positions[column.rows] = np.arange(len(column.rows))
        for group in groups:
            raw = name if group.metric is None else group.metric
            if group.rows is None:
                rows, values, steps = column.rows, column.values, group.steps
                if rows is not None:
                    steps = steps[rows]
            elif positions is None:
                rows, values, steps = group.rows, column.values[group.rows], group.steps
            else:
                here = positions[group.rows]
                held = here >= 0
                rows, values, steps = group.rows[held], column.values[here[held]], group.steps[held]
            if not len(values):
                continue
            times = self.times
            if times is not None and rows is not None:
                times = times[rows]
            key = key_of(raw, found[raw], group, column.values.dtype, column.kind)
            yield _Piece(key, raw, values, steps, rows, times)


def _rows_of(column: Column) -> npt.NDArray[np.int64]:
    return np.arange(len(column.values), dtype=np.int64) if column.rows is None else column.rows
