"""GGUF, the format of llama.cpp: versions 2 and 3, every ggml type sized."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, ClassVar

from ..core import SchemaError, UnsupportedFormatError
from ..core.shown import shown
from ._place import Place
from ._source import Source
from .contract import CheckpointFormat, TensorInfo, formats
from .dtypes import DTYPES
from .finding import CheckpointFinding

__all__ = ["GGML_TYPES", "GgufFormat"]

MAX_TENSORS = 1 << 24
MAX_KEYS = 1 << 20
MAX_NAME = 65535
MAX_TEXT = 1 << 28
MAX_DIMENSIONS = 8
MAX_NESTING = 4
_WINDOW = 1 << 20

GGML_TYPES = {
    0: "float32", 1: "float16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1",
    10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k", 16: "iq2_xxs",
    17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s", 22: "iq2_s",
    23: "iq4_xs", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 29: "iq1_m",
    30: "bfloat16", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4", 41: "q1_0",
}  # fmt: skip
_REMOVED = {4: "q4_2", 5: "q4_3", 31: "q4_0_4_4", 32: "q4_0_4_8", 33: "q4_0_8_8",
            36: "iq4_nl_4_4", 37: "iq4_nl_4_8", 38: "iq4_nl_8_8"}  # fmt: skip
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_TEXT, _ARRAY = 8, 9
_KEPT = ("general.architecture", "general.name", "general.file_type", "general.alignment",
         "split.no", "split.count", "split.tensors.count")  # fmt: skip


class _Cursor:
    """Reads a file from its start, a window at a time."""

    def __init__(self, source: Source, order: str) -> None:
        self.source = source
        self.order = order
        self.at = 0
        self._base = 0
        self._window = b""

    def take(self, count: int, what: str) -> bytes:
        inside = self.at - self._base
        if inside < 0 or inside + count > len(self._window):
            size = min(max(count, _WINDOW), self.source.size - self.at)
            if count > size:
                raise SchemaError(
                    f"{what} does not lie inside the file of {self.source.size} bytes",
                    source=self.source.name, offset=self.at, value=count,
                )  # fmt: skip
            self._base, inside = self.at, 0
            self._window = self.source.read(self.at, size, what)
        self.at += count
        return self._window[inside : inside + count]

    def skip(self, count: int, what: str) -> None:
        if count > self.source.size - self.at:
            raise SchemaError(
                f"{what} does not lie inside the file", source=self.source.name, offset=self.at,
                value=count,
            )  # fmt: skip
        self.at += count

    def number(self, code: str, what: str) -> Any:
        raw = self.take(struct.calcsize(f"={code}"), what)
        return struct.unpack(f"{self.order}{code}", raw)[0]

    def text(self, what: str, limit: int, *, strict: bool = True) -> str:
        length = self.number("Q", what)
        if length > limit:
            raise SchemaError(
                f"{what} of more than {limit} bytes", source=self.source.name, offset=self.at - 8,
                value=length,
            )  # fmt: skip
        raw = self.take(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if strict:
                raise SchemaError(
                    f"{what} that is no UTF-8", source=self.source.name, offset=self.at - length,
                    value=raw[:40],
                ) from error  # fmt: skip
            return raw.decode("utf-8", "backslashreplace")


@formats.register("gguf")
class GgufFormat(CheckpointFormat):
    """Magic, key-values, tensor infos, then aligned data.

    Float tensors are judged by their values, quantised ones by the scales of
    their blocks. Source: the format's description in the ggml project.
    """

    name: ClassVar[str] = "gguf"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:
        """Return 1 for the magic word."""
        return 1.0 if head[:4] == b"GGUF" and not path.is_dir() else 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the tensors in the order of the file."""
        with self.folder.open(self.path.name) as source:
            return self._read(source)

    def _read(self, source: Source) -> list[TensorInfo]:
        raw = source.read(4, 4, "the version")
        version = int.from_bytes(raw, "little")
        order = "<"
        if version > 0xFFFF:
            version, order = int.from_bytes(raw, "big"), ">"
        if version not in (2, 3):
            raise UnsupportedFormatError(
                "a GGUF version that is not known (2 and 3 are)", source=source.name, offset=4,
                value=version,
            )  # fmt: skip
        if order == ">":
            raise UnsupportedFormatError("a big-endian GGUF file", source=source.name, offset=4)
        cursor = _Cursor(source, order)
        cursor.skip(8, "the header")
        tensors, keys = cursor.number("Q", "the tensor count"), cursor.number("Q", "the key count")
        if tensors > min(MAX_TENSORS, source.size // 24) or keys > min(MAX_KEYS, source.size // 13):
            raise SchemaError(
                "more tensors or keys than the file has room for", source=source.name, offset=8,
                value=(tensors, keys),
            )  # fmt: skip
        alignment = 32
        seen: set[str] = set()
        for _ in range(keys):
            at = cursor.at
            key = cursor.text("a key", MAX_NAME)
            if key in seen:
                raise SchemaError("two keys of one name", source=source.name, offset=at,
                                  value=shown(key))  # fmt: skip
            seen.add(key)
            value = self._value(cursor, cursor.number("I", "a value's type"), key in _KEPT, 0)
            if key in _KEPT:
                self.metadata[key] = value
            if key == "general.alignment":
                alignment = value
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment % 8:
            raise SchemaError(
                "an alignment that makes no sense", source=source.name, value=alignment
            )
        infos = [self._info(cursor) for _ in range(tensors)]
        data = -(-cursor.at // alignment) * alignment
        return self._placed(source, infos, data, alignment)

    def _value(self, cursor: _Cursor, kind: int, keep: bool, depth: int) -> Any:
        if kind in _SCALARS:
            return cursor.number(_SCALARS[kind], "a value")
        if kind == _TEXT:
            if keep:
                return shown(cursor.text("a value", MAX_TEXT, strict=False))
            cursor.skip(cursor.number("Q", "a value"), "a value")
            return None
        if kind != _ARRAY or depth >= MAX_NESTING:
            raise SchemaError(
                "a value of a type that is not known", source=cursor.source.name,
                offset=cursor.at, value=kind,
            )  # fmt: skip
        inner, count = cursor.number("I", "an array's type"), cursor.number("Q", "an array")
        if inner in _SCALARS:
            cursor.skip(count * struct.calcsize(f"={_SCALARS[inner]}"), "an array")
            return None
        if count > cursor.source.size // 8:
            raise SchemaError(
                "an array with more items than the file has room for", source=cursor.source.name,
                offset=cursor.at, value=count,
            )  # fmt: skip
        for _ in range(count):
            self._value(cursor, inner, False, depth + 1)
        return None

    def _info(self, cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
        at = cursor.at
        name = cursor.text("a tensor's name", MAX_NAME)
        dimensions = cursor.number("I", "a tensor's dimensions")
        if dimensions > MAX_DIMENSIONS:
            raise SchemaError(
                f"tensor {shown(name)} has too many dimensions", source=cursor.source.name,
                offset=at, value=dimensions,
            )  # fmt: skip
        sizes = [cursor.number("Q", "a tensor's shape") for _ in range(dimensions)]
        kind, offset = cursor.number("I", "a type"), cursor.number("Q", "a tensor's offset")
        if kind not in GGML_TYPES:
            gone = f"{_REMOVED[kind]}, which ggml has removed" if kind in _REMOVED else "not known"
            raise UnsupportedFormatError(
                f"tensor {shown(name)} has a type that is {gone}", source=cursor.source.name,
                offset=at, value=kind,
            )  # fmt: skip
        # ggml lists the fastest dimension first.
        shape = tuple(reversed(sizes))
        dtype = GGML_TYPES[kind]
        bits = DTYPES[dtype].bits
        for size in shape:
            bits *= max(size, 1)
            if bits >= 1 << 66:  # 2**63 bytes, even where another dimension is 0
                raise SchemaError(
                    f"tensor {shown(name)} has a size beyond 63 bits",
                    source=cursor.source.name, offset=at, value=shape,
                )  # fmt: skip
        try:
            nbytes = DTYPES[dtype].byte_size(shape)
        except ValueError as error:
            raise SchemaError(
                f"tensor {shown(name)}: {error}", source=cursor.source.name, offset=at, value=shape
            ) from error
        return name, dtype, shape, offset, nbytes

    def _placed(
        self,
        source: Source,
        infos: list[tuple[str, str, tuple[int, ...], int, int]],
        data: int,
        alignment: int,
    ) -> list[TensorInfo]:
        out, end, names = [], 0, set()
        missing: list[str] = []
        for name, dtype, shape, offset, nbytes in sorted(infos, key=lambda i: (i[3], i[4])):
            if offset % alignment or offset < end:
                what = "overlaps the one before" if offset < end else "is not aligned"
                raise SchemaError(
                    f"tensor {shown(name)} {what}", source=source.name, offset=data + offset
                )
            if name in names:
                raise SchemaError("two tensors of one name", source=source.name, value=shown(name))
            names.add(name)
            end = offset + nbytes
            if data + end > source.size:
                missing.append(name)
                continue
            out.append(TensorInfo(name, dtype, shape, self.path.name, data + offset, nbytes))
        padded = -(-end // alignment) * alignment
        if missing:
            lack = data + end - source.size
            message = (
                f"{source.name} is {lack} bytes shorter than its header says: {len(missing)} of "
                f"{len(infos)} tensors are cut off"
            )
            self.unread.append(message)
            self.findings.append(
                CheckpointFinding.of(
                    "truncated", "critical", message, missing_bytes=lack,
                    tensors=[shown(n) for n in missing[:20]], count=len(missing),
                )
            )  # fmt: skip
        elif infos and data + padded < source.size:
            extra = source.size - data - padded
            self.findings.append(
                CheckpointFinding.of(
                    "trailing_bytes", "medium",
                    f"{source.name} holds {extra} bytes behind its last tensor",
                    bytes=extra, offset=data + padded,
                )
            )  # fmt: skip
        count = self.metadata.get("split.count")
        if isinstance(count, int) and count > 1:
            number = self.metadata.get("split.no", 0)
            self.metadata["note"] = f"part {number + 1} of {count}; the other parts are not read"
        return out
