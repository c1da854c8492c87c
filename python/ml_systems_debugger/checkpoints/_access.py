"""Other ways to the bytes of a local file: past the page cache, and mapped into memory."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from pathlib import Path

from ..core import UnsupportedFormatError
from ._source import Source

__all__ = ["DirectSource", "MappedSource"]

_ALIGNMENT = 4096
_SMALL = 256 << 10


class DirectSource(Source):
    """Reads large parts past the page cache (O_DIRECT), small ones as ever.

    For files that are looked at once and are larger than memory: the page cache keeps what it
    held. Direct reads want aligned places, so each source has a buffer that is.
    """

    in_pieces = False

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self._room: mmap.mmap | None = None
        try:
            self._direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
            if not hasattr(os, "O_DIRECT"):
                os.close(self._direct)
                raise OSError(errno.EINVAL, "")
        except OSError as error:
            super().close()
            if error.errno != errno.EINVAL:
                raise
            raise UnsupportedFormatError(
                "the filesystem cannot read it directly; leave --direct out", source=self.name
            ) from error
        if os.fstat(self._direct).st_ino != self.identity[1]:
            self.close()
            self._changed(0)

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` from `offset`."""
        if len(out) < _SMALL:
            super().read_into(offset, out)
            return
        begin = offset // _ALIGNMENT * _ALIGNMENT
        need = -(-(offset + len(out) - begin) // _ALIGNMENT) * _ALIGNMENT
        if self._room is None or len(self._room) < need:
            self._room = mmap.mmap(-1, need)
        done, wanted = 0, offset - begin + len(out)
        with memoryview(self._room) as room:
            while done < wanted:
                got = os.preadv(self._direct, [room[done:need]], begin + done)
                done += got
                # Only the end of the file is no multiple of the alignment.
                if got == 0 or (done < wanted and done % _ALIGNMENT):
                    self._changed(begin + done)
            out[:] = room[offset - begin : wanted]

    def close(self) -> None:
        """Close the file."""
        super().close()
        os.close(self._direct)
        if self._room is not None:
            self._room.close()


class MappedSource(Source):
    """Shows the file where the page cache has it, without a copy.

    A file that is cut while it is mapped ends the process with SIGBUS: for files that nobody
    writes.
    """

    in_pieces = False

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self._map = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ) if self.size else None

    def view(self, offset: int, count: int) -> memoryview | None:
        """Return those bytes in place."""
        if self._map is None or offset + count > self.size:
            return None
        return memoryview(self._map)[offset : offset + count]

    def close(self) -> None:
        """Close the file; what is still being looked at goes with its last view."""
        super().close()
        if self._map is not None:
            with contextlib.suppress(BufferError):
                self._map.close()
