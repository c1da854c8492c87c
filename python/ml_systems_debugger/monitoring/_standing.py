"""Which parameters seem to have stopped: a cheap look that asks for the exact one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels.live import live_norms

__all__ = ["LOOKS", "Standing", "Starved"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LOOKS = 5
"""Steps between two looks of both; at others they need not be asked."""
_WINDOW = 16  # elements
_STARVED = 4  # looks at a gradient of zero
_NEEDED = 8  # exact measurements without movement: what frozen_parameters asks for
_RATE = 1e-5  # movement a step: below, float32 may round updates away without any fault
_FIRST_WAIT, _LONGEST_WAIT = 32, 4096  # steps for which a tensor that moved after all is let alone


class Starved:
    """Says when the gradient of a parameter has been exactly zero for 16 steps, to be judged then.

    Looks every five steps at norms that are measured anyway. It decides nothing:
    what `gradient_vanishing` finds does not depend on it.
    """

    def __init__(self) -> None:
        self._had: Bools = np.zeros(0, np.bool_)
        self._looks: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._calm = False  # all had a gradient at the last look, and none was zero

    def now(self, gradients: Floats, there: Bools, step: int) -> bool:
        """Take the norms [tensors] of a step, and which were there; return whether to judge now."""
        if step % LOOKS:
            return False
        if len(self._had) != len(gradients):
            self._had = np.zeros(len(gradients), np.bool_)
            self._looks = np.zeros(len(gradients), np.int64)
            self._calm = False
        if np.count_nonzero(gradients) == len(gradients):  # what mostly comes: all there, none zero
            if not self._calm:
                self._looks[:], self._had[:], self._calm = 0, True, True
            return False
        self._calm = False
        zero = there & (gradients == 0)
        self._looks = np.where(zero & self._had, self._looks + 1, 0)
        self._had |= there & ~zero
        # The first of four looks saw one zero, the last at least sixteen in a row.
        return bool((self._looks == _STARVED).any())


class Standing:
    """Looks at a few elements of every parameter, every five steps.

    Where those of one are what they were, although it had moved well above
    rounding, others still move and a gradient reaches it, its movement is to be
    measured at every step for a while. That measurement decides; a window of an
    embedding may well rest. One that had moved after all is let alone for 32 steps,
    then twice as long each time.
    """

    def __init__(self) -> None:
        self._views: tuple[Any, ...] | None = None
        self._at: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._norms: Floats = np.zeros(0)
        self._before: Floats = np.zeros(0)
        self._there: Bools = np.zeros(0, np.bool_)
        self._rate: Floats = np.zeros(0)  # movement a step at the last measurement
        self._wait: npt.NDArray[np.int64] = np.zeros(0, np.int64)  # not looked at before this step
        self._patience: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._suspects: Bools = np.zeros(0, np.bool_)
        self._looking = False
        self._measured = 0  # times since something seemed to stand
        self._last = 0

    def _windows(self, parameters: Sequence[Any]) -> None:
        places, views = [], []
        for at, one in enumerate(parameters):
            wide = one.dtype.is_floating_point and one.dtype.itemsize >= 4 and one.is_cpu
            if wide and one.numel() and one.is_contiguous():
                start = max(one.numel() // 2 - _WINDOW // 2, 0)
                views.append(one.detach().view(-1)[start : start + _WINDOW].numpy())
                places.append(at)
        self._views, self._at = tuple(views), np.array(places, np.int64)
        self._norms, self._before = np.zeros(len(views)), np.full(len(views), np.nan)
        self._there = np.zeros(len(views), np.bool_)
        if len(self._rate) != len(parameters):
            self._rate = np.zeros(len(parameters))
            self._wait = np.zeros(len(parameters), np.int64)
            self._patience = np.full(len(parameters), _FIRST_WAIT)

    def seems(
        self, parameters: Sequence[Any], gradients: Floats, step: int,
        replaced: Callable[[], Bools],
    ) -> bool:  # fmt: skip
        """Return whether movements are to be measured at this step, out of turn.

        Parameters
        ----------
        parameters : sequence of torch.Tensor
        gradients : float64 [len(parameters)]
            Their norms now.
        step : int
            Of the optimizer, counted from 1.
        replaced : callable
            Returns which parameters the model has others for now: gradients reach
            those. Asked only where something seems to stand.
        """
        if self._looking:
            return True
        if step % LOOKS:
            return False
        if self._views is None:
            self._windows(parameters)
        live_norms(self._views or (), self._norms, self._there)
        rests = self._norms == self._before
        self._before, self._norms = self._norms, self._before
        if np.count_nonzero(rests) in (0, len(rests)):
            return False
        found = np.zeros(len(parameters), np.bool_)
        found[self._at] = rests
        found &= (self._rate >= _RATE) & (self._wait <= step)
        if not found.any():
            return False
        fed = (gradients > 0) | replaced()
        self._leave(found & ~fed, step)
        self._suspects = found & fed
        self._measured = 0
        self._looking = bool(self._suspects.any())
        return self._looking

    @property
    def looking(self) -> bool:
        """Whether something seems to stand, so that movements are measured at every step."""
        return self._looking

    def measured(self, moved: Floats, step: int) -> bool:
        """Take what the parameters moved since the last time; return whether to judge that now."""
        over = max(step - self._last, 1)
        self._last = step
        if len(self._rate) == len(moved):
            self._rate = np.where(np.isfinite(moved), moved / over, 0.0)
        if not self._looking:
            return False
        self._measured += 1
        if self._measured == 1:
            return False  # it reaches back to when they still moved
        wrong = self._suspects & (moved != 0)
        self._suspects = self._suspects & (moved == 0)
        self._leave(wrong, step)
        standing = bool(self._suspects.any())
        self._looking = standing and self._measured <= _NEEDED
        return standing and not self._looking

    def _leave(self, which: Bools, step: int) -> None:
        """Let those alone for a while; their windows may be of memory that is no longer theirs."""
        if which.any():
            self._wait[which] = step + self._patience[which]
            self._patience[which] = np.minimum(2 * self._patience[which], _LONGEST_WAIT)
            self._views = None
