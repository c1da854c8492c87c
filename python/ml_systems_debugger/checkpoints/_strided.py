"""Views of a storage, gathered into row-major order while they are read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ._source import Folder

__all__ = ["Strided"]

_WHOLE_BYTES = 32 << 20
"""Views of at most so many bytes of storage are read at once."""


@dataclass(frozen=True, slots=True)
class Strided:
    """A view of a storage: strides in elements, none negative."""

    file: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    item: int
    sequential: bool = False

    @property
    def stored_bytes(self) -> int:
        """Bytes from its first to its last element."""
        if not prod(self.shape):
            return 0
        span = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return (span + 1) * self.item

    def read(self, folder: Folder, start: int, out: memoryview) -> None:
        """Fill `out` from byte `start` on."""
        first, count = start // self.item, len(out) // self.item
        target = np.frombuffer(out, np.dtype(f"V{self.item}"))
        with folder.lent(self.file) as source:

            def fetch(place: int, span: int) -> npt.NDArray[Any]:
                raw = bytearray(span * self.item)
                source.read_into(self.offset + place * self.item, memoryview(raw))
                return np.frombuffer(raw, target.dtype)

            _gather(fetch, self.shape, self.strides, first, target[:count], 0, self.item)


def _gather(
    fetch: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    first: int,
    out: npt.NDArray[Any],
    place: int,
    item: int,
) -> None:
    """Fill `out` with the elements ``first ...`` of a view, in row-major order.

    Where the storage under the wanted part is small it is fetched at once; else
    the outermost dimension is walked.
    """
    inner = prod(shape[1:])
    if not shape:
        out[:] = fetch(place, 1)
        return
    low = first // inner
    high = (first + len(out) - 1) // inner + 1
    span = (high - low - 1) * strides[0] + 1
    span += sum((n - 1) * s for n, s in zip(shape[1:], strides[1:], strict=True))
    if span * item <= _WHOLE_BYTES or (len(shape) > 1 and _worth_columns(shape, strides)):
        rows = _rows(fetch, shape, strides, low, high, place, item)
        flat = rows.reshape(-1)
        begin = first - low * inner
        out[:] = flat[begin : begin + len(out)]
        return
    done = 0
    for row in range(low, high):
        begin = first + done - row * inner
        count = min(inner - begin, len(out) - done)
        part = out[done : done + count]
        _gather(fetch, shape[1:], strides[1:], begin, part, place + row * strides[0], item)
        done += count


def _worth_columns(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the outermost dimension is the one that lies packed, as in a transposed matrix."""
    return strides[0] == min(s for n, s in zip(shape, strides, strict=True) if n > 1 or s)


def _rows(
    fetch: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    low: int,
    high: int,
    place: int,
    item: int,
) -> npt.NDArray[Any]:
    """Return rows ``low <= row < high`` of a view as an array."""
    wanted = (high - low, *shape[1:])
    span = 1 + sum((n - 1) * s for n, s in zip(wanted, strides, strict=True))
    if span * item <= _WHOLE_BYTES:
        block = fetch(place + low * strides[0], span)
        return np.lib.stride_tricks.as_strided(
            block, wanted, tuple(s * item for s in strides), writeable=False
        )
    out = np.empty(wanted, np.dtype(f"V{item}"))
    for index in range(shape[1]):
        # One further dimension fixed: a column of a transposed matrix is a packed run.
        inner = place + low * strides[0] + index * strides[1]
        part = _rows(
            fetch, (high - low, *shape[2:]), (strides[0], *strides[2:]), 0, high - low, inner, item
        )
        out[:, index] = part
    return out
