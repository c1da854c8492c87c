"""NumPy's npy and npz."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import ClassVar

from ..core import SchemaError, UnsupportedFormatError
from ..core.shown import shown
from ._layouts import Inflated, Piece, Pieces, Strided, Swapped, is_packed
from ._place import Place
from ._source import Source
from ._zip import DEFLATED, STORED, Member, looks_like_zip, read_members
from .contract import CheckpointFormat, Layout, Options, TensorInfo, formats
from .dtypes import DTYPES
from .finding import CheckpointFinding

__all__ = ["NpyFormat", "NpzFormat"]

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 20
MAX_DIMENSIONS = 64
_DESCR = re.compile(r"([<>|=])([biufcV])(\d+)")
_TYPES = {"b1": "bool", "c8": "complex64", "c16": "complex128"}
_KINDS = {"i": "int", "u": "uint", "f": "float"}


def _dtype(descr: object, source: str, offset: int) -> tuple[str, bool]:
    """Return the type's name and whether its bytes are swapped."""
    match = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    if match is None:
        if isinstance(descr, str) and "O" in descr:
            raise UnsupportedFormatError(
                "an array of Python objects: reading it means running a pickle",
                source=source, offset=offset, value=descr,
            )  # fmt: skip
        raise UnsupportedFormatError(
            "a NumPy type that holds no plain numbers", source=source, offset=offset, value=descr
        )
    order, kind, size = match[1], match[2], int(match[3])
    name = _TYPES.get(f"{kind}{size}") or f"{_KINDS.get(kind, 'raw')}{8 * size}"
    if kind == "V" and size == 2:
        # ml_dtypes writes bfloat16 as two raw bytes; nothing else that is common has that type.
        name = "bfloat16"
    if name not in DTYPES:
        raise UnsupportedFormatError(
            "a NumPy type that is not judged here", source=source, offset=offset, value=descr
        )
    return name, order == ">" and size > 1


def parse_npy(
    head: bytes, source: str, file: str, name: str, offset: int, available: int
) -> tuple[TensorInfo, int, bool]:
    """Return the tensor in an npy file or member, its header's length, whether it is swapped.

    Parameters
    ----------
    head : bytes
        Its first bytes, at least as many as the header.
    offset, available : int
        Where it begins in `file`, and how many bytes it has.
    """
    if head[:6] != MAGIC or len(head) < 12:
        raise SchemaError("not an npy header", source=source, offset=offset)
    version = head[6]
    width = {1: 2, 2: 4, 3: 4}.get(version)
    if width is None or head[7] != 0:  # NumPy itself refuses any other minor version
        raise UnsupportedFormatError(
            "an npy version that is not known", source=source, offset=offset + 6,
            value=f"{version}.{head[7]}",
        )  # fmt: skip
    length = int.from_bytes(head[8 : 8 + width], "little")
    begin = 8 + width + length
    if length > MAX_HEADER or begin > available or begin > len(head):
        raise SchemaError(
            "an npy header that does not fit", source=source, offset=offset + 8, value=length
        )
    text = head[8 + width : begin].decode("latin-1" if version < 3 else "utf-8", "replace")
    if len(text) > 65536 or text.count("(") > 1000:
        raise SchemaError("an npy header without measure", source=source, offset=offset)
    try:
        fields = ast.literal_eval(text.strip(" \t\n"))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise SchemaError(f"a broken npy header: {error}", source=source, offset=offset) from error
    wanted = {"descr", "fortran_order", "shape"}
    if not isinstance(fields, dict) or set(fields) != wanted:
        raise SchemaError("an npy header without its three fields", source=source, offset=offset)
    shape = fields["shape"]
    good = isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS
    if not good or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise SchemaError("an npy shape that is none", source=source, offset=offset, value=shape)
    dtype, swapped = _dtype(fields["descr"], source, offset)
    nbytes = DTYPES[dtype].byte_size(shape)
    layout: Layout | None = None
    if fields["fortran_order"] is True and not is_packed(shape, _fortran(shape)):
        layout = Strided(file, offset + begin, shape, _fortran(shape), DTYPES[dtype].bits // 8)
    info = TensorInfo(name, dtype, shape, file, offset + begin, nbytes, layout)
    return info, begin, swapped


def _fortran(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in shape:
        strides.append(step)
        step *= size
    return tuple(strides)


def _swapped(info: TensorInfo) -> TensorInfo:
    dtype = DTYPES[info.dtype]
    inner = info.layout or Pieces((Piece(info.file, info.offset, info.nbytes),))
    return info._replace(layout=Swapped(inner, dtype.bits // 8 // dtype.lanes))


def _sized(
    info: TensorInfo, source: str, end: int, findings: list[CheckpointFinding], unread: list[str]
) -> bool:
    """Whether the data are all there; trailing and missing bytes are found."""
    have = end - info.offset
    if info.nbytes > have:
        message = f"{source}: {shown(info.name)} takes {info.nbytes} bytes and has {have}"
        unread.append(message)
        findings.append(
            CheckpointFinding.of(
                "truncated", "critical", message, info.name, missing_bytes=info.nbytes - have
            )
        )
        return False
    if info.nbytes < have:
        findings.append(
            CheckpointFinding.of(
                "trailing_bytes", "medium",
                f"{source}: {have - info.nbytes} bytes behind {shown(info.name)}",
                info.name, bytes=have - info.nbytes, offset=info.offset + info.nbytes,
            )
        )  # fmt: skip
    return True


@formats.register("npy")
class NpyFormat(CheckpointFormat):
    """One array in NumPy's npy format; arrays of Python objects are refused."""

    name: ClassVar[str] = "npy"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:
        """Return 1 for NumPy's magic bytes."""
        return 1.0 if head[:6] == MAGIC and not path.is_dir() else 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the one array, named by the file."""
        file = self.path.name
        with self.folder.open(file) as source:
            head = source.read(0, min(source.size, MAX_HEADER + 12), "the header")
            info, _, swapped = parse_npy(head, source.name, file, self.path.stem, 0, source.size)
            if not _sized(info, source.name, source.size, self.findings, self.unread):
                return []
        return [_swapped(info) if swapped else info]


@formats.register("npz")
class NpzFormat(CheckpointFormat):
    """A zip archive of npy members: stored ones read in place, deflated ones by opt-in."""

    name: ClassVar[str] = "npz"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:  # noqa: ARG003 - content decides
        """Return 0.9 for a zip archive whose first member is an npy."""
        if not looks_like_zip(head):
            return 0.0
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return 0.9 if name.endswith(b".npy") else 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the arrays in the order of the archive."""
        out = []
        with self.folder.open(self.path.name) as source:
            for member in read_members(source).values():
                name = member.name.removesuffix(".npy")
                if name == member.name:
                    self.unread.append(f"{source.name}: {shown(name)} is no npy member")
                    continue
                try:
                    info = self._member(source, member, name)
                except UnsupportedFormatError as error:
                    self.unread.append(str(error))
                    continue
                if info is not None:
                    out.append(info)
        return out

    def _member(self, source: Source, member: Member, name: str) -> TensorInfo | None:
        place = f"{source.name}:{shown(member.name)}"
        if member.method == STORED:
            count = min(member.size, MAX_HEADER + 12, 4096)
            head = source.read(member.offset, count, "an npy header")
            if head[:6] == MAGIC and member.size > count:
                width = 2 if head[6] == 1 else 4
                need = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
                if count < need <= min(member.size, MAX_HEADER + 12):
                    head = source.read(member.offset, need, "an npy header")
            info, _, swapped = parse_npy(
                head, place, self.path.name, name, member.offset, member.size
            )
            if not _sized(info, place, member.offset + member.size, self.findings, self.unread):
                return None
            source.checksums.expect(source.key, member)
            return _swapped(info) if swapped else info
        if member.method != DEFLATED:
            raise UnsupportedFormatError(
                "a compression that is not supported", source=place, value=member.method
            )
        check_inflation(member, self.options, place)
        return self._inflated(member, name, place)

    def _inflated(self, member: Member, name: str, place: str) -> TensorInfo | None:
        layout = Inflated(self.path.name, member.offset, member.stored, member.size, 0)
        head = bytearray(min(member.size, 65536))
        layout.read(self.folder, 0, memoryview(head))
        self.folder.release()
        info, begin, swapped = parse_npy(bytes(head), place, self.path.name, name, 0, member.size)
        if info.layout is not None:
            raise UnsupportedFormatError(
                "a compressed array in Fortran order is not supported", source=place
            )
        if info.nbytes != member.size - begin:
            raise SchemaError(
                f"takes {info.nbytes} bytes and has {member.size - begin}", source=place
            )
        skipping = Inflated(
            self.path.name, member.offset, member.stored, member.size, begin, crc=member.crc
        )
        info = info._replace(offset=member.offset, layout=skipping)
        return _swapped(info) if swapped else info


def check_inflation(member: Member, options: Options, place: str) -> None:
    """Raise where a compressed member is not asked for, or would make too many bytes."""
    if not options.inflate:
        raise UnsupportedFormatError(
            "compressed; it is read only where inflating is asked for (--inflate)", source=place
        )
    if member.size > options.max_inflated_bytes:
        raise UnsupportedFormatError(
            f"would inflate to more than {options.max_inflated_bytes} bytes", source=place,
            value=member.size,
        )  # fmt: skip
    if member.size > options.max_inflation * max(member.stored, 1) + (1 << 20):
        raise UnsupportedFormatError(
            f"would inflate to more than {options.max_inflation} times its size", source=place,
            value=member.size,
        )  # fmt: skip
