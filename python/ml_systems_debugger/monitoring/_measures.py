"""What is measured of gradients and parameters: one native pass, and a fixed sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SeriesKey
from ..kernels import STATS_DTYPE, l2_norm, tensor_stats_many
from ._steps import StepBuffer

__all__ = ["Gradients", "Parameters", "arrays_of"]

Floats = npt.NDArray[np.float64]
MakeKey = Callable[[str, str | None], SeriesKey]

_SAMPLE = 4096  # elements of a tensor whose movement stands for all of it


def arrays_of(given: Any) -> tuple[Sequence[str], Sequence[Any]]:
    """Return names and arrays of a mapping, or of a sequence with places as names."""
    if isinstance(given, Mapping):
        return list(given), list(given.values())
    arrays = list(given)
    return [str(at) for at in range(len(arrays))], arrays


class Gradients:
    """Norm and non-finite count of every gradient, and of all together."""

    def __init__(self) -> None:
        self._names: Sequence[str] = ()
        self._rows = np.zeros(0, STATS_DTYPE)
        self._norms: Floats = np.zeros(0)
        self._total = 0.0
        self.bad = False

    def read(self, names: Sequence[str], arrays: Sequence[Any]) -> bool:
        """Measure all in one call; return whether anything is not finite."""
        if names is not self._names and list(names) != list(self._names):
            self._rows = np.zeros(len(names), STATS_DTYPE)
            self._norms = np.zeros(len(names))
        self._names = names
        rows = self._rows
        tensor_stats_many(arrays, out=rows)
        norms = self._norms
        norms[:] = rows["l2"]
        # Over finite values; where there is none, NaN.
        counts = rows["nan"], rows["posinf"], rows["neginf"]
        self.bad = any(column.any() for column in counts)
        if self.bad:  # a norm with others in it is none
            norms[counts[1] + counts[2] > 0] = np.inf
            norms[counts[0] > 0] = np.nan
            self._total = float("nan") if np.isnan(norms).any() else float("inf")
        else:
            norms[rows["size"] == 0] = 0.0
            self._total = l2_norm(norms)
        return self.bad

    def put(self, buffer: StepBuffer, key: MakeKey) -> None:
        """Put what was read last."""
        group = f"grad_norm:{len(self._names)}"
        if not buffer.has(group):
            buffer.group(group, [key("grad_norm", name) for name in self._names])
        buffer.put_group(group, self._norms)
        buffer.put(key("grad_norm", None), self._total)


class Parameters:
    """How far the parameters moved, from at most 4,096 elements of each."""

    def __init__(self) -> None:
        self._before: list[Floats] | None = None
        self._names: list[str] = []

    def measure(
        self, buffer: StepBuffer, key: MakeKey, names: Sequence[str], arrays: Sequence[Any]
    ) -> None:
        """Put the norm of every parameter, and its movement since the last look over it."""
        now = [_sample(array) for array in arrays]
        norms = np.array([l2_norm(array) for array in arrays])
        if self._before is None or list(names) != self._names:
            self._before, self._names = None, list(names)
        group = f"param_norm:{len(names)}"
        if not buffer.has(group):
            buffer.group(group, [key("param_norm", name) for name in names])
        buffer.put_group(group, norms)
        if self._before is not None:
            moved = np.array([
                _ratio(new, old) for new, old in zip(now, self._before, strict=True)
            ])  # fmt: skip
            group = f"update_ratio:{len(names)}"
            if not buffer.has(group):
                buffer.group(group, [key("update_ratio", name) for name in names])
            buffer.put_group(group, moved)
        self._before = now


def _sample(array: Any) -> Floats:
    if hasattr(array, "detach"):
        flat = array.detach().reshape(-1)
        stride = max(1, flat.shape[0] // _SAMPLE)
        some = flat[::stride][:_SAMPLE]
        return np.array(some.float().cpu().numpy(), np.float64)
    flat = np.asarray(array).reshape(-1)
    return np.array(flat[:: max(1, len(flat) // _SAMPLE)][:_SAMPLE], np.float64)


def _ratio(new: Floats, old: Floats) -> float:
    size = float(l2_norm(old))
    moved = float(l2_norm(new - old))
    return moved / size if size > 0 else (0.0 if moved == 0 else float("inf"))
