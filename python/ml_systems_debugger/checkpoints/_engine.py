"""Reads the planned ranges with several threads and measures them while others are read."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import MLSystemsDebuggerError
from ..core.shown import shown
from ..kernels import PIECE, ROW_DTYPE, SPAN_DTYPE, measure_spans
from ._changed import ChangedError
from ._dead import MIN_LINES, UnitZeros, unit_zeros
from ._digest import part_digest
from ._plan import KERNEL_CODES, Group, Plan, Stretch, Unit, dtype_of, stretches
from ._ranges import RangeCounts, has_ranges, range_counts
from ._scales import scale_values
from ._source import STRETCH, Folder
from .contract import TensorInfo
from .dtypes import Dtype

__all__ = ["Measured", "default_workers", "run_plan"]

_MAX_WORKERS = 16
_REMOTE_WORKERS = 8
_JOIN_SECONDS = 0.8
_STREAMED = 1 << 20


def default_workers(*, remote: bool = False) -> int:
    """Return how many threads to read with: some wait for the disk while others measure."""
    if remote:  # they wait for the network, whatever the cores
        return _REMOTE_WORKERS
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(2 * (usable or 1), _MAX_WORKERS)


@dataclass(slots=True)
class Measured:
    """Partials of every unit; `done` says which ones were read.

    Attributes
    ----------
    rows : structured array [rows] of ROW_DTYPE
    done : bool array [rows]
    saturated : int64 array [rows]
        Values at the limit of a narrow type.
    zeros : dict
        By tensor, then number of the unit: see `UnitZeros`.
    ranges : dict
        By tensor, where they were asked for.
    errors : list of str
        What could not be read.
    changed : bool
        A file was not what it was.
    bytes_read : dict
        By file.
    """

    rows: npt.NDArray[np.void]
    done: npt.NDArray[np.bool_]
    saturated: npt.NDArray[np.int64]
    zeros: dict[int, dict[int, UnitZeros]] = field(default_factory=dict)
    ranges: dict[int, RangeCounts] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    changed: bool = False
    interrupted: bool = False
    bytes_read: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, rows: int) -> Measured:
        """Return room for so many units, none of them read."""
        return cls(np.zeros(rows, ROW_DTYPE), np.zeros(rows, np.bool_), np.zeros(rows, np.int64))

    def add_ranges(self, index: int, more: RangeCounts) -> None:
        """Add a part of a tensor."""
        known = self.ranges.get(index)
        self.ranges[index] = more if known is None else known.add(more)


def run_plan(
    plan: Plan,
    folder: Folder,
    workers: int,
    progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Measured:
    """Do the work of `plan`.

    Parameters
    ----------
    plan : Plan
    folder : Folder
        Opens the files.
    workers : int
        Threads; each has one buffer of the largest unit, and of remote files one stretch.
    progress : callable, optional
        Told the bytes of each item when it is done, from any thread.
    stop : threading.Event, optional
        Ends the work early when set; so does an interrupt in the calling thread.
    """
    measured = Measured.empty(int(plan.first_row[-1]))
    work = stretches(plan, STRETCH) if folder.remote else plan.work
    run = _Run(plan, work, folder, measured, progress, stop or threading.Event())
    threads = [
        threading.Thread(target=run.work, name=f"mlsd-scan-{n}", daemon=True)
        for n in range(max(1, min(workers, len(work))))
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():  # a join without end would not see an interrupt
                thread.join(0.2)
    except KeyboardInterrupt:
        run.stop.set()
        end = time.monotonic() + _JOIN_SECONDS  # for all of them: one that waits is left behind
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        measured.interrupted = True
    if run.failure is not None:
        raise run.failure
    if not measured.interrupted and not run.stop.is_set() and not measured.changed:
        try:
            measured.errors.extend(folder.checksums.compare(folder.lent))
        finally:
            folder.release()
    measured.interrupted = measured.interrupted or run.stop.is_set()
    return measured


class _Run:
    def __init__(
        self,
        plan: Plan,
        work: list[Any],
        folder: Folder,
        measured: Measured,
        progress: Callable[[int], None] | None,
        stop: threading.Event,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.measured = measured
        self.progress = progress
        self.stop = stop
        self.failure: BaseException | None = None
        self.lock = threading.Lock()
        self.waiting = iter(work)
        self.broken: set[str] = set()
        self.looked_at_whole: set[int] = set()

    def work(self) -> None:
        buffer = bytearray()
        try:
            while not self.stop.is_set():
                with self.lock:
                    item = next(self.waiting, None)
                if item is None:
                    return
                steps = item if isinstance(item, list) else [item]
                if isinstance(item, Stretch):
                    self.expect(item)
                    steps = item.steps
                need = max(s.nbytes for s in steps)
                if need > len(buffer):
                    buffer = bytearray(need)
                for step in steps:
                    if self.stop.is_set() or not self.attempt(step, buffer):
                        break
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self.failure = error
            self.stop.set()
        finally:
            self.folder.release()

    def expect(self, stretch: Stretch) -> None:
        """Let a remote file fetch all of a stretch at once."""
        try:
            with self.folder.lent(stretch.file) as source:
                source.expect(stretch.start, stretch.stop)
        except (MLSystemsDebuggerError, OSError):
            return  # the read itself fails likewise, and says what of

    def attempt(self, step: Unit | Group, buffer: bytearray) -> bool:
        """Do one step; False where its bytes cannot be read."""
        file = step.file if isinstance(step, Group) else self.plan.tensors[step.tensor].file
        if file in self.broken:
            return False
        try:
            if isinstance(step, Group):
                self.group(step, buffer)
            else:
                self.unit(step, buffer)
        except (MLSystemsDebuggerError, OSError) as error:
            with self.lock:
                if file not in self.broken:
                    text = str(error)
                    if isinstance(error, OSError):
                        text = f"{shown(file)}: {error.strerror or error}"
                    self.measured.errors.append(text)
                self.measured.changed |= isinstance(error, ChangedError)
                self.broken.add(file)
            return False
        with self.lock:
            read = self.measured.bytes_read
            read[file] = read.get(file, 0) + step.nbytes
        if self.progress is not None:
            self.progress(step.nbytes)
        return True

    def bytes_of(self, file: str, offset: int, count: int, buffer: bytearray) -> memoryview:
        """Return bytes of a file: in place where it is mapped, else read into the buffer."""
        with self.folder.lent(file) as source:
            view = source.view(offset, count)
            if view is None:
                view = memoryview(buffer)[:count]
                source.read_into(offset, view)
            return view

    def group(self, step: Group, buffer: bytearray) -> None:
        view = self.bytes_of(step.file, step.offset, step.nbytes, buffer)
        rows = np.zeros(len(step.rows), ROW_DTYPE)
        measure_spans(view, step.spans, rows)
        checksums = self.folder.checksums
        if checksums.wanted(step.file):
            for span, which in zip(step.spans, step.tensors.tolist(), strict=True):
                info, begin = self.plan.tensors[which], int(span["offset"])
                checksums.begin(step.file, info.offset)
                checksums.note(step.file, info.offset, view[begin : begin + info.nbytes])
        self.measured.rows[step.rows] = rows
        raw = np.frombuffer(view, np.uint8)
        for at in np.flatnonzero(rows["zero"] >= MIN_LINES):
            span = step.spans[at]
            begin, index = int(span["offset"]), int(step.tensors[at])
            part = raw[begin : begin + self.plan.tensors[index].nbytes]
            self.lines(index, 0, 0, part, rows[at])
        for at in np.flatnonzero((rows["max"] >= _LEAST_LIMIT) | (rows["min"] <= -_LEAST_LIMIT)):
            begin, index = int(step.spans[at]["offset"]), int(step.tensors[at])
            part = raw[begin : begin + self.plan.tensors[index].nbytes]
            self.narrow(int(step.rows[at]), dtype_of(self.plan.tensors[index]), part, rows[at])
        if self.plan.ranges:
            for stats, span, which in zip(rows, step.spans, step.tensors.tolist(), strict=True):
                part = raw[int(span["offset"]) :][: self.plan.tensors[which].nbytes]
                self.exponents(which, part, stats)
        self.measured.done[step.rows] = True

    def unit(self, step: Unit, buffer: bytearray) -> None:
        info = self.plan.tensors[step.tensor]
        dtype = dtype_of(info)
        if step.start == 0:
            self.folder.checksums.begin(info.file, info.offset)
        if step.tensor not in self.looked_at_whole:
            if self.streamed(step, info, dtype, buffer):
                return
            self.looked_at_whole.add(step.tensor)  # its other units most likely have to be, too
        if info.layout is not None:
            view = memoryview(buffer)[: step.nbytes]
            info.layout.read(self.folder, step.start, view)
        else:
            place = info.offset + step.start
            view = self.bytes_of(info.file, place, step.nbytes, buffer)
            self.folder.checksums.note(info.file, place, view)
        rows = self.measured.rows[step.row : step.row + 1]
        raw = np.frombuffer(view, np.uint8)
        if dtype.quantised:
            _measure_scales(raw, dtype, step.start, rows)
        elif dtype.kernel is None:
            rows["digest"] = part_digest(raw, step.start)
            rows["count"] = step.nbytes
            if dtype.maximum is not None:
                self.measured.saturated[step.row] = _saturated_nibbles(raw)
        else:
            count = step.nbytes // (dtype.bits // 8 // dtype.lanes)
            span = np.zeros(1, SPAN_DTYPE)
            span[0] = (0, count, step.start, KERNEL_CODES[dtype.kernel])
            measure_spans(view, span, rows)
        if dtype.kernel and dtype.lanes == 1 and not dtype.quantised:
            number = step.row - int(self.plan.first_row[step.tensor])
            if rows[0]["zero"]:
                start = step.start // (dtype.bits // 8)
                self.lines(step.tensor, number, start, raw, rows[0])
            self.narrow(step.row, dtype, raw, rows[0])
        if self.plan.ranges:
            self.exponents(step.tensor, raw, rows[0])
        self.measured.done[step.row] = True

    def streamed(self, step: Unit, info: TensorInfo, dtype: Dtype, buffer: bytearray) -> bool:
        """Do a unit piece by piece, none of which leaves the cache; False where that is not enough.

        Most units of most checkpoints are such; zeros, values at a type's limit, and what is not
        finite have to be looked at once more.
        """
        if (
            info.layout is not None or dtype.kernel is None or dtype.quantised
            or self.plan.ranges or step.nbytes < _STREAMED
        ):  # fmt: skip
            return False
        item = dtype.bits // 8 // dtype.lanes
        if len(buffer) < PIECE * item:
            return False
        row = np.zeros(1, ROW_DTYPE)
        span = np.zeros(1, SPAN_DTYPE)
        span[0] = (0, step.nbytes // item, step.start, KERNEL_CODES[dtype.kernel])
        with self.folder.lent(info.file) as source:
            if not source.measured(info.offset + step.start, step.nbytes, span, buffer, row):
                return False
        limit = dtype.maximum
        narrow = limit is not None and (row[0]["max"] >= limit or row[0]["min"] <= -limit)
        if narrow or (row[0]["zero"] and dtype.floating and len(info.shape) > 1):
            return False
        self.measured.rows[step.row] = row[0]
        self.measured.done[step.row] = True
        return True

    def exponents(self, index: int, raw: npt.NDArray[np.uint8], stats: Any) -> None:
        """Count where the magnitudes lie."""
        dtype = dtype_of(self.plan.tensors[index])
        if has_ranges(dtype):
            found = range_counts(raw, dtype, stats)
            with self.lock:
                self.measured.add_ranges(index, found)

    def lines(
        self, index: int, number: int, start: int, raw: npt.NDArray[np.uint8], row: Any
    ) -> None:
        """Look for zero rows and columns where there are zeros enough."""
        info = self.plan.tensors[index]
        dtype = dtype_of(info)
        if not dtype.floating or dtype.lanes != 1 or len(info.shape) < 2:
            return
        rows, columns = info.shape[0], prod(info.shape[1:])
        whole = int(row["count"]) == rows * columns
        if min(rows, columns) < MIN_LINES or (whole and row["zero"] == row["count"]):
            return
        if whole and row["zero"] < min(rows, columns):
            return
        found = unit_zeros(raw, dtype.bits // 8, start, rows, columns, int(row["zero"]))
        if found is not None:
            with self.lock:
                self.measured.zeros.setdefault(index, {})[number] = found

    def narrow(self, row: int, dtype: Dtype, raw: npt.NDArray[np.uint8], stats: Any) -> None:
        """Count values at the limit of a narrow type where there is one."""
        limit = dtype.maximum
        if limit is None or (stats["max"] < limit and stats["min"] > -limit):
            return
        if not dtype.floating:
            # Symmetric quantisation leaves -128 out: both ends count.
            signed = raw.view(np.int8)
            ends = np.count_nonzero(signed == 127) + np.count_nonzero(signed <= -127)
            self.measured.saturated[row] = ends
            return
        bits = raw.view(np.uint16 if dtype.bits == 16 else np.uint8)
        magnitude = bits & bits.dtype.type((1 << (dtype.bits - 1)) - 1)
        self.measured.saturated[row] = np.count_nonzero(magnitude == _LARGEST[dtype.name])


_LEAST_LIMIT = 127  # of the narrow types that the kernels read
_NIBBLES = np.array([(b & 7 == 7) + (b >> 4 & 7 == 7) for b in range(256)], np.uint8)


def _saturated_nibbles(raw: npt.NDArray[np.uint8]) -> int:
    """Count the 4-bit floats of two a byte that are at the largest, of either sign."""
    counts = np.bincount(raw, minlength=256)
    return int(counts @ _NIBBLES)


_LARGEST = {"float16": 0x7BFF, "float8_e4m3fn": 0x7E, "float8_e5m2": 0x7B,
            "float8_e4m3fnuz": 0x7F, "float8_e5m2fnuz": 0x7F}  # fmt: skip


def _measure_scales(
    raw: npt.NDArray[np.uint8], dtype: Dtype, start: int, rows: npt.NDArray[np.void]
) -> None:
    """Measure the scales of quantised blocks, and digest all their bytes."""
    values, kernel, item = scale_values(raw, dtype)
    span = np.zeros(1, SPAN_DTYPE)
    span[0] = (0, len(values) // item, 0, KERNEL_CODES[kernel])
    measure_spans(values, span, rows)
    rows["digest"] = part_digest(raw, start)
