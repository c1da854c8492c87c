"""Files of a checkpoint: opened inside one folder, read in place, watched for change."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Container, Iterable, Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from ..core import SchemaError
from ..core.shown import shown
from ..kernels import measure_file
from ._changed import ChangedError
from ._checksums import Checksums, Part
from ._place import Place

__all__ = ["STRETCH", "ChangedError", "Folder", "Source", "open_source"]

STRETCH = 8 << 20
"""Bytes of one request to a server, for data that lie together; a thread holds three times it."""


class Source:
    """One open file of known size.

    Parameters
    ----------
    path : Path
    name : str
        For messages.
    """

    in_pieces: ClassVar[bool] = True
    """Whether its bytes come from a descriptor, where `measured` may read them piece by piece."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = shown(name)
        self.key = name
        self.checksums = Checksums()
        # O_NONBLOCK: a named pipe in a folder must not block the scan; fstat then refuses it.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        state = os.fstat(self._fd)
        if not stat.S_ISREG(state.st_mode):
            os.close(self._fd)
            raise SchemaError("not a regular file", source=self.name)
        self.size = state.st_size
        self.identity: tuple[object, ...] = (
            state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
        )  # fmt: skip

    def read(self, offset: int, count: int, what: str) -> bytes:
        """Return exactly `count` bytes from `offset`; `what` is named where the file ends before.

        Raises
        ------
        SchemaError
            Where they do not lie inside the file.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise SchemaError(
                f"{what} does not lie inside the file of {self.size} bytes",
                source=self.name, offset=offset, value=count,
            )  # fmt: skip
        out = bytearray(count)
        self.read_into(offset, memoryview(out))
        return bytes(out)

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` from `offset`.

        Raises
        ------
        ChangedError
            Where the file ends before, though its size once said otherwise.
        """
        done = 0
        while done < len(out):
            got = os.preadv(self._fd, [out[done:]], offset + done)
            if got == 0:
                self._changed(offset + done)
            done += got

    def _changed(self, offset: int) -> NoReturn:
        raise ChangedError(
            f"ends here now; it was {self.size} bytes long when it was opened, so it was "
            f"changed while it was read",
            source=self.name, offset=offset,
        )  # fmt: skip

    def view(self, offset: int, count: int) -> memoryview | None:  # noqa: ARG002 - the contract's
        """Return those bytes in place where this source has them in memory, else None."""
        return None

    def measured(
        self,
        offset: int,
        size: int,
        span: npt.NDArray[np.void],
        buffer: bytearray,
        row: npt.NDArray[np.void],
    ) -> bool:
        """Write the row of a block of `size` bytes that is read in pieces, into the cache alone.

        False where the block has to be seen whole, or cannot be read in this way.

        Raises
        ------
        ChangedError
            Where the file ends before it.
        """
        if not self.in_pieces:
            return False
        crc = np.zeros(1, np.uint32) if self.checksums.wanted(self.key) else None
        code = measure_file(self._fd, offset, span, buffer, row, crc)
        if code < 0:
            raise OSError(-code, os.strerror(-code), self.name)
        if code == 2:
            self._changed(offset)
        if code == 0 and crc is not None:
            self.checksums.add(self.key, Part(offset, offset + size, int(crc[0])))
        return code == 0

    def expect(self, start: int, stop: int) -> None:
        """Say that this range will be read, from its start to its end; remote ones fetch it."""

    def prefetch(self, places: Iterable[tuple[int, int]]) -> None:
        """Say that these small ranges will be read; remote sources fetch them at once."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_source(path: Place, name: str, *, fresh: bool = False, access: str = "pread") -> Source:
    """Open a file wherever it lies.

    Parameters
    ----------
    path : Place
    name : str
        For messages; a remote one is named by its URL.
    fresh : bool
        Ask a server anew which version of the file it has.
    access : str
        How local files are read: ``pread``, ``direct`` or ``mmap``.
    """
    if isinstance(path, Path):
        if access == "pread":
            return Source(path, name)
        from ._access import DirectSource, MappedSource

        return (DirectSource if access == "direct" else MappedSource)(path, name)
    from ._remote import RemotePath, RemoteSource

    if isinstance(path, RemotePath):
        return RemoteSource(path, fresh=fresh)
    raise TypeError(f"no path: {path!r}")


class Folder:
    """The folder that a checkpoint's files must lie in.

    Parameters
    ----------
    root : Place
    follow_links : bool
        Let links lead out of it.
    trusted : container of str
        Names that the user gave, which may be links.
    access : str
        How files are read, as for `open_source`.
    """

    def __init__(
        self,
        root: Place,
        *,
        follow_links: bool = False,
        trusted: Container[str] = (),
        access: str = "pread",
    ) -> None:
        self.root = root
        self.follow_links = follow_links
        self.trusted = trusted
        self.access = access
        self.remote = not isinstance(root, Path)
        self._identities: dict[str, tuple[object, ...]] = {}
        self._sizes: dict[str, int] = {}
        self.checksums = Checksums()
        self._local = threading.local()

    def path(self, name: str, said_by: str = "") -> Place:
        """Return the path of a file inside the folder.

        Raises
        ------
        SchemaError
            For an absolute path, ``..``, a NUL, or a link that leads out.
        """
        pure = PurePosixPath(name)
        if not name or "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
            raise SchemaError(
                "a path that is not plainly inside the checkpoint's folder",
                source=said_by or None, value=shown(name),
            )  # fmt: skip
        if self.remote and name not in self.trusted and str(self.root).startswith("http"):
            strange = sorted(set(name) & set("?#%"))
            if strange:
                raise SchemaError(
                    f"a name with {strange[0]!r}, which a URL reads as something else",
                    source=said_by or None, value=shown(name),
                )  # fmt: skip
        path = self.root / name
        local = isinstance(path, Path) and isinstance(self.root, Path)
        if local and not self.follow_links and name not in self.trusted:
            real, base = os.path.realpath(str(path)), os.path.realpath(str(self.root))
            if os.path.commonpath([real, base]) != base:
                raise SchemaError(
                    "a link that leads out of the checkpoint's folder; follow_links allows it",
                    source=said_by or None, value=shown(name),
                )  # fmt: skip
        return path

    def exists(self, name: str, said_by: str = "") -> bool:
        """Return whether that file is there."""
        return self.path(name, said_by).is_file()

    def open(self, name: str, said_by: str = "", *, fresh: bool = False) -> Source:
        """Open a file; `fresh` asks a server anew which version it has.

        Raises
        ------
        ChangedError
            Where it is not what it was when it was first opened.
        """
        source = open_source(self.path(name, said_by), name, fresh=fresh, access=self.access)
        source.key, source.checksums = name, self.checksums
        known = self._identities.setdefault(name, source.identity)
        self._sizes.setdefault(name, source.size)
        if known != source.identity:
            source.close()
            raise ChangedError("was changed or replaced while it was read", source=source.name)
        return source

    @contextlib.contextmanager
    def lent(self, name: str) -> Iterator[Source]:
        """Lend this thread's open file of that name: it stays open until another is asked for."""
        held: tuple[str, Source] | None = getattr(self._local, "held", None)
        if held is None or held[0] != name:
            if held is not None:
                held[1].close()
                self._local.held = None
            held = (name, self.open(name))
            self._local.held = held
        yield held[1]

    def release(self) -> None:
        """Close what this thread holds open."""
        held = getattr(self._local, "held", None)
        if held is not None:
            held[1].close()
            self._local.held = None

    def check_unchanged(self) -> list[str]:
        """Return one sentence for each file that is not what it was."""
        changed = []
        for name in self._identities:
            try:
                self.open(name, fresh=True).close()
            except FileNotFoundError:  # noqa: PERF203 - every file is looked at
                changed.append(f"{shown(name)}: was removed while it was read")
            except ChangedError as error:
                changed.append(str(error))
            except OSError as error:
                reason = error.strerror or error
                changed.append(f"{shown(name)}: whether it changed cannot be seen: {reason}")
        return changed

    def sizes(self) -> dict[str, int]:
        """Return the size of every file that was opened."""
        return dict(self._sizes)
