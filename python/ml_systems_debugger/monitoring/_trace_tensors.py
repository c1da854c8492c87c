"""Tensors of a trace: whether they are finite, in numbers, and who wrote what of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ..kernels import first_nonfinite, has_nonfinite, tensor_stats
from ._trace_result import TensorSummary

__all__ = ["Lineage", "bad", "first_bad", "floating", "span", "storage_of", "summary", "tensors_in"]

_DEPTH = 4  # of nested lists and mappings that are searched for tensors


def floating(tensor: Any) -> bool:
    """Return whether a tensor can hold NaN at all, and has values to look at."""
    kind = tensor.dtype
    return bool(
        (kind.is_floating_point or kind.is_complex)
        and tensor.device.type != "meta"
        and tensor.layout is import_module("torch").strided
    )


def bad(tensor: Any) -> bool:
    """Return whether a floating tensor holds NaN or an infinity."""
    if tensor.device.type == "cpu":
        return has_nonfinite(tensor)
    torch = import_module("torch")
    if tensor.element_size() == 1:  # the float8 formats have no isfinite
        tensor = tensor.float()
    return not bool(torch.isfinite(tensor).all())


def first_bad(tensor: Any) -> tuple[int, ...]:
    """Return the index of the first value that is not finite, () where all are."""
    at = first_nonfinite(tensor.detach().cpu())
    shape = tuple(int(n) for n in tensor.shape)
    if at is None or not shape:
        return ()
    return tuple(int(i) for i in np.unravel_index(at, shape))


def summary(name: str, tensor: Any) -> TensorSummary:
    """Return a tensor in numbers."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(int(n) for n in tensor.shape)
    size = int(tensor.numel())
    if size == 0 or not floating(tensor) or tensor.dtype.is_complex:
        return TensorSummary(name, dtype, shape, size)
    s = tensor_stats(tensor.detach().cpu())
    return TensorSummary(
        name, dtype, shape, size, s.nan, s.posinf, s.neginf, s.zero, s.min, s.max, s.absmax
    )


def tensors_in(value: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Yield the tensors of an argument: itself, or those in lists, tuples and mappings."""
    if isinstance(value, import_module("torch").Tensor):
        yield value
    elif depth and isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one, depth - 1)
    elif depth and isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one, depth - 1)


def storage_of(tensor: Any) -> int:
    """Return what all views of one memory have in common."""
    return int(tensor.untyped_storage()._cdata)


class _Write(NamedTuple):
    event: int
    low: int
    high: int


class Lineage:
    """Which operation wrote the non-finite values that lie in memory.

    Kept per storage, since views and in-place operations share it, with the
    span of bytes written: a finite value that overwrites all of a span ends it.
    """

    def __init__(self) -> None:
        self._writes: dict[int, list[_Write]] = {}
        # A weak reference keeps the number of a storage from being given to another.
        self._held: dict[int, Any] = {}
        self._weak = import_module("torch.multiprocessing.reductions").StorageWeakRef

    def wrote(self, tensor: Any, event: int | None) -> None:
        """Note that `event` wrote non-finite values to `tensor`; None: it is finite now."""
        key = storage_of(tensor)
        writes = self._writes.get(key)
        if writes is None and event is None:
            return
        low, high = span(tensor)
        dense = high - low == tensor.numel() * tensor.element_size()
        kept = [w for w in writes or () if not (dense and low <= w.low and w.high <= high)]
        if event is not None:
            kept.append(_Write(event, low, high))
            if key not in self._held:
                self._held[key] = self._weak(tensor.untyped_storage())
        if kept:
            self._writes[key] = kept
        else:
            self._writes.pop(key, None)

    def writers(self, tensor: Any) -> tuple[int, ...]:
        """Return the events whose non-finite values may lie in `tensor`, in order."""
        writes = self._writes.get(storage_of(tensor))
        if not writes:
            return ()
        low, high = span(tensor)
        return tuple(w.event for w in writes if w.low < high and low < w.high)


def span(tensor: Any) -> tuple[int, int]:
    """Return first and last byte of a tensor within its storage."""
    if not tensor.numel():
        return 0, 0
    reach = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    low = tensor.storage_offset() * tensor.element_size()
    return low, low + reach * tensor.element_size()
