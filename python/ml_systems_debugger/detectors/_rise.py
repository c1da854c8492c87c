"""A loss that has risen: over its start, in bursts, and the verdict with its evidence."""

from __future__ import annotations

import math

import numpy as np

from ..core import Severity
from ..kernels.trail import Field
from ._trail import Onset, Trail, Verdict, evidence, spread, sureness

__all__ = ["bursts", "rise_verdict", "start_line"]

_LUCK = 2.0  # spreads
_BURSTS, _WILD, _MANY = 3, 5.0, 200


def start_line(trail: Trail, start_rise: float, doubt: bool = True) -> tuple[float, float]:
    """Return the first value, and the rise above it that a lucky first value explains hardly.

    One value may lie far below its kind by chance. With noise in proportion to
    the level, as that of a run that has blown up, two spreads of the logarithm;
    where later values went below the start, four of them and four spreads of the
    values; without `doubt` one, which is no more than a hint.
    """
    first = trail[Field.FIRST]
    sample = trail.recent[-(trail.excursion or len(trail.recent)) :]
    steps = trail.entries[1]
    sure = trail[Field.MIN_STEP] <= steps[-(-len(steps) // 100)]
    spreads = 0.5 * _LUCK if not doubt else _LUCK if sure else 2 * _LUCK
    plain, ratio = spreads * spread(sample), 0.0
    if first > 0 and sample.min() > 0:
        ratio = spreads * spread(np.log(sample))
        plain = plain if doubt and not sure else 0.0
    luck = max(plain, first * math.expm1(min(ratio, 100.0)))
    return first, max(start_rise * abs(first), luck)


def bursts(trail: Trail, start_rise: float) -> Verdict | None:
    """Judge a loss that comes down again and again, but visits heights above its start."""
    groups = trail.groups
    if trail.count < _MANY:
        return None
    values, steps, width = trail.entries
    first = trail[Field.FIRST]
    best = float(groups.levels.min())
    late = values[-(len(values) // 4) :]
    high = float(np.quantile(late, 0.8))
    # How high the values of the calmest stretch reach, two groups long.
    tops = np.maximum.reduceat(values, np.searchsorted(steps, groups.steps))
    usual = float(np.maximum(tops[1:], tops[:-1]).min()) - best
    line = max(first + start_rise * abs(first), best + _WILD * usual)
    over = values > line
    peaks = np.flatnonzero(over[1:] & ~over[:-1]) + 1
    if first <= best or high < line or len(peaks) < _BURSTS:
        return None
    calm = groups.steps[int(np.argmin(groups.levels))]
    later = peaks[steps[peaks] > calm]
    since = int(later[0]) if len(later) else int(peaks[0])
    onset = Onset(int(steps[since]), int(steps[since - 1]), int(steps[since]))
    length = len(late) * width
    return rise_verdict(trail, best, high, line - best, length, onset, "bursts")


def rise_verdict(
    trail: Trail,
    best: float,
    now: float,
    asked: float,
    length: int,
    onset: Onset,
    rule: str,
) -> Verdict:
    """Return that the loss stands at `now`, over `best`, where a rise of `asked` is much."""
    first = trail[Field.FIRST]
    gain = first - best
    words = "keeps bursting to" if rule == "bursts" else "stands at"
    return Verdict(
        Severity.HIGH,
        sureness((now - best) / max(asked, 1e-300)),
        onset,
        f"the loss {words} {now:.4g}, over a best level of {best:.4g} and a start of "
        f"{first:.4g}, for {length} values",
        evidence(
            rule=rule,
            start=first,
            best=best,
            last=now,
            rise=now - best,
            asked=asked,
            ratio=now / best if best > 0 else None,
            lost_gain=(now - best) / gain if gain > 0 else None,
            above_start=now - first,
            peak=trail[Field.MAX],
            peak_step=trail.step(Field.MAX_STEP),
            persistence_steps=length,
            noise=trail.groups.noise,
        ),
    )
