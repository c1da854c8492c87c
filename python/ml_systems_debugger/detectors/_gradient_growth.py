"""How a gradient norm grows: as a sum of gradients does, or otherwise."""

from __future__ import annotations

import math

import numpy as np

from ._trail import Trail

__all__ = ["grows"]

_FEW = 8  # entries of the history
_POWERS = (0.35, 1.4)  # a sum of k gradients: root k where they are noise, k where they agree
_FIT = 0.8  # of the variance of the logarithm
_BEGINS = math.log(4.0)  # the first sum is of two gradients


def grows(trail: Trail, since: int, base: float) -> str | None:
    """Return "linear" where the norm grows as a power of the steps from `since` on.

    Gradients that are not set to zero are added up: the norm is near its level
    `base` (a logarithm) at first and then follows a power between a half and
    one of the number of steps. A learning rate that is too high brings a jump
    or exponential growth, other data a jump.
    """
    values, steps, width = trail.entries
    here = steps >= since
    y, x = values[here], steps[here] - since + 1.0 + 0.5 * (width - 1)
    if len(y) < _FEW or not np.isfinite(y).all() or y.max() == y.min():
        return None
    whole = float(np.var(y))
    logs = np.log(x)
    power, begins = np.polyfit(logs, y, 1)
    by_power = 1.0 - float(np.var(y - power * logs)) / whole
    by_time = float(np.corrcoef(x, y)[0, 1]) ** 2  # exponential growth is a line here
    low, high = _POWERS
    fits = by_power >= max(_FIT, by_time) and low <= power <= high
    return "linear" if fits and begins - base <= _BEGINS else None
