"""`CheckpointFormat`: how one format says where its tensors are; the registry of formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from ..core import ConfigurationError, Registry
from ._place import Place
from ._source import Folder
from .finding import CheckpointFinding

__all__ = ["CheckpointFormat", "Layout", "Options", "TensorInfo", "formats"]


class Layout(Protocol):
    """Where the bytes of a tensor are that does not lie in one piece, in row-major order."""

    @property
    def sequential(self) -> bool:
        """Whether `read` must be called from the start to the end."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Bytes that reading all of it takes from files, about."""
        ...

    def read(self, folder: Folder, start: int, out: memoryview) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on, little-endian."""
        ...


class TensorInfo(NamedTuple):
    """One tensor of a checkpoint, not read yet.

    Parameters
    ----------
    name : str
        As it is in the file; escaped only where it is shown.
    dtype : str
        A key of `DTYPES`, or any other name for bytes that can only be digested.
    shape : tuple of int
    file : str
        Relative to the checkpoint's folder; of its first piece.
    offset, nbytes : int
        Its bytes in that file, packed, row-major, little-endian.
    layout : Layout or None
        In place of `offset`, where it does not lie like that.
    storage : str
        Identity of the memory that tensors may share; empty for its own.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int
    layout: Layout | None = None
    storage: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """What a reader may do that is not safe, or not cheap, for every file.

    Parameters
    ----------
    inflate : bool
        Read compressed archive members, within the two caps.
    max_inflated_bytes : int
        Of one member.
    max_inflation : int
        Inflated bytes per stored byte of one member.
    follow_links : bool
        Let links lead out of the checkpoint's folder.
    ranges : bool
        Count the exponents of every value too, and what narrower types would lose: a pass of
        its own over the data.
    access : str
        How local files are read: ``pread`` into small buffers; ``direct``, past the page cache;
        ``mmap``, without a copy, where a file that is cut meanwhile ends the process.
    storage_options : mapping
        For the filesystem behind a URL, as ``endpoint_url`` or ``anon``; never shown.
    """

    inflate: bool = False
    max_inflated_bytes: int = 1 << 36
    max_inflation: int = 200
    follow_links: bool = False
    ranges: bool = False
    access: str = "pread"
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        if self.access not in ("pread", "direct", "mmap"):
            raise ConfigurationError(f"access is pread, direct or mmap, got {self.access!r}")


class CheckpointFormat(ABC):
    """One format: made for one path, asked once for its tensors.

    Everything read is untrusted: counts, sizes and names are checked before
    anything is allocated, offsets against the file, and nothing is run. Files
    are opened through `folder`, which keeps paths inside it and notices a file
    that is replaced.

    Attributes
    ----------
    folder : Folder
    findings : list of CheckpointFinding
        What the structure alone shows; filled by `tensors`.
    unread : list of str
        Parts that could not be read, one sentence each: the scan is then incomplete.
    metadata : dict
        JSON terms about the checkpoint.
    """

    name: ClassVar[str] = ""

    def __init__(self, path: Place, options: Options | None = None) -> None:
        self.path = path
        self.options = options or Options()
        root, given = (path, ()) if path.is_dir() else (path.parent, (path.name,))
        self.folder = Folder(
            root, follow_links=self.options.follow_links, trusted=given, access=self.options.access
        )
        self.findings: list[CheckpointFinding] = []
        self.unread: list[str] = []
        self.metadata: dict[str, Any] = {}

    @classmethod
    @abstractmethod
    def sniff(cls, path: Place, head: bytes) -> float:
        """Return from 0 (no) to 1 (certain) whether `path` is of this format.

        Parameters
        ----------
        path : Path
            A file or a folder, perhaps behind a URL; its suffix is a hint only.
        head : bytes
            The first 64 KiB of a file; empty for a folder.
        """

    @abstractmethod
    def tensors(self) -> Iterable[TensorInfo]:
        """Return every tensor with its place.

        Raises
        ------
        SchemaError
            Where the content breaks the format's rules: file, offset, value.
        """


formats: Registry[Any] = Registry(
    "checkpoint format", "ml_systems_debugger.checkpoints", "ml_systems_debugger.checkpoint_formats"
)
"""Formats by name; third parties add theirs under ``ml_systems_debugger.checkpoint_formats``."""
