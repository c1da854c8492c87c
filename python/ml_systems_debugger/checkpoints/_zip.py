"""A zip archive read in place: its central directory, checked against the local headers.

Bounded and strict where Python's `zipfile` is lenient: one archive per window,
no duplicate names, no overlapping members, nothing encrypted, names taken as
they are and never used as paths.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ..core import SchemaError, UnsupportedFormatError
from ..core.shown import shown

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["DEFLATED", "STORED", "Member", "looks_like_zip", "read_members"]

STORED, DEFLATED = 0, 8

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_MAX_DIRECTORY = 1 << 30
_MIN_ENTRY = _CENTRAL.size + 1
_USUAL_HEADER = 512  # a local header with its name and padding
_U32 = 0xFFFFFFFF
_U16 = 0xFFFF
_FOLDER = 0x10  # of the attributes of MS-DOS
_NEWEST = 63  # of the zip format, times ten


class Member(NamedTuple):
    """One member: where its data lie in the file, and their CRC-32 (0 where none was written)."""

    name: str
    offset: int
    stored: int
    size: int
    method: int
    crc: int = 0


def looks_like_zip(head: bytes) -> bool:
    """Return whether a file that begins so may be a zip archive."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def read_members(source: Source, start: int = 0, length: int | None = None) -> dict[str, Member]:
    """Return the members of the archive in ``[start, start + length)`` of a file, by name.

    Raises
    ------
    SchemaError
        Where headers disagree, members overlap or leave the window, or a name
        occurs twice.
    UnsupportedFormatError
        For encrypted members and archives over several disks.
    """
    stop = source.size if length is None else start + length
    if start < 0 or stop > source.size or stop < start:
        raise SchemaError(
            f"an archive of {length} bytes does not lie inside the file of {source.size} bytes",
            source=source.name, offset=start,
        )  # fmt: skip
    count, size, offset, limit = _directory(source, start, stop)
    data = source.read(offset, size, "the zip directory")
    source.prefetch((start + at, start + at + _USUAL_HEADER) for at in _local_offsets(data))
    members: dict[str, Member] = {}
    spans = []
    at = 0
    for _ in range(count):
        at, local_offset, entry = _entry(source, data, at, offset)
        if entry.name in members:
            raise SchemaError(
                "two members of one name", source=source.name, offset=offset + at,
                value=shown(entry.name),
            )  # fmt: skip
        header = start + local_offset
        begin = _data_offset(source, header, entry, limit)
        members[entry.name] = entry._replace(offset=begin)
        spans.append((header, begin + entry.stored, entry.name))
    if at != len(data):
        raise SchemaError(
            "the zip directory is longer than its entries", source=source.name,
            offset=offset + at, value=len(data) - at,
        )  # fmt: skip
    spans.sort()
    for (_, end, first), (begin, _, second) in pairwise(spans):
        if begin < end:
            raise SchemaError(
                f"members overlap: {shown(first)} and {shown(second)}",
                source=source.name, offset=begin,
            )  # fmt: skip
    return members


def _directory(source: Source, start: int, stop: int) -> tuple[int, int, int, int]:
    """Return entry count, size, absolute offset of the directory, and where data must end."""
    tail_start = max(start, stop - _END.size - _MAX_COMMENT)
    tail = source.read(tail_start, stop - tail_start, "the end of the archive")
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + _END.size <= len(tail):
            fields = _END.unpack_from(tail, at)
            if at + _END.size + fields[7] == len(tail):
                break
        at = tail.rfind(b"PK\x05\x06", 0, at + 3) if at else -1
    if at < 0:
        raise SchemaError(
            "no end-of-archive record: the file was cut off, or is no zip archive",
            source=source.name, offset=stop,
        )  # fmt: skip
    _, disk, first_disk, here, count, size, offset, _ = fields
    end = tail_start + at
    wide = at >= _LOCATOR64.size and tail[at - _LOCATOR64.size :][:4] == b"PK\x06\x07"
    # Only where wider fields follow may these say that they do not hold the number.
    one = (disk, first_disk) == (0, 0) or (wide and (disk, first_disk) == (_U16, _U16))
    if not one or here != count:
        raise UnsupportedFormatError("a zip archive over several disks", source=source.name)
    if wide:
        _, on_disk, where, disks = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)
        if on_disk or disks > 1:
            raise UnsupportedFormatError("a zip archive over several disks", source=source.name)
        record = start + where
        raw = source.read(record, _END64.size, "the zip64 end record")
        signature, _, _, _, disk, first_disk, here, count, size, offset = _END64.unpack(raw)
        if signature != b"PK\x06\x06" or disk or first_disk or here != count:
            raise SchemaError("a broken zip64 end record", source=source.name, offset=record)
        end = record
    offset += start
    # A gap before the end record makes other readers look for the directory elsewhere.
    if size > _MAX_DIRECTORY or offset < start or offset + size != end:
        raise SchemaError(
            f"a zip directory of {size} bytes does not fit", source=source.name, offset=offset
        )
    if count * _MIN_ENTRY > size:
        raise SchemaError(
            "more members than the zip directory has room for", source=source.name,
            offset=offset, value=count,
        )  # fmt: skip
    return count, size, offset, offset


def _local_offsets(data: bytes) -> Iterator[int]:
    """Yield where a directory says that local headers are, as far as it can be followed."""
    at = 0
    while at + _CENTRAL.size <= len(data) and data[at : at + 4] == b"PK\x01\x02":
        fields = _CENTRAL.unpack_from(data, at)
        if fields[16] != _U32:
            yield fields[16]
        at += _CENTRAL.size + sum(fields[10:13])


def _entry(source: Source, data: bytes, at: int, base: int) -> tuple[int, int, Member]:
    """Return the place behind an entry, its local header's offset, and the member."""
    if at + _CENTRAL.size > len(data):
        raise SchemaError("the zip directory is cut off", source=source.name, offset=base + at)
    (signature, _, needed, flags, method, _, _, crc, stored, size, name_length, extra_length,
     comment_length, disk, _, attributes, local) = _CENTRAL.unpack_from(data, at)  # fmt: skip
    begin = at + _CENTRAL.size
    end = begin + name_length + extra_length + comment_length
    if signature != b"PK\x01\x02" or end > len(data):
        raise SchemaError("a broken entry of the zip directory", source=source.name,
                          offset=base + at)  # fmt: skip
    name = data[begin : begin + name_length].decode("utf-8", "backslashreplace")
    if flags & 0x2041:
        raise UnsupportedFormatError(
            "an encrypted archive member", source=source.name, value=shown(name)
        )
    if disk:
        raise UnsupportedFormatError("a zip archive over several disks", source=source.name)
    if attributes & _FOLDER and size:
        # Other readers give no bytes of such a member, or memory that nobody wrote.
        raise SchemaError(
            f"member {shown(name)} is marked as a folder and holds {size} bytes",
            source=source.name, offset=base + at,
        )  # fmt: skip
    if needed & 0xFF > _NEWEST:
        raise UnsupportedFormatError(
            f"member {shown(name)} needs a version of zip that is not known", source=source.name,
            offset=base + at, value=needed & 0xFF,
        )  # fmt: skip
    extra = data[begin + name_length : begin + name_length + extra_length]
    if _U32 in (stored, size, local):
        size, stored, local = _zip64(source, extra, size, stored, local, base + at)
    return end, local, Member(name, 0, stored, size, method, crc)


def _zip64(
    source: Source, extra: bytes, size: int, stored: int, local: int, place: int
) -> tuple[int, int, int]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            block = extra[at + 4 : at + 4 + length]
            values = [v[0] for v in struct.iter_unpack("<Q", block[: len(block) // 8 * 8])]
            out = []
            for value in (size, stored, local):
                if value == _U32:
                    if not values:
                        break
                    value = values.pop(0)
                out.append(value)
            if len(out) == 3:
                return out[0], out[1], out[2]
            break
        at += 4 + length
    raise SchemaError("a zip64 entry without its sizes", source=source.name, offset=place)


def _data_offset(source: Source, header: int, entry: Member, limit: int) -> int:
    """Return where the data begin, having compared the local header with the directory."""
    raw = source.read(header, _LOCAL.size, "a local zip header")
    (signature, _, flags, method, _, _, crc, stored, size, name_length, extra_length) = (
        _LOCAL.unpack(raw)
    )
    begin = header + _LOCAL.size + name_length + extra_length
    if signature != b"PK\x03\x04" or begin + entry.stored > limit:
        raise SchemaError(
            f"member {shown(entry.name)} does not lie where the zip directory says",
            source=source.name, offset=header,
        )  # fmt: skip
    more = source.read(header + _LOCAL.size, name_length + extra_length, "a local zip header")
    name = more[:name_length].decode("utf-8", "backslashreplace")
    if _U32 in (stored, size):
        # In a local header a zip64 block holds both sizes.
        size, stored, _ = _zip64(source, more[name_length:], _U32, _U32, 0, header)
    # With bit 3 set, the sizes stand behind the data and may be zero here.
    agree = (stored, size, crc) == (entry.stored, entry.size, entry.crc) or (
        flags & 0x8 and (stored, size) == (0, 0) and crc in (0, entry.crc)
    )
    if name != entry.name or method != entry.method or not agree:
        raise SchemaError(
            f"the two headers of member {shown(entry.name)} disagree",
            source=source.name, offset=header,
        )  # fmt: skip
    if entry.method == STORED and entry.stored != entry.size:
        raise SchemaError(
            f"member {shown(entry.name)} is stored in {entry.stored} bytes but said to have "
            f"{entry.size}", source=source.name, offset=header,
        )  # fmt: skip
    return int(begin)
