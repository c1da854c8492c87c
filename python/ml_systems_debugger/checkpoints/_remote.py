"""Files behind a URL: paths, and sources that read them in few and large ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from ._checksums import Checksums
from ._place import without_secrets
from ._source import STRETCH, Source
from ._store import Store

__all__ = ["RemotePath", "RemoteSource"]

_SMALL = 256 << 10


class RemotePath:
    """A file or a folder behind a URL, with the part of `pathlib.Path` that formats need.

    Parameters
    ----------
    store : Store
    key : str
        As the filesystem writes it.
    """

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = key
        pure = PurePosixPath(key)
        self.name, self.stem, self.suffix = pure.name, pure.stem, pure.suffix

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any]) -> RemotePath:
        """Return the path of a URL."""
        store = Store(url, options)
        return cls(store, without_secrets(store.root).rstrip("/") or "/")

    def __str__(self) -> str:
        return self.store.url(self.key)

    @property
    def parent(self) -> RemotePath:
        """The folder that it lies in."""
        return RemotePath(self.store, self.key.rpartition("/")[0])

    def __truediv__(self, name: str) -> RemotePath:
        """Return the path of something inside it."""
        return RemotePath(self.store, f"{self.key.rstrip('/')}/{name}")

    def is_dir(self) -> bool:
        """Return whether it is a folder; over http nothing is."""
        return self.store.lists and self._kind() == "directory"

    def is_file(self) -> bool:
        """Return whether it is a file."""
        return self._kind() == "file"

    def is_symlink(self) -> bool:
        """Return False: object stores know no links."""
        return False

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield what a folder holds."""
        for name, _ in self.store.list(self.key):
            yield self / name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield what in the folder itself matches a pattern; nothing where none can be listed."""
        if self.store.lists:
            for name, _ in self.store.list(self.key):
                if fnmatchcase(name, pattern):
                    yield self / name

    def files_below(self, depth: int) -> Iterator[RemotePath]:
        """Yield the files below a folder, in the order of their names."""
        for name, folder in self.store.list(self.key):
            if not folder:
                yield self / name
            elif depth > 1:
                yield from (self / name).files_below(depth - 1)

    def _kind(self) -> str:
        try:
            return str(self.store.info(self.key).get("type", "file"))
        except FileNotFoundError:
            return ""


class RemoteSource(Source):
    """One file behind a URL.

    Small reads fetch a little more and keep it, for headers; reads that follow
    one another fetch ever more ahead, up to `STRETCH`; what is announced with
    `expect` is fetched in one request.
    """

    in_pieces = False

    def __init__(self, path: RemotePath, *, fresh: bool = False) -> None:
        # Not Source's own constructor: there is no descriptor here.
        self.name = self.key = str(path)
        self.checksums = Checksums()
        self.path = path
        self.identity = path.store.identity(path.key, fresh=fresh)
        self.size = path.store.size(path.key)
        self._window: tuple[int, bytes] = (0, b"")
        self._expected = (0, 0)
        self._next = -1
        self._ahead = 0

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` from `offset`."""
        count, store, key = len(out), self.path.store, self.path.key
        stop = offset + count
        if not count:
            return
        begin, data = self._window
        if begin <= offset and stop <= begin + len(data):
            out[:] = memoryview(data)[offset - begin : stop - begin]
        elif (held := store.kept(key, offset, stop)) is not None:
            out[:] = held
        else:
            end = self._end(offset, stop)
            self._window = (0, b"")  # let go before as much again is fetched
            data = store.fetch(key, offset, end)
            out[:] = memoryview(data)[:count]
            if end > stop:
                if end - offset <= _SMALL:
                    store.keep(key, offset, data)
                else:
                    self._window = (offset, data)
        self._next = stop

    def _end(self, offset: int, stop: int) -> int:
        """Return how far to fetch for ``[offset, stop)``."""
        if self._expected[0] <= offset and stop <= self._expected[1]:
            return max(stop, min(self._expected[1], offset + STRETCH))
        following = offset == self._next
        self._ahead = min(max(2 * self._ahead, _SMALL), STRETCH) if following else 0
        if stop > self.size:
            return stop  # so that the store says what is missing
        return max(stop, min(self.size, offset + max(_SMALL, self._ahead)))

    def expect(self, start: int, stop: int) -> None:
        """Say that this range will be read, from its start to its end."""
        self._expected = (start, stop)

    def prefetch(self, places: Iterable[tuple[int, int]]) -> None:
        """Fetch many small ranges at once, inside the file."""
        inside = ((max(0, a), min(b, self.size)) for a, b in places)
        self.path.store.prefetch(self.path.key, [(a, b) for a, b in inside if a < b])

    def close(self) -> None:
        """Let go of what was fetched."""
        self._window = (0, b"")
