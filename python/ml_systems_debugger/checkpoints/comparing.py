"""`diff`: what changed between two checkpoints, the most changed first."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import nan, sqrt

import numpy as np
import numpy.typing as npt

from ..core import MLSystemsDebuggerError
from ..core.shown import shown
from ._digest import part_digest
from ._judge_changes import judge_changes
from ._place import without_secrets
from ._plan import dtype_of
from ._source import Folder
from ._values import as_float64, is_convertible
from .changes import CheckpointDiff, TensorChange
from .contract import Options, TensorInfo
from .opening import open_checkpoint, read_tensors
from .scanning import chosen

__all__ = ["diff"]

_BLOCK = 1 << 20


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
        The earlier and the later one; a URL, as for `scan`.
    include, exclude : sequence of str
        Glob patterns of names.
    workers : int
        Threads; each compares one tensor at a time, 1 Mi values at a time.
    options : Options, optional
    stop : threading.Event, optional
        Ends the comparison early when set.
    """
    readers = [open_checkpoint(p, options) for p in (a, b)]
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
        without_secrets(a),
        without_secrets(b),
        tuple(changes),
        missing,
        added,
        reshaped,
        retyped,
        (),
        tuple(unread),
    )
    findings = tuple(sorted(judge_changes(result, of_a), key=lambda f: -f.severity.rank))
    return replace(result, findings=findings)


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
