"""torch.distributed.checkpoint: a pickled ``.metadata`` and ``*.distcp`` files of archives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import prod
from typing import Any, ClassVar

from ..core import MLSystemsDebuggerError, SchemaError, UnsupportedFormatError
from ..core.pickles import Instance, read_pickle
from ..core.shown import shown
from ._distributed_metadata import (
    METADATA,
    Chunk,
    Item,
    chunk_of,
    is_sizes,
    item_of,
    looks_strided,
    overlap,
    state_of,
)
from ._globals import judge_globals
from ._layouts import Box, Boxes, Swapped, is_packed
from ._place import Place
from ._source import Source
from ._torch import open_archive
from ._torch_tensors import dtype_of, named_tensors, tensor_of
from .contract import CheckpointFormat, Layout, TensorInfo, formats
from .dtypes import DTYPES
from .finding import CheckpointFinding

__all__ = ["DistributedFormat"]

MAX_METADATA = 1 << 30


@formats.register("torch_distributed")
class DistributedFormat(CheckpointFormat):
    """A folder written by `torch.distributed.checkpoint` (FSDP, torchtitan, Megatron).

    ``.metadata`` says which chunks each tensor has and where they were
    written; each is a torch archive of its own at some offset of a ``.distcp``
    file. The chunks are put together, so that a tensor is judged whole however
    it was sharded. Both pickles are read and never run.
    """

    name: ClassVar[str] = "torch_distributed"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:  # noqa: ARG003 - a folder has no head
        """Return 1 for a folder with ``.metadata``, 0.8 for one with ``.distcp`` files only."""
        if not path.is_dir():
            return 0.0
        if (path / ".metadata").is_file():
            return 1.0
        return 0.8 if any(path.glob("*.distcp")) else 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the tensors by their fully qualified names."""
        if not self.folder.exists(".metadata"):
            raise SchemaError(
                "a distributed checkpoint without its .metadata: the job ended before the "
                "checkpoint was complete", source=shown(self.path.name),
            )  # fmt: skip
        with self.folder.open(".metadata") as source:
            if source.size > MAX_METADATA:
                raise SchemaError("too large", source=source.name, value=source.size)
            data = source.read(0, source.size, "the metadata")
            root, names = read_pickle(data, source.name, 0, 60 * source.size + (64 << 20))
        self.findings.extend(judge_globals(names, ".metadata"))
        state = state_of(root, "Metadata")
        described = state.get("state_dict_metadata")
        stored = state.get("storage_data")
        if not isinstance(described, dict) or not isinstance(stored, dict):
            raise SchemaError("no state_dict_metadata or storage_data", source=".metadata")
        items: dict[tuple[str, tuple[int, ...] | None], Item] = {}
        for index, info in stored.items():
            item = item_of(index, info)
            items[(item.name, item.start)] = item
        self._files(items.values())
        for name, what in described.items():
            if not isinstance(name, str) or not isinstance(what, Instance):
                raise SchemaError("an entry that is none", source=".metadata", value=name)
            if what.path == f"{METADATA}TensorStorageMetadata":
                info = self._tensor(name, state_of(what, "TensorStorageMetadata"), items)
                if info is not None:
                    yield info
            elif what.path == f"{METADATA}BytesStorageMetadata":
                yield from self._bytes(name, items.get((name, None)))
            else:
                raise SchemaError("an entry of a kind that is not known", source=".metadata",
                                  value=what.path)  # fmt: skip

    def _files(self, items: Iterable[Item]) -> None:
        needed = {item.file for item in items}
        self._missing = {f for f in sorted(needed) if not self.folder.exists(f, ".metadata")}
        for file in sorted(self._missing):
            self.unread.append(f"{shown(file)} is missing")
            self.findings.append(
                CheckpointFinding.of(
                    "missing_shard", "critical",
                    f"{shown(file)} is in .metadata and not there: the save was not complete",
                    file=shown(file),
                )
            )  # fmt: skip
        there = {p.name for p in self.path.glob("*.distcp")}
        self.findings.extend(
            CheckpointFinding.of(
                "extra_shard", "low", f"{shown(file)} is not in .metadata", file=shown(file)
            )
            for file in sorted(there - needed)
        )
        ends: dict[str, int] = {}
        for item in items:
            ends[item.file] = max(ends.get(item.file, 0), item.offset + item.length)
        self._short: set[str] = set()
        for file in sorted(needed - self._missing):
            with self.folder.open(file) as source:
                lack = ends[file] - source.size
            if lack > 0:
                message = f"{shown(file)} is {lack} bytes shorter than .metadata says: half written"
                self.unread.append(message)
                self.findings.append(
                    CheckpointFinding.of(
                        "truncated", "critical", message, file=shown(file), missing_bytes=lack
                    )
                )
                self._short.add(file)

    def _tensor(
        self,
        name: str,
        state: dict[Any, Any],
        items: dict[tuple[str, tuple[int, ...] | None], Item],
    ) -> TensorInfo | None:
        properties = state_of(state.get("properties"), "TensorProperties", tuple)
        looks_strided(properties, name)
        dtype = (dtype_of(properties[0]) if properties else None) or ""
        shape, chunks = state.get("size"), state.get("chunks")
        if dtype not in DTYPES or not is_sizes(shape) or not isinstance(chunks, list):
            raise SchemaError(f"tensor {shown(name)}: no type, size or chunks", source=".metadata")
        assert isinstance(shape, tuple)  # noqa: S101 - for the type checker; is_sizes looked
        parts = [chunk_of(c, name, shape) for c in chunks]
        if not self._covered(name, shape, parts):
            return None
        boxes, swapped = [], False
        for part in parts:
            found = items.get((name, part.start))
            if found is None:
                raise SchemaError(
                    f"tensor {shown(name)}: a chunk was written nowhere", source=".metadata",
                    value=part.start,
                )  # fmt: skip
            if found.file in self._missing or not prod(part.shape):
                continue
            try:
                offset, big = self._place(found, part, dtype)
            except (SchemaError, UnsupportedFormatError) as error:
                self.unread.append(str(error))
                return None
            swapped |= big
            boxes.append(Box(part.start, part.shape, found.file, offset))
        if any(items[(name, p.start)].file in self._missing for p in parts):
            return None
        item = DTYPES[dtype].bits // 8
        return self._info(name, dtype, shape, boxes, item, swapped)

    def _info(
        self, name: str, dtype: str, shape: tuple[int, ...], boxes: list[Box], item: int, big: bool
    ) -> TensorInfo | None:
        nbytes = prod(shape) * item
        if not boxes:
            return TensorInfo(name, dtype, shape, ".metadata", 0, 0)
        first = boxes[0]
        if len(boxes) == 1 and not big:
            return TensorInfo(name, dtype, shape, first.file, first.offset, nbytes)
        try:
            layout: Layout = Boxes(shape, item, tuple(boxes))
        except ValueError as error:
            self.unread.append(f"tensor {shown(name)}: {error}")
            return None
        if big:
            layout = Swapped(layout, item // DTYPES[dtype].lanes)
        return TensorInfo(name, dtype, shape, first.file, first.offset, nbytes, layout)

    def _covered(self, name: str, shape: tuple[int, ...], parts: list[Chunk]) -> bool:
        """Whether the chunks fill the tensor; gaps are found, overlaps raise."""
        ordered = sorted(parts)
        for one, other in pairwise(ordered):
            if overlap(one, other):
                raise SchemaError(
                    f"tensor {shown(name)}: chunks overlap", source=".metadata",
                    value=(one.start, other.start),
                )  # fmt: skip
        have, want = sum(prod(p.shape) for p in parts), prod(shape)
        if have == want:
            return True
        message = f"tensor {shown(name)}: its chunks hold {have} of {want} values"
        self.unread.append(message)
        self.findings.append(
            CheckpointFinding.of(
                "incomplete_tensor", "critical", message, name, held=have, size=want
            )
        )
        return False

    def _place(self, item: Item, part: Chunk, dtype: str) -> tuple[int, bool]:
        """Return where a chunk's values begin, and whether they are big-endian."""
        with self.folder.open(item.file) as source:
            archive = open_archive(source, item.file, item.offset, item.length)
            found = [t for _, v in named_tensors(archive.root, source.name)
                     if (t := tensor_of(v, source.name)) is not None]  # fmt: skip
            if len(found) != 1:
                raise SchemaError(
                    f"the chunk of {shown(item.name)} holds {len(found)} tensors, not one",
                    source=source.name, offset=item.offset,
                )  # fmt: skip
            tensor = found[0]
            if tensor.dtype != dtype or tensor.shape != part.shape:
                raise SchemaError(
                    f"the chunk of {shown(item.name)} is {tensor.dtype} {list(tensor.shape)}, but "
                    f".metadata says {dtype} {list(part.shape)}",
                    source=source.name, offset=item.offset,
                )  # fmt: skip
            if not is_packed(tensor.shape, tensor.strides):
                raise UnsupportedFormatError(
                    f"a chunk of {shown(item.name)} that is not packed", source=source.name
                )
            return archive.place(item.name, tensor).offset, archive.swapped

    def _bytes(self, name: str, item: Item | None) -> Iterator[TensorInfo]:
        """Yield the tensors inside an object that was saved whole, such as a scheduler's state."""
        if item is None or item.file in self._missing or item.file in self._short:
            return
        try:
            with self.folder.open(item.file) as source:
                if not _is_archive(source, item):
                    return
                archive = open_archive(source, item.file, item.offset, item.length)
            self.findings.extend(judge_globals(archive.globals, item.file))
            for inner, value in named_tensors(archive.root, item.file):
                tensor = tensor_of(value, item.file)
                if tensor is not None:
                    yield archive.place(f"{name}.{inner}", tensor)
        except MLSystemsDebuggerError as error:
            self.unread.append(str(error))


def _is_archive(source: Source, item: Item) -> bool:
    if item.length < 4 or item.offset + item.length > source.size:
        return False
    return source.read(item.offset, 4, "an item") == b"PK\x03\x04"
