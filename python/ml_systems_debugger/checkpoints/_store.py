"""A filesystem behind a URL: byte ranges fetched through fsspec, retried, watched for change."""

from __future__ import annotations

import errno
import re
import threading
import time
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..core import ConfigurationError, MissingDependencyError, UnsupportedFormatError
from ..core.shown import shown
from ._changed import ChangedError
from ._place import without_secrets

__all__ = ["Store"]

_ATTEMPTS = 4
_FIRST_PAUSE = 0.15  # seconds; doubled after each attempt
_KEPT_BYTES = 48 << 20
_GAP = 64 << 10
_LONGEST = 4 << 20
_STREAMS = 8
# Names under which filesystems say which version of an object this is, the surest first.
_VERSIONS = (
    "ETag", "etag", "generation", "md5Hash", "Content-MD5", "LastModified", "Last-Modified",
    "last_modified", "updated", "mtime", "modified", "created",
)  # fmt: skip
# How stores say that an object is no longer the one that was asked for. A number alone is not
# enough: a port or a name may hold it.
_EXPIRED = re.compile(r"FileExpired|\(412\)|Precondition ?Failed", re.IGNORECASE)
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_EXTRAS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp",
           "https": "aiohttp", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}  # fmt: skip


class Store:
    """One filesystem and what is known of the files that were asked for.

    Parameters
    ----------
    url : str
    options : mapping
        Passed to the filesystem; credentials otherwise come from the environment.

    Attributes
    ----------
    root : str
        The URL's path as the filesystem writes it.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        scheme = re.split(r"::|://", url, maxsplit=1)[0].lower()
        try:
            import fsspec  # type: ignore[import-untyped,unused-ignore]
        except ImportError as error:
            raise _missing(scheme, "fsspec", url) from error
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            raise _missing(scheme, _EXTRAS.get(scheme, "its package"), url) from error
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{shown(without_secrets(url), 500)}: {error}") from error
        self.lists = scheme not in ("http", "https")
        self._secret = {without_secrets(self.root): self.root}
        self._lock = threading.Lock()
        self._infos: dict[str, dict[str, Any]] = {}
        self._handles: dict[str, list[Any]] = {}
        self._kept: dict[str, list[tuple[int, bytes]]] = {}
        self._kept_bytes = 0

    def url(self, key: str) -> str:
        """Return how a file is named in messages."""
        return shown(without_secrets(str(self.fs.unstrip_protocol(key))), 500)

    def info(self, key: str, *, fresh: bool = False) -> dict[str, Any]:
        """Return what the filesystem says of a file or a folder.

        Raises
        ------
        OSError
            Where it is not there, may not be seen, or cannot be reached; with the URL.
        """
        with self._lock:
            known = self._infos.get(key)
        if known is not None and not fresh:
            return known
        self.fs.invalidate_cache()
        info: dict[str, Any] = dict(self._tried(key, lambda: self.fs.info(self._real(key))))
        if not fresh:
            with self._lock:
                self._infos.setdefault(key, info)
        return info

    def size(self, key: str) -> int:
        """Return the size of a file in bytes.

        Raises
        ------
        UnsupportedFormatError
            Where the server does not say, or says that it sends whole files only.
        """
        info = self.info(key)
        size = info.get("size")
        if type(size) is not int or info.get("partial") is False:
            raise self._no_ranges(key)
        return size

    def identity(self, key: str, *, fresh: bool = False) -> tuple[object, ...]:
        """Return what tells this version of a file from another."""
        return _identity(self.info(key, fresh=fresh))

    def list(self, key: str) -> list[tuple[str, bool]]:
        """Return what a folder holds: the last part of each name, and whether it is a folder.

        Raises
        ------
        UnsupportedFormatError
            For http, which cannot list.
        """
        if not self.lists:
            raise UnsupportedFormatError(
                "folders cannot be listed over http: name the file, or the index.json that lists "
                "the shards", source=self.url(key),
            )  # fmt: skip
        found = self._tried(key, lambda: self.fs.ls(self._real(key), detail=True))
        base = key.rstrip("/")
        out = []
        for entry in found:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if name and str(entry["name"]).rstrip("/") != base:
                out.append((name, entry.get("type") == "directory"))
        return sorted(out)

    def fetch(self, key: str, start: int, stop: int) -> bytes:
        """Return the bytes ``[start, stop)`` of a file.

        Raises
        ------
        ChangedError
            Where it is another version than at first, or shorter.
        OSError
            Where it cannot be reached after several attempts.
        """
        data: bytes = self._tried(key, lambda: self._range(key, start, stop))
        if len(data) != stop - start:
            raise ChangedError(
                f"gave {len(data)} of {stop - start} bytes: it was changed while it was read",
                source=self.url(key), offset=start,
            )  # fmt: skip
        return data

    def kept(self, key: str, start: int, stop: int) -> memoryview | None:
        """Return bytes that were fetched before, if they are still held."""
        with self._lock:
            windows = self._kept.get(key, [])
            at = bisect_right(windows, start, key=lambda w: w[0]) - 1
            if at < 0:
                return None
            begin, data = windows[at]
            if stop > begin + len(data):
                return None
            return memoryview(data)[start - begin : stop - begin]

    def keep(self, key: str, start: int, data: bytes) -> None:
        """Hold bytes for a while: headers are looked at more than once."""
        with self._lock:
            if self._kept_bytes + len(data) > _KEPT_BYTES:
                self._kept.clear()
                self._kept_bytes = 0
            insort(self._kept.setdefault(key, []), (start, data), key=lambda w: w[0])
            self._kept_bytes += len(data)

    def prefetch(self, key: str, places: Iterable[tuple[int, int]]) -> None:
        """Fetch and hold many small ranges at once, neighbours together, some at a time."""
        ranges: list[tuple[int, int]] = []
        for start, stop in sorted(places):
            if ranges and start - ranges[-1][1] <= _GAP and stop - ranges[-1][0] <= _LONGEST:
                ranges[-1] = (ranges[-1][0], max(stop, ranges[-1][1]))
            else:
                ranges.append((start, stop))
        wanted = [r for r in ranges if self.kept(key, *r) is None]
        held, few = 0, []
        for start, stop in wanted:
            held += stop - start
            if held > _KEPT_BYTES // 2:
                break
            few.append((start, stop))
        if len(few) < 2:  # a single one comes as quickly when it is asked for
            return
        with ThreadPoolExecutor(_STREAMS) as pool:
            for (start, _), data in zip(
                few, pool.map(lambda r: self.fetch(key, *r), few), strict=True
            ):
                self.keep(key, start, data)

    def _real(self, key: str) -> str:
        found = self._secret.get(key)
        return key if found is None else str(found)

    def _range(self, key: str, start: int, stop: int) -> bytes:
        handle = self._handle(key)
        handle.seek(start)
        data: bytes = handle.read(stop - start)
        with self._lock:  # only a handle that works is used again
            self._handles.setdefault(key, []).append(handle)
        return data

    def _handle(self, key: str) -> Any:
        with self._lock:
            free = self._handles.get(key)
            if free:
                return free.pop()
        info = self.info(key)
        given: dict[str, Any] = {"cache_type": "none"}
        if not self.lists:
            # No second HEAD, no compressed ranges, and no bytes of another version.
            headers = {"Accept-Encoding": "identity"}
            tag = str(info.get("ETag", ""))
            if tag.startswith('"'):
                headers["If-Match"] = tag
            given |= {"size": info["size"], "headers": headers}
        handle = self.fs.open(self._real(key), "rb", **given)
        details = getattr(handle, "details", None)
        if self.lists and isinstance(details, dict) and _identity(details) != _identity(info):
            raise ChangedError("was changed or replaced while it was read", source=self.url(key))
        return handle

    def _tried(self, key: str, act: Any) -> Any:
        """Return what `act` returns; transient failures are tried again, others named."""
        pause = _FIRST_PAUSE
        # A filesystem that tries again by itself is not asked to do so several times over.
        attempts = 1 if getattr(self.fs, "retries", 0) else _ATTEMPTS
        for attempt in range(1, attempts + 1):
            try:
                return act()
            except ChangedError:
                raise
            except Exception as raised:  # noqa: BLE001 - filesystems raise types of their own
                error = _cause(raised)
                status = getattr(error, "status", None)
                text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                if isinstance(error, ValueError) and "range" in text:
                    raise self._no_ranges(key) from error
                if status == 412 or _EXPIRED.search(text):
                    raise ChangedError(
                        "was changed or replaced while it was read", source=self.url(key)
                    ) from error
                refused = isinstance(status, int) and 400 <= status < 500
                lasting = isinstance(error, _FINAL) or "Credentials" in type(error).__name__
                if lasting or (refused and status not in (408, 429)):
                    raise self._failed(key, error, text) from error
                if attempt == attempts:
                    tried = f" (tried {attempt} times)" if attempt > 1 else ""
                    raise self._failed(key, error, text + tried) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("not reached")

    def _failed(self, key: str, error: Exception, text: str) -> OSError:
        number = getattr(error, "errno", None)
        if isinstance(error, FileNotFoundError) or getattr(error, "status", 0) == 404:
            return FileNotFoundError(errno.ENOENT, "no such file or folder", self.url(key))
        if isinstance(error, PermissionError) or getattr(error, "status", 0) in (401, 403):
            return PermissionError(errno.EACCES, f"may not be read: {_plain(text)}", self.url(key))
        return OSError(
            number if isinstance(number, int) else errno.EIO,
            f"cannot be read: {_plain(text)}", self.url(key),
        )  # fmt: skip

    def _no_ranges(self, key: str) -> UnsupportedFormatError:
        return UnsupportedFormatError(
            "the server sends whole files only, no ranges of bytes: download it, and scan the copy",
            source=self.url(key),
        )


def _cause(error: Exception) -> Exception:
    """Return what is behind an error: a server that does not answer is no file that is missing."""
    behind = error.__cause__
    if (
        isinstance(error, FileNotFoundError)
        and isinstance(behind, Exception)
        and (hasattr(behind, "status") or isinstance(behind, OSError))
    ):
        return behind
    return error


def _identity(info: Mapping[str, Any]) -> tuple[object, ...]:
    for name in _VERSIONS:
        if info.get(name) not in (None, ""):
            return (info.get("size"), name, str(info[name]).strip('"'))
    return (info.get("size"),)


def _plain(text: str) -> str:
    """Return an error's text without the queries of the URLs in it."""
    return shown(re.sub(r"\?[^\s'\")]+", "", text), 500)


def _missing(scheme: str, package: str, url: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"{shown(without_secrets(url), 500)}: reading {scheme}:// takes {package}; install it with "
        f'pip install "ml-systems-debugger[remote]"'
        + ("" if scheme in ("s3", "s3a", "http", "https") else f" {package}")
    )
