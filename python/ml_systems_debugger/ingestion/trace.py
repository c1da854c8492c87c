"""`TraceIngestor`: step, data and communication time in Kineto and Chrome traces."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import (
    BaseIngestor,
    Series,
    SeriesKey,
    SignalSet,
    UnsupportedFormatError,
    ingestors,
)
from ..core.shown import shown
from ._bytes import ByteSource, is_bytes_like
from ._table import counted
from ._trace_stream import TraceStream
from ._trace_times import StepTimes, TraceTimes

__all__ = ["TraceIngestor", "trace_files"]

_RANK = re.compile(r"rank[-_ ]?(\d{1,9})(?!\d)", re.IGNORECASE)
_WORKER = re.compile(r"^(?P<worker>.+?)(?:\.\d{8,})?\.(?:pt\.)?trace\.json(?:\.gz)?$")
_TIMED = re.compile(r"\.\d{8,}\.(?:pt\.)?trace\.json(?:\.gz)?$")
_NAMES = ("*trace*.json", "*trace*.json.gz")
_MARKS = (b'"ph"', b'"pid"', b'"ts"', b'"name"')

Replica = int | str | None


@ingestors.register("trace")
class TraceIngestor(BaseIngestor):
    """Reads traces of the PyTorch profiler, and others in Chrome's format, as a stream.

    Of each step (``ProfilerStep#N``, or a ``step_num`` as JAX writes it) come
    ``step_time``, ``data_time`` (the time in which the data loader was waited
    for) and ``comm_time`` (the time in which a collective ran), in seconds, and
    the peaks of ``memory_allocated`` and ``memory_reserved`` of the device, in
    bytes, where the profiler recorded memory. Overlapping spans count once.

    The rank stands in the trace; the traces in one folder are those of one
    job. Whatever its size, a trace takes some tens of megabytes of memory.
    """

    def ingest(self, source: Any) -> SignalSet:
        """Read one trace, or a folder of the traces of one job.

        Raises
        ------
        SchemaError
            If it is no trace.
        UnsupportedFormatError
            If it is no source of bytes, or a folder without traces.
        OSError
            If it cannot be opened or read.
        """
        if not is_bytes_like(source):
            raise UnsupportedFormatError("a trace is a path or a file object")
        if isinstance(source, (str, os.PathLike)) and source != "-" and Path(source).is_dir():
            files = trace_files(source)
            if not files:
                raise UnsupportedFormatError(
                    "no traces of the ranks of one job in this folder", source=str(source)
                )
            return _signals(str(source), [_read(file) for file in files])
        found = _read(source)
        return _signals(found.source, [found])

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is a source of bytes that begin like a trace."""
        if not is_bytes_like(data):
            return False
        with ByteSource.of(data) as opened:
            return self.sniff(opened.head(), opened.name) > 0

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - content decides
        """Return 1 where the list of events is in the head, 0.9 for a bare list of them."""
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if start == b"{" and b'"traceEvents"' in head:
            return 1.0
        if start == b"{" and b'"schemaVersion"' in head and b'"deviceProperties"' in head:
            return 1.0
        return 0.9 if start == b"[" and all(mark in head for mark in _MARKS) else 0.0


def trace_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the traces of one job that lie directly in a folder, in the order of their names.

    Those are the ones that name a rank (``trace_rank3.json``), or a worker and a
    time as the profiler's handler does (``host_17.1700000000.pt.trace.json``);
    others may be of different jobs.
    """
    named = {file for pattern in _NAMES for file in Path(folder).glob(pattern) if file.is_file()}
    of_one = [file for file in sorted(named) if _RANK.search(file.name) or _TIMED.search(file.name)]
    return [file for file in of_one if TraceIngestor().validate_schema(file)]


@dataclass(slots=True)
class _Trace:
    """What one file told."""

    source: str
    replica: Replica
    worker: str
    times: StepTimes
    marked: bool
    started: npt.NDArray[np.float64] | None
    events: int
    unread: list[str]


def _read(source: Any) -> _Trace:
    with ByteSource.of(source) as opened:
        stream = TraceStream(opened)
        found = TraceTimes()
        for batch in stream.events():
            found.add(batch)
        unread = stream.unread
        if found.malformed:
            unread.append(
                f"{opened.name}: {counted(found.malformed, 'event')} without proper times, not read"
            )
        file = os.path.basename(opened.name)  # noqa: PTH119 - may be no path at all
        worker = _WORKER.match(file)
        base = stream.members.get("baseTimeNanoseconds")
        started = None
        if isinstance(base, (int, float)) and found.steps:
            started = found.started() * 1e-6 + float(base) * 1e-9
            if not (started > 1e8).all():  # no time of the day
                started = None
        return _Trace(
            opened.name,
            _rank(stream.members, file),
            worker["worker"] if worker else file,
            found.times(),
            bool(found.steps),
            started,
            found.events,
            unread,
        )


def _rank(members: Mapping[str, Any], file: str) -> Replica:
    told = members.get("distributedInfo")
    rank = told.get("rank") if isinstance(told, dict) else None
    if isinstance(rank, int) and not isinstance(rank, bool):
        return rank
    named = _RANK.search(file)
    return int(named[1]) if named else None


def _signals(source: str, traces: Sequence[_Trace]) -> SignalSet:
    unread = [text for trace in traces for text in trace.unread]
    workers = {trace.worker for trace in traces if trace.replica is None}
    for trace in traces:
        if trace.replica is None and len(workers) > 1:
            trace.replica = shown(trace.worker)
    metadata: dict[str, Any] = {
        "source": source,
        "format": "trace",
        "files": len(traces),
        "events": sum(trace.events for trace in traces),
    }
    unmarked = [trace.source for trace in traces if not trace.marked]
    if unmarked:
        metadata["steps"] = (
            "no steps are marked (ProfilerStep#N): sums over the whole trace stand at step 0, in "
            + ", ".join(unmarked[:5])
        )
    by_key: dict[tuple[str, Replica], list[_Trace]] = {}
    for trace in traces:
        for name in trace.times:
            by_key.setdefault((name, trace.replica), []).append(trace)
    series = []
    for (name, replica), parts in by_key.items():
        one, twice = _joined(SeriesKey(name, replica_id=replica), parts)
        series.append(one)
        if twice and name in ("step_time", "data_time"):
            unread.append(f"{source}: steps of {one.key} stand in several traces: {twice}")
    return SignalSet(series, metadata, dict.fromkeys(unread))


def _joined(key: SeriesKey, parts: Sequence[_Trace]) -> tuple[Series, str]:
    """Return the series of several traces of one rank; a step counts once, in the first one."""
    steps = np.concatenate([part.times[key.name][0] for part in parts])
    values = np.concatenate([part.times[key.name][1] for part in parts])
    times = np.concatenate(list(_moments(key.name, parts)))
    order = np.argsort(steps, kind="stable")
    steps, values, times = steps[order], values[order], times[order]
    again = np.zeros(len(steps), bool)
    again[1:] = steps[1:] == steps[:-1]
    listed = ", ".join(map(str, np.unique(steps[again])[:5].tolist()))
    known = not np.isnan(times).all()
    kept = ~again
    return Series(key, steps[kept], values[kept], times[kept] if known else None), listed


def _moments(name: str, parts: Sequence[_Trace]) -> Iterator[npt.NDArray[np.float64]]:
    for part in parts:
        count = len(part.times[name][0])
        whole = part.started is not None and len(part.started) == count
        yield part.started if whole and part.started is not None else np.full(count, np.nan)
