"""safetensors files, and folders or ``*.index.json`` files that list their shards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, ClassVar

from ..core import SchemaError
from ._names import shown
from ._source import Source
from .contract import CheckpointFormat, TensorInfo, formats
from .dtypes import DTYPES
from .finding import CheckpointFinding
from .folder import tensors_inside

__all__ = ["SafetensorsFormat", "ShardedSafetensorsFormat"]

MAX_HEADER = 100_000_000
MAX_DIMENSIONS = 64
MAX_INDEX = 100_000_000

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
_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})\.safetensors")


class _Pairs(list[Any]):
    """The pairs of one JSON object in their order, doubles included."""


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=_refuse)
_BLANKS = re.compile(r"[ \t\r\n]*")
# An entry as the reference writer puts it: read without building JSON objects.
_ENTRY = re.compile(
    r'\{"dtype":"([A-Z0-9_]+)","shape":\[((?:\d{1,19},)*(?:\d{1,19})?)\],'
    r'"data_offsets":\[(\d{1,19}),(\d{1,19})\]\}'
)
_MAX_ENTRY = 8192
_MAX_METADATA = 4 << 20


def _parse_index(text: bytes, source: str) -> Any:
    """Return JSON with every object as `_Pairs`, so that repeated keys are seen."""
    parts = text.count(b",") + text.count(b"[") + text.count(b"{")
    if parts * 100 > 2 * len(text) + (48 << 20):
        raise SchemaError("JSON of too many parts for its size", source=source, value=parts)
    try:
        return _DECODER.decode(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"the JSON is broken: {error}", source=source) from error


def _members(text: str, source: str) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each member of the header, one at a time.

    A value is a match of `_ENTRY` where the entry is written plainly, else JSON.
    """

    def broken(at: int, what: str) -> SchemaError:
        return SchemaError(f"the JSON header is broken: {what}", source=source, offset=8 + at)

    def skip(at: int) -> int:
        found = _BLANKS.match(text, at)
        return at if found is None else found.end()

    at = skip(0)
    if text[at : at + 1] != "{":
        raise broken(at, "no object")
    at = skip(at + 1)
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise broken(at, "no name where one should be")
            try:
                name, at = scanstring(text, at + 1, False)
            except ValueError as error:
                raise broken(at, str(error)) from error
            at = skip(at)
            if text[at : at + 1] != ":":
                raise broken(at, "no colon behind a name")
            at = skip(at + 1)
            value: Any = _ENTRY.match(text, at)
            if value is not None:
                at = value.end()
            else:
                limit = _MAX_METADATA if name == "__metadata__" else _MAX_ENTRY
                try:
                    value, length = _DECODER.raw_decode(text[at : at + limit])
                except (ValueError, RecursionError) as error:
                    raise broken(at, f"the entry of {shown(name)}: {error}") from error
                at += length
            yield name, value
            at = skip(at)
            at += 1
            if text[at - 1 : at] == "}":
                break
            if text[at - 1 : at] != ",":
                raise broken(at - 1, "no comma between entries")
            at = skip(at)
    if skip(at) != len(text) and text[at:].strip(" \t\r\n\0"):
        raise broken(at, "text behind the last brace")


def read_header(
    source: Source, findings: list[CheckpointFinding], unread: list[str]
) -> tuple[list[TensorInfo], dict[str, str]]:
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
    entries: dict[str, tuple[int, int, str, tuple[int, ...]]] = {}
    for name, value in _members(text, source.name):
        if name == "__metadata__":
            if metadata is not None:
                raise SchemaError("__metadata__ occurs twice", source=source.name, offset=8)
            metadata = _metadata(source, value)
        elif name in entries:
            raise SchemaError(
                "two tensors of one name in the header: readers disagree on which one counts",
                source=source.name, offset=8, value=shown(name),
            )  # fmt: skip
        else:
            entries[name] = _entry(source, name, value)
    strange = [name for name in entries if not name.isprintable()]
    if strange:
        findings.append(
            CheckpointFinding.of(
                "strange_name", "medium",
                f"{source.name}: {len(strange)} names hold control characters, "
                f"such as {shown(strange[0])}", names=[shown(n) for n in strange[:10]],
            )
        )  # fmt: skip
    return _placed(source, entries, 8 + length, findings, unread), metadata or {}


def _strange(source: Source, what: str) -> CheckpointFinding:
    return CheckpointFinding.of(
        "strange_header", "low", f"{source.name}: the header {what}", file=source.name
    )


def _metadata(source: Source, value: Any) -> dict[str, str]:
    if not isinstance(value, _Pairs) or not all(isinstance(v, str) for _, v in value):
        raise SchemaError("__metadata__ is no map of strings", source=source.name, offset=8)
    return dict(value)


def _entry(source: Source, name: str, value: Any) -> tuple[int, int, str, tuple[int, ...]]:
    def wrong(reason: str, what: object = None) -> SchemaError:
        return SchemaError(
            f"tensor {shown(name)}: {reason}", source=source.name, offset=8, value=what
        )

    if isinstance(value, re.Match):
        dtype, sizes, *ends = value.groups()
        if sizes.endswith(","):
            raise wrong("its shape is no list of sizes", sizes)
        shape: Any = [int(n) for n in sizes.split(",")] if sizes else []
        offsets: Any = [int(n) for n in ends]
    else:
        if not isinstance(value, _Pairs):
            raise wrong("its entry is no object")
        fields = dict(value)
        if len(fields) != len(value) or fields.keys() != _FIELDS:
            keys = [k for k, _ in value]
            raise wrong("its entry has not exactly dtype, shape and data_offsets", keys)
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise wrong("its dtype is not known", dtype)
    if type(shape) is not list or len(shape) > MAX_DIMENSIONS:
        raise wrong("its shape is no list of sizes", shape)
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise wrong("its shape is no list of sizes", shape)
        bits *= size
        if bits >= 1 << 66:
            raise wrong("its size is beyond 64 bits", shape)
    if type(offsets) is not list or len(offsets) != 2 or not all(type(o) is int for o in offsets):
        raise wrong("its data_offsets are no pair of integers", offsets)
    begin, end = offsets
    if not 0 <= begin <= end or (end - begin) * 8 != bits:
        raise wrong(
            f"its data_offsets hold {end - begin} bytes, but shape and dtype take {bits / 8:g}",
            offsets,
        )
    return begin, end, dtype, tuple(shape)


def _placed(
    source: Source,
    entries: dict[str, tuple[int, int, str, tuple[int, ...]]],
    base: int,
    findings: list[CheckpointFinding],
    unread: list[str],
) -> list[TensorInfo]:
    order = sorted(entries.items(), key=lambda item: item[1][:2])
    at = 0
    out: list[TensorInfo] = []
    missing: list[str] = []
    for name, (begin, end, dtype, shape) in order:
        if begin != at:
            what = (
                "overlaps the one before" if begin < at else f"leaves a gap of {begin - at} bytes"
            )
            raise SchemaError(
                f"tensor {shown(name)} {what}", source=source.name, offset=base + begin
            )
        at = end
        if base + end > source.size:
            missing.append(name)
            continue
        out.append(TensorInfo(name, _TYPES[dtype], shape, source.name, base + begin, end - begin))
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
                "trailing_bytes", "medium",
                f"{source.name} holds {source.size - base - at} bytes behind its last tensor",
                file=source.name, offset=base + at, bytes=source.size - base - at,
            )
        )  # fmt: skip
    return out


@formats.register("safetensors")
class SafetensorsFormat(CheckpointFormat):
    """One safetensors file: a length of 8 bytes, a JSON header, packed little-endian data.

    Stricter than the reference reader: no duplicate names; trailing bytes and
    leading blanks are findings. Source: the format's description in the
    safetensors project.
    """

    name: ClassVar[str] = "safetensors"

    @classmethod
    def sniff(cls, path: Path, head: bytes) -> float:
        """Return 1 for a plausible length followed by a JSON object."""
        if len(head) < 9 or path.is_dir():
            return 0.0
        length = int.from_bytes(head[:8], "little")
        starts = head[8:72].lstrip(b" \t\r\n")[:1] == b"{"
        if starts and 2 <= length <= MAX_HEADER:
            return 1.0
        # A length beyond the limit, or a header that is no JSON: still meant to be one.
        return 0.3 if path.suffix == ".safetensors" or starts else 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the tensors in order of offset."""
        with self.folder.open(self.path.name) as source:
            found, metadata = read_header(source, self.findings, self.unread)
        self.metadata.update({shown(k): shown(v) for k, v in metadata.items()})
        return [info._replace(file=self.path.name) for info in found]


@formats.register("safetensors_sharded")
class ShardedSafetensorsFormat(CheckpointFormat):
    """A ``*.safetensors.index.json`` with its shards, or a folder of safetensors files."""

    name: ClassVar[str] = "safetensors_sharded"

    @classmethod
    def sniff(cls, path: Path, head: bytes) -> float:
        """Return 1 for an index, 0.9 for a folder with one or with safetensors files."""
        if path.is_dir():
            return 0.9 if any(path.glob("*.safetensors")) or _indices(path) else 0.0
        return 1.0 if head.lstrip()[:1] == b"{" and b'"weight_map"' in head else 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the tensors of all shards; what the index and the shards disagree on is found."""
        indices = _indices(self.path) if self.path.is_dir() else [self.path]
        there = sorted(p.name for p in self.folder.root.glob("*.safetensors"))
        expected: dict[str, str] = {}
        for index in indices:
            expected.update(self._index(index))
        listed = sorted(set(expected.values()))
        files = sorted({*there, *listed}) if self.path.is_dir() else listed
        seen: dict[str, str] = {}
        for file in files:
            yield from self._shard(file, seen)
        self._compare(expected, seen, there, set(files))
        if self.path.is_dir():
            # Nothing in the folder is passed over: optimizer states and the like beside the shards.
            for path in sorted(self.path.iterdir()):
                if path.suffix != ".safetensors" and path.is_file():
                    yield from tensors_inside(self, path)

    def _index(self, path: Path) -> dict[str, str]:
        with self.folder.open(path.name) as source:
            if source.size > MAX_INDEX:
                raise SchemaError(
                    f"an index of more than {MAX_INDEX} bytes", source=source.name,
                    value=source.size,
                )  # fmt: skip
            data = _parse_index(source.read(0, source.size, "the index"), source.name)
        weight_map = dict(data).get("weight_map") if isinstance(data, _Pairs) else None
        if not isinstance(weight_map, _Pairs):
            raise SchemaError("an index without a weight_map", source=shown(path.name))
        for tensor, file in weight_map:
            if not isinstance(file, str):
                raise SchemaError(
                    f"tensor {shown(tensor)} lies in no file", source=shown(path.name), value=file
                )
        if len(dict(weight_map)) != len(weight_map):
            raise SchemaError("two entries for one tensor in weight_map", source=shown(path.name))
        for file in sorted({file for _, file in weight_map}):
            self.folder.path(file, shown(path.name))
        return dict(weight_map)

    def _shard(self, file: str, seen: dict[str, str]) -> Iterator[TensorInfo]:
        try:
            with self.folder.open(file) as source:
                found, metadata = read_header(source, self.findings, self.unread)
        except FileNotFoundError:
            self.unread.append(f"{shown(file)} is missing")
            self.findings.append(
                CheckpointFinding.of(
                    "missing_shard", "critical", f"{shown(file)} is in the index and not there",
                    file=shown(file),
                )
            )  # fmt: skip
            return
        except SchemaError as error:
            self.unread.append(str(error))
            return
        self.metadata.update({shown(k): shown(v) for k, v in metadata.items()})
        for info in found:
            if info.name in seen:
                self.findings.append(
                    CheckpointFinding.of(
                        "duplicate_name", "high",
                        f"{shown(info.name)} is in {shown(seen[info.name])} and in {shown(file)}",
                        info.name, files=[shown(seen[info.name]), shown(file)],
                    )
                )  # fmt: skip
                continue
            seen[info.name] = file
            yield info._replace(file=file)

    def _compare(
        self, expected: dict[str, str], seen: dict[str, str], there: list[str], used: set[str]
    ) -> None:
        if expected:
            lost = [n for n, f in expected.items() if n not in seen and f in set(seen.values())]
            for name in lost[:100]:
                self.findings.append(
                    CheckpointFinding.of(
                        "missing_tensor", "critical",
                        f"{shown(name)} should be in {shown(expected[name])} and is not there",
                        name, file=shown(expected[name]), count=len(lost),
                    )
                )  # fmt: skip
            moved = [n for n, f in seen.items() if n in expected and expected[n] != f]
            more = [n for n in seen if n not in expected]
            for name in (moved + more)[:100]:
                self.findings.append(
                    CheckpointFinding.of(
                        "extra_tensor", "medium",
                        f"{shown(name)} is in {shown(seen[name])}, not where the index says",
                        name, file=shown(seen[name]), count=len(moved) + len(more),
                    )
                )  # fmt: skip
            extra = sorted(set(there) - set(expected.values()))
            self.findings.extend(
                CheckpointFinding.of(
                    "extra_shard", "low", f"{shown(file)} is not in the index", file=shown(file)
                )
                for file in extra
            )
        self._numbering(used)

    def _numbering(self, files: set[str]) -> None:
        """Find shards of ``...-00001-of-00004`` that are neither there nor in an index."""
        groups: dict[tuple[str, int], set[int]] = {}
        for file in files:
            if match := _SHARD.fullmatch(file):
                stem = file[: match.start(1)]
                groups.setdefault((stem, int(match[2])), set()).add(int(match[1]))
        for (stem, total), numbers in groups.items():
            lost = [n for n in range(1, min(total, 10_000) + 1) if n not in numbers]
            if lost:
                message = (
                    f"{len(lost)} of {total} shards {shown(stem)}* are missing: "
                    f"{', '.join(map(str, lost[:20]))}"
                )
                self.unread.append(message)
                self.findings.append(
                    CheckpointFinding.of("missing_shard", "critical", message, shards=lost[:100])
                )


def _indices(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors.index.json"))
