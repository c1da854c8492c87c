"""From tensors to units of work: byte ranges to read, and the spans in them to measure.

A tensor is judged in units of `Dtype.unit_bytes`, counted from its own start,
so the partials do not depend on workers, shards or the order of the work.
Small tensors that lie close together are read at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels import BLOCK, SPAN_DTYPE
from ._tensor_list import TensorList
from .contract import TensorInfo
from .dtypes import DTYPES, Dtype

__all__ = [
    "KERNEL_CODES",
    "OPAQUE",
    "Group",
    "Plan",
    "Stretch",
    "Unit",
    "dtype_of",
    "make_plan",
    "per_type",
    "stretches",
]

OPAQUE = Dtype("opaque", 8, None)
"""Bytes of a type that is not known: only their digest means something."""

_GROUP_BYTES = 4 << 20
_GROUP_GAP = 64 << 10
_GROUP_TENSORS = 4096
_CHUNK = 1 << 14

# The order of mlsd::Dtype in cpp/include/mlsd/dtypes.hpp.
KERNEL_CODES = {
    name: code
    for code, name in enumerate(
        ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
         "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "int8", "int16", "int32",
         "int64", "uint8", "uint16", "uint32", "uint64")
    )
}  # fmt: skip


class Unit(NamedTuple):
    """A part of one tensor: its row in the results and its bytes within the tensor."""

    tensor: int
    row: int
    start: int
    nbytes: int


class Group(NamedTuple):
    """Small tensors that are read at once: one row and one span each."""

    file: str
    offset: int
    nbytes: int
    tensors: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    spans: npt.NDArray[np.void]


class Stretch(NamedTuple):
    """Work on bytes that lie together in one file: fetched at once, then measured in order."""

    file: str
    start: int
    stop: int
    steps: list[Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be read.

    Parameters
    ----------
    tensors : TensorList
    first_row : int64 array [tensors + 1]
        Rows of tensor i are ``first_row[i] .. first_row[i + 1]``.
    work : list
        `Unit`, `Group`, or a list of `Unit` that must be done in order.
    total_bytes : int
        Bytes that the work reads.
    ranges : bool
        Exponents are counted too.
    """

    tensors: TensorList
    first_row: npt.NDArray[np.int64]
    work: list[Any]
    total_bytes: int
    ranges: bool = False


def dtype_of(info: TensorInfo) -> Dtype:
    """Return the type of a tensor, `OPAQUE` where it is not known."""
    return DTYPES.get(info.dtype, OPAQUE)


def make_plan(
    tensors: Sequence[TensorInfo], shard: tuple[int, int] = (1, 1), *, ranges: bool = False
) -> Plan:
    """Return the work for `tensors`, or the part of it that shard I of N does.

    Parameters
    ----------
    tensors : sequence of TensorInfo
    shard : (int, int)
        I from 1 to N, and N. Work is dealt out by bytes, in the order of the files.
    ranges : bool
        Whether exponents are counted too.
    """
    tensors = TensorList.of(tensors)
    columns = _Columns.of(tensors)
    sizes, first_row = columns.sizes, np.zeros(len(tensors) + 1, np.int64)
    np.cumsum(-(-sizes // columns.units), out=first_row[1:])
    work: list[Any] = []
    pending: list[int] = []
    file, base, end = -1, 0, 0
    for index, size, offset, of_file, plain in columns.in_order():
        if size == 0:
            continue
        if plain:
            near = of_file == file and 0 <= offset - end <= _GROUP_GAP
            fits = offset + size - base <= _GROUP_BYTES and len(pending) < _GROUP_TENSORS
            if pending and not (near and fits):
                work.append(_group(tensors, pending, first_row, columns))
                pending = []
            if not pending:
                file, base = of_file, offset
            pending.append(index)
            end = offset + size
            continue
        if pending:
            work.append(_group(tensors, pending, first_row, columns))
            pending = []
        parts = list(_units(index, int(first_row[index]), size, int(columns.units[index])))
        layout = tensors[index].layout
        if layout is not None and layout.sequential:
            work.append(parts)
        else:
            work.extend(parts)
    if pending:
        work.append(_group(tensors, pending, first_row, columns))
    if shard != (1, 1):
        work = _dealt(work, *shard)
    return Plan(tensors, first_row, work, sum(_bytes(w) for w in work), ranges)


class _Columns(NamedTuple):
    """What the plan looks at, in columns: half a million tensors are planned in a second."""

    sizes: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    files: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    groupable: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, tensors: TensorList) -> _Columns:
        """Return the columns."""
        sizes = tensors.sizes
        units = per_type(tensors, lambda k: k.unit_bytes, np.int64)
        whole = per_type(tensors, _is_grouped, np.bool_)
        items = per_type(tensors, item_bytes, np.int64)
        return cls(
            sizes,
            tensors.offsets,
            tensors.files,
            units,
            items,
            per_type(tensors, lambda k: KERNEL_CODES[k.kernel or "uint8"], np.int64),
            tensors.packed & whole & (sizes <= units) & (sizes // items <= BLOCK),
        )

    def in_order(self) -> Iterator[tuple[int, int, int, int, bool]]:
        """Yield index, size, offset, file and whether it may be grouped, as the files have them."""
        order = np.lexsort((self.offsets, self.files))
        for start in range(0, len(order), _CHUNK):
            which = order[start : start + _CHUNK]
            yield from zip(
                which.tolist(), self.sizes[which].tolist(), self.offsets[which].tolist(),
                self.files[which].tolist(), self.groupable[which].tolist(), strict=True,
            )  # fmt: skip


def _is_grouped(kind: Dtype) -> bool:
    """Return whether small tensors of a type are measured by spans alone."""
    opaque_with_limit = kind.kernel is None and kind.maximum is not None
    return not kind.quantised and not opaque_with_limit


def item_bytes(kind: Dtype) -> int:
    """Return the bytes of one value as the kernels count them."""
    return kind.bits // 8 // kind.lanes if kind.kernel and not kind.quantised else 1


def per_type(tensors: TensorList, function: Callable[[Dtype], Any], dtype: Any) -> npt.NDArray[Any]:
    """Return `function` of the type of each tensor, computed once for each type."""
    return tensors.of_type(lambda name: function(DTYPES.get(name, OPAQUE)), dtype)


def _units(index: int, row: int, size: int, unit: int) -> Iterator[Unit]:
    for number, start in enumerate(range(0, size, unit)):
        yield Unit(index, row + number, start, min(unit, size - start))


def _group(
    tensors: TensorList,
    members: list[int],
    first_row: npt.NDArray[np.int64],
    columns: _Columns,
) -> Group:
    which = np.array(members, np.int64)
    first, last = tensors[members[0]], tensors[members[-1]]
    spans = np.zeros(len(members), SPAN_DTYPE)
    spans["offset"] = columns.offsets[which] - first.offset
    spans["dtype"] = columns.codes[which]
    spans["count"] = columns.sizes[which] // columns.items[which]
    nbytes = last.offset + last.nbytes - first.offset
    return Group(first.file, first.offset, nbytes, which, first_row[which], spans)


def stretches(plan: Plan, longest: int) -> list[Any]:
    """Return the work with neighbours put together, at most `longest` bytes of a file at once."""
    out: list[Any] = []
    for item in plan.work:
        if isinstance(item, Group):
            file, start = item.file, item.offset
        elif isinstance(item, Unit) and plan.tensors[item.tensor].layout is None:
            info = plan.tensors[item.tensor]
            file, start = info.file, info.offset + item.start
        else:
            out.append(item)
            continue
        stop = start + item.nbytes
        last = out[-1] if out and isinstance(out[-1], Stretch) else None
        if (
            last is not None
            and last.file == file
            and 0 <= start - last.stop <= _GROUP_GAP
            and stop - last.start <= longest
        ):
            out[-1] = Stretch(file, last.start, stop, [*last.steps, item])
        else:
            out.append(Stretch(file, start, stop, [item]))
    return out


def _bytes(work: Any) -> int:
    if isinstance(work, list):
        return sum(unit.nbytes for unit in work)
    return int(work.nbytes)


def _dealt(work: list[Any], number: int, count: int) -> list[Any]:
    """Return the work of one shard: whole items whose middle lies in its share of the bytes."""
    total = sum(_bytes(w) for w in work)
    out, at = [], 0
    for item in work:
        middle = at + _bytes(item) // 2
        if min(middle * count // max(total, 1), count - 1) == number - 1:
            out.append(item)
        at += _bytes(item)
    return out
