"""JSON lines, and JSON documents that hold rows or columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..core import SchemaError, UnsupportedFormatError
from ._bytes import ByteSource
from ._rows import RowReader
from ._table import LineMap, Table, counted

__all__ = ["JsonLinesReader", "read_json_document", "read_jsonl"]

_MAX_DOCUMENT = 1 << 30
_SHOWN = 5


def read_jsonl(source: ByteSource) -> Table:
    """Read one JSON object per line; ``NaN``, ``Infinity`` and ``-Infinity`` are numbers.

    Blank lines are skipped. Lines that are no object are named in the table's
    `unread`; a last line that was cut off is among them.

    Raises
    ------
    SchemaError
        If there is nothing, or more bad lines than good ones.
    """
    reader = JsonLinesReader(source.name)
    for block in source.line_blocks():
        reader.feed(block)
    return reader.table(source.damage)


class JsonLinesReader:
    """Reads JSON lines block by block; every block but the last ends with a line.

    `table` returns what was read since it was last asked.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._line = 1
        self._rows, self._line_of = RowReader(name), LineMap()
        self._bad: list[tuple[int, str]] = []
        self._first_bad: tuple[int, str] | None = None
        self._good_lines = self._bad_lines = 0

    def feed(self, block: bytes) -> None:
        """Take the next lines."""
        lines = block.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
        if not lines[-1]:
            lines.pop()
        objects = _all_at_once(lines)
        if objects is not None:
            self._line_of.add(self._rows.rows, self._line)
        else:
            row = self._rows.rows
            objects = _one_by_one(lines, self._line, row, self._line_of, self._bad)
        self._rows.add(objects)
        self._line += len(lines)

    def table(self, damage: Sequence[str] = (), *, last: bool = True) -> Table:
        """Return the rows that were read since the last call.

        Parameters
        ----------
        damage : sequence of str
            What ended the source before its end.
        last : bool
            Whether nothing follows.

        Raises
        ------
        SchemaError
            If `last`, and there was nothing, or more bad lines than good ones.
        """
        rows, bad = self._rows, self._bad
        self._good_lines += rows.rows
        self._bad_lines += len(bad)
        self._first_bad = self._first_bad or next(iter(bad), None)
        if last and self._first_bad is not None and self._bad_lines > self._good_lines:
            raise SchemaError(self._first_bad[1], source=self.name, line=self._first_bad[0])
        if last and not self._good_lines:
            reason = f"nothing to read ({'; '.join(damage)})" if damage else "the file is empty"
            raise SchemaError(reason, source=self.name)
        unread = list(damage)
        if bad:
            shown = "; ".join(f"line {at}: {what}" for at, what in bad[:_SHOWN])
            more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
            unread.append(
                f"{self.name}: {counted(len(bad), 'line')} without a JSON object: {shown}{more}"
            )
        table = rows.table(self._line_of, unread)
        table.metadata["format"] = "jsonl"
        self._rows, self._line_of, self._bad = RowReader(self.name), LineMap(), []
        return table


def _all_at_once(lines: list[str]) -> list[dict[str, Any]] | None:
    """Parse many lines in one call; None where any of them is out of the ordinary."""
    try:
        found: list[Any] = json.loads(f"[{','.join(lines)}]")
    except (ValueError, RecursionError):
        return None
    # A line may hold two objects, or halves of one: then the count is not that of the lines.
    same = len(found) == len(lines) and all(line[:1] == "{" for line in lines)
    return found if same and set(map(type, found)) == {dict} else None


def _one_by_one(
    lines: list[str], first: int, row: int, line_of: LineMap, bad: list[tuple[int, str]]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line, text in enumerate(lines, first):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            bad.append((line, f"{error.msg} at column {error.colno} of {text[:40]!r}"))
            continue
        except RecursionError:
            bad.append((line, "nested too deeply"))
            continue
        except ValueError:
            bad.append((line, "a whole number of thousands of digits"))
            continue
        if not isinstance(value, dict):
            bad.append((line, f"no object but {text[:40]!r}"))
            continue
        line_of.add(row + len(found), line)
        found.append(value)
    return found


def read_json_document(source: ByteSource) -> Any:
    """Return the one value of a JSON file of at most 1 GiB.

    Raises
    ------
    SchemaError
        If it is no JSON, with line and column.
    """
    data = source.read_all(_MAX_DOCUMENT)
    if source.damage:
        raise SchemaError(f"half a JSON document: {source.damage[0]}", source=source.name)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SchemaError("not UTF-8", source=source.name, offset=error.start) from error
    except json.JSONDecodeError as error:
        raise SchemaError(
            f"no valid JSON: {error.msg} at column {error.colno}",
            source=source.name,
            line=error.lineno,
        ) from error
    except ValueError as error:
        reason = "a whole number of thousands of digits"
        raise SchemaError(reason, source=source.name) from error
    except RecursionError as error:
        raise UnsupportedFormatError(
            "JSON that is nested too deeply", source=source.name
        ) from error
