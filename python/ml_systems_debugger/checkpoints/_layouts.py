"""Tensors that do not lie in one packed piece: put in row-major order while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ._inflate import Inflated
from ._source import Folder
from ._strided import Strided

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
                place, part = piece.offset + inside, out[done : done + count]
                with folder.lent(piece.file) as source:
                    source.read_into(place, part)
                folder.checksums.begin(piece.file, piece.offset)
                folder.checksums.note_run(piece.file, place, part)
                done += count
            at += piece.nbytes


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
            at = box.offset + (begin - box.start[0]) * inner
            with folder.lent(box.file) as source:
                source.read_into(at, memoryview(raw))
            folder.checksums.begin(box.file, box.offset)
            folder.checksums.note_run(box.file, at, raw)
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


def moved(layout: Any, file: str) -> Any:
    """Return a layout whose one file goes by another name."""
    if layout is None:
        return None
    if isinstance(layout, Swapped):
        return replace(layout, inner=moved(layout.inner, file))
    if isinstance(layout, Pieces):
        return replace(layout, pieces=tuple(replace(p, file=file) for p in layout.pieces))
    if isinstance(layout, Inflated):
        return Inflated(
            file, layout.offset, layout.stored, layout.size, layout.skip, crc=layout.crc
        )
    return replace(layout, file=file)
