"""`TensorTable`: the statistics of every tensor, in columns; `TensorRecord`: one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ..core import to_jsonable
from ..core.shown import shown
from ..kernels import combine_rows
from ._engine import Measured
from ._plan import Plan, dtype_of, per_type
from ._ranges import RangeCounts
from ._tensor_list import TensorList

__all__ = ["STATISTICS", "VALUES", "TensorRecord", "TensorTable"]

_CHUNK = 1 << 15
_COUNTS = ("size", "nan", "posinf", "neginf", "zero", "subnormal")
VALUES = ("min", "max", "absmax", "mean", "std", "l1", "l2")
STATISTICS = (*_COUNTS, *VALUES)
"""Names of the statistics. Over the finite values; NaN where there is none (norms: 0). Of
complex numbers their parts are counted, of quantised types the scales of their
blocks."""

_COLUMNS = np.dtype(
    [(n, np.uint64) for n in _COUNTS]
    + [(n, np.float64) for n in VALUES]
    + [("first", np.int64), ("digest", np.uint64), ("saturated", np.int64)]
    + [("scanned", np.bool_), ("judged", np.bool_)]
)


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """What is known of one tensor.

    Parameters
    ----------
    name, dtype, shape, file
        As in the checkpoint.
    nbytes : int
    stats : mapping or None
        See `STATISTICS`; None for bytes of an opaque type and for what was not read.
    first_nonfinite : tuple of int or None
        Index of the first NaN or Inf; of a quantised type, of the first value
        in the block whose scale it is.
    digest : str or None
        Of its bytes, 16 hexadecimal digits; None where not all was read.
    ranges : RangeCounts or None
        Exponents of its values, where they were asked for.
    saturated : int or None
        Values at the largest magnitude of their type; None but for types of 16 bits and less.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    nbytes: int
    stats: Mapping[str, Any] | None = None
    first_nonfinite: tuple[int, ...] | None = None
    digest: str | None = None
    ranges: RangeCounts | None = None
    saturated: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "name": shown(self.name, 4096),
            "dtype": self.dtype,
            "shape": list(self.shape),
            "file": shown(self.file),
            "stats": None if self.stats is None else to_jsonable(self.stats),
            "first_nonfinite": None if self.first_nonfinite is None else list(self.first_nonfinite),
            "digest": self.digest,
            **({} if self.saturated is None else {"saturated": self.saturated}),
            **({} if self.ranges is None else {"ranges": self.ranges.to_dict()}),
        }


class TensorTable(Sequence[TensorRecord]):
    """Every tensor with its statistics; records are made when they are asked for.

    Parameters
    ----------
    tensors : TensorList
    columns : structured array [tensors]
    ranges : mapping
        By tensor, where they were asked for.
    """

    def __init__(
        self,
        tensors: TensorList,
        columns: npt.NDArray[np.void],
        ranges: Mapping[int, RangeCounts] = MappingProxyType({}),
    ) -> None:
        self.ranges = ranges
        self.tensors = tensors
        self.columns = columns
        columns.setflags(write=False)

    @classmethod
    def of(cls, plan: Plan, measured: Measured) -> TensorTable:
        """Combine the partials of every tensor in their fixed tree."""
        tensors, first_row = plan.tensors, plan.first_row
        out = np.zeros(len(tensors), _COLUMNS)
        for name in VALUES:
            out[name] = 0.0 if name in ("l1", "l2") else np.nan
        out["first"] = -1
        units = np.diff(first_row)
        out["scanned"] = _all_done(first_row, measured.done)
        out["judged"] = per_type(tensors, lambda k: k.kernel is not None, np.bool_)
        one = np.flatnonzero((units == 1) & out["scanned"])
        for start in range(0, len(one), _CHUNK):  # the arrays in between stay small
            _single(out, one[start : start + _CHUNK], measured, first_row)
        for index in np.flatnonzero((units > 1) & out["scanned"]).tolist():
            rows = slice(int(first_row[index]), int(first_row[index + 1]))
            kind = dtype_of(tensors[index])
            if kind.kernel is None or kind.quantised:
                _joined(out, index, measured.rows[rows])
            else:
                _combined(out, index, measured.rows[rows])
            out["saturated"][index] = measured.saturated[rows].sum()
        return cls(tensors, out, measured.ranges)

    @property
    def narrow(self) -> npt.NDArray[np.bool_]:
        """Which tensors are of a type narrow enough that values at its limit are counted."""
        return per_type(self.tensors, lambda k: k.maximum is not None, np.bool_)

    def record(self, index: int) -> TensorRecord:
        """Return the record of one tensor."""
        info, row = self.tensors[index], self.columns[index]
        if not row["scanned"]:
            return TensorRecord(info.name, info.dtype, info.shape, info.file, info.nbytes)
        stats = None
        if row["judged"]:
            stats = MappingProxyType({n: row[n].item() for n in STATISTICS})
        return TensorRecord(
            info.name, info.dtype, info.shape, info.file, info.nbytes, stats,
            self.first_nonfinite(index), f"{int(row['digest']):016x}", self.ranges.get(index),
            int(row["saturated"]) if dtype_of(info).maximum is not None else None,
        )  # fmt: skip

    def first_nonfinite(self, index: int) -> tuple[int, ...] | None:
        """Return the index of a tensor's first NaN or Inf, or None."""
        first = int(self.columns[index]["first"])
        if first < 0:
            return None
        info = self.tensors[index]
        kind = dtype_of(info)
        per = kind.elements if kind.quantised else 1
        values = len(kind.scales) if kind.quantised else kind.lanes
        flat = first // values * per
        out = []
        for size in reversed(info.shape):
            flat, at = divmod(flat, size)
            out.append(at)
        return tuple(reversed(out))

    @overload
    def __getitem__(self, index: int) -> TensorRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[TensorRecord]: ...
    def __getitem__(self, index: int | slice) -> TensorRecord | list[TensorRecord]:
        if isinstance(index, slice):
            return [self.record(i) for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"tensor {index} of {len(self)}")
        return self.record(at)

    def __iter__(self) -> Iterator[TensorRecord]:
        return map(self.record, range(len(self)))

    def __len__(self) -> int:
        return len(self.tensors)


def _all_done(
    first_row: npt.NDArray[np.int64], done: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    counts = np.concatenate([[0], np.cumsum(done)])
    whole: npt.NDArray[np.bool_] = np.diff(counts[first_row]) == np.diff(first_row)
    return whole


def _single(
    out: npt.NDArray[np.void],
    which: npt.NDArray[np.int64],
    measured: Measured,
    first_row: npt.NDArray[np.int64],
) -> None:
    """Tensors of one unit, all at once: the same formulas as `combine_rows`."""
    rows = measured.rows[first_row[which]]
    finite = rows["count"] - (rows["nan"] + rows["posinf"] + rows["neginf"]).astype(np.int64)
    put: dict[str, Any] = {n: rows[n] for n in ("nan", "posinf", "neginf", "zero", "subnormal")}
    put["size"] = rows["count"].astype(np.uint64)
    some = finite > 0
    with np.errstate(all="ignore"):
        put["min"] = np.where(some, rows["min"], np.nan)
        put["max"] = np.where(some, rows["max"], np.nan)
        largest = np.maximum(np.abs(rows["min"]), np.abs(rows["max"]))
        put["absmax"] = np.where(some, largest, np.nan)
        put["mean"] = np.where(some, rows["mean"], np.nan)
        spread = np.sqrt(rows["deviations_sum"] / finite) * rows["deviations_scale"]
        put["std"] = np.where(some, spread, np.nan)
        put["l1"] = np.where(some, rows["abs_sum"], 0.0)
        length = rows["squares_scale"] * np.sqrt(rows["squares_sum"])
        put["l2"] = np.where(some, length, 0.0)
    put["first"] = rows["first_nonfinite"]
    put["digest"] = rows["digest"]
    put["saturated"] = measured.saturated[first_row[which]]
    for name, values in put.items():
        out[name][which] = values


def _combined(out: npt.NDArray[np.void], index: int, rows: npt.NDArray[np.void]) -> None:
    stats = combine_rows(rows)
    for name in STATISTICS:
        out[name][index] = getattr(stats, name)
    out["digest"][index] = stats.digest
    out["first"][index] = _first(rows)


def _first(rows: npt.NDArray[np.void]) -> int:
    found = np.flatnonzero(rows["first_nonfinite"] >= 0)
    if not len(found):
        return -1
    at = int(found[0])
    return int(rows["count"][:at].sum() + rows["first_nonfinite"][at])


def _joined(out: npt.NDArray[np.void], index: int, rows: npt.NDArray[np.void]) -> None:
    """Scales come in units of their own size: joined in order by the pairwise update.

    Chan, Golub and LeVeque (1979). Scales are of at most 32 bits, so squares stay in range.
    """
    count, mean, deviations, squares, total = 0, 0.0, 0.0, 0.0, 0.0
    low, high = np.inf, -np.inf
    for row in rows:
        bad = int(row["nan"]) + int(row["posinf"]) + int(row["neginf"])
        more = int(row["count"]) - bad
        if not more:
            continue
        delta = float(row["mean"]) - mean
        deviations += float(row["deviations_scale"]) ** 2 * float(row["deviations_sum"])
        deviations += delta * delta * count * more / (count + more)
        mean += delta * more / (count + more)
        squares += float(row["squares_scale"]) ** 2 * float(row["squares_sum"])
        total += float(row["abs_sum"])
        low, high = min(low, float(row["min"])), max(high, float(row["max"]))
        count += more
    for name in ("nan", "posinf", "neginf", "zero", "subnormal"):
        out[name][index] = rows[name].sum()
    out["size"][index] = rows["count"].sum()
    if count:
        values = (low, high, max(abs(low), abs(high)), mean, sqrt(deviations / count), total,
                  sqrt(squares))  # fmt: skip
        for name, value in zip(VALUES, values, strict=True):
            out[name][index] = value
    out["first"][index] = _first(rows)
    out["digest"][index] = np.add.reduce(rows["digest"])
