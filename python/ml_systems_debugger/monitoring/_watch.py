"""Whether a step stands out enough for the detectors to look sooner."""

from __future__ import annotations

from ..core import SeriesKey
from ._steps import StepBuffer

__all__ = ["Watch"]

_FACTOR = 3.0  # over the running mean, at one step
_HIGH, _STEPS = 1.5, 8  # or so far over it for so many steps
_DECAY = 0.02
_LASTS = 32  # steps that an alert lasts
_NAMES = ("loss", "grad_norm")


class Watch:
    """Compares loss and gradient norm with their running means.

    It decides nothing but when the detectors look: what they find does not
    depend on it.
    """

    def __init__(self) -> None:
        self._means: dict[SeriesKey, float] = {}
        self._runs: dict[SeriesKey, int] = {}  # steps for which it has been high
        self._left = 0

    def alert(self, buffer: StepBuffer) -> bool:
        """Take the newest step; return whether the run is, or lately was, out of the ordinary."""
        if self._left:
            self._left -= 1
        means = self._means
        for key, value in buffer.scalars():
            if key.name not in _NAMES or key.split is not None:
                continue
            size, mean = abs(value), means.get(key)
            if size != size:  # NaN, which is judged at once, and would stay in the mean
                continue
            if not mean:
                means[key] = size
                continue
            if size > _HIGH * mean:
                run = self._runs[key] = self._runs.get(key, 0) + 1
                if size > _FACTOR * mean:
                    self._left = _LASTS
                    means[key] = mean * (1 + _DECAY)
                    continue
                if run == _STEPS:
                    self._left = _LASTS
            elif self._runs:
                self._runs.pop(key, None)
            means[key] = mean + _DECAY * (size - mean)
        return self._left > 0
