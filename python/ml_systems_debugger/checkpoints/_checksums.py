"""Checksums that archives hold of their members, compared with what was read of them.

Loaders do not look: torch is built without the check, so that a bit that flips on a disk goes into
training unseen. The checksum of a member is put together from those of the parts that are read for
their values anyway; only what no tensor shows is read for it alone.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core import MLSystemsDebuggerError
from ..core.shown import shown
from ..kernels import crc32, crc32_combine
from ._zip import STORED, Member

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["Checksums", "Part", "member_crc"]

_GAP = 1 << 20
_LEAST = 64 << 10


def member_crc(member: Member) -> int | None:
    """Return the CRC-32 of a member's data, None where the writer left it out.

    ``torch.serialization.set_crc32_options(False)`` writes zeros; one member in 2**32 has that
    checksum by chance, and is not compared.
    """
    return member.crc or None


class _Check(NamedTuple):
    start: int
    stop: int
    crc: int
    name: str


class Part(NamedTuple):
    """Bytes of a file that were read, and their CRC-32."""

    start: int
    stop: int
    crc: int


class Checksums:
    """What members of a checkpoint's files should hold, and what was read of them."""

    def __init__(self) -> None:
        self._checks: dict[str, dict[int, _Check]] = defaultdict(dict)
        self._parts: dict[str, dict[int, Part]] = defaultdict(dict)
        self._begun: dict[str, set[int]] = defaultdict(set)
        self._lock = threading.Lock()

    def expect(self, file: str, member: Member) -> None:
        """Say that a stored member's bytes are to be compared once they were read."""
        crc = member_crc(member)
        if crc is not None and member.method == STORED and member.size:
            stop = member.offset + member.size
            self._checks[file][member.offset] = _Check(member.offset, stop, crc, member.name)

    def wanted(self, file: str) -> bool:
        """Return whether a file has members to be compared."""
        return file in self._checks

    def note(self, file: str, offset: int, data: Any) -> None:
        """Note bytes that were read."""
        if file in self._checks and len(data):
            self.add(file, Part(offset, offset + len(data), crc32(data)))

    def begin(self, file: str, offset: int) -> None:
        """Say that what lies here is read by this process: it compares the member around it."""
        if file in self._checks:
            with self._lock:
                self._begun[file].add(offset)

    def note_run(self, file: str, offset: int, data: Any) -> None:
        """Note bytes, but for short runs: those of a member are read at once in the end."""
        if len(data) >= _LEAST:
            self.note(file, offset, data)

    def add(self, file: str, part: Part) -> None:
        """Note a part that was read."""
        with self._lock:
            known = self._parts[file].get(part.start)
            if known is None or known.stop < part.stop:
                self._parts[file][part.start] = part

    def compare(self, lent: Callable[[str], AbstractContextManager[Source]]) -> list[str]:
        """Return one sentence for each member whose bytes are not those that were written.

        Parameters
        ----------
        lent : callable
            Opens a file, for what no part holds.

        Members of which nothing was begun are left out: their tensors were not asked for, or
        another shard reads them.
        """
        sentences = []
        for file in sorted(self._checks):
            parts = self._parts.get(file, {})
            starts, begun = sorted(parts), sorted(self._begun.get(file, ()))
            for check in sorted(self._checks[file].values()):
                at = bisect_left(begun, check.start)
                if at == len(begun) or begun[at] >= check.stop:
                    continue
                try:
                    with lent(file) as source:
                        found = _put_together(source, check, parts, starts)
                except (MLSystemsDebuggerError, OSError) as error:
                    sentences.append(str(error))
                    continue
                if found != check.crc:
                    sentences.append(
                        f"{shown(file)}: member {shown(check.name)} at byte {check.start} is "
                        f"damaged: its CRC-32 is {found:08x}, and {check.crc:08x} was written"
                    )
        return sentences


def _put_together(source: Source, check: _Check, parts: dict[int, Part], starts: list[int]) -> int:
    """Return the CRC-32 of a member from its parts; gaps between them are read."""
    crc, at = 0, check.start
    while at < check.stop:
        part = parts.get(at)
        if part is not None and part.stop <= check.stop:
            crc = crc32_combine(crc, part.crc, part.stop - part.start)
            at = part.stop
            continue
        following = bisect_left(starts, at + 1)
        end = min(check.stop, starts[following]) if following < len(starts) else check.stop
        data = bytearray(min(end - at, _GAP))
        source.read_into(at, memoryview(data))
        crc = crc32(data, crc)
        at += len(data)
    return crc
