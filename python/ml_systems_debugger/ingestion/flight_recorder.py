"""`FlightRecorderIngestor`: what PyTorch's flight recorders noted of collective calls."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import (
    BaseIngestor,
    SchemaError,
    Series,
    SeriesKey,
    SeriesKind,
    SignalSet,
    UnsupportedFormatError,
    ingestors,
)
from ..core.pickles import read_pickle
from ._bytes import ByteSource, is_bytes_like
from ._collective_faults import Fault, faults_of, group_members
from ._collectives import Call, Dump, parse_dump
from ._json import read_json_document

__all__ = ["FlightRecorderIngestor", "dump_files"]

_MARKS = (b"pg_config", b"pg_status", b"collective_seq_id", b"profiling_name", b"comm_lib_version")
_RANK = re.compile(r"(\d+)(?:\.(?:json|pkl|pickle|bin|dump|trace))?(?:\.gz)?$", re.IGNORECASE)
_MAX_DUMP = 1 << 28


@ingestors.register("flight_recorder")
class FlightRecorderIngestor(BaseIngestor):
    """Reads flight-recorder dumps of ``torch.distributed``, pickled or as JSON.

    A dump holds the last collective calls of one rank. A pickled one is never
    unpickled: its opcodes are read, nothing is imported and nothing called.
    The dumps in one folder are those of one job, one per rank; the rank is the
    number at the end of the file's name (``nccl_trace_rank_3``, ``rank_3.json``).

    Every replica gives these series, with the number of the collective in its
    process group as the step (``/GROUP`` behind the name where there are several
    groups):

    - ``collective_seq``: that number; the time stamp says when it was called,
      the last step how far the rank came;
    - ``collective_completed``: 1 where it was seen to complete, else 0;
    - ``collective_lag``: seconds since the first rank called the same one, by
      the clocks of the hosts;
    - ``collective_time``: seconds from start to completion, where they were seen.

    What went wrong stands under ``collective_faults`` in the metadata and as
    ``log_event`` with its ``log_event_kind``, each at its collective and its
    rank: ranks that did not join one that others wait in, ranks that call
    something else than the others, calls that did not complete. What the
    recorders saw is a moment: without a hang, a rank that is about to call may
    be among those that did not join.
    """

    def ingest(self, source: Any) -> SignalSet:
        """Read one dump, or a folder of the dumps of one job.

        Raises
        ------
        SchemaError
            If a dump is damaged; with its file and place.
        UnsupportedFormatError
            If it is no dump.
        OSError
            If it cannot be opened or read.
        """
        if not is_bytes_like(source):
            raise UnsupportedFormatError("a flight-recorder dump is a path or a file object")
        if isinstance(source, (str, os.PathLike)) and source != "-" and Path(source).is_dir():
            files = dump_files(source)
            if not files:
                raise UnsupportedFormatError("no dump in this folder", source=str(source))
            return _signals(str(source), [_read(file) for file in files], whole=len(files) > 1)
        dump = _read(source)
        return _signals(dump.source, [dump], whole=False)

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of bytes that begin like a dump."""
        if not is_bytes_like(data):
            return False
        with ByteSource.of(data) as opened:
            return self.sniff(opened.head(), opened.name) > 0

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return 1 for a pickle or a JSON object with the keys of a dump in its head."""
        if not (head.startswith(b"\x80") or head.lstrip()[:1] == b"{"):
            return 0.0
        return 1.0 if sum(mark in head for mark in _MARKS) >= 2 and b"version" in head else 0.0


def dump_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the dumps that lie directly in a folder, by rank."""
    named = [file for file in Path(folder).iterdir() if file.is_file() and _rank(file.name) >= 0]
    known = [file for file in named if FlightRecorderIngestor().validate_schema(file)]
    return sorted(known, key=lambda file: (_rank(file.name), file.name))


def _rank(name: str) -> int:
    found = _RANK.search(name)
    return int(found[1]) if found and len(found[1]) < 10 else -1


def _read(source: Any) -> Dump:
    with ByteSource.of(source) as opened:
        head = opened.head()
        if not FlightRecorderIngestor().sniff(head, opened.name):
            raise UnsupportedFormatError(
                "no flight-recorder dump", source=opened.name, value=head[:16]
            )
        if head.startswith(b"\x80"):
            data = opened.read_all(_MAX_DUMP)
            if opened.damage:
                raise SchemaError(f"half a dump: {opened.damage[0]}", source=opened.name)
            # Numbers and short texts take some tens of bytes for each one in the file.
            document, _ = read_pickle(data, opened.name, 0, (1 << 20) + 200 * len(data))
        else:
            document = read_json_document(opened)
        rank = _rank(os.path.basename(opened.name))  # noqa: PTH119 - may be no path at all
        return parse_dump(document, opened.name, rank if rank >= 0 else None)


def _signals(source: str, dumps: list[Dump], *, whole: bool) -> SignalSet:
    unread = []
    kept: dict[int | None, Dump] = {}
    for dump in dumps:
        if dump.rank in kept:
            first = kept[dump.rank].source
            unread.append(f"{dump.source}: a second dump of rank {dump.rank} beside {first}")
        else:
            kept[dump.rank] = dump
    dumps = list(kept.values())
    groups = list(dict.fromkeys(call.group for dump in dumps for call in dump.calls))
    faults = faults_of(dumps, whole=whole)
    metadata = {
        "source": source,
        "format": "flight_recorder",
        "version": dumps[0].version,
        "ranks": [dump.rank for dump in dumps if dump.rank is not None],
        "process_groups": {group: list(group_members(dumps, group)) for group in groups},
        "collective_faults": [_as_metadata(fault) for fault in faults],
    }
    series = [one for group in groups for one in _of_group(dumps, group, len(groups) > 1)]
    return SignalSet([*series, *_events(faults)], metadata, unread)


def _as_metadata(fault: Fault) -> dict[str, Any]:
    return {
        "kind": fault.kind,
        "process_group": fault.group,
        "collective": fault.seq,
        "op": fault.op,
        "ranks": list(fault.ranks),
        "waiting": list(fault.waiting),
        "message": fault.message,
        **fault.details,
    }


def _of_group(dumps: Sequence[Dump], group: str, several: bool) -> Iterator[Series]:
    calls: dict[int | None, dict[int, Call]] = {}
    first: dict[int, float] = {}
    for dump in dumps:
        mine = calls.setdefault(dump.rank, {})
        for call in dump.calls:
            if call.group == group and not call.p2p:
                mine.setdefault(call.seq, call)  # coalesced calls share their number
        for seq, call in mine.items():
            if call.created is not None:
                first[seq] = min(call.created, first.get(seq, call.created))
    for rank, mine in calls.items():
        called = [mine[seq] for seq in sorted(mine)]
        if not called:
            continue
        key = SeriesKey("", None, group if several else None, rank)
        steps = np.array([call.seq for call in called], np.int64)
        times = np.array([np.nan if c.created is None else c.created for c in called])
        lag = times - np.array([first.get(call.seq, np.nan) for call in called])
        spent = np.array(
            [
                np.nan if c.started is None or c.completed is None else c.completed - c.started
                for c in called
            ]
        )
        done = np.array([float(call.done) for call in called])
        yield Series(key._replace(name="collective_seq"), steps, steps.astype(np.float64), times)
        yield Series(key._replace(name="collective_completed"), steps, done, times)
        for name, values in (("collective_lag", lag), ("collective_time", spent)):
            seen = ~np.isnan(values)
            if seen.any() and (name != "collective_lag" or len(dumps) > 1):
                yield Series(key._replace(name=name), steps[seen], values[seen], times[seen])


def _events(faults: Sequence[Fault]) -> Iterator[Series]:
    """Yield the faults as text, each at the ranks at fault, or at none where that is open."""
    by_rank: dict[int | None, list[Fault]] = {}
    for fault in faults:
        for rank in fault.ranks or (None,):
            by_rank.setdefault(rank, []).append(fault)
    for rank, found in by_rank.items():
        found.sort(key=lambda fault: fault.seq)
        steps = np.array([fault.seq for fault in found], np.int64)
        for name, words in (
            ("log_event", [fault.message for fault in found]),
            ("log_event_kind", [f"collective_{fault.kind}" for fault in found]),
        ):
            texts = np.empty(len(found), dtype=object)
            texts[:] = words
            yield Series(SeriesKey(name, None, None, rank, kind=SeriesKind.TEXT), steps, texts)
