"""From tensors to units of work: byte ranges to read, and the spans in them to measure.

A tensor is judged in units of `Dtype.unit_bytes`, counted from its own start,
so the partials do not depend on workers, shards or the order of the work.
Small tensors that lie close together are read at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels import SPAN_DTYPE
from .contract import TensorInfo
from .dtypes import DTYPES, Dtype

__all__ = ["KERNEL_CODES", "OPAQUE", "Group", "Plan", "Unit", "dtype_of", "make_plan"]

OPAQUE = Dtype("opaque", 8, None)
"""Bytes of a type that is not known: only their digest means something."""

_GROUP_BYTES = 4 << 20
_GROUP_GAP = 64 << 10
_GROUP_TENSORS = 4096

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


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be read.

    Parameters
    ----------
    tensors : sequence of TensorInfo
    first_row : int64 array [tensors + 1]
        Rows of tensor i are ``first_row[i] .. first_row[i + 1]``.
    work : list
        `Unit`, `Group`, or a list of `Unit` that must be done in order.
    total_bytes : int
        Bytes that the work reads.
    """

    tensors: Sequence[TensorInfo]
    first_row: npt.NDArray[np.int64]
    work: list[Any]
    total_bytes: int


def dtype_of(info: TensorInfo) -> Dtype:
    """Return the type of a tensor, `OPAQUE` where it is not known."""
    return DTYPES.get(info.dtype, OPAQUE)


def make_plan(tensors: Sequence[TensorInfo], shard: tuple[int, int] = (1, 1)) -> Plan:
    """Return the work for `tensors`, or the part of it that shard I of N does.

    Parameters
    ----------
    tensors : sequence of TensorInfo
    shard : (int, int)
        I from 1 to N, and N. Work is dealt out by bytes, in the order of the files.
    """
    sizes = np.fromiter((i.nbytes for i in tensors), np.int64, len(tensors))
    units = np.fromiter((dtype_of(i).unit_bytes for i in tensors), np.int64, len(tensors))
    first_row = np.zeros(len(tensors) + 1, np.int64)
    np.cumsum(-(-sizes // units), out=first_row[1:])
    small = sizes <= units
    order = sorted(range(len(tensors)), key=lambda i: (tensors[i].file, tensors[i].offset))
    work: list[Any] = []
    pending: list[int] = []
    end = 0
    for index in order:
        info = tensors[index]
        size = int(sizes[index])
        if size == 0:
            continue
        if small[index] and info.layout is None and not dtype_of(info).quantised:
            first = tensors[pending[0]] if pending else info
            near = info.file == first.file and 0 <= info.offset - end <= _GROUP_GAP
            fits = info.offset + size - first.offset <= _GROUP_BYTES
            if pending and not (near and fits and len(pending) < _GROUP_TENSORS):
                work.append(_group(tensors, pending, first_row))
                pending = []
            pending.append(index)
            end = info.offset + size
            continue
        if pending:
            work.append(_group(tensors, pending, first_row))
            pending = []
        parts = list(_units(index, int(first_row[index]), size, int(units[index])))
        if info.layout is not None and info.layout.sequential:
            work.append(parts)
        else:
            work.extend(parts)
    if pending:
        work.append(_group(tensors, pending, first_row))
    if shard != (1, 1):
        work = _dealt(work, *shard)
    return Plan(tensors, first_row, work, sum(_bytes(w) for w in work))


def _units(index: int, row: int, size: int, unit: int) -> Iterator[Unit]:
    for number, start in enumerate(range(0, size, unit)):
        yield Unit(index, row + number, start, min(unit, size - start))


def _group(
    tensors: Sequence[TensorInfo], members: list[int], first_row: npt.NDArray[np.int64]
) -> Group:
    first, last = tensors[members[0]], tensors[members[-1]]
    spans = np.zeros(len(members), SPAN_DTYPE)
    base = first.offset
    infos = [tensors[i] for i in members]
    spans["offset"] = [i.offset - base for i in infos]
    kinds = [dtype_of(i) for i in infos]
    spans["dtype"] = [KERNEL_CODES[k.kernel or "uint8"] for k in kinds]
    spans["count"] = [
        i.nbytes if k.kernel is None else prod(i.shape) * k.lanes
        for i, k in zip(infos, kinds, strict=True)
    ]
    which = np.array(members, np.int64)
    return Group(first.file, base, last.offset + last.nbytes - base, which, first_row[which], spans)


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
