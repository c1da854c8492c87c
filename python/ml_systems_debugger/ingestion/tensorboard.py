"""`TensorBoardIngestor`: scalars, histograms and tensors in TensorBoard event files."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import BaseIngestor, BaseStream, SignalSet, UnsupportedFormatError, ingestors
from ..kernels.formats import EventFileReader, crc32c
from ._assemble import assemble
from ._bytes import ByteSource, is_bytes_like
from ._stream import TableStream
from ._table import Column, Table, counted

__all__ = ["EventReader", "TensorBoardIngestor", "event_files"]

_STEP, _TIME = "\0step", "\0time"
_SHOWN = 5
_FAULTS = {
    "length_checksum": "a damaged record length, the rest of the file was not read",
    "data_checksum": "a record whose checksum is wrong, not read",
    "message": "a record that is no valid event, not read",
}


@ingestors.register("tensorboard")
class TensorBoardIngestor(BaseIngestor):
    """Reads TensorBoard event files, as TensorFlow, torch, JAX and Keras write them.

    Scalars are read in both encodings; a histogram or a tensor of several
    numbers gives the series ``TAG/min``, ``/max``, ``/mean`` and ``/std``.
    Every point is kept, every checksum looked at. A record that is cut off at
    the end is what a job that still writes leaves: it is noted in the
    metadata (``torn_last_record``) and nothing more. Damage anywhere else is
    named in `SignalSet.unread`, with its offset; what can be read around it is.

    The event files of one folder are one run, in the order of their names.
    """

    def ingest(self, source: Any) -> SignalSet:
        """Read an event file, a folder of them, or an open binary file, whole.

        Raises
        ------
        UnsupportedFormatError
            If it is no event file.
        OSError
            If it cannot be opened or read.
        """
        if not is_bytes_like(source):
            raise UnsupportedFormatError("an event file is a path or a file object")
        if isinstance(source, (str, os.PathLike)) and source != "-" and Path(source).is_dir():
            files = event_files(source)
            if not files:
                raise UnsupportedFormatError("no event file in this folder", source=str(source))
            return assemble(_joined(str(source), (_read(file) for file in files)))
        return assemble(_read(source))

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of bytes that begin like an event file."""
        if not is_bytes_like(data):
            return False
        with ByteSource.of(data) as opened:
            return self.sniff(opened.head(), opened.name) > 0

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return 1 where the head is a record length with its checksum."""
        if len(head) < 12:
            return 0.0
        (checksum,) = struct.unpack_from("<I", head, 8)
        return 1.0 if checksum == _masked(crc32c(head[:8])) and head[:8] != bytes(8) else 0.0

    def stream(self, head: bytes, name: str) -> BaseStream:  # noqa: ARG002 - one form
        """Return a reader of such a file piece by piece."""
        return TableStream(EventReader, name)


def event_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the event files that lie directly in a folder, in the order of their names."""
    named = sorted(file for file in Path(folder).glob("*tfevents*") if file.is_file())
    return [file for file in named if TensorBoardIngestor().validate_schema(file)]


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _read(source: Any) -> Table:
    with ByteSource.of(source) as opened:
        if not TensorBoardIngestor().sniff(opened.head(), opened.name):
            raise UnsupportedFormatError(
                "no TensorBoard event file", source=opened.name, value=opened.head()[:16]
            )
        reader = EventReader(opened.name)
        for block in opened.blocks():
            reader.feed(block)
        return reader.table(opened.damage)


class EventReader:
    """Reads an event file piece by piece; `table` returns what is new since the last call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._reader = EventFileReader()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._reader.feed(data)

    def table(self, damage: Sequence[str] = (), *, last: bool = True) -> Table:
        """Return one row per record; if `last`, with what is cut off at the end."""
        found = self._reader.finish() if last else self._reader.take()
        table = _table(self.name, found)
        table.unread += damage
        faults = found["faults"]
        for kind, what in _FAULTS.items():
            places = [str(offset) for fault, offset in faults if fault == kind]
            if places:
                more = f" and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
                shown = ", ".join(places[:_SHOWN]) + more
                table.unread.append(f"{table.source}: {what}: at byte {shown}")
        stopped = any(kind == "length_checksum" for kind, _ in faults)
        if last and found["waiting"] and not stopped:
            table.metadata["torn_last_record"] = (
                f"{counted(found['waiting'], 'byte')} at byte {found['offset']}"
            )
        if found["skipped"]:
            table.metadata["values_without_numbers"] = found["skipped"]
        return table


def _table(name: str, found: dict[str, Any]) -> Table:
    """Return one row per record: its step, its time and the values in it."""
    rows = int(found["records"])
    steps = np.zeros(rows, np.int64)
    times = np.full(rows, np.nan)
    columns: dict[str, Column] = {}
    for tag, records, tag_steps, tag_times, values in found["tags"]:
        steps[records] = tag_steps
        times[records] = tag_times
        text = tag.decode("utf-8", "replace") or "unnamed"
        if text in columns:
            text = f"{text} ({len(columns)})"
        columns[text] = Column(values, records)
    columns[_STEP] = Column(steps)
    columns[_TIME] = Column(times)
    roles = {"step": _STEP, "timestamp": _TIME}
    return Table(name, rows, columns, metadata={"format": "tensorboard"}, roles=roles)


def _joined(name: str, tables: Iterable[Table]) -> Table:
    parts = list(tables)
    starts = np.cumsum([0, *(part.rows for part in parts)]).tolist()
    columns = {}
    for column in dict.fromkeys(name for part in parts for name in part.columns):
        columns[column] = Column.joined(
            [
                (start, part.rows, part.columns.get(column) or _nothing())
                for start, part in zip(starts, parts, strict=False)
            ]
        )
    return Table(
        name,
        starts[-1],
        columns,
        unread=[text for part in parts for text in part.unread],
        metadata={**{k: v for p in parts for k, v in p.metadata.items()}, "files": len(parts)},
        roles=parts[0].roles,
    )


def _nothing() -> Column:
    return Column(np.empty(0), np.empty(0, np.int64))
