"""One pass over many tensors on a GPU, in Triton: norm, non-finite count, largest size of each.

Imported only where Triton is installed. A chunk of 65,536 elements of one tensor is one program;
addresses come in a table, so that one launch reads all tensors of a type. Sums are float32 in
lanes of a chunk; a chunk whose sum of squares overflows, vanishes or is not finite is read again
in float64, as on the CPU. Chunks are put together in float64 and in a fixed order: the result is
the same bit for bit at every call. The relative error of a norm is at most 2.5e-6, by the number
of additions, and some 1e-8 for values without order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..core import MissingDependencyError

try:
    import torch
except ImportError as error:
    raise MissingDependencyError("a pass over tensors on a GPU needs torch") from error
try:  # by name: it has no types, and is absent from most machines that check ours
    triton: Any = import_module("triton")
    tl: Any = import_module("triton.language")
except ImportError as error:
    raise MissingDependencyError("one pass over many tensors on a GPU needs triton") from error
jit: Callable[[Callable[..., Any]], Any] = triton.jit
if TYPE_CHECKING:
    constexpr = Any
else:
    constexpr = tl.constexpr

__all__ = ["FusedStats"]

CHUNK, BLOCK, WARPS = 65_536, 2_048, 8
_JOIN = 256  # chunks of a tensor that are put together at once
_ALIGNED = 16  # bytes that one load of a lane takes

_KINDS = {
    torch.float16: tl.float16, torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32, torch.float64: tl.float64,
}  # fmt: skip


@jit
def _chunks(
    addresses: Any, owners: Any, numbers: Any, counts: Any, norms: Any, bads: Any, tops: Any,
    kind: constexpr, wide: constexpr, aligned: constexpr,
    each: constexpr, block: constexpr,
) -> None:  # fmt: skip
    chunk = tl.program_id(0)
    base = tl.load(addresses + tl.load(owners + chunk)).to(tl.pointer_type(kind))
    if aligned:
        base = tl.multiple_of(base, 16)
    base += tl.load(numbers + chunk).to(tl.int64) * each
    count = tl.load(counts + chunk)
    whole = count // block * block
    lanes = tl.arange(0, block)
    if wide:
        squares = tl.zeros([block], tl.float64)
        largest = tl.zeros([block], tl.float64)
    else:
        squares = tl.zeros([block], tl.float32)
        largest = tl.zeros([block], tl.float32)
    for at in range(0, whole, block):  # without a mask: loads of 16 bytes
        x = tl.load(base + at + lanes).to(squares.dtype)
        squares += x * x
        largest = tl.maximum(largest, tl.abs(x))
    if whole < count:
        x = tl.load(base + whole + lanes, mask=whole + lanes < count, other=0).to(squares.dtype)
        squares += x * x
        largest = tl.maximum(largest, tl.abs(x))
    total = tl.sum(squares, 0).to(tl.float64)
    top = tl.max(largest, 0).to(tl.float64)
    bad = 0
    norm = tl.sqrt(total)
    # Below, squares that vanished could be missed; above lies infinity; NaN is neither.
    if wide:
        sound = (total < 1e300) & ((total > 1e-270) | (top == 0.0))
    else:
        sound = (total < 1e38) & ((total > 1e-24) | (top == 0.0))
    if not sound:
        scale = 1.0
        if wide:
            scale = tl.where(top > 1.0, 2.409919865102884e-181, 4.149515568880993e180)  # 2^-+600
        again = tl.zeros([block], tl.float64)
        high = tl.zeros([block], tl.float64)
        nans = tl.zeros([block], tl.int32)
        infinite = tl.zeros([block], tl.int32)
        for at in range(0, count, block):
            x = tl.load(base + at + lanes, mask=at + lanes < count, other=0).to(tl.float64)
            nan = x != x
            infinity = tl.abs(x) == float("inf")
            nans += nan.to(tl.int32)
            infinite += infinity.to(tl.int32)
            x = tl.where(nan | infinity, 0.0, x)
            high = tl.maximum(high, tl.abs(x))
            x = x * scale
            again += x * x
        top = tl.max(high, 0)
        n_nans = tl.sum(nans, 0)
        bad = n_nans + tl.sum(infinite, 0)
        norm = tl.sqrt(tl.sum(again, 0)) / scale
        norm = tl.where(bad > 0, float("inf"), norm)
        norm = tl.where(n_nans > 0, float("nan"), norm)
    tl.store(norms + chunk, norm)
    tl.store(bads + chunk, bad)
    tl.store(tops + chunk, top)


@jit
def _join(
    norms: Any, bads: Any, tops: Any, firsts: Any, places: Any, out: Any, total: Any,
    join: constexpr,
) -> None:  # fmt: skip
    one = tl.program_id(0)
    first = tl.load(firsts + one)
    last = tl.load(firsts + one + 1)
    lanes = tl.arange(0, join)
    largest = tl.zeros([join], tl.float64)
    top = tl.zeros([join], tl.float64)
    bad = tl.zeros([join], tl.int64)
    nans = tl.zeros([join], tl.int32)
    infinite = tl.zeros([join], tl.int32)
    for at in range(first, last, join):
        there = at + lanes < last
        norm = tl.load(norms + at + lanes, mask=there, other=0.0)
        nan = norm != norm
        infinity = norm == float("inf")
        nans += nan.to(tl.int32)
        infinite += infinity.to(tl.int32)
        largest = tl.maximum(largest, tl.where(nan | infinity, 0.0, norm))
        bad += tl.load(bads + at + lanes, mask=there, other=0).to(tl.int64)
        top = tl.maximum(top, tl.load(tops + at + lanes, mask=there, other=0.0))
    scale = tl.max(largest, 0)
    by = tl.where(scale > 0.0, scale, 1.0)
    squares = tl.zeros([join], tl.float64)
    for at in range(first, last, join):
        norm = tl.load(norms + at + lanes, mask=at + lanes < last, other=0.0)
        part = tl.where((norm != norm) | (norm == float("inf")), 0.0, norm) / by
        squares += part * part
    norm = by * tl.sqrt(tl.sum(squares, 0))
    norm = tl.where(tl.sum(infinite, 0) > 0, float("inf"), norm)
    norm = tl.where(tl.sum(nans, 0) > 0, float("nan"), norm)
    place = tl.load(places + one)
    tl.store(out + place, norm)
    tl.store(out + total + place, tl.sum(bad, 0).to(tl.float64))
    tl.store(out + 2 * total + place, tl.max(top, 0))


@dataclass
class _Group:
    """Tensors of one type; tables of them on the device, and room for what chunks give."""

    kind: Any
    aligned: bool
    places: Any
    firsts: Any
    owners: Any
    numbers: Any
    counts: Any
    room: tuple[Any, Any, Any]
    addresses: tuple[int, ...] = ()
    table: Any = None


class FusedStats:
    """Statistics of many tensors of one device; the tables are kept as long as they fit.

    Parameters
    ----------
    chunk, block : int
        Elements of a program, and of one turn of its loop; powers of two.
    """

    def __init__(self, chunk: int = CHUNK, block: int = BLOCK) -> None:
        self._chunk, self._block = chunk, block
        self._shape: tuple[Any, ...] = ()
        self._groups: list[tuple[_Group, list[int]]] = []

    def __call__(self, tensors: Sequence[Any]) -> Any:
        """Return norm, number of values that are not finite, and largest finite size.

        Parameters
        ----------
        tensors : sequence of torch.Tensor
            Of float16, bfloat16, float32 or float64, on one device.

        Returns
        -------
        torch.Tensor, float64 [3, len(tensors)]
            On that device; nothing is waited for.
        """
        # Norms do not ask for the order of elements: a transposed matrix is read as it lies.
        tensors = [_dense(one) for one in tensors]
        addresses = [one.data_ptr() for one in tensors]
        shape = tuple(
            (one.dtype, one.numel(), at % _ALIGNED == 0)
            for one, at in zip(tensors, addresses, strict=True)
        )
        device = tensors[0].device
        if shape != self._shape:
            self._groups = self._tables(shape, device)
            self._shape = shape
        out = torch.zeros((3, len(tensors)), dtype=torch.float64, device=device)
        for group, members in self._groups:
            here = tuple(addresses[at] for at in members)
            if here != group.addresses:
                group.table, group.addresses = _upload(here, torch.int64, device), here
            _chunks[(len(group.owners),)](
                group.table, group.owners, group.numbers, group.counts, *group.room,
                kind=_KINDS[group.kind], wide=group.kind is torch.float64, aligned=group.aligned,
                each=self._chunk, block=self._block, num_warps=WARPS,
            )  # fmt: skip
            _join[(len(members),)](
                *group.room, group.firsts, group.places, out, len(tensors), join=_JOIN
            )
        return out

    def _tables(
        self, shape: Sequence[tuple[Any, int, bool]], device: Any
    ) -> list[tuple[_Group, list[int]]]:
        kinds: dict[tuple[Any, bool], list[int]] = {}
        for at, (dtype, size, aligned) in enumerate(shape):
            if size:
                kinds.setdefault((dtype, aligned), []).append(at)
        groups = []
        for (kind, aligned), members in kinds.items():
            firsts = [0]
            owners: list[int] = []
            numbers: list[int] = []
            counts: list[int] = []
            for one, at in enumerate(members):
                size = shape[at][1]
                begins_at = range(0, size, self._chunk)
                owners += [one] * len(begins_at)
                numbers += range(len(begins_at))
                counts += [min(self._chunk, size - begin) for begin in begins_at]
                firsts.append(len(owners))
            chunks = len(owners)
            room = (
                torch.empty(chunks, dtype=torch.float64, device=device),
                torch.empty(chunks, dtype=torch.int32, device=device),
                torch.empty(chunks, dtype=torch.float64, device=device),
            )
            places, begins, own, number, count = (
                _upload(one, torch.int32, device)
                for one in (members, firsts, owners, numbers, counts)
            )
            group = _Group(kind, aligned, places, begins, own, number, count, room)
            groups.append((group, members))
        return groups


def _dense(tensor: Any) -> Any:
    if tensor.is_contiguous() or (tensor.dim() == 2 and tensor.mT.is_contiguous()):
        return tensor
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.contiguous()


def _upload(numbers: Sequence[int], dtype: Any, device: Any) -> Any:
    """Return numbers on the device; what they are copied from is let go when that is done."""
    held = torch.tensor(numbers, dtype=dtype)
    return held if device.type == "cpu" else held.pin_memory().to(device, non_blocking=True)
