"""Whether a step stands out enough for the detectors to look sooner."""

from __future__ import annotations

from ..core import SeriesKey
from ._steps import StepBuffer

__all__ = ["Watch"]

_FACTOR = 3.0  # over the running mean
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
        self._left = 0

    def alert(self, buffer: StepBuffer) -> bool:
        """Take the newest step; return whether the run is, or lately was, out of the ordinary."""
        self._left = max(self._left - 1, 0)
        for key, value in buffer.scalars():
            if key.name not in _NAMES or key.split is not None:
                continue
            mean = self._means.get(key)
            if mean is None or mean == 0.0:
                self._means[key] = abs(value)
            elif abs(value) > _FACTOR * mean:
                self._left = _LASTS
                self._means[key] = mean * (1 + _DECAY)
            else:
                self._means[key] = mean + _DECAY * (abs(value) - mean)
        return self._left > 0
