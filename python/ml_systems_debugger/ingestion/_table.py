"""`Table`: rows and columns as every reader hands them over, before they become series."""

from __future__ import annotations

import datetime
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SeriesKind, canonical

__all__ = [
    "Column",
    "LineMap",
    "Table",
    "counted",
    "epoch_seconds",
    "moment",
    "role_of",
    "text_column",
    "text_columns",
]

_LONG_NAMES = frozenset({"metric", "metric_name", "name", "tag", "key", "quantity", "signal"})
_LONG_VALUES = frozenset({"value", "metric_value", "scalar"})
_SPLIT_COLUMNS = frozenset({"split", "phase", "subset", "data_split"})
_ROLES = frozenset({"step", "replica_id", "layer_name", "timestamp", "run"})
_TEXT_ROLES = frozenset({"replica_id", "layer_name", "timestamp", "run", "long_name", "split"})


def role_of(column: str) -> str | None:
    """Return what a column says of its rows, or None where it holds measurements.

    One of ``step``, ``replica_id``, ``layer_name``, ``timestamp``, ``run``,
    ``split``, and ``long_name`` and ``long_value`` for the two columns of a
    table in long form.
    """
    folded = column.strip().lower().replace(" ", "_").replace("-", "_")
    if folded in _LONG_NAMES:
        return "long_name"
    if folded in _LONG_VALUES:
        return "long_value"
    if folded in _SPLIT_COLUMNS:
        return "split"
    parts = canonical(column)
    plain = parts.split is None and parts.layer is None
    return parts.name if plain and parts.known and parts.name in _ROLES else None


def text_columns(columns: Sequence[str]) -> list[bool]:
    """Return for each column whether its cells are kept as they are written."""
    roles = [role_of(column) for column in columns]
    words = _TEXT_ROLES if "long_value" in roles else _TEXT_ROLES - {"long_name"}
    return [
        role in words or canonical(column).name.endswith("_digest")
        for role, column in zip(roles, columns, strict=True)
    ]


@dataclass(slots=True)
class Column:
    """The cells of one column that hold something.

    Parameters
    ----------
    values : float64 [m], or object [m] for text and arrays
    rows : int64 [m], optional
        Increasing; None where every row has a value.
    bad : list of (int, str)
        Row and text of the cells that should be numbers and are not.
    """

    values: npt.NDArray[Any]
    rows: npt.NDArray[np.int64] | None = None
    bad: list[tuple[int, str]] = field(default_factory=list)

    @property
    def kind(self) -> SeriesKind:
        """What the values are."""
        if self.values.dtype != object:
            return SeriesKind.SCALAR
        first = self.values[0] if len(self.values) else ""
        return SeriesKind.TEXT if isinstance(first, str) else SeriesKind.ARRAY

    def dense(self, rows: int, missing: Any) -> npt.NDArray[Any]:
        """Return one value per row, `missing` where there is none."""
        if self.rows is None:
            return self.values
        full = np.full(rows, missing, dtype=self.values.dtype)
        full[self.rows] = self.values
        return full

    @classmethod
    def joined(cls, parts: Sequence[tuple[int, int, Column]]) -> Column:
        """Join consecutive parts, each given as (first row, number of rows, column)."""
        bad = [(start + at, text) for start, _, part in parts for at, text in part.bad]
        dtypes = {part.values.dtype for _, _, part in parts if len(part.values)}
        if len(dtypes) > 1:  # text in one part, numbers in another: all as text
            parts = [(a, n, cls(_as_text(p.values), p.rows, p.bad)) for a, n, p in parts]
        held = [part.values for _, _, part in parts if len(part.values)]
        values = np.concatenate(held) if held else parts[0][2].values if parts else np.empty(0)
        if all(part.rows is None for _, _, part in parts):
            return cls(values, None, bad)
        rows = [
            start + (np.arange(count, dtype=np.int64) if part.rows is None else part.rows)
            for start, count, part in parts
        ]
        return cls(values, np.concatenate(rows), bad)


def _as_text(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype == object:
        return values
    out = np.empty(len(values), dtype=object)
    out[:] = [repr(v) for v in values.tolist()]
    return out


def text_column(cells: Sequence[str]) -> Column:
    """Return the cells that are not blank, as they are written."""
    rows = [at for at, cell in enumerate(cells) if cell.strip()]
    texts = np.empty(len(rows), dtype=object)
    texts[:] = [cells[at].strip() for at in rows]
    return Column(texts, None if len(rows) == len(cells) else np.array(rows, np.int64))


class LineMap:
    """Which line of its file a row stands on."""

    def __init__(self) -> None:
        self._rows: list[int] = [0]
        self._lines: list[int] = [1]

    def add(self, row: int, line: int) -> None:
        """Say that `row` stands on `line`; the rows behind it follow line by line."""
        last = self._lines[-1] + row - self._rows[-1]
        if row == self._rows[-1]:
            self._lines[-1] = line
        elif last != line:
            self._rows.append(row)
            self._lines.append(line)

    def __call__(self, row: int) -> int:
        at = bisect_right(self._rows, row) - 1
        return self._lines[at] + row - self._rows[at]


@dataclass
class Table:
    """What a reader found: named columns of one length, and what it could not read.

    `roles`, where given, says which column is the step, the time stamp and so
    on, for formats that keep these apart from the names of their metrics.
    """

    source: str
    rows: int
    columns: dict[str, Column]
    line_of: Callable[[int], int] | None = None
    unread: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, str] | None = None

    def place(self, row: int) -> str:
        """Return where a row stands, in words."""
        if self.line_of is None:
            return f"{self.source}, row {row}"
        return f"{self.source}, line {self.line_of(row)}"

    def with_role(self, role: str) -> str | None:
        """Return the name of the column that has `role`; an exact canonical name wins."""
        if self.roles is not None:
            return self.roles.get(role)
        found = [name for name in self.columns if role_of(name) == role]
        return role if role in found else next(iter(found), None)


def counted(number: int, what: str) -> str:
    """Return ``1 cell``, ``2 cells``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def epoch_seconds(cells: npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
    """Return times as seconds since the epoch (NaN where absent), or None where they are none.

    Takes numbers (seconds, or milli-, micro- or nanoseconds by their size),
    ISO 8601 text and `datetime`; text without a zone is taken as UTC. Numbers
    below 1e8 (1973) are no times of the day but durations.
    """
    times = cells if cells.dtype == np.float64 else _parsed_times(cells.tolist())
    if times is None:
        return None
    known = np.abs(times[np.isfinite(times)])
    if not len(known) or known.max() < 1e8:
        return None
    for scale in (1e-9, 1e-6, 1e-3):
        if known.max() * scale > 1e8:
            return times * scale
    return times


def _parsed_times(cells: Iterable[Any]) -> npt.NDArray[np.float64] | None:
    out: list[float] = []
    for cell in cells:
        if cell is None or cell == "":
            out.append(np.nan)
            continue
        try:
            out.append(float(cell))
        except (TypeError, ValueError):
            seconds = moment(cell)
            if seconds is None:
                return None
            out.append(seconds)
    return np.array(out, dtype=np.float64)


def moment(cell: Any) -> float | None:
    """Return ISO 8601 text or a date as seconds since the epoch, or None for anything else."""
    if isinstance(cell, str):
        text = cell.strip().replace(",", ".")
        if text.endswith(("Z", "z")):
            text = text[:-1] + "+00:00"
        try:
            cell = datetime.datetime.fromisoformat(text)
        except ValueError:
            return None
    if isinstance(cell, np.datetime64):
        return float(cell.astype("datetime64[ns]").astype(np.int64)) * 1e-9
    if not isinstance(cell, datetime.datetime):
        return None
    if cell.tzinfo is None:
        cell = cell.replace(tzinfo=datetime.timezone.utc)
    return float(cell.timestamp())
