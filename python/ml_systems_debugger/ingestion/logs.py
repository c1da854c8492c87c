"""`LogIngestor`: measurements and messages in the text that a job printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core import BaseIngestor, IngestionError, SignalSet, UnsupportedFormatError, ingestors
from ._assemble import assemble
from ._bytes import ByteSource, is_bytes_like
from ._events import is_event
from ._lines import ANSI, Parsed, Template, parse_line
from ._numbers import parse_cells
from ._table import Column, LineMap, Table

__all__ = ["LogIngestor"]

_MAX_LINE = 1 << 14
_TEMPLATES = 32
_DOCUMENT = re.compile(rb"\s*[\[{]\s*(?:\n|\[|\{)")
_LOG_NAME = re.compile(r"\.(?:log|out|err|txt|stdout|stderr)(?:\.\d+)?(?:\.gz)?$", re.IGNORECASE)


@ingestors.register("logs")
class LogIngestor(BaseIngestor):
    r"""Reads standard output and log files of training jobs.

    Measurements are ``key=value`` and ``key: value`` pairs, printed dicts, JSON
    objects within a line, and the lines of Megatron-LM, NeMo, DeepSpeed,
    nanoGPT, torchtitan, fairseq, Keras and progress bars. A line counts where
    it says its step or names a loss, an accuracy or a gradient norm. Colours
    are taken out, thousands commas understood, ``[rank3]`` becomes the replica;
    a line that says the same as the one before it is read once.

    Messages of faults (NaN, Inf, overflow, out of memory, NCCL and CUDA errors,
    tracebacks, a killed job) become text signals ``log_event``, at the last
    step seen before them. INFO or ``nano`` are no such words.

    Examples
    --------
    >>> LogIngestor().ingest(b"step 1: loss 2.5\nstep 2: loss nan\n").series
    (<Series loss: 2 values, steps 1 to 2>,)
    """

    def ingest(self, source: Any) -> SignalSet:
        """Read a path, ``-``, bytes or a file object whole.

        Raises
        ------
        UnsupportedFormatError
            If there is neither a measurement nor a message of a fault in it.
        OSError
            If it cannot be opened or read.
        """
        if not is_bytes_like(source):
            raise UnsupportedFormatError("a log is a file or bytes", value=type(source).__name__)
        with ByteSource.of(source) as opened:
            reader = _LogReader(opened)
            for line, text in _lines(opened):
                reader.add(line, text)
            return assemble(reader.table())

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of text with a measurement or a fault in it."""
        if not is_bytes_like(data):
            return False
        try:
            with ByteSource.of(data) as opened:
                return any(parse_line(text) or is_event(text) for _, text in _lines(opened))
        except (OSError, IngestionError):
            return False

    def sniff(self, head: bytes, name: str) -> float:
        """Return how surely this is a log: 0.5 where its head has a measurement in it."""
        if b"\0" in head or _DOCUMENT.match(head) or not head.strip():
            return 0.0
        text = head.decode("utf-8", "replace")
        if text.count("\ufffd") > len(text) // 50 + 4:
            return 0.0
        if any(parse_line(line[:_MAX_LINE]) for line in ANSI.sub("", text).splitlines()):
            return 0.5
        return 0.1 if _LOG_NAME.search(name) else 0.02


def _lines(source: ByteSource) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers; a line that a progress bar wrote over is several."""
    number = 0
    for block in source.line_blocks():
        text = block.decode("utf-8", "replace")
        if "\x1b" in text:
            text = ANSI.sub("", text)
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        for line in lines:
            number += 1
            if "\r" in line:
                for part in line.split("\r"):
                    if part:
                        yield number, part[:_MAX_LINE]
            else:
                yield number, line[:_MAX_LINE]


class _Matched:
    """The lines that one template matched."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.rows: list[int] = []
        self.groups: list[tuple[str, ...]] = []


class _LogReader:
    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.rows = 0
        self.line_of = LineMap()
        self.recent: list[_Matched] = []
        self.all: dict[str, _Matched] = {}
        self.events: tuple[list[int], list[str]] = ([], [])
        self.last = ""
        self.repeated = 0
        self.traceback = False

    def add(self, number: int, line: str) -> None:
        if self.traceback:
            # Indented lines are its frames; the next one says what was raised.
            if line[:1].isspace() or not line:
                return
            self.traceback = False
            self._event(number, line)
            return
        recent = self.recent
        for at, matched in enumerate(recent):
            found = matched.template.match(line)
            if found is not None:
                if at:
                    recent.insert(0, recent.pop(at))
                self._measured(number, line, matched, found.groups())
                return
        if not any(map(str.isdigit, line)) and "=" not in line and ":" not in line:
            parsed = None
        else:
            parsed = parse_line(line)
        if parsed is not None:
            self._learn(number, line, parsed)
        elif is_event(line):
            if line.lstrip().startswith("Traceback (most recent"):
                self.traceback = True
            else:
                self._event(number, line)

    def _learn(self, number: int, line: str, parsed: Parsed) -> None:
        template = Template(line, parsed)
        known = self.all.setdefault(str(template.match.__self__.pattern), _Matched(template))  # type: ignore[attr-defined]
        if known not in self.recent:
            self.recent.insert(0, known)
            del self.recent[_TEMPLATES:]
        groups = tuple(line[field.start : field.end] for field in parsed.fields)
        self._measured(number, line, known, groups)

    def _measured(self, number: int, line: str, matched: _Matched, groups: tuple[str, ...]) -> None:
        if line == self.last:
            self.repeated += 1
            return
        self.last = line
        self.line_of.add(self.rows, number)
        matched.rows.append(self.rows)
        matched.groups.append(groups)
        self.rows += 1

    def _event(self, number: int, line: str) -> None:
        text = line.strip()
        if self.events[1] and self.events[1][-1] == text:
            self.repeated += 1
            return
        self.line_of.add(self.rows, number)
        self.events[0].append(self.rows)
        self.events[1].append(text)
        self.rows += 1

    def table(self) -> Table:
        if not self.rows:
            damage = "; ".join(self.source.damage)
            raise UnsupportedFormatError(
                "text without measurements or messages of faults" + f" ({damage})" * bool(damage),
                source=self.source.name,
            )
        cells: dict[str, tuple[list[int], list[Any]]] = {}
        for matched in self.all.values():
            self._collect(matched, cells)
        columns = {name: _in_order(rows, values) for name, (rows, values) in cells.items()}
        if self.events[0]:
            texts = np.empty(len(self.events[1]), dtype=object)
            texts[:] = self.events[1]
            columns["log_event"] = Column(texts, np.array(self.events[0], np.int64))
        if "step" not in columns and not any(_means_step(name) for name in columns):
            _epochs_as_steps(columns)
        dialects = {m.template.parsed.dialect for m in self.all.values()} - {""}
        metadata: dict[str, Any] = {"format": "log", "dialects": sorted(dialects)}
        if self.repeated:
            metadata["repeated_lines"] = self.repeated
        return Table(
            self.source.name,
            self.rows,
            columns,
            self.line_of,
            list(self.source.damage),
            metadata,
        )

    def _collect(self, matched: _Matched, cells: dict[str, tuple[list[int], list[Any]]]) -> None:
        parsed = matched.template.parsed
        for field, texts in zip(parsed.fields, zip(*matched.groups, strict=True), strict=True):
            rows, values = cells.setdefault(field.name, ([], []))
            if field.name == "timestamp":
                rows += matched.rows
                values += texts
                continue
            numbers, places, _ = parse_cells(texts)
            rows += matched.rows if places is None else [matched.rows[at] for at in places]
            values += (numbers * field.factor).tolist()
        for name, value in parsed.constants:
            rows, values = cells.setdefault(name, ([], []))
            rows += matched.rows
            values += [value] * len(matched.rows)


def _in_order(rows: list[int], values: list[Any]) -> Column:
    places = np.array(rows, np.int64)
    order = np.argsort(places, kind="stable")
    if values and isinstance(values[0], str):
        held: Any = np.empty(len(values), dtype=object)
        held[:] = values
    else:
        held = np.array(values, np.float64)
    return Column(held[order], places[order])


def _means_step(name: str) -> bool:
    from ._table import role_of

    return role_of(name) == "step"


def _epochs_as_steps(columns: dict[str, Column]) -> None:
    """Count in epochs where nothing says the step and the epochs are whole."""
    for name in list(columns):
        values = columns[name].values
        if name.lower() in ("epoch", "epochs") and values.dtype != object:
            if len(values) and np.array_equal(values, np.floor(values)):
                columns["step"] = columns[name]
            return
