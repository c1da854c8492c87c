"""What ZeRO 3 fills the last ranks' parts of parameters up with: memory as it was, no values.

Each parameter is cut into one part per rank, all of one size; what is behind its last value was
never written (``torch.empty`` in DeepSpeed's ``partition_parameters``). It may hold NaN or any
number, trains nothing, and is left out of what is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from ._layouts import Piece, Pieces
from .contract import TensorInfo
from .dtypes import DTYPES

__all__ = ["counts_of", "share_of", "values_of", "without_padding"]

Range = tuple[int, int]


def share_of(count: int, rank: int, world: int) -> tuple[int, int]:
    """Return how many of a parameter's values a rank holds, and the size of its part."""
    share = -(-count // world)
    return max(0, min(share, count - rank * share)), share


def values_of(counts: Iterable[int], rank: int, world: int) -> list[Range]:
    """Return where a rank's parts, one behind the other, hold values of parameters of `counts`."""
    out: list[Range] = []
    at = 0
    for count in counts:
        mine, share = share_of(count, rank, world)
        if mine and out and out[-1][1] == at:
            out[-1] = (out[-1][0], at + mine)
        elif mine:
            out.append((at, at + mine))
        at += share
    return out


def without_padding(info: TensorInfo, begin: int, values: list[Range]) -> TensorInfo:
    """Return a flat tensor less what is no value of a parameter.

    Parameters
    ----------
    info : TensorInfo
        Of one dimension, packed.
    begin : int
        Where it begins in the parts that `values` counts.
    values : list of (int, int)
        Of `values_of`.
    """
    kept = list(_inside(begin, begin + info.shape[0], values))
    if kept == [(0, info.shape[0])]:
        return info
    item = DTYPES[info.dtype].bits // 8
    pieces = tuple(
        Piece(info.file, info.offset + low * item, (high - low) * item) for low, high in kept
    )
    count = sum(high - low for low, high in kept)
    offset = pieces[0].offset if pieces else info.offset
    return TensorInfo(
        info.name, info.dtype, (count,), info.file, offset, count * item, Pieces(pieces)
    )


def _inside(begin: int, end: int, values: list[Range]) -> Iterator[Range]:
    for low, high in values:
        low, high = max(low, begin), min(high, end)
        if low < high:
            yield low - begin, high - begin


def counts_of(shapes: Iterable[dict[str, tuple[int, ...]]]) -> list[int]:
    """Return how many values each parameter of all groups has."""
    return [prod(shape) for group in shapes for shape in group.values()]
