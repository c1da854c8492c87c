"""The events of a Chrome trace one batch at a time: the file is never held whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..core import SchemaError
from ._bytes import ByteSource
from ._table import counted

__all__ = ["TraceStream"]

_DECODER = json.JSONDecoder(strict=False)  # names with raw control characters occur
_BETWEEN = re.compile(r"\}\s*,\s*\{")
_SPACE = re.compile(r"[\s,]*")
_BATCH = 1 << 21
_LONGEST = 1 << 24
"""An event or a member longer than this is no part of a trace."""
_SEARCHED = 1 << 16
_SHOWN = 5
_MOST_BAD = 1000
"""Events that are no JSON before the rest is given up."""
_FEW = 4096
_NEAR = 64

Event = dict[str, Any]


class TraceStream:
    """Reads ``{"traceEvents": [...], ...}``, or a bare list of events, front to back.

    Parameters
    ----------
    source : ByteSource

    Attributes
    ----------
    members : dict
        What stands beside the events; complete only when they have been read.
    unread : list of str
        Damage: events that are no JSON, a trace that is cut off.
    """

    def __init__(self, source: ByteSource) -> None:
        self.members: dict[str, Any] = {}
        self.unread: list[str] = []
        self._source = source
        self._blocks = source.blocks()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self._at = 0
        self._gone = 0
        self._ended = False
        self._bad = 0
        self._places: list[str] = []

    def events(self) -> Iterator[list[Event]]:
        """Yield the events in batches.

        Raises
        ------
        SchemaError
            If it is neither an object nor a list of events.
        """
        first = self._peek()
        if first == "[":
            self._at += 1
            yield from self._batches()
        elif first == "{":
            self._at += 1
            yield from self._object()
        else:
            raise SchemaError(
                "no trace: neither an object nor a list", source=self._source.name, value=first
            )
        if self._bad:
            more = f" and {self._bad - _SHOWN} more" if self._bad > _SHOWN else ""
            self.unread.append(
                f"{self._source.name}: {counted(self._bad, 'event')} no valid JSON, not read: "
                f"at character {', '.join(self._places)}{more}"
            )
        self.unread += self._source.damage

    def _object(self) -> Iterator[list[Event]]:
        while (mark := self._peek()) == '"':
            key = self._value()
            if key is None or self._peek() != ":":
                break
            self._at += 1
            if key[0] == "traceEvents" and self._peek() == "[":
                self._at += 1
                yield from self._batches()
                continue
            value = self._value()
            if value is None:
                break
            self.members.setdefault(str(key[0]), value[0])
        else:
            if mark == "}":
                return
        self._cut_off()

    def _cut_off(self) -> None:
        self.unread.append(
            f"{self._source.name}: the trace is cut off or damaged at character "
            f"{self._gone + self._at}; what stands before was read"
        )

    def _batches(self) -> Iterator[list[Event]]:
        """Yield what stands up to the closing bracket, most often by one call for many events."""
        while True:
            self._fill(_BATCH)
            found = None
            cut = self._last_boundary()
            if cut:
                # It fails where the boundary lies within an event, or an event is no JSON.
                with suppress(ValueError, RecursionError):
                    found = _DECODER.decode(f"[{self._text[self._at : cut]}]")
            if found is not None:
                self._at = cut
                yield [event for event in found if isinstance(event, dict)]
                self._skip()
                continue
            batch, more = self._one_by_one()
            if batch:
                yield batch
            if not more:
                return

    def _last_boundary(self) -> int:
        """Return where the last event of a batch ends that another one follows, 0 for nowhere."""
        stop = min(len(self._text), self._at + _BATCH)
        found = 0
        for match in _BETWEEN.finditer(self._text, max(self._at, stop - _SEARCHED), stop):
            found = match.start() + 1
        return found

    def _one_by_one(self) -> tuple[list[Event], bool]:
        """Return some events, and whether the list goes on behind them."""
        batch: list[Event] = []
        while len(batch) < _FEW:
            mark = self._peek()
            if mark == "]":
                self._at += 1
                return batch, False
            if not mark:
                self._cut_off()
                return batch, False
            value = self._value()
            if value is None:
                following = _BETWEEN.search(self._text, self._at)
                if following is None or self._bad >= _MOST_BAD:
                    self._cut_off()
                    return batch, False
                self._bad += 1
                if self._bad <= _SHOWN:
                    self._places.append(str(self._gone + self._at))
                self._at = following.start() + 1
            elif isinstance(value[0], dict):
                batch.append(value[0])
        return batch, True

    def _value(self) -> tuple[Any] | None:
        """Return the next value, None where there is none; reads on until it is complete."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                return None
            except json.JSONDecodeError as error:
                # Far from the end, what is wrong is not that something lacks.
                if error.pos < len(self._text) - _NEAR and "Unterminated" not in error.msg:
                    return None
            except ValueError:  # a whole number of thousands of digits
                return None
            else:
                # A number at the very end of the text at hand may go on.
                if end < len(self._text) or self._ended:
                    self._at = end
                    return (value,)
            held = len(self._text) - self._at
            if self._ended or held > _LONGEST:
                return None
            self._fill(held + _BATCH)

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _peek(self) -> str:
        """Return the next character that is no space or comma, "" at the end."""
        while True:
            self._skip()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._fill(_BATCH)

    def _fill(self, size: int) -> None:
        """Have `size` characters ahead, or all there are."""
        held = len(self._text) - self._at
        if held >= size or self._ended:
            return
        parts = [self._text[self._at :]]
        self._gone += self._at
        self._at = 0
        while held < size:
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
                parts.append(self._decode(b"", True))
                break
            text = self._decode(block)
            if self._gone == 0 and held == 0:
                text = text.removeprefix("\ufeff")
            parts.append(text)
            held += len(text)
        self._text = "".join(parts)
