"""Tables of features, in chunks: mappings, arrays, frames, CSV, Parquet and Arrow files."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core import SchemaError, UnsupportedFormatError
from ..core.optional import pyarrow_for
from ._columns import Array, column_array

__all__ = ["Chunk", "read_chunks"]

Chunk = dict[str, Array]
"""Columns of equal length, in order."""

_ROWS = 1 << 17
_PARQUET, _ARROW, _NPY, _ZIP, _GZIP = b"PAR1", b"ARROW1", b"\x93NUMPY", b"PK\x03\x04", b"\x1f\x8b"
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "#n/a"})


def read_chunks(data: Any, name: str = "<data>") -> Iterator[Chunk]:
    """Yield the columns of a table, whole where it is in memory, in runs of rows where it is not.

    Parameters
    ----------
    data : mapping, array, frame, path, or iterator of any of these
        A mapping of name to column; an array [n] (one feature, ``value``) or
        [n, k] (``column_0`` and on), or a structured one; a pandas, polars or
        Arrow table; a CSV, Parquet, Arrow, npy or npz file.
    name : str
        For messages.

    Raises
    ------
    SchemaError
        If columns differ in length or hold no values of a known kind, or a file
        is damaged.
    UnsupportedFormatError
        If `data` is nothing of this.
    MissingDependencyError
        If a Parquet or Arrow file is given and pyarrow is not installed.
    """
    if isinstance(data, (str, os.PathLike)):
        yield from _file(Path(data))
    elif hasattr(data, "__next__"):
        for part in data:
            yield from read_chunks(part, name)
    else:
        yield _whole(dict(_columns(data)), name)


def _whole(columns: Mapping[str, Any], source: str) -> Chunk:
    found = {key: column_array(key, values, source) for key, values in columns.items()}
    lengths = {key: len(values) for key, values in found.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key!r} has {n}" for key, n in list(lengths.items())[:6])
        raise SchemaError(f"columns of different lengths ({said})", source=source)
    return found


def _columns(data: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping):
        yield from ((str(key), values) for key, values in data.items())
    elif hasattr(data, "column_names") and hasattr(data, "column"):  # Arrow
        yield from ((key, data.column(key)) for key in data.column_names)
    elif hasattr(data, "columns") and hasattr(data, "__getitem__"):  # pandas, polars
        names = list(data.columns)
        if len(set(map(str, names))) < len(names):
            raise SchemaError("two columns of one name", source=type(data).__name__)
        yield from ((str(key), data[key]) for key in names)
    else:
        yield from _array_columns(data)


def _array_columns(data: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    if isinstance(data, (list, tuple)):
        data = np.asarray(data)
    if not isinstance(data, np.ndarray):
        raise UnsupportedFormatError(
            "a table is a mapping of columns, an array, a frame or a path",
            value=type(data).__name__,
        )
    if data.dtype.names:
        yield from ((key, data[key]) for key in data.dtype.names)
    elif data.ndim == 1:
        yield "value", data
    elif data.ndim == 2:
        yield from ((f"column_{k}", data[:, k]) for k in range(data.shape[1]))
    else:
        raise SchemaError("an array of features is [rows] or [rows, features]",
                          value=f"shape {data.shape}")  # fmt: skip


def _file(path: Path) -> Iterator[Chunk]:
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(_PARQUET):
        yield from _parquet(path)
    elif head.startswith(_ARROW):
        yield from _arrow(path)
    elif head.startswith((_NPY, _ZIP)):
        yield from _numpy(path)
    elif not head:
        raise SchemaError("an empty file", source=str(path))
    else:
        yield from _csv(path, compressed=head.startswith(_GZIP))


def _parquet(path: Path) -> Iterator[Chunk]:
    pa = pyarrow_for(f"{path}: reading this")
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS):
                yield _whole(dict(_columns(pa.Table.from_batches([batch]))), str(path))
    except pa.ArrowException as error:
        raise SchemaError(f"a damaged file: {error}", source=str(path)) from error


def _arrow(path: Path) -> Iterator[Chunk]:
    pa = pyarrow_for(f"{path}: reading this")
    try:
        with pa.memory_map(str(path)) as held, pa.ipc.open_file(held) as file:
            for at in range(file.num_record_batches):
                table = pa.Table.from_batches([file.get_batch(at)])
                yield _whole(dict(_columns(table)), str(path))
    except pa.ArrowException as error:
        raise SchemaError(f"a damaged file: {error}", source=str(path)) from error


def _numpy(path: Path) -> Iterator[Chunk]:
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            yield _whole(dict(_columns(dict(held) if hasattr(held, "files") else held)), str(path))
    except (ValueError, OSError, EOFError) as error:
        raise SchemaError(f"a damaged or unsupported file: {error}", source=str(path)) from error


def _csv(path: Path, compressed: bool) -> Iterator[Chunk]:
    try:
        import pyarrow.csv as pacsv  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        yield from _plain_csv(path, compressed)
    else:
        yield from _arrow_csv(path, pacsv)


def _arrow_csv(path: Path, pacsv: Any) -> Iterator[Chunk]:
    import pyarrow as pa

    options = {"strings_can_be_null": True, "null_values": sorted(_spelled())}
    try:
        with pacsv.open_csv(path, convert_options=pacsv.ConvertOptions(**options)) as first:
            schema = first.schema
        # Whole numbers in the first block do not promise that all are.
        types = {f.name: pa.float64() for f in schema if pa.types.is_integer(f.type)}
        types |= {f.name: f.type for f in schema if pa.types.is_string(f.type)}
        convert = pacsv.ConvertOptions(column_types=types, **options)
        with pacsv.open_csv(path, convert_options=convert) as reader:
            for batch in reader:
                yield _whole(dict(_columns(pa.Table.from_batches([batch]))), str(path))
    except pa.ArrowException as error:
        raise SchemaError(f"{error}", source=str(path)) from error


def _spelled() -> set[str]:
    forms = (str.lower, str.upper, str.capitalize)
    return {form(word) for word in _MISSING for form in forms} | {"NaN"}


def _plain_csv(path: Path, compressed: bool) -> Iterator[Chunk]:
    """Read with the standard library: slower, and needs nothing."""
    opened: Any = gzip.open if compressed else open
    with opened(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        try:
            header = next(reader, [])
            if not header or len(set(header)) < len(header):
                raise SchemaError("the first line names every column once", source=str(path),
                                  line=1)  # fmt: skip
            numeric: dict[str, bool] = {}
            rows: list[list[str]] = []
            for row in reader:
                if len(row) != len(header):
                    raise SchemaError(f"{len(row)} cells where the header has {len(header)}",
                                      source=str(path), line=reader.line_num)  # fmt: skip
                rows.append(row)
                if len(rows) == _ROWS:
                    yield _parsed(header, rows, numeric, path, reader.line_num)
                    rows = []
            if rows or not numeric:
                yield _parsed(header, rows, numeric, path, reader.line_num)
        except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise SchemaError(f"{error}", source=str(path)) from error


def _parsed(
    header: list[str], rows: list[list[str]], numeric: dict[str, bool], path: Path, line: int
) -> Chunk:
    found: Chunk = {}
    for at, name in enumerate(header):
        cells = [row[at] for row in rows]
        if numeric.get(name, True):
            try:
                found[name] = np.array(
                    [np.nan if c.strip().lower() in _MISSING else float(c) for c in cells]
                )
                numeric[name] = True
                continue
            except ValueError as error:
                if name in numeric:
                    raise SchemaError(
                        f"a column of numbers until here, not up to line {line}: {error}",
                        source=str(path), column=name,
                    ) from error  # fmt: skip
        numeric[name] = False
        words = np.empty(len(cells), object)
        words[:] = [None if c.strip().lower() in _MISSING else c for c in cells]
        found[name] = words
    return found
