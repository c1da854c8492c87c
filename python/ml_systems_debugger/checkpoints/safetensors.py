"""safetensors files, and folders or ``*.index.json`` files that list their shards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

from ..core import SchemaError
from ..core.shown import shown
from ._place import Place
from ._safetensors_header import MAX_HEADER, Pairs, parse_index, read_header
from .contract import CheckpointFormat, TensorInfo, formats
from .finding import CheckpointFinding
from .folder import tensors_inside

__all__ = ["SafetensorsFormat", "ShardedSafetensorsFormat"]

MAX_INDEX = 100_000_000
_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})\.safetensors")


@formats.register("safetensors")
class SafetensorsFormat(CheckpointFormat):
    """One safetensors file: a length of 8 bytes, a JSON header, packed little-endian data.

    Stricter than the reference reader: no duplicate names; trailing bytes and
    leading blanks are findings. Source: the format's description in the
    safetensors project.
    """

    name: ClassVar[str] = "safetensors"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:
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
            found, metadata = read_header(source, self.path.name, self.findings, self.unread)
        self.metadata.update({shown(k): shown(v) for k, v in metadata.items()})
        return found


@formats.register("safetensors_sharded")
class ShardedSafetensorsFormat(CheckpointFormat):
    """A ``*.safetensors.index.json`` with its shards, or a folder of safetensors files."""

    name: ClassVar[str] = "safetensors_sharded"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:
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
            for path in sorted(self.path.iterdir(), key=lambda p: p.name):
                if path.suffix != ".safetensors" and path.is_file():
                    yield from tensors_inside(self, path)

    def _index(self, path: Place) -> dict[str, str]:
        with self.folder.open(path.name) as source:
            if source.size > MAX_INDEX:
                raise SchemaError(
                    f"an index of more than {MAX_INDEX} bytes", source=source.name,
                    value=source.size,
                )  # fmt: skip
            data = parse_index(source.read(0, source.size, "the index"), source.name)
        weight_map = dict(data).get("weight_map") if isinstance(data, Pairs) else None
        if not isinstance(weight_map, Pairs):
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
                found, metadata = read_header(source, file, self.findings, self.unread)
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
            yield info

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


def _indices(folder: Place) -> list[Place]:
    return sorted(folder.glob("*.safetensors.index.json"), key=lambda p: p.name)
