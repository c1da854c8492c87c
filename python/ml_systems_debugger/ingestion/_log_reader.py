"""Lines of a log into a table: learned patterns first, the grammar where none fits."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import UnsupportedFormatError
from ..kernels.formats import parse_delimited
from ._events import TRACEBACK, Frames, is_event, kind_of, measures_of, without_prefix
from ._lines import ANSI, Parsed, Template, parse_line
from ._numbers import parse_cells
from ._table import Column, Table

__all__ = ["KEPT", "LogReader", "lines_of"]

_RECENT = 32
"""Patterns tried on every line before the grammar is."""
_MAX_LEARNED = 512
"""Patterns made at most: a log whose lines all differ in words is left to the grammar."""
_FLUSH = 1 << 13
MAX_LINE = 1 << 14
"""Characters of a line that are looked at."""
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?::\s|:?$)")
"""The line behind the frames: a class, and most often what it says."""
_LONGEST_TRACEBACK = 4096
_WAITING = 1 << 12
KEPT = 50
"""Messages at the beginning and at the end of a log that are listed with their lines."""
_RANK_WITHIN = re.compile(r"\brank[ =:]?\s?(\d{1,7})\b", re.IGNORECASE)

_Part = tuple[npt.NDArray[Any], npt.NDArray[np.int64]]


class _Matched:
    """The lines that hold the same fields, and the numbers in them by field."""

    __slots__ = ("groups", "parsed", "parts", "rows")

    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed
        self.rows: list[int] = []
        self.groups: list[tuple[str, ...]] = []
        self.parts: dict[str, list[_Part]] = {}

    def flush(self) -> None:
        """Turn the text gathered so far into arrays."""
        if not self.rows:
            return
        rows = np.array(self.rows, np.int64)
        fields = self.parsed.fields
        numbers = [at for at, field in enumerate(fields) if field.name != "timestamp"]
        # Most often every group is a plain number: then one native call reads them all.
        plain = len(numbers) == len(fields) and len(fields) > 0
        block = "\n".join([",".join(group) for group in self.groups]) if plain else ""
        found = parse_delimited(block.encode(), ",", len(fields)) if plain else None
        for at, field in enumerate(fields):
            values: Any
            places: Any = None
            if found is not None and not found[2]:
                values, places = found[1][at]
            else:
                texts = [group[at] for group in self.groups]
                if field.name == "timestamp":
                    values = np.empty(len(texts), dtype=object)
                    values[:] = texts
                else:
                    values, places, _ = parse_cells(texts)
            if field.factor != 1.0:
                values = values * field.factor
            part = (values, rows if places is None else rows[places])
            self.parts.setdefault(field.name, []).append(part)
        for name, value in self.parsed.constants:
            self.parts.setdefault(name, []).append((np.full(len(rows), value), rows))
        self.rows, self.groups = [], []


def lines_of(block: bytes) -> Iterator[tuple[int, str]]:
    """Yield the lines of a block with their numbers, from 0, without colours.

    A line that a progress bar wrote over is several; one without text is one too.
    """
    text = block.decode("utf-8", "replace")
    if "\x1b" in text:
        text = ANSI.sub("", text)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines):
        if "\r" not in line:
            yield number, line[:MAX_LINE]
            continue
        for part in [part for part in line.split("\r") if part] or [""]:
            yield number, part[:MAX_LINE]


class LogReader:
    """Collects the measurements and messages of a log, line by line.

    `table` returns what was collected since it was last asked.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.repeated = 0
        self.lines = array("q")  # of every row, its line
        self._number = 1  # of the next line
        self._step: int | None = None  # the last one of earlier tables
        self._stepped = False
        self._found = False
        self._placed = False  # whether a table was given
        self._recent: list[tuple[Template, _Matched]] = []
        self._learned = 0
        self._all: dict[tuple[Any, ...], _Matched] = {}
        self._events: tuple[list[int], list[str]] = ([], [])
        self._stated: dict[str, tuple[list[int], list[float]]] = {}
        self._kinds: list[str] = []  # of every message
        self._last = ""
        self._last_event = ("", "")
        self._tracebacks: dict[str, Frames] = {}  # by what the launcher puts before its lines

    def feed(self, block: bytes) -> None:
        """Take the next lines."""
        first, add, at = self._number, self.add, -1
        for at, line in lines_of(block):
            add(first + at, line)
        self._number += at + 1

    def add(self, number: int, line: str) -> None:
        """Take the next line; `number` counts from 1."""
        if self._tracebacks and self._within_traceback(number, line):
            return
        recent = self._recent
        for at, (template, matched) in enumerate(recent):
            found = template.match(line)
            if found is not None:
                if at:
                    recent.insert(0, recent.pop(at))
                self._measured(number, line, matched, found.groups())
                return
        parsed = parse_line(line)
        if parsed is not None:
            self._learn(number, line, parsed)
        elif is_event(line):
            prefix, text = without_prefix(line)
            if text.startswith(TRACEBACK):
                self._tracebacks[prefix] = Frames()
            else:
                self._event(number, line)

    def _within_traceback(self, number: int, line: str) -> bool:
        """Take a line of a traceback; indented ones are its frames, the next says what it was."""
        prefix, text = without_prefix(line)
        frames = self._tracebacks.get(prefix)
        if frames is None:
            return False
        if not text.strip() or text.startswith("  "):
            if frames.lines < _LONGEST_TRACEBACK:
                frames.add(text)
                return True
        elif not _RAISED.match(text):
            return False  # of another process that writes in between
        del self._tracebacks[prefix]
        if text.startswith("  "):
            return False
        self._event(number, line, frames.place)
        return True

    def _learn(self, number: int, line: str, parsed: Parsed) -> None:
        shape = (*((f.name, f.factor) for f in parsed.fields), parsed.dialect, parsed.constants)
        known = self._all.setdefault(shape, _Matched(parsed))
        if self._learned < _MAX_LEARNED:
            self._learned += 1
            self._recent.insert(0, (Template(line, parsed), known))
            del self._recent[_RECENT:]
        groups = tuple(line[field.start : field.end] for field in parsed.fields)
        self._measured(number, line, known, groups)

    def _measured(self, number: int, line: str, matched: _Matched, groups: tuple[str, ...]) -> None:
        if line == self._last:
            self.repeated += 1
            return
        self._last = line
        matched.rows.append(len(self.lines))
        matched.groups.append(groups)
        self.lines.append(number)
        if len(matched.rows) >= _FLUSH:
            matched.flush()

    def _event(self, number: int, line: str, place: str = "") -> None:
        prefix, text = without_prefix(line)
        text = text.strip()
        if place:
            text = f"{text} (in {place})"
        rank = prefix or (within[1] if (within := _RANK_WITHIN.search(text)) else "")
        if self._last_event == (rank, text):
            self.repeated += 1
            return
        self._last_event = rank, text
        row = len(self.lines)
        self._events[0].append(row)
        self._events[1].append(text)
        self._kinds.append(kind_of(text))
        self.lines.append(number)
        stated = dict(measures_of(text))
        if rank:
            stated["replica_id"] = float(rank)
        for name, value in stated.items():
            rows, values = self._stated.setdefault(name, ([], []))
            rows.append(row)
            values.append(value)

    def table(self, damage: Sequence[str] = (), *, last: bool = True) -> Table:
        """Return everything taken since the last call, one row per line that held something.

        Lines before the first that says its step belong to that step: unless
        `last`, the first thousands of them wait for it.

        Raises
        ------
        UnsupportedFormatError
            If `last`, and there was neither a measurement nor a message of a fault.
        """
        if not (last or self._placed or self._says_where() or len(self.lines) >= _WAITING):
            return Table(self.source, 0, {})
        self._placed = True
        self._found |= len(self.lines) > 0
        if last and not self._found:
            said = f" ({'; '.join(damage)})" if damage else ""
            raise UnsupportedFormatError(
                f"text without measurements or messages of faults{said}", source=self.source
            )
        parts: dict[str, list[_Part]] = {}
        for matched in self._all.values():
            matched.flush()
            for name, found in matched.parts.items():
                parts.setdefault(name, []).extend(found)
            matched.parts = {}
        for name, (rows, values) in self._stated.items():
            part = (np.array(values, np.float64), np.array(rows, np.int64))
            parts.setdefault(name, []).append(part)
        columns = {name: _in_order(found) for name, found in parts.items()}
        if self._events[0]:
            texts = np.empty(len(self._events[1]), dtype=object)
            texts[:] = self._events[1]
            places = np.array(self._events[0], np.int64)
            kinds = np.empty(len(texts), dtype=object)
            kinds[:] = self._kinds
            columns["log_event"] = Column(texts, places)
            columns["log_event_kind"] = Column(kinds, places)
        self._stepped |= "step" in columns
        if not self._stepped:
            _epochs_as_steps(columns)
        dialects = {m.parsed.dialect for m in self._all.values()} - {""}
        metadata: dict[str, Any] = {"format": "log", "dialects": sorted(dialects)}
        if self._events[0]:
            metadata["log_event_kinds"] = dict(Counter(self._kinds))
            metadata["log_events"] = self._listed(columns.get("step"))
        if self.repeated:
            metadata["repeated_lines"] = self.repeated
        lines = self.lines
        table = Table(
            self.source, len(lines), columns, lines.__getitem__, list(damage), metadata=metadata
        )
        self._forget(columns.get("step"))
        return table

    def _says_where(self) -> bool:
        held = (matched.parsed for matched in self._all.values() if matched.rows or matched.parts)
        return any(field.name in ("step", "epoch") for parsed in held for field in parsed.fields)

    def _forget(self, steps: Column | None) -> None:
        """Begin the next table; patterns, open tracebacks and the last lines are kept."""
        if steps is not None and len(self.lines):
            self._step = _step_at(steps, len(self.lines) - 1)
        self.lines = array("q")
        self.repeated = 0
        self._events, self._stated, self._kinds = ([], []), {}, []

    def _listed(self, steps: Column | None) -> list[dict[str, Any]]:
        """Return the first and the last messages with their lines, steps and kinds."""
        rows, texts = self._events
        listed = []
        for at in [*range(len(rows))[:KEPT], *range(len(rows))[KEPT:][-KEPT:]]:
            event: dict[str, Any] = {"line": self.lines[rows[at]], "kind": self._kinds[at]}
            step = None if steps is None else _step_at(steps, rows[at])
            step = self._step if step is None else step
            if step is not None:
                event["step"] = step
            listed.append({**event, "text": texts[at]})
        return listed


def _step_at(steps: Column, row: int) -> int | None:
    """Return the last step that was said before a row, None where there was none."""
    at = row if steps.rows is None else int(np.searchsorted(steps.rows, row, "right")) - 1
    if not 0 <= at < len(steps.values):
        return None
    value = steps.values[at]
    return int(value) if isinstance(value, (int, float)) and value == value else None


def _in_order(parts: list[_Part]) -> Column:
    places = np.concatenate([rows for _, rows in parts])
    values = np.concatenate([values for values, _ in parts])
    if len(parts) > 1 and (places[1:] < places[:-1]).any():
        order = np.argsort(places, kind="stable")
        places, values = places[order], values[order]
    return Column(values, places)


def _epochs_as_steps(columns: dict[str, Column]) -> None:
    """Count in epochs where nothing says the step and the epochs are whole."""
    epoch = columns.get("epoch")
    if epoch is not None and len(epoch.values):
        whole = epoch.values == np.floor(epoch.values)
        if whole.all():
            columns["step"] = epoch
