"""A loss that has risen: over its start, in bursts, to its end; the verdict with evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..core import Severity
from ..kernels.trail import Field
from ._trail import Onset, Trail, Verdict, evidence, spread, sureness

__all__ = [
    "HUGE",
    "SHORT",
    "broken",
    "bursts",
    "last_words",
    "rise_verdict",
    "start_line",
    "thrown",
]

SHORT = 16  # values that a verdict takes, however plain it is
HUGE = 10.0  # times what is asked for: plain

_FIRST_UPDATES = 20  # steps
_LUCK = 2.0  # spreads
_FEW = 3
_LEARNT, _CLOSE, _NO_MORE = 0.5, 0.05, 1.15  # of the start: best level, level now, peak
_THROWN, _LOOKED, _NEVER = 10.0, 64, 0.95  # of the start: early peak; values; lowest level
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


def broken(trail: Trail, best: float, asked: float) -> Verdict | None:
    """Judge a climb that ends in a non-finite loss, after which nothing finite came."""
    length = trail.excursion
    if not trail.broke or not length:
        return None
    last = trail[Field.LAST]
    if last - best < HUGE * asked:
        return None
    found = rise_verdict(
        trail, best, last, asked, length, trail.excursion_onset(), "growth_then_non_finite"
    )
    bad = trail.step(Field.FIRST_BAD_STEP)
    return replace(
        found,
        message=f"{found.message}, and is not finite from step {bad}",
        evidence={**found.evidence, "first_non_finite_step": bad},
    )


def thrown(trail: Trail) -> Verdict | None:
    """Judge a loss that the first updates threw up, and that never came below its start since."""
    early = _early_peak(trail)
    levels = trail.groups.levels
    first = min(trail[Field.FIRST], trail.first_level)
    if early is None or early < _THROWN or trail.count < _LOOKED or not len(levels):
        return None
    best, now = float(levels.min()), min(float(levels[-1]), trail.now)
    if min(best, now) < _NEVER * first:
        return None
    peak, since = trail.step(Field.MAX_STEP), trail.step(Field.FIRST_STEP)
    onset = Onset(peak, since, peak)
    found = rise_verdict(trail, first, now, max(now - first, first), trail.count, onset, "thrown")
    return replace(
        found,
        severity=Severity.MEDIUM,
        message=f"the first updates threw the loss from {trail[Field.FIRST]:.4g} to "
        f"{trail[Field.MAX]:.4g}, and in {trail.count} values it has not come below its start",
    )


def last_words(trail: Trail, best: float, asked: float) -> Verdict | None:
    """Judge a history that breaks off, or is asked, in the first steps of a blow-up."""
    length = trail.excursion
    if not _FEW <= length < SHORT:
        return None
    now = float(trail.recent[-_FEW:].min())
    if now - best < HUGE * asked:
        return None
    onset = trail.excursion_onset()
    found = rise_verdict(trail, best, now, asked, length, onset, "breaks_off")
    return replace(found, severity=Severity.MEDIUM, confidence=0.6)


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
            early_peak=_early_peak(trail),
            to_start=_to_start(trail, best, now) or None,
            persistence_steps=length,
            noise=trail.groups.noise,
        ),
    )


def _to_start(trail: Trail, best: float, now: float) -> bool:
    """Return whether an excursion went straight to the level of the start, and no higher."""
    first = trail.first_level
    learnt = first > 0 and best <= _LEARNT * first
    close = abs(now - first) <= _CLOSE * abs(first)
    return bool(learnt and close and trail.excursion and trail[Field.PEAK] <= _NO_MORE * first)


def _early_peak(trail: Trail) -> float | None:
    """Return by what factor the loss rose over its start in the first updates, if ever more."""
    first, peak = trail[Field.FIRST], trail[Field.MAX]
    early = trail[Field.MAX_STEP] - trail[Field.FIRST_STEP] <= _FIRST_UPDATES
    return peak / first if early and first > 0 and peak > first else None
