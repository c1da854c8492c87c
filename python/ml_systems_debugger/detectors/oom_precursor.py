"""Memory that will run out."""

# ruff: noqa: ARG002 - the hooks of `TrailDetector` have the same arguments everywhere
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..core import (
    Context,
    FailureMode,
    Finding,
    SeriesKey,
    SeriesKind,
    Severity,
    check_count,
    check_fraction,
    check_positive,
    detectors,
)
from ..core.sensitivity import PART, RISK, scales
from ..kernels.trail import Field
from ._growth import Growth, growth_of
from ._latency import SLOW
from ._learning import Followed
from ._memory import GROWING, LEVEL, same_place, total_of
from ._memory_rules import OUT_OF_MEMORY
from ._trail import Floats, Onset, Trail, Verdict, evidence
from ._trail_detector import TrailDetector

__all__ = ["OomPrecursorDetector"]

_USED = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
_HOST = ("host_memory",)
_TOTALS = {"host_memory": "host_memory_total"}
_FAILED = "allocation_failed"
_MUCH = 0.25  # of the level before it: growth that is a failure whatever the total
_FULL = 1.05  # used over total beyond which the two are not in one unit


@detectors.register("oom_precursor")
@dataclass(frozen=True)
class OomPrecursorDetector(TrailDetector):
    """Memory that grows from step to step, and when it will run out.

    What it detects
    ---------------
    Memory in use (of the device or of the host, per replica) that grows
    steadily and still does, with the steps that are left until it reaches the
    total; and allocations that failed already.

    Why it matters
    --------------
    A leak ends the job after hours or days, at the worst time. Caught early it
    costs a restart at a checkpoint of one's own choosing.

    How it decides
    --------------
    The history, as at most 192 medians, is fitted by a level that turns into a
    slope. It is growth where the rise is at least `growth` of the level and six
    times the noise, Sen's slope (JASA 63, 1968) is above zero with its 99 %
    interval, and the last third still rises at least half as steeply as the
    whole: warm-up that levels off, a jump to a new level, and record maxima that
    become rarer are none. The steps left are what is free over the slope, their
    interval that of the slope. High: they are, at the slow end of the interval,
    at most `horizon` times the steps seen so far, and half of the memory is in
    use; medium: at most ten times `horizon`; low beyond that. Without a total
    the growth is medium from a quarter of the level before it on, else low.
    Reserved memory counts only where allocated memory is not logged: a caching
    allocator keeps what it once had.

    Parameters
    ----------
    growth : float
        Least rise over the level before it.
    horizon : float
        Steps left over steps seen, below which it is urgent.
    min_points : int
        Values of a series below which nothing is judged.

    Evidence
    --------
    ``rule`` (growth, failed_allocation), ``series``, ``quantity``,
    ``slope`` (per step), ``slope_low``, ``slope_high``, ``baseline``, ``last``,
    ``rise``, ``noise``, ``total``, ``used_share``, ``steps_left``,
    ``steps_left_low``, ``steps_left_high``, ``full_at_step``,
    ``persistence_steps``, ``onset_step``, ``onset_low``, ``onset_high``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> signals = [Signal("memory_allocated", 40e9 + 5e7 * max(0, i - 200), step=i)
    ...            for i in range(600)]
    >>> signals += [Signal("memory_total", 80e9, step=i) for i in range(600)]
    >>> found = OomPrecursorDetector().detect(signals)
    >>> found.severity.value, found.evidence["full_at_step"]
    ('high', 1000)
    """

    failure_mode = FailureMode.OOM_PRECURSOR
    required_signals = (*_USED, *_HOST, _FAILED)
    attribution_rules = OUT_OF_MEMORY
    latency = SLOW
    sensitivity_scales = scales(growth=PART, horizon=RISK.within(0.0))

    growth: float = 0.05
    horizon: float = 1.0
    min_points: int = 40

    def __post_init__(self) -> None:
        check_fraction(growth=self.growth)
        check_positive(horizon=self.horizon)
        check_count(20, min_points=self.min_points)

    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Memory in use, and its totals as witnesses."""
        if key.kind is not SeriesKind.SCALAR:
            return None
        if key.name in (*_USED, *_HOST):
            return GROWING
        return LEVEL if key.name in ("memory_total", "host_memory_total", _FAILED) else None

    def enough(self, key: SeriesKey) -> int | None:
        """Memory in use is judged; a failed allocation at once."""
        if key.name == _FAILED:
            return 1
        return self.min_points if key.name in (*_USED, *_HOST) else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Judge one series by itself: whether it grows."""
        if key.name == _FAILED:
            return _failed(trail)
        found = growth_of(trail)
        if found is None or found.level <= 0 or found.rise < self.growth * found.level:
            return None
        return self._growing(key, found)

    def _growing(self, key: SeriesKey, found: Growth) -> Verdict:
        much = found.rise >= _MUCH * found.level
        return Verdict(
            Severity.MEDIUM if much else Severity.LOW,
            0.7 if much else 0.5,
            found.onset,
            f"{key.name} grew from {found.level:.4g} to {found.now:.4g}, by {found.slope:.3g} a "
            "step",
            found.evidence(key.name),
        )

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        """Set the growth against what is free."""
        if key.name == _FAILED:
            return verdict
        if key.name.endswith("memory_reserved") and _has(followed, key, _USED[:2]):
            return None
        if key.name == "max_memory_allocated" and _has(followed, key, _USED[:1]):
            return None
        total = total_of(key, followed, _TOTALS.get(key.name, "memory_total"), context)
        trail = next(trail for other, trail in followed if other == key)
        highest = trail[Field.MAX]
        if total is None or highest > _FULL * total:
            return verdict
        facts = verdict.evidence
        free = max(total - float(trail.recent.max()), 0.0)
        left, soon, late = (free / facts[n] for n in ("slope", "slope_high", "slope_low"))
        now = trail.step(Field.LAST_STEP)
        seen = max(now - trail.step(Field.FIRST_STEP), 1)
        share = float(trail.recent.max()) / total
        severity = Severity.LOW
        if late <= self.horizon * seen and share >= 0.5:
            severity = Severity.HIGH
        elif left <= 10 * self.horizon * seen:
            severity = Severity.MEDIUM
        return replace(
            verdict,
            severity=severity,
            confidence={Severity.HIGH: 0.9, Severity.MEDIUM: 0.7}.get(severity, 0.4),
            message=f"{verdict.message}; at {share:.0%} of {total:.4g} it will be full in about "
            f"{left:.0f} steps ({soon:.0f} to {late:.0f})",
            evidence={
                **facts,
                **evidence(
                    total=total,
                    used_share=share,
                    steps_left=round(left),
                    steps_left_low=math.floor(soon),
                    steps_left_high=math.ceil(late),
                    full_at_step=now + round(left),
                ),
            },
        )

    def settled(self, before: Finding, step: int) -> Finding | None:
        """Return nothing: growth that stopped announces nothing."""
        return None


def _failed(trail: Trail) -> Verdict:
    step = trail.step(Field.FIRST_STEP)
    return Verdict(
        Severity.HIGH,
        0.99,
        Onset(step, step, step),
        f"{trail.count} allocations failed, the first of {trail[Field.FIRST]:.4g} bytes"
        if trail.count > 1
        else f"an allocation of {trail[Field.FIRST]:.4g} bytes failed",
        evidence(rule="failed_allocation", quantity=_FAILED, last=trail[Field.LAST],
                 persistence_steps=trail.count),
    )  # fmt: skip


def _has(followed: Iterable[Followed], key: SeriesKey, names: Sequence[str]) -> bool:
    return any(other.name in names and same_place(key, other) for other, _ in followed)
