"""JSON lines, and JSON documents that hold rows or columns."""

from __future__ import annotations

import json
from typing import Any

from ..core import SchemaError, UnsupportedFormatError
from ._bytes import ByteSource
from ._rows import RowReader
from ._table import LineMap, Table, counted

__all__ = ["read_json_document", "read_jsonl"]

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
    rows = RowReader(source.name)
    line_of = LineMap()
    bad: list[tuple[int, str]] = []
    line = 1
    for block in source.line_blocks():
        text = block.decode("utf-8", "replace")
        lines = text.removeprefix("\ufeff").split("\n")
        if not lines[-1]:
            lines.pop()
        objects = _all_at_once(lines)
        if objects is not None:
            line_of.add(rows.rows, line)
            rows.add(objects)
        else:
            rows.add(_one_by_one(lines, line, rows.rows, line_of, bad))
        line += len(lines)
    if len(bad) > rows.rows:
        raise SchemaError(bad[0][1], source=source.name, line=bad[0][0])
    if not rows.rows:
        damage = "; ".join(source.damage)
        reason = f"nothing to read ({damage})" if damage else "the file is empty"
        raise SchemaError(reason, source=source.name)
    unread = list(source.damage)
    if bad:
        shown = "; ".join(f"line {at}: {what}" for at, what in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        unread.append(
            f"{source.name}: {counted(len(bad), 'line')} without a JSON object: {shown}{more}"
        )
    table = rows.table(line_of, unread)
    table.metadata["format"] = "jsonl"
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
