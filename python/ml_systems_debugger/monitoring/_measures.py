"""What is measured of gradients and parameters: one native pass, and a fixed sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import SeriesKey
from ..kernels.live import live_moves, live_norms
from ._steps import Place, StepBuffer

__all__ = ["SAMPLE", "Gradients", "Layers", "Parameters", "arrays_of", "part_of"]

Floats = npt.NDArray[np.float64]
MakeKey = Callable[[str, str | None], SeriesKey]

_SAME = 1e-3  # relative difference of two norms of the same gradients, in float32 or half of it
SAMPLE = 4096  # elements of a tensor whose movement stands for all of it


def arrays_of(given: Any) -> tuple[Sequence[str], Sequence[Any]]:
    """Return names and arrays of a mapping, or of a sequence with places as names."""
    if isinstance(given, Mapping):
        return list(given), list(given.values())
    arrays = list(given)
    return [str(at) for at in range(len(arrays))], arrays


def part_of(tensor: Any) -> Any:
    """Return the part of a sharded tensor that is on this rank, or the tensor itself.

    `DTensor.to_local` gives the same, and tells autograd of it.
    """
    return getattr(tensor, "_local_tensor", tensor)


class Gradients:
    """Norm of every gradient and of all together; not finite where a value is not."""

    def __init__(self) -> None:
        self._names: Sequence[str] = ()
        self.norms: Floats = np.zeros(0)
        """Of what was read last, [tensors]; 0 where there was no gradient."""
        self.there: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        """Which of them had a gradient, [tensors]."""
        self.total = 0.0
        """Of all that were read last."""
        self.bad = False
        self._put = Layers("grad_norm")

    def read(
        self, names: Sequence[str], owners: Sequence[Any], attribute: str | None = None
    ) -> bool:
        """Measure all in one call; return whether anything is not finite.

        With `attribute` that of the owners is meant; None and sparse ones are left out.
        """
        if names is not self._names and list(names) != list(self._names):
            self.norms = np.zeros(len(names))
            self.there = np.zeros(len(names), np.bool_)
        self._names = names
        self.total = live_norms(owners, self.norms, self.there, attribute=attribute)
        self.bad = not math.isfinite(self.total) and not bool(np.isfinite(self.norms).all())
        return self.bad

    def unscale(self, scale: float) -> None:
        """Take a loss scale off what was read last."""
        self.norms /= scale
        self.total /= scale

    def take(self, names: Sequence[str], norms: Floats, there: npt.NDArray[np.bool_]) -> None:
        """Take norms [names] that were measured elsewhere, as if they had been read."""
        self._names, self.norms, self.there = names, norms, there
        self.total = live_norms((norms,), np.zeros(1), np.zeros(1, np.bool_))
        self.bad = not bool(np.isfinite(norms).all())

    @property
    def any(self) -> bool:
        """Whether there was a gradient at all."""
        return self.total != 0.0 or bool(self.there.any())

    def put(self, buffer: StepBuffer, key: MakeKey) -> None:
        """Put what was read last.

        A norm that the loop itself tells, as clipping returned it, is that of all
        gradients; where what was read differs, clipping is what it went through.
        """
        self._put(buffer, key, self._names, self.norms, self.there)
        whole, told = self._put.whole, None
        for known, value in buffer.scalars():
            if known == whole:
                told = value
                break
        if told is None:
            buffer.put(whole, self.total)
        elif not math.isclose(told, self.total, rel_tol=_SAME):
            buffer.put(key("clipped_grad_norm", None), self.total)


class Layers:
    """Puts values of one quantity for every layer into a buffer; keys are made once."""

    def __init__(self, quantity: str) -> None:
        self._quantity = quantity
        self._of: tuple[StepBuffer | None, Sequence[str]] = (None, ())
        self._where: Place = slice(0)
        self.whole: SeriesKey

    def __call__(
        self, buffer: StepBuffer, key: MakeKey, names: Sequence[str], values: Floats,
        there: npt.NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        held, known = self._of
        if held is not buffer or known is not names:
            keys = [key(self._quantity, name) for name in names]
            self._where = buffer.group(self._quantity, keys)
            self._of = buffer, names
            self.whole = key(self._quantity, None)
        buffer.put_group(self._quantity, self._where, values, there)


class Parameters:
    """How far the parameters moved, from at most 4,096 elements of each."""

    def __init__(self) -> None:
        self._known = False
        self._names: Sequence[str] = ()
        self._norms: Floats = np.zeros(0)
        self._moved: Floats = np.zeros(0)
        self._samples: Floats = np.zeros((0, 0))
        self._put_norms, self._put_moves = Layers("param_norm"), Layers("update_ratio")

    @property
    def moved(self) -> Floats:
        """What was measured last, [tensors]; zeros before there were two looks."""
        return self._moved

    def measure(
        self, buffer: StepBuffer, key: MakeKey, names: Sequence[str], arrays: Sequence[Any]
    ) -> None:
        """Put the norm of every parameter, and its movement since the last look over it."""
        if names is not self._names and list(names) != list(self._names):
            self._known = False
            sizes = [math.prod(array.shape) for array in arrays]
            self._samples = np.zeros((len(names), min(SAMPLE, max([1, *sizes]))))
            self._norms, self._moved = np.zeros(len(names)), np.zeros(len(names))
        self._names = names
        try:
            live_moves(arrays, self._norms, self._samples, self._moved, known=self._known)
        except TypeError:  # of integers, or a type of 8 bits: rare, and copied whole
            arrays = [_as_floats(array) for array in arrays]
            live_moves(arrays, self._norms, self._samples, self._moved, known=self._known)
        self._put(buffer, key, names, self._moved if self._known else None)
        self._known = True

    def take(
        self, buffer: StepBuffer, key: MakeKey, names: Sequence[str], norms: Floats,
        moved: Floats | None,
    ) -> None:  # fmt: skip
        """Put norms and movements [names] that were measured elsewhere."""
        self._norms = norms
        if moved is not None:
            self._moved = moved
        self._put(buffer, key, names, moved)

    def _put(
        self, buffer: StepBuffer, key: MakeKey, names: Sequence[str], moved: Floats | None
    ) -> None:
        self._put_norms(buffer, key, names, self._norms)
        if moved is not None:
            self._put_moves(buffer, key, names, moved)


def _as_floats(array: Any) -> Floats:
    if hasattr(array, "detach"):
        array = array.detach().double().numpy()
    return np.asarray(array, np.float64)
