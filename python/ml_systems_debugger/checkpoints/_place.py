"""A path that a checkpoint may lie at: on this machine, or behind a URL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Place", "is_remote", "place_of", "relative_name", "without_secrets"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(?:://|::)")
_LOCAL = re.compile(r"(?:file|local)://")


class Place(Protocol):
    """What formats ask of a path; `pathlib.Path` has it, and so has a path behind a URL."""

    @property
    def name(self) -> str:
        """Its last part."""
        ...

    @property
    def stem(self) -> str:
        """Its last part without the suffix."""
        ...

    @property
    def suffix(self) -> str:
        """The suffix of its last part, with the dot."""
        ...

    @property
    def parent(self) -> Place:
        """The folder that it lies in."""
        ...

    def __truediv__(self, name: str) -> Place:
        """Return the path of something inside it."""
        ...

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        ...

    def is_file(self) -> bool:
        """Return whether it is a file."""
        ...

    def is_symlink(self) -> bool:
        """Return whether it is a link."""
        ...

    def iterdir(self) -> Iterator[Place]:
        """Yield what a folder holds, in no order."""
        ...

    def glob(self, pattern: str) -> Iterator[Place]:
        """Yield what in a folder matches a pattern."""
        ...


def is_remote(path: object) -> bool:
    """Return whether a path is a URL to be opened through fsspec.

    >>> is_remote("s3://bucket/model.safetensors"), is_remote("model.safetensors")
    (True, False)
    """
    return isinstance(path, str) and bool(_URL.match(path)) and not _LOCAL.match(path)


def without_secrets(url: Any) -> str:
    """Return a path as it is, a URL without the password and the query, which may be a signature.

    >>> without_secrets("https://me:secret@host/a/b.pt?X-Signature=1")
    'https://host/a/b.pt'
    """
    chain, mark, last = str(url).rpartition("::")
    if not is_remote(url) or not last.startswith(("http://", "https://")):
        return str(url)
    parts = urlsplit(last)
    host = parts.netloc.rpartition("@")[2]
    return chain + mark + urlunsplit((parts.scheme, host, parts.path, "", ""))


def place_of(path: Any, storage_options: Mapping[str, Any] | None = None) -> Place:
    """Return the place that a path or a URL names.

    Parameters
    ----------
    path : path or str
    storage_options : mapping, optional
        For the filesystem behind a URL, such as ``endpoint_url`` or ``anon``.

    Raises
    ------
    MissingDependencyError
        Where the URL's filesystem is not installed.
    ConfigurationError
        For a URL of a kind that no filesystem is known for.
    """
    if is_remote(path):
        from ._remote import RemotePath

        return RemotePath.of(path, storage_options or {})
    if isinstance(path, str) and (found := _LOCAL.match(path)):
        path = path[found.end() :]
    return Path(path)


def relative_name(path: Place, root: Place) -> str:
    """Return the name of something below a folder, its parts joined by slashes."""
    if isinstance(path, Path) and isinstance(root, Path):
        return path.relative_to(root).as_posix()
    return str(path).removeprefix(str(root)).lstrip("/")
