"""A folder of several checkpoint files, each of a format of its own: Megatron, training output."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from ..core import MLSystemsDebuggerError
from ..core.shown import shown
from ._layouts import moved
from ._place import Place, relative_name
from ._source import Folder, Source, open_source
from .contract import CheckpointFormat, TensorInfo, formats

__all__ = ["FolderFormat", "files_below", "single_file_format", "tensors_inside"]

MAX_DEPTH = 4
MAX_FILES = 100_000
_HEAD = 65536
_SURE = 0.5  # bare pickles too: what cannot be read is said, not passed over
_FOLDERS = {"folder", "deepspeed", "safetensors_sharded", "torch_distributed"}


def single_file_format(path: Place) -> type[CheckpointFormat] | None:
    """Return the format of a file inside a folder, None where it is surely of none."""
    try:
        with open_source(path, path.name) as source:
            head = source.read(0, min(source.size, _HEAD), "the first bytes")
    except MLSystemsDebuggerError:
        return None
    sure = [(cls.sniff(path, head), name) for name, cls in formats.items().items()
            if name not in _FOLDERS]  # fmt: skip
    best = max(sure, default=(0.0, ""))
    return formats.get(best[1]) if best[0] >= _SURE else None


def files_below(root: Place, depth: int = MAX_DEPTH) -> Iterator[Place]:
    """Yield the regular files below a folder, links to folders not followed."""
    if not isinstance(root, Path):
        from ._remote import RemotePath

        if isinstance(root, RemotePath):
            yield from root.files_below(depth)
        return
    with os.scandir(root) as entries:
        ordered = sorted(entries, key=lambda e: e.name)
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            if depth > 1:
                yield from files_below(Path(entry.path), depth - 1)
        elif entry.is_file():
            yield Path(entry.path)


@formats.register("folder")
class FolderFormat(CheckpointFormat):
    """Every checkpoint file below a folder; names begin with the file's path and a colon.

    Megatron's ``mp_rank_00/model_optim_rng.pt``, single shards, or whatever a
    training job left. Files of no known format are not looked at.
    """

    name: ClassVar[str] = "folder"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:  # noqa: ARG003 - a folder has no head
        """Return 0.2 for a folder that holds a checkpoint file somewhere."""
        if not path.is_dir():
            return 0.0
        return 0.2 if any(single_file_format(p) for p in files_below(path)) else 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the tensors of every file."""
        for count, path in enumerate(files_below(self.path)):
            if count >= MAX_FILES:
                self.unread.append(f"only the first {MAX_FILES} files were looked at")
                return
            yield from tensors_inside(self, path)


def tensors_inside(outer: CheckpointFormat, path: Place) -> Iterator[TensorInfo]:
    """Yield the tensors of one more file below a reader's folder, named after that file.

    What is found and what cannot be read is added to `outer`; a file of no
    known format gives nothing.
    """
    kind = single_file_format(path)
    if kind is None:
        return
    relative = relative_name(path, outer.folder.root)
    reader = kind(path, outer.options)
    reader.folder = _Renamed(outer.folder, path.name, relative)
    try:
        found = list(reader.tensors())
    except (MLSystemsDebuggerError, OSError) as error:
        outer.unread.append(f"{shown(relative)}: {error}")
        return
    outer.findings.extend(reader.findings)
    outer.unread.extend(reader.unread)
    for info in found:
        yield info._replace(
            name=f"{relative}:{info.name}",
            file=relative,
            layout=moved(info.layout, relative),
            storage=f"{relative}|{info.storage}" if info.storage else "",
        )


class _Renamed(Folder):
    """Opens one file of a larger folder under its bare name."""

    def __init__(self, outer: Folder, name: str, relative: str) -> None:
        super().__init__(outer.root, follow_links=outer.follow_links)
        self.outer = outer
        self.name = name
        self.relative = relative

    def open(self, name: str, said_by: str = "", *, fresh: bool = False) -> Source:
        """Open it through the larger folder, which remembers it."""
        inside = self.relative if name == self.name else name
        return self.outer.open(inside, said_by, fresh=fresh)
