"""A compressed archive member, inflated from its start to its end."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

from ..core import SchemaError
from ..core.shown import shown
from ..kernels import crc32
from ._source import Folder

__all__ = ["Inflated"]


@dataclass(slots=True)
class Inflated:
    """A deflated archive member, read from its start to its end.

    It keeps the decompressor between calls of `read`, and never makes more
    than the declared number of bytes. `crc` is that of all of them, 0 where it is not known.
    """

    file: str
    offset: int
    stored: int
    size: int
    skip: int
    sequential: bool = True
    crc: int = 0
    _engine: Any = field(default=None, repr=False)
    _taken: int = 0
    _made: int = 0
    _rest: bytes = b""
    _crc: int = 0

    @property
    def stored_bytes(self) -> int:
        """Compressed bytes."""
        return self.stored

    def read(self, folder: Folder, start: int, out: memoryview) -> None:
        """Fill `out` from byte `start` on; `start` 0 begins anew."""
        if start == 0 or self._engine is None:
            self._engine, self._taken, self._made, self._rest = zlib.decompressobj(-15), 0, 0, b""
            self._crc = 0
            self._discard(folder, self.skip + start)
        elif self._made != self.skip + start:
            raise ValueError(f"read out of order: at {self._made - self.skip}, asked for {start}")
        done = 0
        while done < len(out):
            part = self._more(folder, len(out) - done)
            out[done : done + len(part)] = part
            done += len(part)

    def _discard(self, folder: Folder, count: int) -> None:
        while count:
            count -= len(self._more(folder, min(count, 1 << 20)))

    def _more(self, folder: Folder, limit: int) -> bytes:
        while True:
            if not self._rest and self._taken < self.stored:
                count = min(1 << 18, self.stored - self._taken)
                raw = bytearray(count)
                with folder.lent(self.file) as source:
                    source.read_into(self.offset + self._taken, memoryview(raw))
                self._taken += count
                self._rest = bytes(raw)
            try:
                part: bytes = self._engine.decompress(self._rest, limit)
            except zlib.error as error:
                raise SchemaError(
                    f"compressed data are damaged: {error}", source=shown(self.file),
                    offset=self.offset + self._taken,
                ) from error  # fmt: skip
            self._rest = self._engine.unconsumed_tail
            if part:
                self._made += len(part)
                if self.crc:
                    self._crc = crc32(part, self._crc)
                    if self._made == self.size and self._crc != self.crc:
                        raise SchemaError(
                            f"compressed data are damaged: their CRC-32 is {self._crc:08x}, and "
                            f"{self.crc:08x} was written",
                            source=shown(self.file), offset=self.offset,
                        )  # fmt: skip
                return part
            if self._engine.eof or (not self._rest and self._taken >= self.stored):
                raise SchemaError(
                    f"compressed data end after {self._made} of {self.size} bytes",
                    source=shown(self.file), offset=self.offset,
                )  # fmt: skip
