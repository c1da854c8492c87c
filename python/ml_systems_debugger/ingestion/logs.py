"""`LogIngestor`: measurements and messages in the text that a job printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..core import BaseIngestor, IngestionError, SignalSet, UnsupportedFormatError, ingestors
from ._assemble import assemble
from ._bytes import ByteSource, is_bytes_like
from ._events import is_event
from ._lines import ANSI, parse_line
from ._log_reader import LogReader

__all__ = ["LogIngestor"]

_MAX_LINE = 1 << 14
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
    step seen before them, with what they are in ``log_event_kind``; a traceback
    is one, with the innermost frame of one's own code. The metadata lists them
    with line, step and kind (``log_events``), and counts them by kind. What they
    state becomes measurements: the sizes of an allocation that failed, the number
    of a collective that timed out. INFO or ``nano`` are no such words.

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
            reader = LogReader(opened.name)
            add = reader.add
            for line, text in _lines(opened):
                add(line, text)
            if not reader.lines:
                damage = f" ({'; '.join(opened.damage)})" if opened.damage else ""
                raise UnsupportedFormatError(
                    f"text without measurements or messages of faults{damage}", source=opened.name
                )
            table = reader.table()
            table.unread += opened.damage
            return assemble(table)

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
