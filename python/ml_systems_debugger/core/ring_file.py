"""The ring file of the live monitor: the last steps of a run, readable after any death of it.

Layout, little-endian: a header of 64 bytes (magic, version, slots, columns,
bytes for names), two areas of names of which the newer whole one counts, then
`slots` slots. A slot is sequence number + 1, step, time, a CRC-32 of all that
follows the CRC, and one float64 per column; NaN with a payload of its own is
"not logged". The file has its full size from the start, so that a full disk
shows when it is made and never as a signal later.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import ConfigurationError, SchemaError
from .parameters import check_count
from .series import Series, SeriesKey
from .signal_set import SignalSet

__all__ = ["RING_MAGIC", "RingFile", "read_ring"]

RING_MAGIC = b"MLSDRING"
_VERSION = 1
_HEADER = struct.Struct("<8sIIIIQ")  # magic, version, slots, columns, bytes of names, began
_HEADER_SIZE = 64
_NAMES = struct.Struct("<QII")  # generation, length, crc
_SLOT = struct.Struct("<QqdI4x")  # sequence + 1, step, time, crc
_ABSENT = np.uint64(0x7FF8_0000_4D4C_5344)  # a quiet NaN that says "not logged"
_MOST_COLUMNS, _MOST_BYTES = 1 << 20, 1 << 34

Floats = npt.NDArray[np.float64]


class RingFile:
    """Writes the last `slots` steps of up to `columns` series into a file of fixed size.

    What is written survives the process (the pages belong to the system), not
    the machine. A slot that was being written when the process died does not
    match its checksum and is left out.

    Parameters
    ----------
    path : path
        Made, or replaced.
    slots, columns : int
        Steps kept, and series at most.

    Raises
    ------
    OSError
        If there is no room for the whole file.
    """

    def __init__(self, path: str | os.PathLike[str], slots: int, columns: int) -> None:
        check_count(2, slots=slots)
        check_count(1, columns=columns)
        self.path = Path(path)
        self.slots, self.columns = slots, columns
        self._names_bytes = max(4096, 128 * columns)
        self._slot_bytes = _SLOT.size + 8 * columns
        size = _HEADER_SIZE + 2 * self._names_bytes + slots * self._slot_bytes
        if columns > _MOST_COLUMNS or size > _MOST_BYTES:
            raise ConfigurationError(f"a ring of {size} bytes is more than {_MOST_BYTES}")
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with aside.open("w+b") as file:
                _reserve(file.fileno(), size)
                self._map = mmap.mmap(file.fileno(), size)
            _HEADER.pack_into(
                self._map, 0, RING_MAGIC, _VERSION, slots, columns, self._names_bytes,
                int(time.time()),
            )  # fmt: skip
            aside.replace(self.path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        self._view = memoryview(self._map)
        self._row = np.full(columns, np.nan)
        self._bits = self._row.view(np.uint64)
        self._bits[:] = _ABSENT
        self._keys: list[SeriesKey] = []
        self._generation = 0
        self._sequence = 0

    def names(self, keys: Sequence[SeriesKey]) -> None:
        """Say which series the columns are; more may come later, none may change."""
        if len(keys) > self.columns:
            raise ConfigurationError(f"{len(keys)} series, the ring has {self.columns} columns")
        text = json.dumps([key.to_list() for key in keys], separators=(",", ":")).encode()
        if _NAMES.size + len(text) > self._names_bytes:
            raise ConfigurationError(
                f"the names of {len(keys)} series take {len(text)} bytes, the ring has "
                f"{self._names_bytes - _NAMES.size}"
            )
        self._generation += 1
        # The two areas take turns: one is whole at any moment.
        at = _HEADER_SIZE + (self._generation % 2) * self._names_bytes
        self._map[at + _NAMES.size : at + _NAMES.size + len(text)] = text
        _NAMES.pack_into(self._map, at, self._generation, len(text), zlib.crc32(text))
        self._keys = list(keys)

    def write(self, step: int, columns: npt.NDArray[np.int64], values: Floats) -> None:
        """Write one step: `values` [k] of the series in `columns` [k]; the others are absent."""
        self.clear()[columns] = values
        self.commit(step)

    def clear(self) -> Floats:
        """Return the row [columns] of the next step, everything in it absent, to be filled."""
        self._bits[:] = _ABSENT
        return self._row

    def commit(self, step: int) -> None:
        """Write the row as one step."""
        row = self._row
        at = self._offset(self._sequence % self.slots)
        data = row.tobytes()
        head = struct.pack("<qd", step, time.time())
        # The old content stops being valid first: its number is of another turn.
        _SLOT.pack_into(self._map, at, 0, 0, 0.0, 0)
        self._view[at + _SLOT.size : at + self._slot_bytes] = data
        check = zlib.crc32(data, zlib.crc32(head))
        self._sequence += 1
        _SLOT.pack_into(self._map, at, self._sequence, *struct.unpack("<qd", head), check)

    def _offset(self, slot: int) -> int:
        return _HEADER_SIZE + 2 * self._names_bytes + slot * self._slot_bytes

    def close(self) -> None:
        """Let the file go; it stays readable."""
        self._view.release()
        self._map.close()


@dataclass(frozen=True, slots=True)
class _Head:
    slots: int
    columns: int
    names_bytes: int
    began: int


def read_ring(data: bytes, source: str) -> SignalSet:
    """Return the steps in the bytes of a ring file, oldest first.

    Slots that were being written when the process died are left out and said.

    Raises
    ------
    SchemaError
        If it is no ring file, is cut short, or holds no whole list of names.
    """
    head = _head(data, source)
    keys = _read_names(data, head, source)
    start = _HEADER_SIZE + 2 * head.names_bytes
    width = _SLOT.size + 8 * head.columns
    rows: list[tuple[int, int, float, Floats]] = []
    torn = 0
    for slot in range(head.slots):
        at = start + slot * width
        sequence, step, when, check = _SLOT.unpack_from(data, at)
        body = data[at + _SLOT.size : at + width]
        if sequence == 0:
            # Never written, or being written when the process died.
            torn += any(body)
            continue
        if zlib.crc32(body, zlib.crc32(struct.pack("<qd", step, when))) != check:
            torn += 1
            continue
        rows.append((sequence, step, when, np.frombuffer(body, np.float64)))
    rows.sort(key=lambda row: row[0])
    unread = [f"{source}: {torn} of {head.slots} steps were only half written"] if torn > 1 else []
    return SignalSet(
        _series(rows, keys), {"format": "ring", "source": source, "torn": torn}, unread
    )


def _head(data: bytes, source: str) -> _Head:
    if len(data) < _HEADER_SIZE or data[:8] != RING_MAGIC:
        raise SchemaError("not a ring file of the monitor", source=source, offset=0)
    _, version, slots, columns, names_bytes, began = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise SchemaError(f"a ring file of version {version}, known is {_VERSION}", source=source)
    size = _HEADER_SIZE + 2 * names_bytes + slots * (_SLOT.size + 8 * columns)
    if len(data) != size:
        raise SchemaError(
            f"{size} bytes are announced and {len(data)} are there", source=source, offset=8
        )
    return _Head(slots, columns, names_bytes, began)


def _read_names(data: bytes, head: _Head, source: str) -> list[SeriesKey]:
    best: tuple[int, list[SeriesKey]] = (-1, [])
    for area in range(2):
        at = _HEADER_SIZE + area * head.names_bytes
        generation, length, check = _NAMES.unpack_from(data, at)
        if generation == 0 or length > head.names_bytes - _NAMES.size:
            continue
        text = data[at + _NAMES.size : at + _NAMES.size + length]
        if zlib.crc32(text) != check or generation < best[0]:
            continue
        try:
            best = generation, [SeriesKey.from_list(key) for key in json.loads(text)]
        except (ValueError, TypeError, IndexError) as error:
            raise SchemaError(
                f"names that are none: {error!r}", source=source, offset=at
            ) from error
    if best[0] < 0 or len(best[1]) > head.columns:
        raise SchemaError("no whole list of names", source=source, offset=_HEADER_SIZE)
    return best[1]


def _series(rows: list[tuple[int, int, float, Floats]], keys: list[SeriesKey]) -> list[Series]:
    if not rows:
        return []
    steps = np.array([row[1] for row in rows], np.int64)
    times = np.array([row[2] for row in rows])
    table = np.stack([row[3] for row in rows])
    there = table.view(np.uint64) != _ABSENT
    # A step that goes back is a restart: the older pass is its own segment.
    segments = np.concatenate([[0], np.cumsum(np.diff(steps) < 0)])
    found = []
    for column, key in enumerate(keys):
        for segment in np.unique(segments[there[:, column]]).tolist():
            use = there[:, column] & (segments == segment)
            values = table[use, column].copy()
            found.append(Series(key._replace(segment=int(segment)), steps[use], values, times[use]))
    return found


def _reserve(descriptor: int, size: int) -> None:
    """Take the room on the disk now: a hole that cannot be filled later would be a signal."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    block = bytes(1 << 20)
    for at in range(0, size, len(block)):
        os.write(descriptor, block[: min(len(block), size - at)])
