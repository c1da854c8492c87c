"""Curves as heights between 0 and 1: what text and pages draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core.curve import Curve

__all__ = ["Scale", "curve_named", "sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_BAD, _ABSENT = "x", " "
_DECADES = 1.5  # a curve that spans more is drawn on a logarithmic axis


@dataclass(frozen=True, slots=True)
class Scale:
    """The vertical axis of a curve: from `low` to `high`, in logarithms where that shows more."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, curve: Curve) -> Scale | None:
        """Return the axis that holds a curve; None where no value is finite."""
        lows = [value for value in curve.low if value is not None]
        highs = [value for value in curve.high if value is not None]
        if not lows:
            return None
        low, high = min(lows), max(highs)
        return cls(low, high, low > 0 and high / low >= 10**_DECADES)

    def __call__(self, value: float) -> float:
        """Return the height of a value: 0 at the foot, 1 at the top, half-way where all is one."""
        place: Callable[[float], float] = math.log if self.logarithmic else _half
        foot, top = place(self.low), place(self.high)
        return 0.5 if top == foot else (place(value) - foot) / (top - foot)


def _half(value: float) -> float:
    """Halved: the distance of the largest numbers is one too."""
    return value / 2


def curve_named(curves: Sequence[Curve], series: object) -> Curve | None:
    """Return the curve of a series, as evidence names it."""
    return next((one for one in curves if one.series == series), None)


def sparkline(curve: Curve, columns: int) -> str:
    """Return a curve as one row of at most `columns` block characters.

    Each shows the greatest value of its stretch, a blank one without values, ``x`` one with
    values that are not finite; where those go on in the next, the first still shows how far
    the curve rose.
    """
    scale = Scale.of(curve)
    first = curve.steps[0]
    width = -(-(curve.last_step - first + 1) // columns)
    cells: dict[int, tuple[float | None, int]] = {}
    for step, high, bad in zip(curve.steps, curve.high, curve.not_finite, strict=True):
        at = (step - first) // width
        before, worse = cells.get(at, (None, 0))
        highs = [value for value in (before, high) if value is not None]
        cells[at] = max(highs, default=None), worse + bad
    row = []
    for at in range(max(cells) + 1):
        high, bad = cells.get(at, (None, 0))
        goes_on = cells.get(at + 1, (None, 0))[1] > 0
        if at not in cells:
            row.append(_ABSENT)
        elif high is None or scale is None or (bad and not goes_on):
            row.append(_BAD)
        else:
            row.append(_BLOCKS[min(len(_BLOCKS) - 1, int(scale(high) * len(_BLOCKS)))])
    return "".join(row)
