"""A scan shared out over jobs that share nothing but the files: `scan_shard` and `merge`."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import ConfigurationError, SchemaError, to_jsonable
from ..core.shown import shown
from ..kernels import ROW_DTYPE
from ._dead import UnitZeros
from ._engine import Measured
from ._place import without_secrets
from ._plan import Plan, make_plan
from ._ranges import RangeCounts
from .contract import Options, TensorInfo
from .finding import CheckpointFinding
from .opening import open_checkpoint, read_tensors
from .report import SCHEMA_VERSION, CheckpointReport, FileRecord
from .scanning import Facts, chosen, conclude, measure

__all__ = ["merge", "scan_shard"]


def scan_shard(
    path: str | os.PathLike[str],
    shard: tuple[int, int],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int | None = None,
    options: Options | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Do one job's share of a scan.

    Parameters
    ----------
    path, include, exclude, workers, options, progress, stop
        As for `scan`; the same for every job but for `workers`.
    shard : (int, int)
        I from 1 to N, and N.

    Returns
    -------
    dict
        JSON terms that `merge` takes: the partials of this share.
    """
    number, count = shard
    if not 1 <= number <= count:
        raise ConfigurationError(f"shard is I/N with I from 1 to N, got {number}/{count}")
    began = time.perf_counter()
    reader = open_checkpoint(path, options)
    every = read_tensors(reader)
    tensors = chosen(every, include, exclude)
    plan = make_plan(tensors, shard, ranges=reader.options.ranges)
    measured = measure(plan, reader, workers, progress, stop)
    which = np.flatnonzero(measured.done)
    changed = reader.folder.check_unchanged()
    rows = [[i.name, i.dtype, list(i.shape), i.file, i.offset, i.nbytes, i.storage]
            for i in tensors]  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "shard",
        "shard": [number, count],
        "path": without_secrets(path),
        "format": reader.name,
        "plan": _fingerprint(rows),
        "tensors": rows,
        "which": _packed(which.astype("<i8")),
        "rows": _packed(measured.rows[which]),
        "saturated": _packed(measured.saturated[which].astype("<i8")),
        "zeros": [[i, n, z.to_list()] for i, units in measured.zeros.items()
                  for n, z in units.items()],
        "ranges": [[i, r.to_list()] for i, r in measured.ranges.items()],
        "findings": [_finding_terms(f) for f in reader.findings],
        "unread": [*reader.unread, *measured.errors, *changed],
        "metadata": to_jsonable(reader.metadata),
        "files": [[n, s, measured.bytes_read.get(n, 0)]
                  for n, s in sorted(reader.folder.sizes().items())],
        "left_out": len(every) - len(tensors),
        "interrupted": measured.interrupted,
        "changed": bool(changed) or measured.changed,
        "seconds": round(time.perf_counter() - began, 3),
    }  # fmt: skip


def merge(shards: Sequence[Mapping[str, Any]]) -> CheckpointReport:
    """Return the report of a scan whose shards are all there.

    It equals the one that `scan` gives, bit for bit.

    Raises
    ------
    SchemaError
        Where a shard is missing, there twice, damaged, or of another scan.
    """
    if not shards:
        raise SchemaError("no shards to merge")
    try:
        return _merged(sorted(shards, key=lambda s: int(s["shard"][0])))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, SchemaError):
            raise
        raise SchemaError(f"a shard's result is damaged: {error!r}") from error


def _merged(shards: Sequence[Mapping[str, Any]]) -> CheckpointReport:
    first = shards[0]
    count = int(first["shard"][1])
    numbers = [int(s["shard"][0]) for s in shards]
    for one in shards:
        if one.get("kind") != "shard" or one["plan"] != first["plan"]:
            raise SchemaError("results of different scans", value=shown(one.get("path")))
        if one["plan"] != _fingerprint(one["tensors"]):
            raise SchemaError("a shard's list of tensors is damaged", value=shown(one["path"]))
    if numbers != list(range(1, count + 1)):
        lost = sorted(set(range(1, count + 1)) - set(numbers))
        what = f"missing {lost[:20]}" if lost else "one is there twice"
        raise SchemaError(f"not the {count} shards of one scan: {what}", value=numbers[:20])
    tensors = [
        TensorInfo(n, d, tuple(s), f, int(o), int(b), None, k)
        for n, d, s, f, o, b, k in first["tensors"]
    ]
    plan = make_plan(tensors)
    measured = Measured.empty(int(plan.first_row[-1]))
    for one in shards:
        _add(one, plan, measured)
    facts = Facts(
        str(first["path"]), str(first["format"]), dict(first["metadata"]),
        [CheckpointFinding.from_dict(f) for f in first["findings"]],
        list(dict.fromkeys(s for one in shards for s in one["unread"])),
        _files(shards), int(first["left_out"]),
        any(bool(one["changed"]) for one in shards),
        sum(float(one["seconds"]) for one in shards),
    )  # fmt: skip
    measured.interrupted = any(bool(one["interrupted"]) for one in shards)
    return conclude(facts, plan, measured)


def _add(one: Mapping[str, Any], plan: Plan, measured: Measured) -> None:
    which = _unpacked(one["which"], np.dtype("<i8"))
    if len(which) and not 0 <= which.min() <= which.max() < len(measured.done):
        raise SchemaError("a shard's result is damaged", value=shown(one["path"]))
    if measured.done[which].any():
        raise SchemaError("two shards did the same work", value=one["shard"])
    measured.rows[which] = _unpacked(one["rows"], ROW_DTYPE)
    measured.saturated[which] = _unpacked(one["saturated"], np.dtype("<i8"))
    measured.done[which] = True
    for index, number, zeros in one["zeros"]:
        if not 0 <= index < len(plan.tensors):
            raise SchemaError("a shard's result is damaged", value=shown(one["path"]))
        measured.zeros.setdefault(int(index), {})[int(number)] = UnitZeros.from_list(zeros)
    for index, terms in one.get("ranges", ()):
        if not 0 <= index < len(plan.tensors):
            raise SchemaError("a shard's result is damaged", value=shown(one["path"]))
        measured.add_ranges(int(index), RangeCounts.from_list(terms))


def _files(shards: Sequence[Mapping[str, Any]]) -> tuple[FileRecord, ...]:
    sizes: dict[str, int] = {}
    read: dict[str, int] = {}
    for one in shards:
        for name, size, done in one["files"]:
            sizes[name] = int(size)
            read[name] = read.get(name, 0) + int(done)
    kind = str(shards[0]["format"])
    return tuple(FileRecord(n, kind, sizes[n], read[n]) for n in sorted(sizes))


def _finding_terms(finding: CheckpointFinding) -> dict[str, Any]:
    # Names stay as they are: they are escaped where the merged report shows them.
    return {**finding.to_dict(), "tensor": finding.tensor}


def _fingerprint(rows: list[Any]) -> str:
    return hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest()


def _packed(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _unpacked(text: str, dtype: np.dtype[Any]) -> Any:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype)
