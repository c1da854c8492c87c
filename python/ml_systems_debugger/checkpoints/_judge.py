"""What the statistics of a checkpoint say: one finding per rule and place.

Each states what the bytes are. High and critical are kept for what no healthy
checkpoint holds: values that are not finite, one layer that is dead or orders
of magnitude away from its siblings. What fresh initialisation, pruning, weight
tying or masks may also do is medium or low.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import Severity
from ..core.shown import shown
from ..kernels.robust_scale import MAD_TO_SIGMA
from ._dead import DeadLines, dead_lines
from ._engine import Measured
from ._families import families, is_optimizer_state
from ._judge_ranges import range_findings
from ._never_trained import never_trained
from ._plan import Plan, dtype_of, per_type
from .finding import CheckpointFinding
from .table import TensorTable

__all__ = ["judge"]

MIN_SIBLINGS = 4
MIN_CONSTANT = 64
MIN_DUPLICATE = 1024
_FP16_MAX = 65504.0
_of = CheckpointFinding.of


def judge(plan: Plan, measured: Measured, table: TensorTable) -> list[CheckpointFinding]:
    """Return every finding over the values, in order of the tensors.

    Parameters
    ----------
    plan, measured, table
        Of the same scan.
    """
    found: list[CheckpointFinding] = []
    usable = table.columns["scanned"] & table.columns["judged"]
    floating = per_type(plan.tensors, lambda k: k.floating, np.bool_)
    look = usable & floating
    found.extend(_not_finite(table, look))
    found.extend(_zeros(table, look))
    found.extend(_constants(table, look))
    found.extend(never_trained(table))
    found.extend(_lines(plan, measured, table))
    found.extend(_siblings(table, look))
    found.extend(_ranges(table, look))
    found.extend(range_findings(table))
    found.extend(_duplicates(table))
    return found


def _not_finite(table: TensorTable, look: npt.NDArray[np.bool_]) -> Iterator[CheckpointFinding]:
    columns = table.columns
    infinite = columns["posinf"] + columns["neginf"]
    for index in np.flatnonzero(look & (columns["nan"] + infinite > 0)).tolist():
        row, info = columns[index], table.tensors[index]
        counts = {n: int(row[n]) for n in ("nan", "posinf", "neginf", "size")}
        at = table.first_nonfinite(index)
        evidence: dict[str, Any] = {**counts, "first_nonfinite": list(at or ())}
        where = f"first at index {list(at or ())}"
        kind = dtype_of(info)
        if kind.quantised:
            bad = counts["nan"] + counts["posinf"] + counts["neginf"]
            yield _of(
                "scale_not_finite", Severity.CRITICAL,
                f"{bad} of {counts['size']} block scales are not finite, {where}",
                info.name, **evidence,
            )  # fmt: skip
            continue
        if counts["nan"]:
            share = counts["nan"] / counts["size"]
            yield _of(
                "nan", Severity.CRITICAL,
                f"{counts['nan']} of {counts['size']} values are NaN ({share:.2%}), {where}",
                info.name, **evidence,
            )  # fmt: skip
        if counts["posinf"] + counts["neginf"]:
            mask = "mask" in info.name.lower() and not counts["posinf"] and not counts["nan"]
            what = "; -Inf is usual in an attention mask" if mask else ""
            yield _of(
                "inf", Severity.LOW if mask else Severity.CRITICAL,
                f"{counts['posinf'] + counts['neginf']} of {counts['size']} values are infinite "
                f"({counts['posinf']} +Inf, {counts['neginf']} -Inf), {where}{what}",
                info.name, **evidence,
            )  # fmt: skip


def _is_matrix_shape(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and prod(shape) >= MIN_CONSTANT


def _zeros(table: TensorTable, look: npt.NDArray[np.bool_]) -> Iterator[CheckpointFinding]:
    columns = table.columns
    zero = look & (columns["size"] > 0) & (columns["zero"] == columns["size"])
    if not zero.any():
        return
    matrices = table.tensors.of_shape(_is_matrix_shape, np.bool_)
    states = np.fromiter(map(is_optimizer_state, table.tensors.names()), np.bool_, len(table))
    weights = look & matrices & ~states
    if weights.sum() >= 2 and not (weights & ~zero).any():
        yield _of(
            "all_zero", Severity.HIGH,
            f"all {int(weights.sum())} weight matrices hold nothing but zeros",
            count=int(weights.sum()),
        )  # fmt: skip
        return
    for index in np.flatnonzero(zero & weights).tolist():
        info = table.tensors[index]
        yield _of(
            "all_zero", Severity.MEDIUM,
            f"all {int(columns[index]['size'])} values are zero: never trained, zeroed on purpose, "
            f"or never written",
            info.name, size=int(columns[index]["size"]), shape=list(info.shape),
        )  # fmt: skip


def _constants(table: TensorTable, look: npt.NDArray[np.bool_]) -> Iterator[CheckpointFinding]:
    columns = table.columns
    same = look & (columns["min"] == columns["max"]) & (columns["min"] != 0)
    for index in np.flatnonzero(same).tolist():
        info = table.tensors[index]
        if _is_matrix_shape(info.shape) and not dtype_of(info).quantised:
            value = float(columns[index]["min"])
            yield _of(
                "constant", Severity.MEDIUM,
                f"every finite value is {value:g}: rows that are all alike learn alike",
                info.name, value=value, shape=list(info.shape),
            )  # fmt: skip


def _lines(plan: Plan, measured: Measured, table: TensorTable) -> Iterator[CheckpointFinding]:
    for index, units in sorted(measured.zeros.items()):
        info, row = table.tensors[index], table.columns[index]
        if not row["scanned"] or row["zero"] == row["size"] or is_optimizer_state(info.name):
            continue
        rows, width = info.shape[0], prod(info.shape[1:])
        first, last = int(plan.first_row[index]), int(plan.first_row[index + 1])
        counts = measured.rows["count"][first:last]
        starts = np.cumsum(counts) - counts
        places = [(n, int(starts[n]), int(counts[n])) for n in range(last - first)]
        lines = dead_lines(units, places, width)
        yield from _dead(info.name, lines, rows, width, len(info.shape) == 2)


def _dead(
    name: str, lines: DeadLines, rows: int, width: int, matrix: bool
) -> Iterator[CheckpointFinding]:
    if lines.rows:
        # One zero row is how embeddings pad.
        severity = Severity.LOW if lines.rows == 1 else Severity.MEDIUM
        yield _of(
            "dead_rows", severity,
            f"{lines.rows} of {rows} rows hold nothing but zeros, first "
            f"{', '.join(map(str, lines.first_rows))}",
            name, rows=lines.rows, of=rows, first=list(lines.first_rows),
        )  # fmt: skip
    if lines.columns and matrix:
        severity = Severity.LOW if lines.columns == 1 else Severity.MEDIUM
        yield _of(
            "dead_columns", severity,
            f"{lines.columns} of {width} columns hold nothing but zeros, first "
            f"{', '.join(map(str, lines.first_columns))}",
            name, columns=lines.columns, of=width, first=list(lines.first_columns),
        )  # fmt: skip


def _siblings(table: TensorTable, look: npt.NDArray[np.bool_]) -> Iterator[CheckpointFinding]:
    """Compare the root mean square of a tensor with those of its role in other layers.

    Robust z of log2(rms) by median and MAD (scale 1.4826; at least half a
    factor of two, so that near-equal siblings do not make an outlier of a
    small step). Matrices are called outliers from a factor of 8 on, high from
    64 on; vectors, which differ more by nature, from 64 and 4096 on.
    """
    columns = table.columns
    for name, members in families(table.tensors, MIN_SIBLINGS).items():
        which = members[look[members] & (columns["size"][members] > 0)]
        if len(which) < MIN_SIBLINGS or is_optimizer_state(name):
            continue
        rms = columns["l2"][which] / np.sqrt(columns["size"][which].astype(np.float64))
        matrix = len(table.tensors[int(which[0])].shape) >= 2
        alive = np.isfinite(rms) & (rms > 0)
        if alive.sum() < MIN_SIBLINGS - 1:
            continue
        level = np.log2(rms[alive])
        centre = float(np.median(level))
        scale = max(MAD_TO_SIGMA * float(np.median(np.abs(level - centre))), 0.5)
        if matrix and (~alive).sum() * 4 <= len(which):
            yield from _dead_siblings(table, which[rms == 0], len(which), centre)
        least, severe = (3.0, 6.0) if matrix else (6.0, 12.0)
        far = np.abs(level - centre)
        odd = np.flatnonzero((far >= least) & (far >= 6 * scale))
        for index, value in zip(which[alive][odd].tolist(), level[odd].tolist(), strict=True):
            off = value - centre
            z = abs(off) / scale
            severity = Severity.HIGH if abs(off) >= severe and z >= 12 else Severity.MEDIUM
            word = "larger" if off > 0 else "smaller"
            yield _of(
                "outlier", severity,
                f"its root mean square {2.0**value:.3g} is {2.0 ** abs(off):.3g} times {word} than "
                f"the median of its {len(which)} siblings, {2.0**centre:.3g}",
                table.tensors[index].name, rms=float(2.0**value), median=float(2.0**centre),
                robust_z=float(z), siblings=len(which), family=shown(name),
            )  # fmt: skip


def _dead_siblings(
    table: TensorTable, which: npt.NDArray[np.int64], count: int, centre: float
) -> Iterator[CheckpointFinding]:
    for index in which.tolist():
        yield _of(
            "outlier", Severity.HIGH,
            f"all zero, while its {count - len(which)} siblings in other layers have a root mean "
            f"square about {2.0**centre:.3g}",
            table.tensors[index].name, rms=0.0, median=float(2.0**centre), siblings=count,
        )  # fmt: skip


def _ranges(table: TensorTable, look: npt.NDArray[np.bool_]) -> Iterator[CheckpointFinding]:
    columns = table.columns
    alive = columns["size"] - columns["zero"]
    odd = (columns["absmax"] > _FP16_MAX) | (columns["saturated"] > 0)
    odd |= (columns["subnormal"] > 0.1 * alive) & (alive >= MIN_CONSTANT)
    for index in np.flatnonzero(look & odd).tolist():
        row, info = columns[index], table.tensors[index]
        kind = dtype_of(info)
        size = int(row["size"])
        if not size or is_optimizer_state(info.name):
            continue
        counted = index in table.ranges  # then the values themselves were counted
        if kind.bits in (16, 32) and kind.lanes == 1 and row["absmax"] > _FP16_MAX and not counted:
            yield _of(
                "range", Severity.LOW,
                f"values up to {row['absmax']:.3g}, which float16 (up to 65504) cannot hold",
                info.name, absmax=float(row["absmax"]),
            )  # fmt: skip
        alive = size - int(row["zero"])
        # Fewer digits are left in subnormal numbers; some of them are normal in half precision.
        if kind.bits <= 16 and alive >= MIN_CONSTANT and row["subnormal"] > 0.1 * alive:
            share = int(row["subnormal"]) / alive
            yield _of(
                "range", Severity.MEDIUM if kind.bits == 16 and share > 0.5 else Severity.LOW,
                f"{share:.1%} of its values that are not zero are subnormal in {kind.name}: "
                f"too small for the type",
                info.name, subnormal=int(row["subnormal"]), share=share,
            )  # fmt: skip
        saturated = int(row["saturated"])
        if saturated and saturated > max(1, 1e-3 * size if kind.bits == 8 else 0):
            yield _of(
                "saturated", Severity.MEDIUM,
                f"{saturated} of {size} values sit at the largest that {kind.name} holds, "
                f"{kind.maximum:g}",
                info.name, saturated=saturated, share=saturated / size,
            )  # fmt: skip


def _duplicates(table: TensorTable) -> Iterator[CheckpointFinding]:
    columns, groups = table.columns, defaultdict(list)
    spread = columns["scanned"] & (columns["size"] >= MIN_DUPLICATE)
    spread &= ~(columns["min"] == columns["max"])
    for index in np.flatnonzero(spread).tolist():
        info = table.tensors[index]
        groups[(int(columns[index]["digest"]), info.dtype, info.nbytes)].append(index)
    for members in groups.values():
        infos = [table.tensors[i] for i in members]
        if len({i.storage or f"{i.file}:{i.offset}" for i in infos}) < 2:
            continue  # the same memory: said already
        names = [shown(i.name) for i in infos]
        yield _of(
            "duplicate", Severity.LOW,
            f"{len(names)} tensors are equal byte for byte: {', '.join(names[:4])}"
            f"{', ...' if len(names) > 4 else ''}",
            infos[0].name, tensors=names[:100], count=len(names),
        )  # fmt: skip
