"""Memory that is reserved and not in use."""

# ruff: noqa: ARG002 - the hooks of `TrailDetector` have the same arguments everywhere
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core import (
    Context,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
    check_count,
    check_fraction,
    detectors,
)
from ..core.sensitivity import PART, scales
from ._growth import growth_of
from ._latency import SLOW
from ._learning import Followed
from ._memory import GROWING, LEVEL, same_place, total_of
from ._memory_rules import FRAGMENTED
from ._trail import Floats, Trail, Verdict, evidence
from ._trail_detector import TrailDetector

__all__ = ["MemoryFragmentationDetector"]

_PAIRS = (("memory_reserved", "memory_allocated"), ("max_memory_reserved", "max_memory_allocated"))
_IDLE = "reserved minus allocated"


@detectors.register("memory_fragmentation")
@dataclass(frozen=True)
class MemoryFragmentationDetector(TrailDetector):
    """Memory that the allocator holds and cannot use, growing.

    What it detects
    ---------------
    A gap between reserved and allocated memory (per replica) that grows
    steadily and still does, to at least `share` of what is reserved.

    Why it matters
    --------------
    The caching allocator keeps blocks that no request fits any more. The device
    fills while the model uses no more than before, steps slow down as it frees
    and retries, and an allocation fails though much is free.

    How it decides
    --------------
    On reserved minus allocated at the same step, of peaks where peaks are
    logged too (a gap between two steps holds the activations, which is no loss,
    and is steady). Growth is judged as for `oom_precursor`: a level that turns
    into a slope, a rise of six times the noise, Sen's interval above zero, a last
    third that still rises. The rise must be at least `growth` of what is
    reserved. High where the gap is also at least twice `share` and, where the
    total is known, nine tenths of it are reserved; else medium; low where the
    allocated memory grows just as fast, which then is a leak.

    Parameters
    ----------
    share : float
        The gap over the reserved memory.
    growth : float
        Least rise of the gap over the reserved memory.
    min_points : int
        Values of a series below which nothing is judged.

    Evidence
    --------
    ``rule`` (growth), ``series``, ``quantity``, ``slope`` (per step),
    ``slope_low``, ``slope_high``, ``baseline``, ``last``, ``rise``, ``noise``,
    ``reserved``, ``share``, ``total``, ``reserved_share``, ``allocated_rise``,
    ``persistence_steps``, ``onset_step``, ``onset_low``, ``onset_high``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> signals = [Signal("memory_allocated", 20e9, step=i) for i in range(400)]
    >>> signals += [Signal("memory_reserved", 24e9 + 4e7 * max(0, i - 100), step=i)
    ...             for i in range(400)]
    >>> found = MemoryFragmentationDetector().detect(signals)
    >>> found.severity.value, round(found.evidence["share"], 2)
    ('medium', 0.45)
    """

    failure_mode = FailureMode.MEMORY_FRAGMENTATION
    required_signals = tuple(name for pair in _PAIRS for name in pair)
    attribution_rules = FRAGMENTED
    latency = SLOW
    sensitivity_scales = scales(share=PART, growth=PART)

    share: float = 0.25
    growth: float = 0.05
    min_points: int = 40

    def __post_init__(self) -> None:
        check_fraction(share=self.share, growth=self.growth)
        check_count(20, min_points=self.min_points)

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Fold the gaps of a run of closed steps into `state`, in place; return what changed."""
        gaps: list[Series] = []
        for reserved, allocated in _PAIRS:
            others = {one.key: one for one in chunk.named(allocated)}
            for one in chunk.select(reserved):
                other = others.get(one.key._replace(name=allocated))
                if other is not None:
                    gaps.append(_gap(one, other))
        found = (gap for gap in gaps if len(gap))
        return super().update(state, SignalSet.of_tables(chunk.tables, [*chunk.singles, *found]))

    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Gaps; what is reserved, allocated and there at all as witnesses."""
        if key.name.startswith(_IDLE):
            return GROWING
        known = key.name in self.required_signals or key.name == "memory_total"
        return LEVEL if known and key.kind == "scalar" else None

    def enough(self, key: SeriesKey) -> int | None:
        """Gaps are judged."""
        return self.min_points if key.name.startswith(_IDLE) else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Judge one gap by itself: whether it grows."""
        found = growth_of(trail)
        if found is None or found.now <= 0:
            return None
        return Verdict(
            Severity.MEDIUM,
            0.6,
            found.onset,
            f"{key.name} grew from {found.level:.4g} to {found.now:.4g}",
            found.evidence(key.name),
        )

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        """Set the gap against what is reserved, allocated and there."""
        peaks = key.name.endswith("peaks")
        here = {other.name: trail for other, trail in followed if same_place(key, other)}
        if not peaks and f"{_IDLE}, peaks" in here:
            return None
        reserved, allocated = (here[name] for name in _PAIRS[1 if peaks else 0])
        facts, held = verdict.evidence, reserved.now
        share = facts["last"] / held if held > 0 else 0.0
        if share < self.share or facts["rise"] < self.growth * held:
            return None
        used = growth_of(allocated)
        leak = used is not None and used.slope >= facts["slope"]
        total = total_of(key, followed, "memory_total", {})
        of_total = None if not total else held / total
        high = share >= 2 * self.share and not leak and (of_total is None or of_total >= 0.9)
        severity = Severity.LOW if leak else Severity.HIGH if high else Severity.MEDIUM
        return replace(
            verdict,
            severity=severity,
            confidence={Severity.HIGH: 0.9, Severity.MEDIUM: 0.7}.get(severity, 0.4),
            message=f"{verdict.message}: {share:.0%} of what is reserved is not in use",
            evidence={
                **facts,
                **evidence(
                    reserved=held,
                    share=share,
                    total=total,
                    reserved_share=of_total,
                    allocated_rise=0.0 if used is None else used.rise,
                ),
            },
        )

    def settled(self, before: Finding, step: int) -> Finding | None:
        """Return nothing: a gap that stopped growing is held memory and no more."""
        return None


def _gap(reserved: Series, allocated: Series) -> Series:
    """Return reserved minus allocated at the steps where both are logged."""
    name = _IDLE if reserved.key.name == "memory_reserved" else f"{_IDLE}, peaks"
    key = reserved.key._replace(name=name)
    if np.array_equal(reserved.steps, allocated.steps):
        return Series(key, reserved.steps, reserved.values - allocated.values)
    steps, mine, theirs = np.intersect1d(reserved.steps, allocated.steps, return_indices=True)
    return Series(key, steps, reserved.values[mine] - allocated.values[theirs])
