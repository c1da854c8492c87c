"""The entries of the ``.metadata`` of torch.distributed.checkpoint, checked."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from ..core import SchemaError, UnsupportedFormatError
from ..core.pickles import Instance
from ..core.shown import shown

__all__ = ["METADATA", "Chunk", "Item", "chunk_of", "is_sizes", "item_of", "looks_strided",
           "overlap", "state_of"]  # fmt: skip

METADATA = "torch.distributed.checkpoint.metadata."
MAX_DIMENSIONS = 64
_STRIDED = "torch.strided"


class Item(NamedTuple):
    """Where one chunk of a tensor, or one other object, was written."""

    name: str
    start: tuple[int, ...] | None
    file: str
    offset: int
    length: int


class Chunk(NamedTuple):
    """Offsets and sizes of one piece of a tensor, per dimension."""

    start: tuple[int, ...]
    shape: tuple[int, ...]


def overlap(one: Chunk, other: Chunk) -> bool:
    """Whether two chunks share a value: in every dimension the later begins before the end."""
    if not prod(one.shape) or not prod(other.shape):
        return False
    return all(
        a < b + m and b < a + n
        for a, n, b, m in zip(one.start, one.shape, other.start, other.shape, strict=True)
    )


def state_of(value: Any, kind: str, wanted: type = dict) -> Any:
    """Return the state of an instance of a class of torch's checkpoint metadata."""
    if isinstance(value, Instance) and value.path == f"{METADATA}{kind}":
        found = value.attributes() if wanted is dict else value.state
        if isinstance(found, wanted):
            return found
    raise SchemaError(f"no {kind} where one should be", source=".metadata", value=value)


def is_sizes(value: object) -> bool:
    """Return whether `value` is a tuple of sizes that a tensor can have."""
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n < 1 << 62 for n in value)
        and prod(value) < 1 << 62
    )


def looks_strided(properties: tuple[Any, ...], name: str) -> None:
    """Raise where the layout that a tensor's properties name is not the plain one."""
    if len(properties) < 2:
        return
    layout = properties[1]
    call = isinstance(layout, Instance) and layout.path == "torch.serialization._get_layout"
    if not call or layout.args != (_STRIDED,):
        raise UnsupportedFormatError(
            f"tensor {shown(name)}: a layout other than {_STRIDED}", source=".metadata",
            value=layout.args if call else layout,
        )  # fmt: skip


def chunk_of(value: Any, name: str, shape: tuple[int, ...]) -> Chunk:
    """Return where a piece of tensor `name` lies; raises where it is not inside `shape`."""
    state = state_of(value, "ChunkStorageMetadata")
    start, size = state.get("offsets"), state.get("sizes")
    fits = is_sizes(start) and is_sizes(size) and len(start) == len(size) == len(shape)
    if not fits or any(a + n > m for a, n, m in zip(start, size, shape, strict=True)):
        raise SchemaError(
            f"tensor {shown(name)}: a chunk that does not lie in it", source=".metadata",
            value=(start, size),
        )  # fmt: skip
    return Chunk(start, size)


def item_of(index: Any, info: Any) -> Item:
    """Return where one entry of the index was written; raises where it is not understood."""
    where = state_of(index, "MetadataIndex")
    good = isinstance(info, Instance) and info.path.endswith("filesystem._StorageInfo")
    place = info.attributes() if good else {}
    name, start = where.get("fqn"), where.get("offset")
    file, offset, length = (place.get(k) for k in ("relative_path", "offset", "length"))
    numbers = all(type(n) is int and 0 <= n < 1 << 62 for n in (offset, length))
    if not isinstance(name, str) or not isinstance(file, str) or not numbers:
        raise SchemaError("a storage entry that makes no sense", source=".metadata", value=place)
    if place.get("transform_descriptors"):
        raise UnsupportedFormatError(
            "chunks that were compressed or transformed", source=".metadata",
            value=place["transform_descriptors"],
        )  # fmt: skip
    if start is not None and not is_sizes(start):
        raise SchemaError("an offset that makes no sense", source=".metadata", value=start)
    assert isinstance(offset, int)  # noqa: S101 - for the type checker
    assert isinstance(length, int)  # noqa: S101
    return Item(name, start, file, offset, length)
