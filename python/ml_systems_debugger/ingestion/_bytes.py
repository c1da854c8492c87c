"""Bytes of a file, a file object or memory: gunzipped where needed, in bounded blocks."""

from __future__ import annotations

import io
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..core import IngestionError, SchemaError, UnsupportedFormatError

__all__ = ["HEAD_BYTES", "MAX_LINE", "ByteSource", "is_bytes_like"]

HEAD_BYTES = 1 << 16
"""How much of a source is shown to `sniff`."""

_READ = 1 << 18
_BLOCK = 1 << 22
MAX_LINE = 1 << 26
_OTHER_COMPRESSION = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
}


def is_bytes_like(source: object) -> bool:
    """Return whether `source` names or holds bytes: a path, ``-``, bytes, a file object."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or callable(
        getattr(source, "read", None)
    )


class ByteSource:
    """One source of bytes, read once from front to back.

    Parameters
    ----------
    source : path, ``-``, bytes, or file object (binary or text)
        A path is opened and closed here; a file object stays open.
    name : str, optional
        For messages; by default the path or the object's own name.

    Attributes
    ----------
    damage : list of str
        What ended the stream before its end, one sentence each.

    Raises
    ------
    OSError
        If it cannot be opened or read; with the file's name.
    """

    def __init__(self, source: Any, name: str | None = None) -> None:
        self.damage: list[str] = []
        self._owned = False
        self._file: IO[Any]
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._file, self.name = io.BytesIO(source), name or "<bytes>"
        elif source == "-":
            self._file, self.name = sys.stdin.buffer, name or "<stdin>"
        elif isinstance(source, (str, os.PathLike)):
            self.name = name or os.fspath(source)
            self._file = Path(source).open("rb")  # noqa: SIM115 - closed by `close`
            self._owned = True
        else:
            own = getattr(source, "name", None)
            self._file = source
            self.name = name or (own if isinstance(own, str) else f"<{type(source).__name__}>")
        self.compressed = False
        self._raw_bytes = 0
        self._stream: Iterator[bytes] | None = None
        self._held: list[bytes] = []

    @classmethod
    def of(cls, source: Any) -> ByteSource:
        """Return `source` itself if it is one already, else a new one."""
        return source if isinstance(source, ByteSource) else cls(source)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, as a file object does; b"" at the end."""
        parts: list[bytes] = []
        held = 0
        while size < 0 or held < size:
            block = next(self.blocks(), b"")
            if not block:
                break
            parts.append(block)
            held += len(block)
        joined = b"".join(parts)
        if 0 <= size < len(joined):
            self._held.insert(0, joined[size:])
            joined = joined[:size]
        return joined

    def __enter__(self) -> ByteSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened here."""
        if self._owned:
            self._file.close()

    def head(self) -> bytes:
        """Return the first 64 KiB (fewer in a smaller source); nothing is lost by it."""
        held = sum(map(len, self._held))
        while held < HEAD_BYTES:
            block = next(self._opened(), None)
            if block is None:
                break
            self._held.append(block)
            held += len(block)
        self._held = [b"".join(self._held)]
        return self._held[0][:HEAD_BYTES]

    def blocks(self) -> Iterator[bytes]:
        """Yield the rest of the bytes, in pieces of some hundred kilobytes."""
        while self._held:
            yield self._held.pop(0)
        yield from self._opened()

    def line_blocks(self) -> Iterator[bytes]:
        r"""Yield blocks of about 4 MiB that end behind a ``\n``; the last one ends anywhere.

        Raises
        ------
        SchemaError
            For a line longer than 64 MiB: whatever this is, it is no text.
        """
        waiting: list[bytes] = []
        size = offset = 0
        for block in self.blocks():
            waiting.append(block)
            size += len(block)
            if size < _BLOCK:
                continue
            joined = b"".join(waiting)
            cut = joined.rfind(b"\n") + 1
            if cut == 0 and size > MAX_LINE:
                raise SchemaError("a line longer than 64 MiB", source=self.name, offset=offset)
            if cut:
                yield joined[:cut]
                offset += cut
            waiting, size = [joined[cut:]], len(joined) - cut
        if size:
            yield b"".join(waiting)

    def read_all(self, limit: int) -> bytes:
        """Return everything.

        Raises
        ------
        IngestionError
            If it is more than `limit` bytes.
        """
        parts: list[bytes] = []
        size = 0
        for block in self.blocks():
            parts.append(block)
            size += len(block)
            if size > limit:
                raise IngestionError(
                    f"more than {limit >> 20} MiB in one document; write it as JSON lines or CSV",
                    source=self.name,
                )
        return b"".join(parts)

    def _opened(self) -> Iterator[bytes]:
        if self._stream is None:
            self._stream = self._decoded()
        return self._stream

    def _raw(self) -> Iterator[bytes]:
        while True:
            try:
                block = self._file.read(_READ)
            except OSError as error:
                # A device error carries no file name of its own.
                raise OSError(error.errno, error.strerror or str(error), self.name) from error
            if not block:
                return
            data = block.encode("utf-8", "surrogatepass") if isinstance(block, str) else block
            self._raw_bytes += len(data)
            yield data

    def _decoded(self) -> Iterator[bytes]:
        raw = self._raw()
        first = next(raw, b"")
        if first[:2] == b"\x1f\x8b":
            self.compressed = True
            yield from self._inflated(first, raw)
            return
        for magic, what in _OTHER_COMPRESSION.items():
            if first.startswith(magic):
                raise UnsupportedFormatError(
                    f"{what} compression is not supported; decompress it first (gzip is read)",
                    source=self.name,
                )
        if first:
            yield first
        yield from raw

    def _inflated(self, first: bytes, raw: Iterator[bytes]) -> Iterator[bytes]:
        """Yield what a gzip stream of one or more members holds, up to any damage."""
        engine = zlib.decompressobj(wbits=31)
        given = 0
        pending = first
        while True:
            if not pending:
                pending = next(raw, b"")
                if not pending:
                    while not engine.eof and (block := engine.decompress(b"", _BLOCK)):
                        given += len(block)  # what the engine held back for its size
                        yield block
                    if not engine.eof:
                        self.damage.append(
                            f"{self.name}: the gzip stream is cut off at byte {self._raw_bytes}; "
                            f"the {given} bytes before it were read"
                        )
                    return
            if engine.eof:
                pending = pending.lstrip(b"\0")  # padding between members and at the end
                if not pending:
                    continue
                engine = zlib.decompressobj(wbits=31)
            try:
                block = engine.decompress(pending, _BLOCK)
            except zlib.error as error:
                at = self._raw_bytes - len(pending)
                self.damage.append(
                    f"{self.name}: damaged gzip data behind byte {at} ({error}); "
                    f"the {given} bytes before it were read"
                )
                return
            pending = engine.unused_data if engine.eof else engine.unconsumed_tail
            if block:
                given += len(block)
                yield block
