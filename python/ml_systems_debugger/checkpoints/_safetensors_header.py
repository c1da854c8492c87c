"""The header of a safetensors file: bounded, strict, and quick for many tensors."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from math import prod
from typing import Any

import numpy as np

from ..core import SchemaError
from ..core.shown import shown
from ._source import Source
from ._tensor_list import TensorList
from .dtypes import DTYPES
from .finding import CheckpointFinding

__all__ = ["MAX_HEADER", "Pairs", "parse_index", "read_header"]

MAX_HEADER = 100_000_000
MAX_DIMENSIONS = 64

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F6_E2M3": "float6_e2m3fn", "F6_E3M2": "float6_e3m2fn", "F4": "float4_e2m1fn",
    "C64": "complex64", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_BITS = {name: DTYPES[dtype].bits for name, dtype in _TYPES.items()}
_FIELDS = {"dtype", "shape", "data_offsets"}


class Pairs(list[Any]):
    """The pairs of one JSON object in their order, doubles included."""


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_constant=_refuse)
_BLANKS = re.compile(r"[ \t\r\n]*")
# A member as the reference writer puts it: read without building JSON objects.
_PLAIN = re.compile(
    r'"([^"\\\x00-\x1f]*)":\{"dtype":"([A-Z0-9_]+)","shape":\[((?:\d{1,19}(?:,\d{1,19})*)?)\],'
    r'"data_offsets":\[(\d{1,19}),(\d{1,19})\]\}([,}])'
)
_MAX_ENTRY = 8192
_MAX_METADATA = 4 << 20


def parse_index(text: bytes, source: str) -> Any:
    """Return JSON with every object as `Pairs`, so that repeated keys are seen."""
    parts = text.count(b",") + text.count(b"[") + text.count(b"{")
    if parts * 100 > 2 * len(text) + (48 << 20):
        raise SchemaError("JSON of too many parts for its size", source=source, value=parts)
    try:
        return _DECODER.decode(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"the JSON is broken: {error}", source=source) from error


def _members(text: str, source: str) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each member of the header, one at a time.

    A value is a tuple of the four texts of an entry that is written plainly, else JSON.
    """

    def broken(at: int, what: str) -> SchemaError:
        return SchemaError(f"the JSON header is broken: {what}", source=source, offset=8 + at)

    def skip(at: int) -> int:
        found = _BLANKS.match(text, at)
        return at if found is None else found.end()

    plain = _PLAIN.match
    at = skip(0)
    if text[at : at + 1] != "{":
        raise broken(at, "no object")
    at = skip(at + 1)
    end = ","
    if text[at : at + 1] == "}":
        end, at = "}", at + 1
    while end == ",":
        while (found := plain(text, at)) is not None:
            name, dtype, sizes, begin, stop, end = found.groups()
            yield name, (dtype, sizes, begin, stop)
            at = found.end()
            if end == "}":
                break
        if end == "}":
            break
        at = skip(at)
        if text[at : at + 1] != '"':
            raise broken(at, "no name where one should be")
        try:
            name, at = scanstring(text, at + 1, True)
        except ValueError as error:
            raise broken(at, str(error)) from error
        at = skip(at)
        if text[at : at + 1] != ":":
            raise broken(at, "no colon behind a name")
        at = skip(at + 1)
        limit = _MAX_METADATA if name == "__metadata__" else _MAX_ENTRY
        try:
            value, length = _DECODER.raw_decode(text[at : at + limit])
        except (ValueError, RecursionError) as error:
            raise broken(at, f"the entry of {shown(name)}: {error}") from error
        yield name, value
        at = skip(at + length)
        end = text[at : at + 1]
        if end not in (",", "}"):
            raise broken(at, "no comma between entries")
        at = skip(at + 1)
    if skip(at) != len(text) and text[at:].strip(" \t\r\n\0"):
        raise broken(at, "text behind the last brace")


def read_header(
    source: Source, file: str, findings: list[CheckpointFinding], unread: list[str]
) -> tuple[TensorList, dict[str, str]]:
    """Return the tensors of one file, in order of offset, and its ``__metadata__``.

    A file that is too short gives a finding, and its whole tensors are returned.
    """
    length = int.from_bytes(source.read(0, 8, "the header's length"), "little")
    if length > MAX_HEADER:
        raise SchemaError(
            f"a header of more than {MAX_HEADER} bytes", source=source.name, offset=0, value=length
        )
    try:
        text = source.read(8, length, "the header").decode("utf-8")
    except UnicodeDecodeError as error:
        raise SchemaError(
            "the header is no UTF-8", source=source.name, offset=8 + error.start
        ) from error
    if text[:1] in " \t\r\n":
        findings.append(_strange(source, "begins with blanks before its first brace"))
    metadata: dict[str, str] | None = None
    tensors, hashes, strange = TensorList(), array("q"), list[str]()
    shapes: dict[str, tuple[tuple[int, ...], int]] = {}
    for name, value in _members(text, source.name):
        if name == "__metadata__":
            if metadata is not None:
                raise SchemaError("__metadata__ occurs twice", source=source.name, offset=8)
            metadata = _metadata(source, value)
        else:
            begin, end, dtype, shape = _entry(source, name, value, shapes)
            tensors.add(name, _TYPES[dtype], shape, file, 8 + length + begin, end - begin)
            hashes.append(hash(name))
            if not name.isprintable():
                strange.append(name)
    del text
    if (twice := tensors.repeated(np.array(hashes, np.int64))) is not None:
        raise SchemaError(
            "two tensors of one name in the header: readers disagree on which one counts",
            source=source.name, offset=8, value=shown(twice),
        )  # fmt: skip
    if strange:
        findings.append(
            CheckpointFinding.of(
                "strange_name", "medium",
                f"{source.name}: {len(strange)} names hold control characters, "
                f"such as {shown(strange[0])}", names=[shown(n) for n in strange[:10]],
            )
        )  # fmt: skip
    return _placed(source, tensors, 8 + length, findings, unread), metadata or {}


def _strange(source: Source, what: str) -> CheckpointFinding:
    return CheckpointFinding.of(
        "strange_header", "low", f"{source.name}: the header {what}", file=source.name
    )


def _metadata(source: Source, value: Any) -> dict[str, str]:
    if not isinstance(value, Pairs) or not all(isinstance(v, str) for _, v in value):
        raise SchemaError("__metadata__ is no map of strings", source=source.name, offset=8)
    return dict(value)


def _wrong(source: Source, name: str, reason: str, value: object = None) -> SchemaError:
    return SchemaError(f"tensor {shown(name)}: {reason}", source=source.name, offset=8, value=value)


def _entry(
    source: Source, name: str, value: Any, shapes: dict[str, tuple[tuple[int, ...], int]]
) -> tuple[int, int, str, tuple[int, ...]]:
    """Return begin, end, type and shape of one entry; `shapes` remembers texts of shapes."""
    if type(value) is tuple:
        dtype, sizes, first, last = value
        known = shapes.get(sizes)
        if known is None:
            shape = tuple(map(int, sizes.split(","))) if sizes else ()
            known = shapes[sizes] = shape, _count(source, name, shape)
        shape, count = known
        begin, end = int(first), int(last)
    else:
        dtype, shape, begin, end = _fields(source, name, value)
        count = _count(source, name, shape)
    if end >= 1 << 62:
        raise _wrong(source, name, "its data_offsets are beyond 64 bits", [begin, end])
    bits = _BITS.get(dtype)
    if bits is None:
        raise _wrong(source, name, "its dtype is not known", dtype)
    if end < begin or (end - begin) * 8 != bits * count:
        raise _wrong(
            source, name,
            f"its data_offsets hold {end - begin} bytes, but shape and dtype take "
            f"{bits * count / 8:g}", [begin, end],
        )  # fmt: skip
    return begin, end, dtype, shape


def _count(source: Source, name: str, shape: tuple[int, ...]) -> int:
    """Return the number of elements of a shape, checked."""
    if len(shape) > MAX_DIMENSIONS:
        raise _wrong(source, name, "its shape is no list of sizes", shape)
    # Products of sizes below 2^63 with a zero among them are no larger than the others' product.
    if prod(max(size, 1) for size in shape) >= 1 << 60:
        raise _wrong(source, name, "its size is beyond 64 bits", shape)
    return prod(shape)


def _fields(source: Source, name: str, value: Any) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(value, Pairs):
        raise _wrong(source, name, "its entry is no object")
    fields = dict(value)
    if len(fields) != len(value) or fields.keys() != _FIELDS:
        keys = [k for k, _ in value]
        raise _wrong(source, name, "its entry has not exactly dtype, shape and data_offsets", keys)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str):
        raise _wrong(source, name, "its dtype is not known", dtype)
    if type(shape) is not list or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise _wrong(source, name, "its shape is no list of sizes", shape)
    pair = type(offsets) is list and len(offsets) == 2
    if not pair or not all(type(o) is int and o >= 0 for o in offsets):
        raise _wrong(source, name, "its data_offsets are no pair of integers", offsets)
    return dtype, tuple(shape), offsets[0], offsets[1]


def _placed(
    source: Source,
    tensors: TensorList,
    base: int,
    findings: list[CheckpointFinding],
    unread: list[str],
) -> TensorList:
    """Return the tensors that are there, in order of offset; gaps and overlaps are refused."""
    begins = tensors.offsets
    ends = begins + tensors.sizes
    order = np.lexsort((ends, begins))
    begins, ends = begins[order], ends[order]
    expected = np.concatenate([[base], ends[:-1]])
    for place in np.flatnonzero(begins != expected)[:1].tolist():
        name, begin, at = tensors.name(int(order[place])), int(begins[place]), int(expected[place])
        what = "overlaps the one before" if begin < at else f"leaves a gap of {begin - at} bytes"
        raise SchemaError(f"tensor {shown(name)} {what}", source=source.name, offset=begin)
    at = int(ends[-1]) - base if len(ends) else 0
    there = int(np.searchsorted(ends, source.size, "right"))  # the ends are in order
    missing = [tensors.name(i) for i in order[there:].tolist()]
    if base + at > source.size:
        lack = base + at - source.size
        message = (
            f"{source.name} is {lack} bytes shorter than its header says: {len(missing)} of "
            f"{len(order)} tensors are cut off"
        )
        unread.append(message)
        findings.append(
            CheckpointFinding.of(
                "truncated", "critical", message, file=source.name, missing_bytes=lack,
                tensors=[shown(n) for n in missing[:20]], count=len(missing),
            )
        )  # fmt: skip
    elif base + at < source.size:
        findings.append(
            CheckpointFinding.of(
                "trailing_bytes", "high",
                f"{source.name} holds {source.size - base - at} bytes behind its last tensor: the "
                f"format's own library refuses the file",
                file=source.name, offset=base + at, bytes=source.size - base - at,
            )
        )  # fmt: skip
    whole = there == len(order) and bool((np.diff(order) == 1).all())
    return tensors if whole else tensors.take(order[:there])
