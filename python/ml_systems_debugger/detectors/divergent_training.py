"""`DivergentTrainingDetector`: the loss has left the path down and stays away."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..core import (
    FailureMode,
    SeriesKey,
    SeriesKind,
    Severity,
    check_count,
    check_positive,
    detectors,
)
from ..kernels.trail import Field, settings
from ._trail import Trail, Verdict
from ._trail_detector import TrailDetector, evidence

__all__ = ["DivergentTrainingDetector"]

_OCCUPANCY = 0.8


@detectors.register("divergent_training")
@dataclass(frozen=True)
class DivergentTrainingDetector(TrailDetector):
    failure_mode = FailureMode.DIVERGENT_TRAINING
    required_signals = ("loss",)

    lost_gain: float = 0.5
    rise: float = 0.3
    start_rise: float = 0.5
    noise_factor: float = 6.0
    persistence: float = 0.01
    min_points: int = 20

    def __post_init__(self) -> None:
        check_positive(
            lost_gain=self.lost_gain,
            rise=self.rise,
            start_rise=self.start_rise,
            noise_factor=self.noise_factor,
            persistence=self.persistence,
        )
        check_count(8, min_points=self.min_points)

    @cached_property
    def _settings(self) -> npt.NDArray[np.float64]:
        return settings(
            relative=0.1, early=5.0, rise_of_gain=0.5 * self.lost_gain, rise_of_best=0.5 * self.rise
        )

    def settings_for(self, key: SeriesKey) -> npt.NDArray[np.float64] | None:
        """Training losses, whole; held-out ones are a matter of overfitting."""
        wanted = key.name == "loss" and key.kind is SeriesKind.SCALAR and key.layer is None
        return self._settings if wanted and not key.held_out else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        return self._fresh(trail) or self._lasting(trail) or self._wild(trail)

    def _asked(self, trail: Trail, before: int) -> tuple[float, float]:
        """Best level of the first `before` groups and the rise above it that is much."""
        groups = trail.groups
        start = trail[Field.FIRST]
        calm = groups.levels[:before]
        if not len(calm) or start < calm.min():
            return start, self.start_rise * abs(start)
        best = float(calm.min())
        noise = self.noise_factor * groups.wander + 3 * groups.noise
        return best, max(self.lost_gain * (start - best), self.rise * abs(best), noise)

    def _fresh(self, trail: Trail) -> Verdict | None:
        length = trail.excursion
        if length < 16:
            return None
        groups = trail.groups
        start_step = trail[Field.START_STEP]
        before = int(np.searchsorted(groups.steps, start_step, "left"))
        if len(groups.steps) and before == len(groups.steps):
            before = len(groups.steps)
        best, asked = self._asked(trail, before)
        window = trail.last(min(length, 32))
        now = float(np.median(window))
        huge = now - best >= 10 * asked
        enough = 16 if huge else max(self.min_points, self.persistence * trail.count)
        if now - best < asked or length < enough:
            return None
        if np.mean(window > best + 0.5 * asked) < _OCCUPANCY:
            return None
        return self._verdict(trail, best, now, length, int(start_step), trail.step(Field.BEFORE),
                             int(start_step), "excursion")

    def _lasting(self, trail: Trail) -> Verdict | None:
        groups = trail.groups
        levels = groups.levels
        if len(levels) < 3:
            return None
        start = trail[Field.FIRST]
        now = min(float(levels[-1]), float(np.median(trail.last(16))))
        best, asked = self._asked(trail, len(levels))
        # `wander` and `noise` of a run that has blown up are its own: look at the calm part.
        high = levels > best + 0.5 * asked
        first_bad = len(levels) - (int(np.argmin(high[::-1])) if not high.all() else len(levels))
        best, asked = self._asked(trail, first_bad)
        length = (len(levels) - first_bad) * groups.points
        if now - best < asked or length < max(self.min_points, self.persistence * trail.count):
            return None
        values, steps, _ = trail.entries
        tail = values[steps >= groups.steps[first_bad]]
        if np.mean(tail > best + 0.5 * asked) < _OCCUPANCY:
            return None
        low = int(groups.steps[first_bad - 1]) if first_bad else trail.step(Field.FIRST_STEP)
        onset, high_step = int(groups.steps[first_bad]), int(groups.steps[first_bad])
        if trail.excursion >= 16 and trail[Field.START_STEP] <= high_step:
            onset = trail.step(Field.START_STEP)
            low, high_step = trail.step(Field.BEFORE), onset
        return self._verdict(trail, best, now, length, onset, low, high_step, "level")

    def _wild(self, trail: Trail) -> Verdict | None:
        """Bursts: the loss comes down again and again, but visits heights it never began at."""
        groups = trail.groups
        if len(groups.levels) < 12:
            return None
        values, steps, width = trail.entries
        start, best_at = trail[Field.FIRST], int(np.argmin(groups.levels))
        best = float(groups.levels[best_at])
        late = values[-(len(values) // 4) :]
        high = float(np.quantile(late, 0.8))
        near = (steps >= groups.steps[max(0, best_at - 1)]) & (
            steps < groups.steps[min(best_at + 2, len(groups.steps) - 1)]
        )
        usual = float(values[near].max(initial=best))
        line = max(start + self.start_rise * abs(start), best + 3 * (usual - best))
        if start <= best or high < line:
            return None
        after = steps > groups.steps[best_at]
        first = int(np.argmax(after & (values > line)))
        onset = int(steps[first])
        return self._verdict(trail, best, float(np.median(late)), len(late) * width, onset,
                             int(steps[max(0, first - 1)]), onset, "bursts")

    def _verdict(
        self, trail: Trail, best: float, now: float, length: int, onset: int, low: int, high: int,
        rule: str,
    ) -> Verdict:
        start = trail[Field.FIRST]
        return Verdict(
            Severity.HIGH, 0.95, onset,
            f"the loss stands at {now:.4g}, above its best level {best:.4g} "
            f"(start {start:.4g}), for {length} values since step {onset}",
            evidence(rule=rule, start=start, best=best, last=now, peak=trail[Field.MAX],
                     peak_step=trail.step(Field.MAX_STEP), persistence_steps=length,
                     onset_low=low, onset_high=high),
        )
