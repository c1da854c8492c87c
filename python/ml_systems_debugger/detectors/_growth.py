"""Steady growth: from where on a series has grown, how fast, and whether it still does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels import theil_sen
from ..kernels.robust_scale import MAD_TO_SIGMA
from ._trail import Floats, Onset, Trail, evidence

__all__ = ["Growth", "growth_of"]

_FEW = 8  # points of the history that a slope takes
_CONFIDENCE = 0.99
_EVEN = 0.25  # of the mean step between quarters that each step must have


@dataclass(frozen=True, slots=True)
class Growth:
    """Growth that goes on at the end of a history.

    Parameters
    ----------
    slope, low, high : float
        Per step, with the ends of its 99 % interval (Sen, JASA 63, 1968).
    level, now : float
        Before it began, and at its end.
    noise : float
        Robust spread about level and slope.
    onset : Onset
    values : int
        Measurements since.
    """

    slope: float
    low: float
    high: float
    level: float
    now: float
    noise: float
    onset: Onset
    values: int

    @property
    def rise(self) -> float:
        """By how much it grew."""
        return self.now - self.level

    def evidence(self, quantity: str) -> dict[str, Any]:
        """Return the evidence of a finding that `quantity` grows."""
        return evidence(
            rule="growth",
            quantity=quantity,
            slope=self.slope,
            slope_low=self.low,
            slope_high=self.high,
            baseline=self.level,
            last=self.now,
            rise=self.rise,
            noise=self.noise,
            persistence_steps=self.values,
        )


def growth_of(trail: Trail) -> Growth | None:
    """Return the growth at the end of a history; None where there is none that lasts.

    The history, as at most 192 medians, is fitted by a level that turns into a
    slope (least squares over every place of the turn). What counts is a rise of
    at least six times the noise about the fit, a slope whose interval stays
    above zero, a last third of the rise that is at least half as steep as the
    whole, and quarters that each add to it: what jumps a few times, saturates, or
    collects ever rarer maxima does not.
    """
    values, steps, width = trail.entries
    if len(values) < _FEW or float(np.ptp(values)) == 0.0:
        return None
    turn, slope, level = _turn(steps, values)
    if slope <= 0 or len(values) - turn < _FEW:
        return None
    fitted = level + slope * np.maximum(steps - steps[turn], 0.0)
    noise = MAD_TO_SIGMA * float(np.median(np.abs(values - fitted)))
    rise = float(fitted[-1]) - level
    if rise < 6.0 * noise:
        return None
    part, times = values[turn:], steps[turn:] - steps[turn]
    sen = theil_sen(times, part, _CONFIDENCE)
    third = len(part) - max(_FEW // 2, len(part) // 3)
    late = theil_sen(times[third:], part[third:])
    if not sen.low > 0 or not late.slope >= 0.5 * slope or not _even(part):
        return None
    reach = max(noise / slope, 0.0)
    onset = int(steps[turn])
    low = int(steps[max(turn - 1, 0)])
    high = int(steps[min(turn + 1, len(steps) - 1)])
    return Growth(
        sen.slope,
        sen.low,
        sen.high,
        level,
        float(fitted[-1]),
        noise,
        Onset(onset, max(int(steps[0]), math.floor(low - reach)), math.ceil(high + reach)),
        len(part) * width,
    )


def _even(part: Floats) -> bool:
    """Return whether every quarter of a rise lies above the one before: a few jumps do not."""
    quarters = [float(np.median(quarter)) for quarter in np.array_split(part, 4)]
    steps = np.diff(quarters)
    return bool((steps >= _EVEN * steps.mean()).all())


def _turn(steps: Floats, values: Floats) -> tuple[int, float, float]:
    """Return the best place of the turn, the slope behind it and the level before it."""
    last = len(steps) - _FEW + 1
    scaled = (steps - steps[0]) / max(float(steps[-1] - steps[0]), 1.0)
    past = np.maximum(scaled[None, :] - scaled[:last, None], 0.0)  # [turn, point]
    means = past.mean(axis=1)
    past -= means[:, None]
    centred = values - values.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = past @ centred / np.einsum("tp,tp->t", past, past)
    left = centred[None, :] - np.nan_to_num(slopes)[:, None] * past
    at = int(np.argmin(np.einsum("tp,tp->t", left, left)))
    slope = float(np.nan_to_num(slopes[at]))
    level = float(values.mean()) - slope * float(means[at])
    return at, slope / max(float(steps[-1] - steps[0]), 1.0), level
