"""`GradientExplosionDetector`: gradient norms grow by orders of magnitude and stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..core import (
    Context,
    FailureMode,
    SeriesKey,
    Severity,
    check_count,
    check_positive,
    detectors,
)
from ..kernels.trail import Field, settings
from ._learning import is_training_loss, same_run, suffers
from ._trail import Trail, Verdict
from ._trail_detector import Followed, TrailDetector, evidence

__all__ = ["GradientExplosionDetector"]


@detectors.register("gradient_explosion")
@dataclass(frozen=True)
class GradientExplosionDetector(TrailDetector):
    failure_mode = FailureMode.EXPLODING_GRADIENTS
    required_signals = ("grad_norm", "gradient")

    ratio: float = 10.0
    early_ratio: float = 100.0
    over_highest: float = 3.0
    persistence: float = 0.01
    min_points: int = 20

    def __post_init__(self) -> None:
        check_positive(
            ratio=self.ratio,
            early_ratio=self.early_ratio,
            over_highest=self.over_highest,
            persistence=self.persistence,
        )
        check_count(8, min_points=self.min_points)

    @cached_property
    def _norms(self) -> npt.NDArray[np.float64]:
        return settings(logarithm=True, floor=math.log(2), early=3.0, rise=math.log(self.ratio))

    @cached_property
    def _losses(self) -> npt.NDArray[np.float64]:
        return settings(relative=0.1, early=5.0, rise=math.inf)

    def settings_for(self, key: SeriesKey) -> npt.NDArray[np.float64] | None:
        """Gradient norms; and the training loss, to see whether it suffers."""
        if key.name in ("grad_norm", "gradient"):
            return self._norms
        return self._losses if is_training_loss(key) else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        if key.name == "loss":
            return None
        return self._broken(trail) or self._fresh(trail) or self._lasting(trail)

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        losses = same_run(key, followed, self.min_points)
        if verdict.severity is Severity.CRITICAL or not losses:
            return verdict
        hurt = any(suffers(loss, verdict.onset) for loss in losses)
        facts = {**verdict.evidence, "loss_suffers": hurt}
        if hurt:
            return replace(verdict, evidence=facts)
        return replace(
            verdict,
            severity=min(verdict.severity, Severity.MEDIUM),
            confidence=0.5,
            message=f"{verdict.message}; the loss does not suffer",
            evidence=facts,
        )

    def _broken(self, trail: Trail) -> Verdict | None:
        """Growth that ends in a non-finite norm, after which nothing finite came."""
        if not trail[Field.NON_FINITE] or trail[Field.FIRST_BAD_STEP] <= trail[Field.LAST_STEP]:
            return None
        length = trail.excursion
        base = trail[Field.BASE_LEVEL] if length else trail[Field.LEVEL]
        grown = trail[Field.LAST] - base
        if not length or grown < math.log(self.ratio):
            return None
        bad = trail.step(Field.FIRST_BAD_STEP)
        found = self._verdict(trail, base, trail[Field.LAST], length, "growth_then_non_finite")
        return replace(
            found,
            severity=Severity.CRITICAL,
            confidence=0.98,
            message=f"{found.message}, and it is not finite from step {bad}",
            evidence={**found.evidence, "first_non_finite_step": bad},
        )

    def _fresh(self, trail: Trail) -> Verdict | None:
        length = trail.excursion
        if length < 16:
            return None
        base = trail[Field.BASE_LEVEL]
        window = trail.last(min(length, 32))
        now = float(np.median(window))
        known = trail[Field.START_INDEX]
        least = math.log(self.ratio if known >= 8 else self.early_ratio)
        rise = now - base
        enough = 16 if rise >= 3 * least else max(self.min_points, self.persistence * trail.count)
        if rise < least or length < enough or float(np.quantile(window, 0.2)) - base < 0.7 * least:
            return None
        found = self._verdict(trail, base, now, length, "jump")
        groups = trail.groups
        earlier = groups.levels[groups.steps + 0 < trail[Field.START_STEP]]
        highest = max(base, float(earlier.max(initial=-math.inf)))
        if now - highest < math.log(self.over_highest):
            return replace(found, severity=Severity.MEDIUM, confidence=0.6)
        return found

    def _lasting(self, trail: Trail) -> Verdict | None:
        """Slow growth: far above every level of the first half of the run."""
        groups = trail.groups
        levels = groups.levels
        if len(levels) < 6:
            return None
        half = len(levels) // 2
        now = min(float(levels[-1]), float(np.median(trail.last(16))))
        highest = max(float(levels[:half].max()), trail[Field.FIRST])
        usual = float(np.median(levels[:half]))
        if now - highest < math.log(self.ratio) or now - usual < 2 * math.log(self.ratio):
            return None
        line = highest + 0.5 * math.log(self.ratio)
        high = levels > line
        first = len(levels) - (int(np.argmin(high[::-1])) if not high.all() else len(levels))
        length = (len(levels) - first) * groups.points
        if length < max(self.min_points, self.persistence * trail.count):
            return None
        grew = int(np.argmax(levels > usual + 3 * max(groups.noise, groups.wander, 0.1)))
        found = self._verdict(trail, usual, now, length, "growth")
        onset, low = int(groups.steps[grew]), int(groups.steps[max(0, grew - 1)])
        return replace(
            found, onset=onset, evidence={**found.evidence, "onset_low": low, "onset_high": onset}
        )

    def _verdict(self, trail: Trail, base: float, now: float, length: int, rule: str) -> Verdict:
        ratio = math.exp(min(now - base, 700.0))
        onset = trail.step(Field.START_STEP)
        scale = max(trail[Field.BASE_SCALE], 1e-3) * 1.2533
        return Verdict(
            Severity.HIGH,
            0.95,
            onset,
            f"the gradient norm rose from {math.exp(base):.4g} to {math.exp(now):.4g} "
            f"({ratio:.3g} times) at step {onset} and stayed there for {length} values",
            evidence(
                rule=rule,
                ratio=ratio,
                baseline=math.exp(base),
                last=math.exp(now),
                z=(now - base) / scale,
                peak=math.exp(trail[Field.MAX]),
                peak_step=trail.step(Field.MAX_STEP),
                start=math.exp(trail[Field.FIRST]),
                persistence_steps=length,
                onset_low=trail.step(Field.BEFORE),
                onset_high=onset,
            ),
        )
