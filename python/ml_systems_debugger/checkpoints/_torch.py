"""A torch archive: its object, and where the storages lie that tensors of it show."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from math import prod
from typing import Any

from ..core import SchemaError, UnsupportedFormatError
from ..core.pickles import Global, Instance, Persistent, read_pickle
from ..core.shown import shown
from ..kernels import crc32
from ._checksums import Checksums, member_crc
from ._layouts import Piece, Pieces, Strided, Swapped, is_packed
from ._source import Source
from ._torch_tensors import STORAGES, TorchTensor, tensor_of
from ._zip import DEFLATED, STORED, Member, read_members
from .contract import Layout, TensorInfo
from .dtypes import DTYPES

__all__ = ["TorchArchive", "open_archive"]

MAX_PICKLE = 1 << 30
_MAX_REPEATS = 16
_NUMBERS = (".format_version", ".storage_alignment", "version")
_SHORT = 64  # bytes of what stands beside the data


@dataclass(slots=True)
class TorchArchive:
    """One archive: its object and where its storages are."""

    file: str
    source_name: str
    root: Any
    globals: list[Global]
    opcodes: set[int]
    members: dict[str, Member]
    prefix: str
    swapped: bool
    key: str
    checksums: Checksums

    def member(self, key: str) -> Member:
        """Return the member of a storage, however it is kept; raises SchemaError for none."""
        for folder in ("data", "tensors"):
            found = self.members.get(f"{self.prefix}{folder}/{key}")
            if found is not None:
                return found
        raise SchemaError(f"storage {shown(key)} is not in the archive", source=self.source_name)

    def storage(self, key: str) -> Member:
        """Return the member of a storage.

        Raises
        ------
        SchemaError, UnsupportedFormatError
            Where it is not there, or compressed.
        """
        member = self.member(key)
        if member.method != STORED:
            raise UnsupportedFormatError(
                f"storage {shown(key)} is compressed", source=self.source_name, value=member.method
            )
        self.checksums.expect(self.key, member)
        return member

    def place(self, name: str, tensor: TorchTensor, identity: str = "") -> TensorInfo:
        """Return where a tensor lies.

        Raises
        ------
        SchemaError
            Where its view leaves its storage.
        UnsupportedFormatError
            Where its values are not those of its storage.
        """
        if tensor.turned:
            raise UnsupportedFormatError(
                f"tensor {shown(name)} conjugates or negates what lies there",
                source=self.source_name,
            )
        dtype = DTYPES[tensor.dtype]
        item = dtype.bits // 8
        member = self.storage(tensor.storage)
        count = prod(tensor.shape)
        last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        have = member.size // item
        reach = tensor.offset + (last + 1 if count else 0)
        if reach > have:
            raise SchemaError(
                f"tensor {shown(name)} reaches to element {reach} of a storage of {have}",
                source=self.source_name, offset=member.offset, value=shown(tensor.storage),
            )  # fmt: skip
        begin = member.offset + tensor.offset * item
        layout: Layout | None = None
        if count and not is_packed(tensor.shape, tensor.strides):
            if count > _MAX_REPEATS * max(have, 1):
                raise SchemaError(
                    f"tensor {shown(name)} shows {count} elements of a storage of {have}",
                    source=self.source_name, value=tensor.shape,
                )  # fmt: skip
            layout = Strided(self.file, begin, tensor.shape, tensor.strides, item)
        if self.swapped and item // dtype.lanes > 1:
            inner = layout or Pieces((Piece(self.file, begin, count * item),))
            layout = Swapped(inner, item // dtype.lanes)
        storage = identity or f"{self.file}:{member.offset}"
        return TensorInfo(
            name, tensor.dtype, tensor.shape, self.file, begin, count * item, layout, storage
        )


def open_archive(
    source: Source, file: str, start: int = 0, length: int | None = None
) -> TorchArchive:
    """Read the directory and the pickle of a torch archive in a window of a file.

    Raises
    ------
    SchemaError
        Where it breaks the rules of zip, of pickle or of torch.
    """
    members = read_members(source, start, length)
    pickles = [n for n in members if n == "data.pkl" or n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise SchemaError(
            "a torch archive holds one data.pkl", source=source.name, value=len(pickles)
        )
    prefix = pickles[0].removesuffix("data.pkl")
    text = _order(source, members, prefix)
    for name in _NUMBERS:
        if (number := members.get(prefix + name)) is not None:
            _number(source, number, name)
    if (identity := members.get(f"{prefix}.data/serialization_id")) is not None:
        _whole(source, identity, "serialization_id", _SHORT)
    data = _whole(source, members[pickles[0]], "data.pkl", MAX_PICKLE)
    member = members[pickles[0]]
    window = source.size if length is None else length
    references: list[Persistent] = []
    opcodes: set[int] = set()
    tensors: list[Instance] = []
    root, names = read_pickle(
        data,
        source.name,
        member.offset,
        2 * window + (64 << 20),
        references=references,
        opcodes=opcodes,
        tensors=tensors,
    )
    archive = TorchArchive(
        file, source.name, root, names, opcodes, members, prefix, text == b"big", source.key,
        source.checksums,
    )  # fmt: skip
    for key in {id(one.key): one.key for one in references}.values():
        _check_storage(archive, key)
    for one in tensors:  # a loader builds also those that nothing holds in the end
        found = tensor_of(one, source.name)
        if found is not None:
            with contextlib.suppress(UnsupportedFormatError):  # told of those that are held
                archive.place("that is built", found)
    return archive


def _check_storage(archive: TorchArchive, key: Any) -> None:
    """Look at a storage that the pickle refers to; loaders read also those that no tensor shows.

    Raises
    ------
    SchemaError
        Where it is not there, of no known type, or of another size than the pickle says.
    """
    if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage":
        return  # of torch.package: said where a tensor needs it
    kind, name, count = key[1], key[2], key[4]
    dtype = STORAGES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None or not isinstance(name, str) or type(count) is not int:
        raise SchemaError("a storage without a type, a name or a size", source=archive.source_name,
                          value=kind)  # fmt: skip
    size = archive.member(name).size
    if size != count * DTYPES[dtype].bits // 8:
        raise SchemaError(
            f"storage {shown(name)} has {size} bytes, and the pickle says {count} values of "
            f"{dtype}",
            source=archive.source_name,
        )


def _order(source: Source, members: dict[str, Member], prefix: str) -> bytes:
    order = members.get(f"{prefix}byteorder")
    text = b"little" if order is None else _whole(source, order, "byteorder", _SHORT)
    if text not in (b"little", b"big"):
        raise SchemaError("a byte order that is none", source=source.name, value=text)
    return text


def _number(source: Source, member: Member, name: str) -> None:
    """Look at a number beside the data: loaders lay out storages by it, or refuse the archive."""
    text = _whole(source, member, name, _SHORT)
    if not text.strip().isdigit():
        raise SchemaError(f"{name} that is no number", source=source.name, offset=member.offset,
                          value=text)  # fmt: skip


def _whole(source: Source, member: Member, name: str, most: int) -> bytes:
    """Return a member's bytes, compared with their checksum."""
    if member.method == DEFLATED:
        raise UnsupportedFormatError(f"a compressed {name}", source=source.name)
    if member.method != STORED or member.size > most:
        raise SchemaError(f"a {name} that does not fit", source=source.name, value=member.size)
    data = source.read(member.offset, member.size, name)
    written = member_crc(member)
    if written is not None and (found := crc32(data)) != written:
        raise SchemaError(
            f"{name} is damaged: its CRC-32 is {found:08x}, and {written:08x} was written",
            source=source.name, offset=member.offset,
        )  # fmt: skip
    return data
