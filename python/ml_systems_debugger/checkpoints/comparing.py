"""`diff`: what changed between two checkpoints, the most changed first."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import MLSystemsDebuggerError, Severity, to_jsonable
from ._digest import part_digest
from ._families import is_optimizer_state
from ._names import shown
from ._plan import dtype_of
from ._source import Folder
from ._values import as_float64, is_convertible
from .contract import Options, TensorInfo
from .finding import CheckpointFinding
from .opening import open_checkpoint, read_tensors
from .report import SCHEMA_VERSION
from .scanning import chosen

__all__ = ["CheckpointDiff", "TensorChange", "diff"]

_BLOCK = 1 << 20
MIN_CHANGED = 4
"""Fewer changed tensors than this say nothing of what is usual."""


@dataclass(frozen=True, slots=True)
class TensorChange:
    """How one tensor changed.

    Parameters
    ----------
    name : str
    equal : bool
        The same bytes (types alike), or the same values.
    max_delta : float
        Largest |b - a| where both are finite.
    relative : float
        ``||b - a|| / ||a||`` over positions where both are finite; inf from zeros.
    cosine : float
        Of a and b over the same positions; NaN where one of them is zero.
    digest_a, digest_b : str
        16 hexadecimal digits.
    nonfinite_a, nonfinite_b : int
    """

    name: str
    equal: bool
    max_delta: float
    relative: float
    cosine: float
    digest_a: str
    digest_b: str
    nonfinite_a: int
    nonfinite_b: int

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        fields = {n: to_jsonable(getattr(self, n)) for n in self.__slots__}
        return {**fields, "name": shown(self.name, 4096)}


@dataclass(frozen=True, slots=True)
class CheckpointDiff:
    """What changed from A to B.

    Parameters
    ----------
    path_a, path_b : str
    changes : tuple of TensorChange
        Of tensors of one shape in both, the most changed (relatively) first.
    missing, added : tuple of str
        Names that only A, or only B, has.
    reshaped : tuple of (name, shape in A, shape in B)
    retyped : tuple of (name, type in A, type in B)
    findings : tuple of CheckpointFinding
    unread : tuple of str
    """

    path_a: str
    path_b: str
    changes: tuple[TensorChange, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[CheckpointFinding, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """``equal``, ``different`` or ``incomplete``."""
        if self.unread:
            return "incomplete"
        same = all(c.equal for c in self.changes)
        names = not (self.missing or self.added or self.reshaped or self.retyped)
        return "equal" if same and names else "different"

    @property
    def worst_severity(self) -> Severity | None:
        """Severity of the worst finding, or None."""
        return max((f.severity for f in self.findings), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "a": shown(self.path_a, 4096),
            "b": shown(self.path_b, 4096),
            "changes": [c.to_dict() for c in self.changes],
            "missing": [shown(n, 4096) for n in self.missing],
            "added": [shown(n, 4096) for n in self.added],
            "reshaped": [
                {"name": shown(n, 4096), "a": list(a), "b": list(b)} for n, a, b in self.reshaped
            ],
            "retyped": [{"name": shown(n, 4096), "a": a, "b": b} for n, a, b in self.retyped],
            "findings": [f.to_dict() for f in self.findings],
            "unread": list(self.unread),
        }


def diff(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 2,
    options: Options | None = None,
    stop: threading.Event | None = None,
) -> CheckpointDiff:
    """Compare two checkpoints, of one format or of two, tensor by tensor.

    Parameters
    ----------
    a, b : path
        The earlier and the later one.
    include, exclude : sequence of str
        Glob patterns of names.
    workers : int
        Threads; each compares one tensor at a time, 1 Mi values at a time.
    options : Options, optional
    stop : threading.Event, optional
        Ends the comparison early when set.
    """
    readers = [open_checkpoint(Path(p), options) for p in (a, b)]
    lists = [chosen(read_tensors(r), include, exclude) for r in readers]
    of_a, of_b = ({i.name: i for i in infos} for infos in lists)
    both = [n for n in of_a if n in of_b]
    reshaped = tuple(
        (n, of_a[n].shape, of_b[n].shape) for n in both if of_a[n].shape != of_b[n].shape
    )
    retyped = tuple(
        (n, of_a[n].dtype, of_b[n].dtype) for n in both if of_a[n].dtype != of_b[n].dtype
    )
    alike = [n for n in both if of_a[n].shape == of_b[n].shape]
    unread = [*readers[0].unread, *readers[1].unread]
    changes: list[TensorChange] = []
    ended = stop or threading.Event()

    def compare(name: str) -> TensorChange | str | None:
        if ended.is_set():
            return f"{shown(name)} was not compared: interrupted"
        try:
            return _compare(readers[0].folder, of_a[name], readers[1].folder, of_b[name])
        except (MLSystemsDebuggerError, OSError) as error:
            return f"{shown(name)}: {error}"

    with ThreadPoolExecutor(workers) as pool:
        try:
            for found in pool.map(compare, alike):
                if isinstance(found, TensorChange):
                    changes.append(found)
                elif found is not None:
                    unread.append(found)
        except KeyboardInterrupt:
            ended.set()
            pool.shutdown(cancel_futures=True)
            unread.append(f"interrupted: {len(changes)} of {len(alike)} tensors were compared")
    for reader in readers:
        unread.extend(reader.folder.check_unchanged())
    changes.sort(key=lambda c: (c.equal, -_rank(c.relative), c.name))
    missing = tuple(n for n in of_a if n not in of_b)
    added = tuple(n for n in of_b if n not in of_a)
    result = CheckpointDiff(
        str(a), str(b), tuple(changes), missing, added, reshaped, retyped, (), tuple(unread)
    )
    findings = tuple(sorted(_findings(result, of_a), key=lambda f: -f.severity.rank))
    return CheckpointDiff(
        str(a), str(b), tuple(changes), missing, added, reshaped, retyped, findings, tuple(unread)
    )


def _rank(relative: float) -> float:
    return relative if relative == relative else np.inf


def _compare(fa: Folder, a: TensorInfo, fb: Folder, b: TensorInfo) -> TensorChange:
    """Compare two tensors of one shape, a block at a time."""
    kinds = dtype_of(a), dtype_of(b)
    numeric = all(is_convertible(k) for k in kinds) and kinds[0].lanes == kinds[1].lanes
    if not numeric and a.nbytes != b.nbytes:
        raise MLSystemsDebuggerError(f"{a.dtype} and {b.dtype} cannot be compared by value yet")
    sizes = [max(k.bits // 8, 1) for k in kinds] if numeric else [1, 1]
    count = a.nbytes // sizes[0]
    sums = np.zeros(4)  # |b - a|^2, |a|^2, |b|^2, a.b
    largest, equal, bad, digests = 0.0, True, [0, 0], [0, 0]
    step = _BLOCK if numeric else _BLOCK * 4
    try:
        for start in range(0, count, step):
            here = min(step, count - start)
            raws = [
                _read(folder, info, start * size, here * size)
                for folder, info, size in zip((fa, fb), (a, b), sizes, strict=True)
            ]
            for side in (0, 1):
                part = part_digest(raws[side], start * sizes[side])
                digests[side] = (digests[side] + part) % (1 << 64)
            if kinds[0] == kinds[1] and np.array_equal(raws[0], raws[1]):
                if numeric:
                    _add_equal(as_float64(raws[0], kinds[0]), sums, bad)
                continue
            if not numeric:
                equal = False
                continue
            values = [as_float64(r, k) for r, k in zip(raws, kinds, strict=True)]
            largest = max(largest, _add(values[0], values[1], sums, bad))
            equal &= bool(np.array_equal(values[0], values[1], equal_nan=True))
    finally:
        fa.release()
        fb.release()
    delta, of_a, of_b, product = (float(s) for s in sums)
    relative = sqrt(delta / of_a) if of_a else (0.0 if delta == 0 else np.inf)
    cosine = product / sqrt(of_a) / sqrt(of_b) if of_a and of_b else nan
    if not numeric:
        relative = 0.0 if equal else nan
        largest = 0.0 if equal else nan
        cosine = 1.0 if equal else nan
    return TensorChange(
        a.name, equal, largest, relative, cosine, f"{digests[0]:016x}", f"{digests[1]:016x}",
        bad[0], bad[1],
    )  # fmt: skip


def _read(folder: Folder, info: TensorInfo, start: int, size: int) -> npt.NDArray[np.uint8]:
    raw = bytearray(size)
    if info.layout is not None:
        info.layout.read(folder, start, memoryview(raw))
    else:
        with folder.lent(info.file) as source:
            source.read_into(info.offset + start, memoryview(raw))
    return np.frombuffer(raw, np.uint8)


def _add_equal(
    values: npt.NDArray[np.float64], sums: npt.NDArray[np.float64], bad: list[int]
) -> None:
    finite = np.isfinite(values)
    kept = values if finite.all() else values[finite]
    with np.errstate(over="ignore"):
        sums[1:] += float(np.dot(kept, kept))
    lost = len(values) - len(kept)
    bad[0] += lost
    bad[1] += lost


def _add(
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
    bad: list[int],
) -> float:
    """Add a block to the sums; return its largest difference."""
    finite_a, finite_b = np.isfinite(a), np.isfinite(b)
    bad[0] += int(len(a) - np.count_nonzero(finite_a))
    bad[1] += int(len(b) - np.count_nonzero(finite_b))
    both = finite_a & finite_b
    if not both.all():
        a, b = a[both], b[both]
    with np.errstate(over="ignore", invalid="ignore"):
        change = b - a
        sums += [np.dot(change, change), np.dot(a, a), np.dot(b, b), np.dot(a, b)]
        return float(np.abs(change).max()) if len(change) else 0.0


def _findings(result: CheckpointDiff, of_a: Mapping[str, TensorInfo]) -> list[CheckpointFinding]:
    of = CheckpointFinding.of
    found = []
    for code, names, word in (
        ("missing", result.missing, "of A are not in B"),
        ("added", result.added, "of B are not in A"),
        ("reshaped", [n for n, _, _ in result.reshaped], "have another shape"),
        ("retyped", [n for n, _, _ in result.retyped], "have another type"),
    ):
        if names:
            severity = Severity.LOW if code in ("added", "retyped") else Severity.MEDIUM
            first = ", ".join(shown(n) for n in names[:4])
            found.append(
                of(code, severity, f"{len(names)} tensors {word}: {first}"
                   f"{', ...' if len(names) > 4 else ''}",
                   names=[shown(n) for n in names[:100]], count=len(names))
            )  # fmt: skip
    found.extend(
        of("newly_not_finite", Severity.CRITICAL,
           f"{c.nonfinite_b} values are not finite, {c.nonfinite_a} before", c.name,
           before=c.nonfinite_a, now=c.nonfinite_b)
        for c in result.changes if c.nonfinite_b > c.nonfinite_a
    )  # fmt: skip
    return found + _unusual(result.changes, of_a)


def _unusual(
    changes: Sequence[TensorChange], of_a: Mapping[str, TensorInfo]
) -> list[CheckpointFinding]:
    """Frozen and exploded tensors, measured against what the others did.

    Relative changes of trained tensors spread over one or two orders of
    magnitude; an exploded one changed 30 times the median and by more than its
    own size, 1000 times for high.
    """
    of = CheckpointFinding.of
    judged = [c for c in changes if not is_optimizer_state(c.name)]
    moved = [c for c in judged if not c.equal and np.isfinite(c.relative)]
    if len(moved) < MIN_CHANGED:
        return []
    median = float(np.median([c.relative for c in moved]))
    found = [
        of("exploded", Severity.HIGH if c.relative > 1000 * median else Severity.MEDIUM,
           f"changed by {c.relative:.3g} of its own size; the median of {len(moved)} is "
           f"{median:.3g}", c.name, relative=c.relative, median=median)
        for c in moved if c.relative > 30 * median and c.relative > 1.0
    ]  # fmt: skip
    # Vectors may be buffers that never change (rotary frequencies), integers are counters.
    frozen = [c for c in judged if c.equal and dtype_of(of_a[c.name]).floating]
    if frozen and len(frozen) < len(moved):
        found.extend(
            of("frozen", _frozen_severity(c, of_a[c.name]),
               f"the same in both, while {len(moved)} tensors changed", c.name,
               changed=len(moved))
            for c in frozen
        )  # fmt: skip
    return found


def _frozen_severity(change: TensorChange, info: TensorInfo) -> Severity:
    zeros = change.cosine != change.cosine
    return Severity.LOW if zeros or len(info.shape) < 2 else Severity.MEDIUM
