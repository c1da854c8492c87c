"""Tensors that do not lie in one packed piece: put in row-major order while they are read."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SchemaError
from ._names import shown
from ._source import Folder

__all__ = [
    "Box",
    "Boxes",
    "Inflated",
    "Piece",
    "Pieces",
    "Strided",
    "Swapped",
    "is_packed",
    "moved",
]

_WHOLE_BYTES = 32 << 20
"""Views of at most so many bytes of storage are read at once."""

_MAX_ROW_BYTES = 64 << 20


def is_packed(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether strides in elements are those of a packed row-major array."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file."""

    file: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Pieces:
    """A tensor whose bytes are those of several pieces, one behind the other."""

    pieces: tuple[Piece, ...]
    sequential: bool = False

    @property
    def stored_bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(p.nbytes for p in self.pieces)

    def read(self, folder: Folder, start: int, out: memoryview) -> None:
        """Fill `out` from byte `start` on."""
        done, at = 0, 0
        for piece in self.pieces:
            inside = start + done - at
            if inside < piece.nbytes and done < len(out):
                count = min(piece.nbytes - inside, len(out) - done)
                with folder.lent(piece.file) as source:
                    source.read_into(piece.offset + inside, out[done : done + count])
                done += count
            at += piece.nbytes


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


@dataclass(frozen=True, slots=True)
class Box:
    """A packed part of a tensor: where it begins in each dimension, its shape and place."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Boxes:
    """A tensor cut into boxes that fill it, as sharded checkpoints hold it."""

    shape: tuple[int, ...]
    item: int
    boxes: tuple[Box, ...]
    sequential: bool = False

    def __post_init__(self) -> None:
        if prod(self.shape[1:]) * self.item > _MAX_ROW_BYTES:
            raise ValueError(f"rows of more than {_MAX_ROW_BYTES} bytes that are cut into boxes")

    @property
    def stored_bytes(self) -> int:
        """Bytes of all boxes."""
        return sum(prod(b.shape) for b in self.boxes) * self.item

    def read(self, folder: Folder, start: int, out: memoryview) -> None:
        """Fill `out` from byte `start` on."""
        row = prod(self.shape[1:]) * self.item
        low, high = start // row, (start + len(out) - 1) // row + 1
        whole = np.zeros((high - low, *self.shape[1:]), np.dtype(f"V{self.item}"))
        for box in self.boxes:
            begin, end = max(low, box.start[0]), min(high, box.start[0] + box.shape[0])
            if begin >= end:
                continue
            inner = prod(box.shape[1:]) * self.item
            raw = bytearray((end - begin) * inner)
            with folder.lent(box.file) as source:
                source.read_into(box.offset + (begin - box.start[0]) * inner, memoryview(raw))
            place = (
                slice(begin - low, end - low),
                *(slice(s, s + n) for s, n in zip(box.start[1:], box.shape[1:], strict=True)),
            )
            part = np.frombuffer(raw, whole.dtype)
            whole[place] = part.reshape((end - begin, *box.shape[1:]))
        flat = whole.reshape(-1).view(np.uint8)
        out[:] = flat[start - low * row :][: len(out)].data


@dataclass(frozen=True, slots=True)
class Swapped:
    """A tensor in big-endian order, turned into little-endian."""

    inner: Any
    word: int

    @property
    def sequential(self) -> bool:
        """As the layout within."""
        return bool(self.inner.sequential)

    @property
    def stored_bytes(self) -> int:
        """As the layout within."""
        return int(self.inner.stored_bytes)

    def read(self, folder: Folder, start: int, out: memoryview) -> None:
        """Fill `out` from byte `start` on."""
        self.inner.read(folder, start, out)
        np.frombuffer(out, np.dtype(f"u{self.word}")).byteswap(inplace=True)


@dataclass(slots=True)
class Inflated:
    """A deflated archive member, read from its start to its end.

    It keeps the decompressor between calls of `read`, and never makes more
    than the declared number of bytes.
    """

    file: str
    offset: int
    stored: int
    size: int
    skip: int
    sequential: bool = True
    _engine: Any = field(default=None, repr=False)
    _taken: int = 0
    _made: int = 0
    _rest: bytes = b""

    @property
    def stored_bytes(self) -> int:
        """Compressed bytes."""
        return self.stored

    def read(self, folder: Folder, start: int, out: memoryview) -> None:
        """Fill `out` from byte `start` on; `start` 0 begins anew."""
        if start == 0 or self._engine is None:
            self._engine, self._taken, self._made, self._rest = zlib.decompressobj(-15), 0, 0, b""
            self._discard(folder, self.skip + start)
        elif self._made != self.skip + start:
            raise ValueError(f"read out of order: at {self._made - self.skip}, asked for {start}")
        done = 0
        while done < len(out):
            part = self._more(folder, len(out) - done)
            out[done : done + len(part)] = part
            done += len(part)

    def _discard(self, folder: Folder, count: int) -> None:
        while count:
            count -= len(self._more(folder, min(count, 1 << 20)))

    def _more(self, folder: Folder, limit: int) -> bytes:
        while True:
            if not self._rest and self._taken < self.stored:
                count = min(1 << 18, self.stored - self._taken)
                raw = bytearray(count)
                with folder.lent(self.file) as source:
                    source.read_into(self.offset + self._taken, memoryview(raw))
                self._taken += count
                self._rest = bytes(raw)
            try:
                part: bytes = self._engine.decompress(self._rest, limit)
            except zlib.error as error:
                raise SchemaError(
                    f"compressed data are damaged: {error}", source=shown(self.file),
                    offset=self.offset + self._taken,
                ) from error  # fmt: skip
            self._rest = self._engine.unconsumed_tail
            if part:
                self._made += len(part)
                return part
            if self._engine.eof or (not self._rest and self._taken >= self.stored):
                raise SchemaError(
                    f"compressed data end after {self._made} of {self.size} bytes",
                    source=shown(self.file), offset=self.offset,
                )  # fmt: skip


def moved(layout: Any, file: str) -> Any:
    """Return a layout whose one file goes by another name."""
    if layout is None:
        return None
    if isinstance(layout, Swapped):
        return replace(layout, inner=moved(layout.inner, file))
    if isinstance(layout, Pieces):
        return replace(layout, pieces=tuple(replace(p, file=file) for p in layout.pieces))
    if isinstance(layout, Inflated):
        return Inflated(file, layout.offset, layout.stored, layout.size, layout.skip)
    return replace(layout, file=file)
