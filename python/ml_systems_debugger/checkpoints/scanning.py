"""`scan`: every value of a checkpoint looked at, its code never run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import ConfigurationError, check_count
from ..core.shown import shown
from ._engine import Measured, default_workers, run_plan
from ._judge import judge
from ._place import without_secrets
from ._plan import Plan, make_plan
from ._tensor_list import TensorList
from .contract import CheckpointFormat, Options
from .finding import CheckpointFinding
from .opening import open_checkpoint, read_tensors, selected
from .report import CheckpointReport, FileRecord
from .table import TensorRecord, TensorTable

__all__ = ["inspect", "scan"]


def scan(
    path: str | os.PathLike[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int | None = None,
    options: Options | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> CheckpointReport:
    """Look at every value of a checkpoint, at the speed of the disk.

    Parameters
    ----------
    path : path
        A file or a folder, or the URL of one (``s3://``, ``gs://``, ``https://``: with the
        extra ``remote``); its format is found by content.
    include, exclude : sequence of str
        Glob patterns of tensor names to look at, and to leave out.
    workers : int, optional
        Threads that read and measure; by default two for each usable core.
    options : Options, optional
        What is not done unless it is asked for.
    progress : callable, optional
        Told bytes done and bytes in all, from any thread.
    stop : threading.Event, optional
        Ends the scan early when set; the report is then incomplete.

    Returns
    -------
    CheckpointReport

    Raises
    ------
    UnsupportedFormatError, SchemaError
        Where nothing of it can be read: unknown, or broken from the start.
    OSError
        Where it is missing or may not be read.
    """
    if workers is not None:
        check_count(1, workers=workers)
    began = time.perf_counter()
    reader = open_checkpoint(path, options)
    every = read_tensors(reader)
    tensors = chosen(every, include, exclude)
    plan = make_plan(tensors, ranges=reader.options.ranges)
    measured = measure(plan, reader, workers, progress, stop)
    changed = reader.folder.check_unchanged()
    unread = [*reader.unread, *measured.errors]
    facts = Facts(
        without_secrets(path), reader.name, reader.metadata, reader.findings,
        [*unread, *(sentence for sentence in changed if sentence not in unread)],
        _files(reader, measured), len(every) - len(tensors), bool(changed) or measured.changed,
        time.perf_counter() - began,
    )  # fmt: skip
    return conclude(facts, plan, measured)


def chosen(tensors: TensorList, include: Sequence[str], exclude: Sequence[str]) -> TensorList:
    """Return the tensors whose names are asked for."""
    for what, patterns in (("include", include), ("exclude", exclude)):
        if isinstance(patterns, str):
            raise ConfigurationError(f"{what} is a sequence of patterns, got {patterns!r}")
    if not include and not exclude:
        return tensors
    wanted = [selected(name, tuple(include), tuple(exclude)) for name in tensors.names()]
    return tensors.take(np.flatnonzero(wanted))


def measure(
    plan: Plan,
    reader: CheckpointFormat,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    stop: threading.Event | None,
) -> Measured:
    """Do the plan's work."""
    told: Callable[[int], None] | None = None
    if progress is not None:
        report, lock, done = progress, threading.Lock(), 0

        def told(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                report(done, plan.total_bytes)

    return run_plan(
        plan, reader.folder, workers or default_workers(remote=reader.folder.remote), told, stop
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a checkpoint beside its values."""

    path: str
    format: str
    metadata: dict[str, Any]
    findings: list[CheckpointFinding]
    unread: list[str]
    files: tuple[FileRecord, ...]
    left_out: int
    changed: bool
    seconds: float


def conclude(facts: Facts, plan: Plan, measured: Measured) -> CheckpointReport:
    """Combine the partials and judge them."""
    plan.work.clear()  # what is done is let go: it is as large as its results
    table = TensorTable.of(plan, measured)
    unread = list(facts.unread)
    lacking = int((~table.columns["scanned"]).sum())
    if measured.interrupted:
        unread.append(f"interrupted: {lacking} of {len(table)} tensors were not read to their end")
    elif lacking and not unread:
        unread.append(f"{lacking} of {len(table)} tensors were not read to their end")
    metadata: dict[str, Any] = {
        **facts.metadata, "format": facts.format, "tensors": len(table),
        "values": int(table.columns["size"].sum()), "seconds": round(facts.seconds, 3),
        "interrupted": measured.interrupted, "changed": facts.changed,
    }  # fmt: skip
    if facts.left_out:
        metadata["left_out"] = facts.left_out
    findings = [*facts.findings, *judge(plan, measured, table)]
    if not len(table) and not unread and not facts.left_out:
        findings.append(CheckpointFinding.of("empty", "medium", "the checkpoint holds no tensors"))
    return CheckpointReport(facts.path, facts.files, table, findings, unread, metadata)


def _files(reader: CheckpointFormat, measured: Measured | None) -> tuple[FileRecord, ...]:
    read = {} if measured is None else measured.bytes_read
    return tuple(
        FileRecord(name, reader.name, size, read.get(name, 0))
        for name, size in sorted(reader.folder.sizes().items())
    )


def inspect(
    path: str | os.PathLike[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    options: Options | None = None,
) -> CheckpointReport:
    """Return names, types, shapes and sizes without reading the data.

    Parameters
    ----------
    path, include, exclude, options
        As for `scan`.

    Returns
    -------
    CheckpointReport
        With the findings of the structure alone; statistics are None.
    """
    reader = open_checkpoint(path, options)
    tensors = chosen(read_tensors(reader), include, exclude)
    records = [TensorRecord(i.name, i.dtype, i.shape, i.file, i.nbytes) for i in tensors]
    metadata = {**reader.metadata, "format": reader.name, "tensors": len(records)}
    return CheckpointReport(
        shown(without_secrets(path), 4096), _files(reader, None), records, reader.findings,
        reader.unread, metadata,
    )  # fmt: skip
