"""Rows and columns of a matrix that hold nothing but zeros, found while it streams by."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["DeadLines", "UnitZeros", "dead_lines", "unit_zeros"]

MIN_LINES = 8
"""Matrices with fewer rows or columns are not looked at."""

_MAX_COLUMNS = 1 << 18
_SAMPLE = 8


class UnitZeros(NamedTuple):
    """What one unit of a matrix says of its zero lines.

    `head` and `tail` are the parts of rows at its ends: None for none, else
    whether that part is all zero. `inner` counts zero rows between them,
    `sample` are the first of these. `columns` packs one bit per column that is
    all zero in this unit; None where they were not looked at, so none is.
    """

    head: bool | None
    inner: int
    sample: tuple[int, ...]
    tail: bool | None
    columns: bytes | None

    def to_list(self) -> list[Any]:
        """Return JSON terms."""
        packed = None if self.columns is None else base64.b64encode(self.columns).decode()
        return [self.head, self.inner, list(self.sample), self.tail, packed]

    @classmethod
    def from_list(cls, data: list[Any]) -> UnitZeros:
        """Undo `to_list`."""
        packed = None if data[4] is None else base64.b64decode(data[4])
        return cls(data[0], data[1], tuple(data[2]), data[3], packed)


class DeadLines(NamedTuple):
    """Zero rows and columns of a whole matrix."""

    rows: int
    first_rows: tuple[int, ...]
    columns: int
    first_columns: tuple[int, ...]


def unit_zeros(
    raw: npt.NDArray[np.uint8], item: int, start: int, rows: int, columns: int, zeros: int
) -> UnitZeros | None:
    """Return what a unit says of zero lines, None where every line in it is alive.

    Parameters
    ----------
    raw : uint8 array
        Bytes of the unit, floats of `item` bytes.
    start : int
        Its first element in the matrix.
    rows, columns : int
    zeros : int
        How many of its elements are zero.
    """
    if zeros == 0:
        return None
    bits = raw.view(f"u{item}")
    alive = (bits & bits.dtype.type((1 << (8 * item - 1)) - 1)) != 0
    head_size = min(-start % columns, len(alive))
    body = (len(alive) - head_size) // columns * columns
    head = None if head_size == 0 else not alive[:head_size].any()
    tail_size = len(alive) - head_size - body
    tail = None if tail_size == 0 else not alive[head_size + body :].any()
    whole = body // columns
    many = zeros >= min(columns, max(whole, 1))
    if not many:
        return UnitZeros(head, 0, (), tail, None) if head or tail else None
    matrix = alive[head_size : head_size + body].reshape(whole, columns)
    dead = np.flatnonzero(~matrix.any(axis=1)) + -(-start // columns)
    packed = None
    if columns <= _MAX_COLUMNS and rows >= MIN_LINES:
        used = matrix.any(axis=0)
        if head_size:
            at = start % columns
            used[at : at + head_size] |= alive[:head_size]
        if tail_size:
            used[:tail_size] |= alive[head_size + body :]
        packed = np.packbits(~used).tobytes() if not used.all() else None
    sample = tuple(int(r) for r in dead[:_SAMPLE])
    return UnitZeros(head, len(dead), sample, tail, packed)


def dead_lines(
    found: Mapping[int, UnitZeros], units: Iterable[tuple[int, int, int]], columns: int
) -> DeadLines:
    """Put the units of a matrix together.

    Parameters
    ----------
    found : mapping
        By number of the unit; missing ones are alive.
    units : iterable of (number, first element, elements)
        All of them, in order.
    columns : int
    """
    rows, sample = 0, []
    open_row, open_dead = -1, False
    dead: npt.NDArray[np.uint8] | None = None
    alive = False
    for number, start, count in units:
        unit = found.get(number)
        if unit is None or unit.columns is None:
            alive = True
        elif not alive:
            bits = np.frombuffer(unit.columns, np.uint8)
            dead = bits if dead is None else dead & bits
        part = unit or UnitZeros(False, 0, (), False, None)
        head_size = min(-start % columns, count)
        if head_size:
            open_dead = open_dead and bool(part.head)
            if (start + head_size) % columns == 0 and open_dead:
                rows += 1
                sample.append(open_row)
        rows += part.inner
        sample.extend(part.sample)
        tail_size = (count - head_size) % columns
        if tail_size:
            open_row, open_dead = (start + count) // columns, bool(part.tail)
    which: tuple[int, ...] = ()
    if dead is not None and not alive:
        which = tuple(int(c) for c in np.flatnonzero(np.unpackbits(dead, count=columns)))
    return DeadLines(rows, tuple(sample[:_SAMPLE]), len(which), which[:_SAMPLE])
