"""Delimited text with a header line, read in blocks."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..core import SchemaError
from ..kernels.formats import parse_delimited
from ._bytes import ByteSource
from ._numbers import is_number, parse_cells, with_odd_cells
from ._table import Column, LineMap, Table, counted, role_of, text_column, text_columns

__all__ = ["UTF_16", "CsvReader", "delimiter_of", "read_csv"]

_DELIMITERS = (",", "\t", ";", "|")
_SHOWN_ROWS = 5
_MAX_ROW = 1 << 24
"""A row that is longer was never closed."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def delimiter_of(header: str) -> str:
    """Return the delimiter of a header line: the one that cuts it into most cells."""
    return max(_DELIMITERS, key=lambda d: header.count(d))


def read_csv(source: ByteSource) -> Table:
    """Read a CSV file (comma, tab, semicolon or bar; UTF-8, or UTF-16 with its mark).

    The first line with anything on it holds the names. A row with too few
    cells is read as far as it goes, one with too many not at all; both are
    named in the table's `unread`, as are bytes that are not UTF-8.

    Raises
    ------
    SchemaError
        For an empty file, or one whose first line is no header.
    """
    reader = CsvReader(source.name)
    blocks: Iterable[bytes] = source.line_blocks()
    if source.head()[:2] in UTF_16:
        blocks = [b"".join(source.blocks()).decode("utf-16", "replace").encode()]
    for block in blocks:
        reader.feed(block)
    return reader.table(source.damage)


class CsvReader:
    """Reads a CSV file block by block; every block but the last ends with a line.

    `table` returns what was read since it was last asked, so that a file that
    still grows can be read as it grows.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.header: list[str] = []
        self.names: list[str] = []
        self.delimiter = ","
        self.text: list[bool] = []
        self.either: list[bool] = []
        self.rows = 0
        self.line = 1
        self.parts: list[list[tuple[int, int, Column]]] = []
        self.line_of = LineMap()
        self.ragged: list[tuple[int, int]] = []  # line, number of cells
        self.unread: list[str] = []
        self.bad_bytes: list[int] = []
        self._quoted = False
        self._broken = False
        self._before = 0  # rows of earlier tables
        self._open = ""  # a quoted cell whose end has not been seen, with its row

    def feed(self, data: bytes) -> None:
        """Take the next lines."""
        if self.line == 1 and not self._open:
            data = data.removeprefix(b"\xef\xbb\xbf")
        if self._broken:
            return
        if self._quoted or b'"' in data:
            # A quoted cell may hold delimiters and line ends: from here on by the rules.
            self._quoted = True
            self._by_rules(self._open + self._decoded(data), last=False)
            return
        if not self.names:
            cut = data.find(b"\n") + 1
            if cut and b"\r" not in data[: cut - 2]:
                self._block(self._decoded(data[:cut]).rstrip("\r\n").split("\n"))
                data = data[cut:]
        if self.names and self._numbers(data):
            return
        block = self._decoded(data)
        lines = block.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if not lines[-1]:
            lines.pop()
        self._block(lines)

    def _numbers(self, data: bytes) -> bool:
        """Read a block of nothing but numbers natively; False where it is no such block."""
        found = parse_delimited(data, self.delimiter, len(self.names))
        if found is None:
            return False
        count, columns, odd = found
        cells: dict[int, list[tuple[int, str]]] = {}
        for row, column, cell in odd:
            cells.setdefault(column, []).append((row, cell.decode("utf-8", "replace")))
            if not cell.isascii():
                self.bad_bytes += [self.line + row] * (not _is_utf_8(cell))
        for at, (values, _) in enumerate(columns):
            # Text that looks like a number must stay as it is written.
            if (self.either[at] and at in cells) or (
                self.text[at] and not self.either[at] and len(values)
            ):
                return False
        if any(self.header[0] == text for _, text in cells.get(0, ())):
            return False  # the header again: row by row, then
        if count:
            self.line_of.add(self.rows, self.line)
        for at, (values, rows) in enumerate(columns):
            odd_cells = cells.get(at, [])
            if self.text[at] and odd_cells:
                texts = np.empty(len(odd_cells), dtype=object)
                texts[:] = [text for _, text in odd_cells]
                places = np.array([row for row, _ in odd_cells], np.int64)
                part = Column(texts, None if len(places) == count else places)
            else:
                part = Column(*with_odd_cells(values, rows, odd_cells))
            self.parts[at].append((self.rows, count, part))
        self.rows += count
        self.line += count
        return True

    def _decoded(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            before = self._open.count("\n") + data.count(b"\n", 0, error.start)
            self.bad_bytes.append(self.line + before)
            return data.decode("utf-8", "replace")

    def _take_header(self, cells: list[str], line: int) -> None:
        stripped = [cell.strip() for cell in cells]
        if stripped and stripped[0].startswith("#"):
            stripped[0] = stripped[0].lstrip("# ")
        if all(is_number(cell) for cell in stripped):
            raise SchemaError(
                "the first line holds numbers, no column names",
                source=self.name,
                line=line,
                value=self.delimiter.join(cells),
            )
        self.header = stripped
        taken: dict[str, int] = {}
        for at, cell in enumerate(stripped):
            name = cell or f"column {at + 1}"
            taken[name] = taken.get(name, 0) + 1
            self.names.append(name if taken[name] == 1 else f"{name} ({taken[name]})")
        self.text = text_columns(self.names)
        # Time stamps and ranks are most often numbers, now and then text.
        self.either = [role_of(name) in ("timestamp", "replica_id") for name in self.names]
        self.parts = [[] for _ in self.names]

    def _block(self, lines: list[str]) -> None:
        start = 0
        if not self.names:
            while start < len(lines) and not lines[start].strip():
                start += 1
            if start == len(lines):
                self.line += start
                return
            self.delimiter = delimiter_of(lines[start])
            self._take_header(lines[start].split(self.delimiter), self.line + start)
            start += 1
        width = len(self.names)
        cells = [line.split(self.delimiter) for line in lines[start:]]
        self.line += start
        plain = all(len(row) == width for row in cells) and self.header not in cells
        if plain and (width > 1 or "" not in lines):
            self._add(cells, [self.line] if cells else [])
            self.line += len(cells)
            return
        numbers = range(self.line, self.line + len(cells))
        self.line += len(cells)
        self._fit(zip(numbers, cells, strict=True))

    def _by_rules(self, text: str, last: bool) -> None:
        """Read rows of which some cells are quoted; a row that is still open waits."""
        self._open = ""
        if not last and text.count('"') % 2 and len(text) <= _MAX_ROW:
            cut = _last_whole(text)
            text, self._open = text[:cut], text[cut:]
        lines = text.splitlines(keepends=True)
        if not self.names:
            while lines and not lines[0].strip():
                del lines[0]
                self.line += 1
            if not lines:
                return
            self.delimiter = delimiter_of(lines[0])
        reader = csv.reader(lines, delimiter=self.delimiter)
        base, line = self.line, self.line
        waiting: list[tuple[int, list[str]]] = []
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                self.unread.append(f"{self.name}, line {line}: {error}; the rest unread")
                self._broken = True
                break
            if row is None:
                break
            if not self.names:
                self._take_header(row, line)
            else:
                waiting.append((line, row))
            line = base + reader.line_num
        self.line = line
        self._fit(iter(waiting))

    def _fit(self, rows: Iterator[tuple[int, list[str]]]) -> None:
        """Add rows some of which may be blank, ragged or the header again."""
        width = len(self.names)
        kept: list[list[str]] = []
        lines: list[int] = []
        for line, cells in rows:
            if len(cells) <= 1 and not "".join(cells).strip():
                continue
            if cells == self.header:  # a logger that was started again
                continue
            if len(cells) != width:
                self.ragged.append((line, len(cells)))
                if len(cells) > width:
                    continue
                cells = [*cells, *[""] * (width - len(cells))]
            kept.append(cells)
            lines.append(line)
        self._add(kept, lines)

    def _add(self, cells: list[list[str]], lines: Sequence[int]) -> None:
        """Add full rows; `lines` are theirs, or only the first where they follow each other."""
        if not cells:
            return
        for at, line in enumerate(lines):
            self.line_of.add(self.rows + at, line)
        for name_at, column in enumerate(zip(*cells, strict=True)):
            self.parts[name_at].append((self.rows, len(cells), self._parsed(name_at, column)))
        self.rows += len(cells)

    def _parsed(self, at: int, cells: Sequence[str]) -> Column:
        if not self.text[at]:
            return Column(*parse_cells(cells))
        if self.either[at]:
            values, rows, bad = parse_cells(cells)
            if not bad:
                return Column(values, rows)
        return text_column(cells)

    def table(self, damage: Sequence[str] = (), *, last: bool = True) -> Table:
        """Return the rows that were read since the last call.

        Parameters
        ----------
        damage : sequence of str
            What ended the source before its end.
        last : bool
            Whether nothing follows: then a row that is still open is read as it is.

        Raises
        ------
        SchemaError
            If `last`, and there was not even a header.
        """
        if last and self._open:
            self._by_rules(self._open, last=True)
        if last and not self.names:
            reason = f"nothing to read ({'; '.join(damage)})" if damage else "the file is empty"
            raise SchemaError(reason, source=self.name)
        columns = {
            name: Column.joined(parts) if parts else Column(np.empty(0), np.empty(0, np.int64))
            for name, parts in zip(self.names, self.parts, strict=True)
        }
        first = self.names[0] if self.names else ""
        if first == "column 1" and not self.header[0] and self._counts_rows(columns[first]):
            del columns[first]  # the index that a frame writes before its columns
        notes = [*self.unread, *self._said(), *damage]
        table = Table(self.name, self.rows, columns, self.line_of, notes, {"format": "csv"})
        self._before += self.rows
        self.rows, self.line_of = 0, LineMap()
        self.parts = [[] for _ in self.names]
        self.ragged, self.unread, self.bad_bytes = [], [], []
        return table

    def _counts_rows(self, column: Column) -> bool:
        values: Any = column.values
        expected = np.arange(self._before, self._before + self.rows)
        return column.rows is None and bool(np.array_equal(values, expected))

    def _said(self) -> Iterator[str]:
        name, width = self.name, len(self.names)
        if self.ragged:
            shown = "; ".join(f"line {n}: {c} cells" for n, c in self.ragged[:_SHOWN_ROWS])
            more = len(self.ragged) - _SHOWN_ROWS
            yield (
                f"{name}: {counted(len(self.ragged), 'row')} without the {width} cells of the "
                f"header (longer ones were not read): {shown}" + (f"; and {more} more" * (more > 0))
            )
        if self.bad_bytes:
            shown = ", ".join(map(str, self.bad_bytes[:_SHOWN_ROWS]))
            yield f"{name}: bytes that are not UTF-8, first on line {shown}; read as '\ufffd'"


def _last_whole(text: str) -> int:
    """Return where the last row begins whose quotes are not all closed."""
    even, start, cut = True, 0, 0
    while (end := text.find("\n", start)) >= 0:
        even ^= bool(text.count('"', start, end) % 2)
        start = end + 1
        if even:
            cut = start
    return cut


def _is_utf_8(cell: bytes) -> bool:
    try:
        cell.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
