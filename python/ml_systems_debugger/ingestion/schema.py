"""`SchemaValidator`: whether a table is what its reader expects, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core import ConfigurationError, SchemaError, SeriesKind
from ._table import Column, Table, role_of
from .metrics import read_table

__all__ = ["ColumnRule", "SchemaValidator"]


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """What is expected of one column.

    Parameters
    ----------
    required : bool
        Whether the column must be there.
    kind : str
        ``number``, ``integer`` or ``text``.
    minimum, maximum : float, optional
        Bounds, both allowed.
    complete : bool
        Whether every row must have a value.
    finite : bool
        Whether NaN and infinities are errors.
    increasing : bool
        Whether no value may be smaller than the one before it.

    Raises
    ------
    ConfigurationError
        For an unknown kind, or bounds that exclude each other.
    """

    required: bool = True
    kind: str = "number"
    minimum: float | None = None
    maximum: float | None = None
    complete: bool = False
    finite: bool = False
    increasing: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("number", "integer", "text"):
            raise ConfigurationError(f"kind is number, integer or text, got {self.kind!r}")
        bounds = (self.minimum, self.maximum)
        if None not in bounds and self.minimum > self.maximum:  # type: ignore[operator]
            raise ConfigurationError(f"minimum {self.minimum} is above maximum {self.maximum}")


@dataclass(frozen=True)
class SchemaValidator:
    """Checks rows, columns, frames, CSV and JSON files against expectations.

    Parameters
    ----------
    columns : mapping of str to ColumnRule
        Column names as they are written in the source.
    others : bool
        Whether further columns may be there.

    Examples
    --------
    >>> validator = SchemaValidator({"loss": ColumnRule(minimum=0.0)})
    >>> for error in validator.errors([{"loss": 1.0}, {"loss": -2.0}]):
    ...     print(error)
    <rows>, line 2, column 'loss': below the minimum of 0.0 (got -2.0)
    """

    columns: Mapping[str, ColumnRule] = field(default_factory=dict)
    others: bool = True

    def errors(self, source: Any, limit: int = 100) -> list[SchemaError]:
        """Return what is wrong, in order of columns, at most `limit` errors.

        In a file, the line counts from 1; in rows and frames it is the row,
        from 1 too.

        Raises
        ------
        IngestionError
            If `source` cannot be read as a table at all.
        """
        found: list[SchemaError] = []
        for error in self._errors(read_table(source)):
            found.append(error)
            if len(found) >= limit:
                break
        return found

    def validate(self, source: Any) -> None:
        """Raise the first error, if there is any.

        Raises
        ------
        SchemaError
            With file, line, column and value.
        """
        for error in self.errors(source, limit=1):
            raise error

    def _errors(self, table: Table) -> Iterator[SchemaError]:
        for text in table.unread:
            yield SchemaError(text)
        for name, rule in self.columns.items():
            column = table.columns.get(name)
            if column is None:
                if rule.required:
                    known = ", ".join(map(repr, list(table.columns)[:20])) or "none"
                    yield SchemaError(
                        f"a required column is missing; there are {known}",
                        source=table.source,
                        column=name,
                    )
                continue
            for row, reason, value in sorted(_faults(column, rule, table.rows, name)):
                yield _error(table, row, name, reason, value)
        if not self.others:
            for name in table.columns:
                if name not in self.columns:
                    yield SchemaError("an unexpected column", source=table.source, column=name)


def _error(table: Table, row: int, name: str, reason: str, value: Any) -> SchemaError:
    line = row + 1 if table.line_of is None else table.line_of(row)
    return SchemaError(reason, source=table.source, line=line, column=name, value=value)


def _faults(
    column: Column, rule: ColumnRule, rows: int, name: str
) -> Iterator[tuple[int, str, Any]]:
    places = np.arange(len(column.values)) if column.rows is None else column.rows
    if rule.complete and column.rows is not None:
        there = {*column.rows.tolist(), *(row for row, _ in column.bad)}
        yield from ((row, "a value is missing", None) for row in range(rows) if row not in there)
    if rule.kind == "text":
        if column.kind is SeriesKind.SCALAR and role_of(name) is None:
            for row, value in zip(places.tolist(), column.values.tolist(), strict=True):
                yield row, "expected text", value
        return
    for row, text in column.bad:
        yield row, f"expected {_article(rule.kind)}", text
    if column.kind is not SeriesKind.SCALAR:
        for row, value in zip(places.tolist(), column.values, strict=True):
            yield row, f"expected {_article(rule.kind)}", str(value)
        return
    values = column.values
    for wrong, reason in _checks(values, rule):
        for at in np.flatnonzero(wrong).tolist():
            yield int(places[at]), reason, float(values[at])


def _article(kind: str) -> str:
    return "a number" if kind == "number" else "a whole number"


def _checks(values: Any, rule: ColumnRule) -> Iterator[tuple[Any, str]]:
    if rule.kind == "integer":
        yield ~(np.isfinite(values) & (values == np.floor(values))), "expected a whole number"
    if rule.finite:
        yield ~np.isfinite(values), "expected a finite number"
    if rule.minimum is not None:
        yield values < rule.minimum, f"below the minimum of {rule.minimum}"
    if rule.maximum is not None:
        yield values > rule.maximum, f"above the maximum of {rule.maximum}"
    if rule.increasing and len(values) > 1:
        yield np.concatenate([[False], values[1:] < values[:-1]]), "smaller than the value before"
