"""The rows of a table that belong together: one replica, layer, run, split and metric each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SeriesKey, SeriesKind, canonical
from ..core.names import QuantityName
from ._table import Table

__all__ = ["Group", "groups_of", "key_of"]


@dataclass(slots=True)
class Group:
    """Some rows of a table (None for all), their steps, and what they have in common."""

    rows: npt.NDArray[np.int64] | None
    steps: npt.NDArray[np.int64]
    metric: str | None = None
    replica_id: Any = None
    layer: str | None = None
    run: str | None = None
    split: str | None = None


def groups_of(
    table: Table,
    long_name: str | None,
    roles: Mapping[str, str | None],
    steps: npt.NDArray[np.int64] | None,
) -> Iterator[Group]:
    """Yield the groups of a table, in order of their first rows.

    `roles` maps replica_id, layer_name, run and split, in this order, to their columns; without
    `steps`, every group counts its own rows.
    """
    names = [n for n in (*roles.values(), long_name) if n is not None]
    if not names:
        if steps is None:
            steps = np.arange(table.rows, dtype=np.int64)
        yield Group(None, steps)
        return
    codes = np.zeros(table.rows, np.int64)
    for name in names:
        column = table.columns[name]
        missing: Any = None if column.values.dtype == object else np.nan
        cells = column.dense(table.rows, missing).tolist()
        known: dict[Any, int] = {}
        one = [known.setdefault(None if c != c else c, len(known)) for c in cells]
        codes = codes * len(known) + np.array(one, np.int64)
        _, codes = np.unique(codes, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    bounds = np.flatnonzero(np.diff(codes[order], prepend=-1, append=-1))
    spans = [order[a:b] for a, b in pairwise(bounds.tolist())]
    for rows in sorted(spans, key=lambda rows: int(rows[0])):
        at = np.arange(len(rows), dtype=np.int64) if steps is None else steps[rows]
        yield Group(
            rows, at, *(_cell(table, n, int(rows[0])) for n in (long_name, *roles.values()))
        )


def _cell(table: Table, name: str | None, row: int) -> Any:
    if name is None:
        return None
    column = table.columns[name]
    at = row if column.rows is None else int(np.searchsorted(column.rows, row))
    if column.rows is not None and (at == len(column.rows) or column.rows[at] != row):
        return None
    cell = column.values[at]
    return cell.item() if isinstance(cell, np.generic) else cell


def key_of(
    raw: str, parts: QuantityName, group: Group, dtype: np.dtype[Any], kind: SeriesKind
) -> SeriesKey:
    """Return the key of a quantity in a group."""
    if group.layer is not None:
        layer = str(group.layer)
        if parts.layer not in (None, layer):
            parts = QuantityName(raw)
        parts = parts._replace(layer=layer)
    split = parts.split
    if group.split is not None:
        split = canonical(f"{group.split}/loss").split or str(group.split)
    if dtype == np.uint64:
        kind = SeriesKind.DIGEST
    return SeriesKey(
        parts.name,
        split,
        parts.layer,
        _replica(group.replica_id),
        None if group.run is None else str(group.run),
        0,
        kind,
    )


def _replica(given: Any) -> int | str | None:
    """Return a rank as an int where it is one."""
    if given is None:
        return None
    try:
        number = float(given)
    except (TypeError, ValueError):
        return str(given)
    return int(number) if number.is_integer() else str(given)
