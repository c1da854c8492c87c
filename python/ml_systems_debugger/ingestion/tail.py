"""`Tail`: what is new in a file that a job still writes. `read_pieces`: a large file in parts."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..core import BaseStream, SignalSet, UnsupportedFormatError
from ._bytes import HEAD_BYTES, ByteSource
from .source import best_ingestor, refusal
from .tensorboard import event_files

__all__ = ["PIECE_BYTES", "Tail", "read_pieces"]

PIECE_BYTES = 1 << 25
_SURE = 0.2


def read_pieces(
    source: Any, *, mapping: Mapping[str, str] | None = None, piece_bytes: int = PIECE_BYTES
) -> Iterator[SignalSet]:
    """Read a source of any size in pieces of closed steps, in bounded memory.

    Parameters
    ----------
    source : path, ``-``, bytes or file object
        CSV, JSON lines, a log, a TensorBoard event file or a W&B run file;
        gzip is understood.
    mapping : mapping of str to str, optional
        Column name to the name it should be read under (CSV and JSON lines).
    piece_bytes : int
        How much is read for one piece.

    Yields
    ------
    SignalSet
        Consecutive parts of the history. The last carries the metadata of the
        whole, and what could not be read.

    Raises
    ------
    UnsupportedFormatError
        Where nobody reads it, or only whole.
    IngestionError
        Where it breaks its format's rules; with file, place and value.
    OSError
        Where it cannot be opened or read.
    """
    with ByteSource.of(source) as opened:
        stream = _stream_of(opened.head(), opened, mapping)
        size = 0
        for block in opened.blocks():
            for start in range(0, len(block), piece_bytes):
                piece = block[start : start + piece_bytes]
                stream.feed(piece)
                size += len(piece)
                if size >= piece_bytes:
                    yield stream.take()
                    size = 0
        yield stream.finish(opened.damage)


class Tail:
    """Follows a run that is still being written: each call reads what is new, and no more.

    Of a file, of standard input (``-``) or of a folder of TensorBoard event
    files, to which a restarted job adds one. A file that becomes shorter, or is
    another one than before, is read anew, as a restart of the same run.
    A file that is not there yet is waited for.

    Parameters
    ----------
    path : path or ``-``
    mapping : mapping of str to str, optional
        Column name to the name it should be read under (CSV and JSON lines).
    piece_bytes : int
        How much is read at a time.

    Attributes
    ----------
    position : int
        Bytes read so far.
    ended : bool
        Whether standard input was closed: nothing can follow.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> _ = file.write_text('{"step": 1, "loss": 2.5}' + chr(10))
    >>> tail = Tail(file)
    >>> len(tail.read())  # step 1 may still grow
    0
    >>> with file.open("a") as job:
    ...     _ = job.write('{"step": 2, "loss": 2.0}' + chr(10))
    >>> tail.read().series
    (<Series loss: 1 values, steps 1 to 1>,)
    >>> tail.finish().series
    (<Series loss: 1 values, steps 2 to 2>,)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mapping: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self.path = os.fspath(path)
        self.position = 0
        self._mapping = mapping
        self._piece_bytes = piece_bytes
        self._file: BinaryIO | None = None
        self._name = self.path
        self._head = b""
        self._stream: BaseStream | None = None
        self._moved = False
        self.ended = False

    def read(self) -> SignalSet:
        """Return the closed steps that are new, of at most one piece; empty where none are.

        Raises
        ------
        UnsupportedFormatError
            Where the file is of a kind that is not written line by line.
        IngestionError, OSError
            As for `open_source`.
        """
        if self._file is None:
            self._file = self._opened()
        if self._file is None:
            return SignalSet()
        data = self._next(self._file)
        self._moved = not data and self._moved_on(self._file)
        if self._moved and self._stream is not None:
            return self._stream.begin_anew(self._name)
        if not data:
            return SignalSet()
        self.position += len(data)
        if self._stream is None:
            data = self._head + data
            self._stream = self._begun(data)
            if self._stream is None:
                self._head = data
                return SignalSet()
            self._head = b""
        self._stream.feed(data)
        return self._stream.take()

    def caught_up(self) -> bool:
        """Whether everything that is in the file now was read."""
        if self._file is None or self.path == "-":
            return self.ended or self._file is None
        return os.fstat(self._file.fileno()).st_size <= self._file.tell()

    def finish(self) -> SignalSet:
        """Read what is left; return it with metadata and unread parts of the whole.

        Raises
        ------
        IngestionError
            Where there is nothing in the file, or nothing that is understood.
        """
        with self:
            parts = []
            while True:
                before = self.position
                parts.append(self.read())
                if self.position == before and not self._moved:
                    break
            if self._stream is None:
                if self._file is None:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
                with ByteSource(self._head, name=self._name) as opened:
                    self._stream = _stream_of(opened.head(), opened, self._mapping)
                self._stream.feed(self._head)
            return SignalSet.concatenate([*parts, self._stream.finish()])

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None and self.path != "-":
            self._file.close()
        self._file = None

    def _opened(self) -> BinaryIO | None:
        """Open the file, or the first of the folder; None where the job has not begun yet."""
        if self.path == "-":
            self._name = "<stdin>"
            return sys.stdin.buffer
        place = Path(self.path)
        if place.is_dir():
            files = event_files(place)
            if not files:
                if any(place.iterdir()):
                    raise UnsupportedFormatError(
                        "only a folder of TensorBoard event files can be followed; name a file",
                        source=self.path,
                    )
                return None
            place = files[0]
        self._name = os.fspath(place)
        try:
            return place.open("rb")
        except FileNotFoundError:
            return None

    def _next(self, file: BinaryIO) -> bytes:
        if self.path != "-":
            return file.read(self._piece_bytes)
        # As much as there is: a pipe must not be waited on until it is full.
        data = os.read(file.fileno(), self._piece_bytes)
        self.ended = not data
        return data

    def _begun(self, head: bytes) -> BaseStream | None:
        """Return who reads this; None where too little of it is there to say."""
        name = os.path.basename(self._name)  # noqa: PTH119 - may be no path at all
        ingestor = best_ingestor(head[:HEAD_BYTES], name, self._mapping)
        whole_line = b"\n" in head or b"\0" in head
        sure = ingestor is not None and ingestor.sniff(head[:HEAD_BYTES], name) >= _SURE
        if not (whole_line and sure) and len(head) < HEAD_BYTES:
            return None
        with ByteSource(head, name=self._name) as opened:
            return _stream_of(head[:HEAD_BYTES], opened, self._mapping)

    def _moved_on(self, file: BinaryIO) -> bool:
        """Open the next file, where there is one: True if what follows is of another file."""
        if self.path == "-":
            return False
        place, current = Path(self.path), Path(self._name)
        if place.is_dir():
            files = event_files(place)
            later = [file for file in files if file.name > current.name]
            if not later:
                return False
            current = later[0]
        else:
            try:
                now = place.stat()
            except FileNotFoundError:
                return False  # being replaced
            same = os.path.samestat(now, os.fstat(file.fileno()))
            if same and now.st_size >= file.tell():
                return False
        file.close()
        self._file, self._name, self._head = current.open("rb"), os.fspath(current), b""
        return True


def _stream_of(head: bytes, opened: ByteSource, mapping: Mapping[str, str] | None) -> BaseStream:
    name = os.path.basename(opened.name)  # noqa: PTH119 - may be no path at all
    ingestor = best_ingestor(head, name, mapping)
    if ingestor is None:
        raise refusal(head, opened)
    stream = ingestor.stream(head, opened.name)
    if stream is None:
        raise UnsupportedFormatError(
            f"a file that the {ingestor.name} ingestor reads whole; it cannot be read in pieces",
            source=opened.name,
        )
    return stream
