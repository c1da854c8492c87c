"""Gradient norms that grow as a sum over steps does."""

from __future__ import annotations

import math

import numpy as np

from ._trail import Onset, Trail

__all__ = ["sum_began"]

_LEAST = math.log(4.0)  # growth that is looked at
_FEW = 8  # entries of the history on either side of the onset
_POWERS = (0.4, 1.3)  # a sum of k gradients: root k where they are noise, k where they agree
_OF_THE_WHOLE = 0.33  # of the norm of all layers, which strays less: a falling loss takes from it
_FIT = 0.8  # of the variance of the logarithm behind the onset
_BETTER = 0.6  # of the variance that is left by what has no onset


def sum_began(trail: Trail, whole: bool = False) -> Onset | None:
    """Return where gradients began to be added up; None where the norm does not grow so.

    Gradients that are not set to zero are added up: the norm leaves its level
    at once and then follows a power between a half and one of the number of
    steps since. A learning rate that is too high brings a jump or exponential
    growth, other data a jump; and norms that grow over a whole run have no
    onset. Values are logarithms; `whole` says that it is the norm of all layers.
    """
    least = _OF_THE_WHOLE if whole else _POWERS[0]
    if not _climbs(trail):
        return None
    values, steps, width = trail.entries
    best, at, exponential = math.inf, -1, math.inf
    for first in range(_FEW, len(values) - _FEW):
        base = float(np.median(values[max(0, first - 4 * _FEW) : first]))
        after = steps[first:] - steps[first] + 0.5 * (width + 1)
        since, rise = np.log(after), values[first:] - base
        before = float(np.square(values[:first] - base).sum())
        pace = float(after @ rise) / float(after @ after)
        exponential = min(exponential, before + float(np.square(rise - pace * after).sum()))
        power = float(since @ rise) / float(since @ since)
        left = float(np.square(rise - power * since).sum())
        fits = left <= (1 - _FIT) * len(rise) * float(np.var(rise))
        if fits and least <= power <= _POWERS[1] and left + before < best:
            best, at = left + before, first
    if at < 0 or best > min(exponential, _BETTER * _left_by_a_line(values, steps)):
        return None
    low, high = int(steps[at - 1]), int(steps[min(at + 1, len(steps) - 1)])
    return Onset(int(steps[at]), low, high)


def _climbs(trail: Trail) -> bool:
    """Return whether it ends at its highest, after climbing most of the way there."""
    levels = trail.groups.levels
    if len(levels) < _FEW:
        return False
    usual = float(np.median(levels[: len(levels) // 3]))
    if min(trail.now, float(levels[-1])) - usual < _LEAST:
        return False
    lowest = int(np.argmin(levels))
    return bool(np.mean(np.diff(levels[lowest:]) > 0) >= 0.6)


def _left_by_a_line(values: np.ndarray, steps: np.ndarray) -> float:
    """Return the sum of squares that growth of one pace, or of one power, leaves."""
    left = []
    for x in (steps - steps[0], np.log(steps - steps[0] + 1.0)):
        slope, offset = np.polyfit(x, values, 1)
        left.append(float(np.square(values - slope * x - offset).sum()))
    return min(left)
