"""`LogIngestor`: measurements and messages in the text that a job printed."""

from __future__ import annotations

import re
from typing import Any

from ..core import (
    BaseIngestor,
    BaseStream,
    IngestionError,
    SignalSet,
    UnsupportedFormatError,
    ingestors,
)
from ._assemble import assemble
from ._bytes import ByteSource, is_bytes_like
from ._events import is_event
from ._lines import ANSI, parse_line
from ._log_reader import MAX_LINE, LogReader, lines_of
from ._stream import LineReader, TableStream

__all__ = ["LogIngestor"]

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
            for block in opened.line_blocks():
                reader.feed(block)
            return assemble(reader.table(opened.damage))

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of text with a measurement or a fault in it."""
        if not is_bytes_like(data):
            return False
        try:
            with ByteSource.of(data) as opened:
                lines = (line for block in opened.line_blocks() for _, line in lines_of(block))
                return any(parse_line(line) or is_event(line) for line in lines)
        except (OSError, IngestionError):
            return False

    def sniff(self, head: bytes, name: str) -> float:
        """Return how surely this is a log: 0.5 where its head has a measurement in it."""
        if b"\0" in head or _DOCUMENT.match(head) or not head.strip():
            return 0.0
        text = head.decode("utf-8", "replace")
        if text.count("\ufffd") > len(text) // 50 + 4:
            return 0.0
        if any(parse_line(line[:MAX_LINE]) for line in ANSI.sub("", text).splitlines()):
            return 0.5
        return 0.1 if _LOG_NAME.search(name) else 0.02

    def stream(self, head: bytes, name: str) -> BaseStream:  # noqa: ARG002 - one form
        """Return a reader of such a file piece by piece."""
        return TableStream(lambda n: LineReader(LogReader(n), n), name)
