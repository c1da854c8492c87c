"""`MetricIngestor`: metrics as rows, columns, arrays, frames, CSV or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core import (
    BaseIngestor,
    BaseStream,
    IngestionError,
    Signal,
    SignalSet,
    UnsupportedFormatError,
    canonical,
    ingestors,
)
from ._assemble import assemble
from ._bytes import HEAD_BYTES, ByteSource, is_bytes_like
from ._columns import from_frame, from_mapping, is_frame
from ._csv import UTF_16, CsvReader, delimiter_of, read_csv
from ._json import JsonLinesReader, read_json_document, read_jsonl
from ._numbers import is_number
from ._rows import RowReader
from ._stream import LineReader, TableStream
from ._table import Table

__all__ = ["MetricIngestor", "read_table"]

_MAX_HEADER = 1 << 15
_NUMBER_LIST = re.compile(rb'"\s*:\s*\[\s*(?:-?\d|null|NaN|-?Infinity)')


@ingestors.register("metrics")
class MetricIngestor(BaseIngestor):
    """Reads metrics from rows, columns, arrays, frames, CSV and JSON files.

    Understood without being told:

    - **wide tables**, one column per metric, and **long** ones with a column
      of names (``metric``, ``name``, ``tag``), one of values (``value``) and a
      step;
    - the columns ``step`` (and its other names), ``replica_id``,
      ``layer_name``, ``timestamp``, ``run`` and ``split``; without a step, the
      row number counts;
    - names such as ``train/loss``, ``eval_loss``, ``lr`` and
      ``grad_norm/encoder.0.weight``; two columns never become one series;
    - a step that goes back: a restart, which begins a new segment; rows of
      the same step are all kept, in their order;
    - gzip, by content.

    An empty cell, None and null were not logged; NaN was. A cell of text in a
    column of numbers is left out and named in `SignalSet.unread`, so that no
    report on it says "healthy"; a known quantity with more text than numbers
    is an error.

    Parameters
    ----------
    mapping : mapping of str to str, optional
        Column name to the name it should be read under, as
        ``{"batch_time": "step_time", "worker": "replica_id"}``.

    Examples
    --------
    >>> signals = MetricIngestor().ingest({"loss": [2.0, 1.5, 1.2]})
    >>> signals.series
    (<Series loss: 3 values, steps 0 to 2>,)
    """

    def __init__(self, mapping: Mapping[str, str] | None = None) -> None:
        self.mapping = dict(mapping or {})

    def ingest(self, source: Any) -> SignalSet:
        """Read `source` whole.

        Parameters
        ----------
        source : object
            A path, ``-``, a file object, bytes; a list of mappings; a mapping
            from name to values (float64 arrays are shared, not copied); a
            pandas, polars or pyarrow frame or any Arrow stream.

        Raises
        ------
        SchemaError
            Where the content breaks its format's rules; with file, line,
            column and value.
        UnsupportedFormatError
            Where it is no table of metrics.
        OSError
            Where a file cannot be opened or read.
        """
        return assemble(read_table(source), self.mapping)

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is of a kind that `ingest` takes; files are judged by content."""
        if is_bytes_like(data):
            try:
                with ByteSource.of(data) as source:
                    return self.sniff(source.head(), source.name) > 0
            except (OSError, IngestionError):
                return False
        return _in_memory(data) is not None

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return how surely a file with this head is CSV, JSON lines or rows in JSON."""
        return {"csv": 0.6, "jsonl": 0.9, "json": 0.6}.get(_format_of(head), 0.0)

    def stream(self, head: bytes, name: str) -> BaseStream | None:
        """Return a reader of CSV or JSON lines piece by piece; None for any other form."""
        kind = _format_of(head)
        if head[:2] in UTF_16 or kind not in ("csv", "jsonl"):
            return None
        reader = CsvReader if kind == "csv" else JsonLinesReader
        return TableStream(lambda n: LineReader(reader(n), n), name, self.mapping)


def read_table(source: Any) -> Table:
    """Read anything that `MetricIngestor.ingest` takes as a table."""
    if not is_bytes_like(source):
        table = _in_memory(source)
        if table is None:
            raise UnsupportedFormatError(_no_table(source), value=type(source).__name__)
        return table
    with ByteSource.of(source) as opened:
        kind = _format_of(opened.head())
        if kind == "csv":
            return read_csv(opened)
        if kind == "jsonl":
            return read_jsonl(opened)
        if kind == "json":
            return _of_document(read_json_document(opened), opened.name)
        if not opened.head().strip():
            return read_csv(opened)  # says that it is empty, and why
        raise UnsupportedFormatError("neither CSV nor JSON", source=opened.name)


def _no_table(source: Any) -> str:
    if isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        return "an array without a name; give it one, as in {'loss': array}"
    return (
        "no metrics: expected a path, a file object, a list of dicts, a mapping of lists or "
        "arrays, a frame, or signals"
    )


def _in_memory(data: Any) -> Table | None:
    if isinstance(data, Mapping):
        return from_mapping(data)
    if is_frame(data):
        return from_frame(data)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _of_rows(data, "<rows>")
    return None


def _of_rows(data: Sequence[Any], source: str) -> Table | None:
    if any(isinstance(row, Signal) or not isinstance(row, Mapping) for row in data):
        return None
    rows = RowReader(source)
    rows.add(data)
    table = rows.table()
    table.metadata["format"] = "rows"
    return table


def _of_document(value: Any, name: str) -> Table:
    if isinstance(value, list) and value:
        table = _of_rows(value, name)
    elif isinstance(value, dict) and any(_is_column(v) for v in value.values()):
        table = from_mapping({k: v for k, v in value.items() if _is_column(v)}, name)
        others = {k: v for k, v in value.items() if not _is_column(v)}
        skipped = [k for k, v in others.items() if isinstance(v, list) and v]
        table.unread += [f"{name}: {key!r} is no list of numbers" for key in skipped]
        facts = {k: v for k, v in others.items() if k not in skipped and v is not None}
        if facts:  # a configuration beside the columns: no measurement
            table.metadata["facts"] = facts
    else:
        table = None
    if table is None:
        raise UnsupportedFormatError("JSON without rows or columns of metrics", source=name)
    table.metadata["format"] = "json"
    return table


def _is_column(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(v is None or isinstance(v, (int, float)) for v in value)
    )


def _format_of(head: bytes) -> str:
    """Return csv, jsonl, json, or "" for neither."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"{":
        line, newline, _ = start.partition(b"\n")
        try:
            first = json.loads(line)
        except (ValueError, RecursionError):
            if not newline and len(head) < HEAD_BYTES:
                return "jsonl"  # one line, cut off: says so when it is read
            return "json" if _NUMBER_LIST.search(start) else ""
        return "json" if _columns_in_one_line(first, start) else "jsonl"
    if start[:1] == b"[":
        return "json" if start[1:].lstrip()[:1] in (b"{", b"]") else ""
    return "csv" if _looks_delimited(head) else ""


def _columns_in_one_line(first: Any, start: bytes) -> bool:
    one = not start.partition(b"\n")[2].strip()
    return one and isinstance(first, dict) and any(_is_column(v) for v in first.values())


def _looks_delimited(head: bytes) -> bool:
    """Return whether the first lines are a header and rows of numbers of about as many cells."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = head[: len(head) // 2 * 2].decode("utf-16", "replace")
    elif b"\0" in head:
        return False
    else:
        text = head.decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or len(lines[0]) > _MAX_HEADER:
        return len(lines) == 1 and len(head) >= HEAD_BYTES and b"," in head
    delimiter = delimiter_of(lines[0])
    names = [cell.strip(' "#\r') for cell in lines[0].split(delimiter)]
    rows = lines[1:50]
    if not all(_is_name(name) for name in names):
        return False
    if len(names) == 1 and not canonical(names[0]).known:
        return False
    if not rows:
        return len(set(names)) == len(names) and not re.search(r"=|:\s", lines[0])
    fitting = sum(_fits(line.split(delimiter), len(names)) or '"' in line for line in rows)
    return 2 * fitting >= len(rows)


def _fits(cells: list[str], width: int) -> bool:
    return (len(cells) > 1 or width == 1) and any(is_number(cell) for cell in cells)


def _is_name(text: str) -> bool:
    return len(text.split()) <= 5 and not text.endswith((".", "!", "?", ":"))
