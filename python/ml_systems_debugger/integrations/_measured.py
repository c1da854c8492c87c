"""Norms that were measured elsewhere, as on a device inside a compiled step: told to a monitor."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..monitoring._measures import Layers, MakeKey
from ..monitoring._probe import Probe
from ..monitoring._steps import StepBuffer

__all__ = ["Arrivals", "Measured", "Row"]

Floats = npt.NDArray[np.float64]
_MOST = 1024  # rows that nobody asked for: the oldest are dropped


@dataclass
class Row:
    """What was measured of one step, [tensors] each; not finite where a value is not.

    Movements are the norm of the update over that of the parameter; None where
    they were not measured at this step.
    """

    names: Sequence[str]
    grad_norms: Floats
    param_norms: Floats | None = None
    moved: Floats | None = None
    skipped: bool | None = None
    """Whether the step was left out; None where none is ever."""

    def moves(self, measured: Floats) -> None:
        """Take norms of parameters and updates, [2, tensors]; below 0 where not measured."""
        if measured[0, 0] != -1.0:
            self.param_norms, moved = measured
            self.moved = moved / np.where(self.param_norms == 0, np.inf, self.param_norms)

    @property
    def finite(self) -> bool:
        """Whether all gradients are finite."""
        return bool(np.isfinite(self.grad_norms).all())

    def with_other(self, other: Row) -> Row:
        """Return the larger of each, of two devices that took the same step."""
        return Row(
            self.names,
            np.maximum(self.grad_norms, other.grad_norms),
            _larger(self.param_norms, other.param_norms),
            _larger(self.moved, other.moved),
            (self.skipped or other.skipped) if self.skipped is not None else None,
        )


def _larger(one: Floats | None, other: Floats | None) -> Floats | None:
    return one if other is None else other if one is None else np.maximum(one, other)


class Arrivals:
    """Rows by the number of their step, put by whichever thread runs a device's callbacks."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._lock = threading.Lock()

    def put(self, step: int, row: Row) -> None:
        """Take a row; a second one of the same step is that of a further device."""
        with self._lock:
            before = self._rows.get(step)
            self._rows[step] = row if before is None else before.with_other(row)
            if len(self._rows) > _MOST:
                del self._rows[next(iter(self._rows))]

    def take(self) -> tuple[int, Row] | None:
        """Return the step that came first of those not taken yet: a run may go back."""
        with self._lock:
            if not self._rows:
                return None
            step = next(iter(self._rows))
            return step, self._rows.pop(step)

    def __bool__(self) -> bool:
        return bool(self._rows)


class Measured(Probe):
    """Puts a row at the step that is being observed."""

    what = "the norms that a device measured"

    def __init__(self) -> None:
        self.row: Row | None = None
        self._grads = Layers("grad_norm")
        self._norms, self._moves = Layers("param_norm"), Layers("update_ratio")
        self._names: Sequence[str] = ()

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:
        """Put the row, where there is one; return whether it is to be judged at once."""
        row, self.row = self.row, None
        if row is None:
            return False
        if row.skipped is not None:
            buffer.put(key("skipped_step", None), float(row.skipped))
        if list(row.names) != list(self._names):
            self._names = row.names
        self._grads(buffer, key, self._names, row.grad_norms)
        buffer.put(self._grads.whole, _together(row.grad_norms))
        if row.param_norms is not None:
            self._norms(buffer, key, self._names, row.param_norms)
        if row.moved is not None:
            self._moves(buffer, key, self._names, row.moved)
        return not row.finite


def _together(norms: Floats) -> float:
    top = float(norms.max(initial=0.0))
    if not math.isfinite(top) or top == 0.0:
        return top
    return top * float(np.linalg.norm(norms / top))
