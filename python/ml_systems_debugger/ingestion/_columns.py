"""Columns in memory: mappings of arrays and lists, and frames of any library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SchemaError, is_array, scalar_value
from ..core.optional import pyarrow_for
from ._rows import RowReader, cells_to_column
from ._table import Column, Table

__all__ = ["from_frame", "from_mapping", "is_frame"]


def from_mapping(data: Mapping[Any, Any], source: str = "<mapping>") -> Table:
    """Read a mapping from name to values; float64 arrays are taken as they are.

    A mapping of single numbers is one row. A two-dimensional array is one
    array per row, by reference.

    Raises
    ------
    SchemaError
        If columns differ in length, or hold no values of any known kind.
    """
    if data and all(_is_cell(value) for value in data.values()):
        rows = RowReader(source)
        rows.add([{str(name): value for name, value in data.items()}])
        return rows.table()
    lengths: dict[str, int] = {}
    columns: dict[str, Column] = {}
    unread: list[str] = []
    for name, values in _flat(data):
        column, length, odd = _column(name, values, source)
        columns[name], lengths[name] = column, length
        unread += [f"{source}: {name!r}, row {row}: {what} was not read" for row, what in odd[:5]]
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name!r} has {n}" for name, n in list(lengths.items())[:8])
        raise SchemaError(
            f"columns of different lengths ({said}): which values belong to one step? "
            f"Give rows (a list of dicts with 'step'), or None where nothing was logged",
            source=source,
        )
    rows_there = next(iter(lengths.values()), 0)
    return Table(source, rows_there, columns, None, unread, {"format": "columns"})


def _is_cell(value: Any) -> bool:
    return scalar_value(value) is not None or isinstance(value, str)


def _flat(data: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, values in data.items():
        if isinstance(values, Mapping):
            found += _flat(values, f"{prefix}{name}/")
        else:
            found.append((f"{prefix}{name}", values))
    return found


def _column(name: str, values: Any, source: str) -> tuple[Column, int, list[tuple[int, str]]]:
    if hasattr(values, "detach"):  # a tensor: on the CPU it shares its memory with the array
        values = values.detach().cpu().numpy()
    elif not isinstance(values, np.ndarray) and hasattr(values, "to_numpy"):
        column = _series_column(values)
        return column, len(values), []
    elif not isinstance(values, np.ndarray) and hasattr(values, "__array__"):
        values = np.asarray(values)
    if isinstance(values, np.ndarray):
        return _of_array(name, values, source)
    if isinstance(values, (Sequence, range)) and not isinstance(values, (str, bytes)):
        column, odd = cells_to_column(name, values)
        return column, len(values), odd
    raise SchemaError(
        "a column is a list or an array", source=source, column=name, value=type(values).__name__
    )


def _of_array(
    name: str, values: npt.NDArray[Any], source: str
) -> tuple[Column, int, list[tuple[int, str]]]:
    if values.ndim == 0:
        raise SchemaError(
            "one number among columns; a column is a list or an array", source=source, column=name
        )
    if isinstance(values, np.ma.MaskedArray):
        kept = np.flatnonzero(~np.ma.getmaskarray(values).reshape(len(values), -1).any(axis=1))
        column, _, odd = _of_array(name, np.asarray(values)[kept], source)
        rows = kept if column.rows is None else kept[column.rows]
        return Column(column.values, rows), len(values), odd
    if values.ndim > 1:
        held = np.empty(len(values), dtype=object)
        for at in range(len(values)):
            held[at] = values[at]
        return Column(held), len(values), []
    if values.dtype.kind in "fiub":
        if name.partition("/")[0].endswith("_digest") and values.dtype.kind in "iu":
            return Column(values), len(values), []
        return Column(np.asarray(values, dtype=np.float64)), len(values), []
    if values.dtype.kind == "M":
        return _times(values), len(values), []
    column, odd = cells_to_column(name, values.tolist())
    return column, len(values), odd


def _times(values: npt.NDArray[Any]) -> Column:
    """Return datetimes as seconds since the epoch."""
    known = ~np.isnat(values)
    seconds = values[known].astype("datetime64[ns]").astype(np.int64) * 1e-9
    return Column(seconds, None if known.all() else np.flatnonzero(known))


def is_frame(data: Any) -> bool:
    """Return whether `data` is a table of another library (pandas, polars, pyarrow, ...)."""
    if isinstance(data, Mapping) or (is_array(data) and isinstance(data, np.ndarray)):
        return isinstance(data, np.ndarray) and data.dtype.names is not None
    return (
        hasattr(data, "collect_schema")
        or hasattr(data, "columns")
        or hasattr(data, "column_names")
        or hasattr(data, "__arrow_c_stream__")
        or hasattr(data, "__dataframe__")
    )


def from_frame(data: Any, source: str = "") -> Table:
    """Read a frame: pandas, polars (also lazy), pyarrow, a NumPy record array, any Arrow stream.

    Null is "not logged", NaN is a recorded NaN. A classic pandas float column
    cannot tell the two apart: there a NaN counts as recorded unless the column
    is a sparse one (more than half empty up to its last number), or a sparse
    column has its value in that row.

    Raises
    ------
    MissingDependencyError
        If it offers only an Arrow stream and pyarrow is not installed.
    """
    label = source or f"<{type(data).__module__.partition('.')[0]} {type(data).__name__}>"
    if isinstance(data, np.ndarray):
        return from_mapping({name: data[name] for name in data.dtype.names or ()}, label)
    if hasattr(data, "collect_schema") and hasattr(data, "collect"):
        data = data.collect()
    if hasattr(data, "column_names") and hasattr(data, "column"):
        pairs = [(str(name), data.column(at)) for at, name in enumerate(data.column_names)]
    elif hasattr(data, "columns") and hasattr(data, "__getitem__"):
        if hasattr(data, "iloc"):
            data = _with_index(data)
            pairs = [(_joined(name), data.iloc[:, at]) for at, name in enumerate(data.columns)]
        else:
            pairs = [(str(name), data[name]) for name in data.columns]
    else:
        return from_frame(_through_arrow(data), label)
    columns: dict[str, Column] = {}
    ambiguous: list[str] = []
    for name, values in pairs:
        unique = name if name not in columns else f"{name} ({len(columns) + 1})"
        columns[unique] = _series_column(values)
        if _classic_pandas(values):
            ambiguous.append(unique)
    rows = len(pairs[0][1]) if pairs else 0
    _drop_unlogged(columns, ambiguous, rows)
    return Table(label, rows, columns, None, [], {"format": "frame"})


def _joined(name: Any) -> str:
    return "/".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _with_index(frame: Any) -> Any:
    """Return a pandas frame whose named index (as ``step``) is a column."""
    named = [name for name in frame.index.names if name is not None]
    return frame.reset_index() if named else frame


def _through_arrow(data: Any) -> Any:
    pa = pyarrow_for(f"reading {type(data).__name__}")
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    from pyarrow.interchange import from_dataframe  # type: ignore[import-untyped,unused-ignore]

    return from_dataframe(data)


def _classic_pandas(values: Any) -> bool:
    dtype = getattr(values, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind == "f" and hasattr(values, "iloc")


def _series_column(values: Any) -> Column:
    """Read one column of a frame by what it offers, nulls told from NaN."""
    if _classic_pandas(values) or isinstance(getattr(values, "dtype", None), np.dtype):
        return _column("", np.asarray(values), "")[0]
    if hasattr(values, "isna") and not hasattr(values, "is_null"):  # pandas extension types
        null = np.asarray(values.isna(), dtype=bool)
        raw: Any = values.astype(object).to_numpy()
        if hasattr(getattr(values, "array", None), "_mask"):  # masked: a NaN inside is a NaN
            null = np.asarray(values.array._mask, dtype=bool)
    else:
        null = np.asarray(values.is_null().to_numpy(), dtype=bool)
        raw = None if null.any() else np.asarray(values.to_numpy())
        if raw is None:
            kept = np.flatnonzero(~null)
            found = values.filter(~values.is_null()) if hasattr(values, "name") else None
            part = values.drop_null() if found is None else found
            column = _column("", np.asarray(part.to_numpy()), "")[0]
            return Column(column.values, kept if column.rows is None else kept[column.rows])
    if raw.dtype != object:
        return _column("", raw, "")[0]
    kept = np.flatnonzero(~null)
    column, _ = cells_to_column("", [raw[at] for at in kept])
    return Column(column.values, kept if column.rows is None else kept[column.rows])


def _drop_unlogged(columns: dict[str, Column], names: list[str], rows: int) -> None:
    """Take those NaN of classic pandas columns for empty cells that most likely are."""
    missing = {n: np.isnan(columns[n].values) for n in names if columns[n].rows is None}
    missing = {name: nan for name, nan in missing.items() if nan.any()}
    sparse = [name for name, nan in missing.items() if _is_sparse(nan)]
    elsewhere = np.zeros(rows, dtype=bool)
    for name in sparse:
        elsewhere |= ~missing[name]
    for name, nan in missing.items():
        empty = nan if name in sparse else nan & elsewhere
        if empty.any():
            kept = np.flatnonzero(~empty)
            columns[name] = Column(columns[name].values[kept], kept)


def _is_sparse(nan: npt.NDArray[np.bool_]) -> bool:
    known = np.flatnonzero(~nan)
    return bool(len(known)) and 2 * len(known) < known[-1] + 1
