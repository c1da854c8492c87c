"""`LossPlateauDetector`: training goes on and nothing is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..core import (
    Context,
    FailureMode,
    Finding,
    FoldState,
    SeriesKey,
    Severity,
    check_count,
    check_fraction,
    detectors,
)
from ..kernels.trail import Field, settings
from ._learning import is_training_loss
from ._trail import Trail, Verdict
from ._trail_detector import Followed, TrailDetector, evidence

__all__ = ["LossPlateauDetector"]


@detectors.register("loss_plateau")
@dataclass(frozen=True)
class LossPlateauDetector(TrailDetector):
    failure_mode = FailureMode.LOSS_PLATEAU
    required_signals = ("loss", "accuracy")

    chance_factor: float = 1.3
    flat: float = 0.02
    min_points: int = 10
    min_loss_points: int = 100

    def __post_init__(self) -> None:
        check_fraction(flat=self.flat)
        check_count(5, min_points=self.min_points)
        check_count(20, min_loss_points=self.min_loss_points)

    @cached_property
    def _settings(self) -> npt.NDArray[np.float64]:
        return settings(relative=0.1, early=5.0, always=True)

    def settings_for(self, key: SeriesKey) -> npt.NDArray[np.float64] | None:
        """Training losses and accuracies."""
        accuracy = key.name == "accuracy" and key.layer is None
        return self._settings if accuracy or is_training_loss(key) else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        return self._stuck(key, trail) if key.name == "accuracy" else self._flat(trail)

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        return verdict

    def _stuck(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        values, steps, _ = trail.entries
        unit = 100.0 if trail[Field.MAX] > 1.5 else 1.0
        start = trail[Field.FIRST] / unit
        late = values[-max(5, len(values) // 4) :] / unit
        now = float(np.median(late))
        half = values[-max(5, len(values) // 2) :] / unit
        constant = bool(np.ptp(half) <= 1e-6)
        gain = (now - start) / max(1e-9, 1 - start)
        at_start = now <= self.chance_factor * start + 1e-9 and gain <= 0.1
        if now > 0.6 or start > 0.6 or not (at_start or (constant and gain <= 0.25)):
            return None
        line = max(now, start) + 0.02
        above = values / unit > line
        first = int(len(above) - np.argmax(above[::-1])) if above.any() else 0
        if len(values) - first < self.min_points:
            return None
        onset = int(steps[min(first, len(steps) - 1)])
        where = "held-out" if key.held_out else "training"
        return Verdict(
            Severity.HIGH,
            0.9,
            onset,
            f"{where} accuracy stands at {now:.4g}, where it began ({start:.4g}), "
            f"after {trail.count} evaluations",
            evidence(
                rule="accuracy_at_start", last=now, start=start, best=trail[Field.MAX] / unit,
                best_step=trail.step(Field.MAX_STEP), gain=gain, constant=constant,
                persistence_steps=len(values) - first, onset_low=onset, onset_high=onset,
            ),
        )  # fmt: skip

    def _flat(self, trail: Trail) -> Verdict | None:
        groups = trail.groups
        levels = groups.levels
        if trail.count < self.min_loss_points or len(levels) < 8:
            return None
        at = np.arange(len(levels))
        i, j = np.triu_indices(len(levels), 1)
        slope = float(np.median((levels[j] - levels[i]) / (at[j] - at[i])))
        change = slope * (len(levels) - 1)
        middle = float(np.median(levels))
        bound = self.flat * abs(middle) + 0.25 * groups.noise
        start = float(np.median(trail.entries[0][:5]))
        if abs(change) > bound or abs(start - float(levels[-1])) > 2 * bound:
            return None
        if trail[Field.FIRST] - middle > 3 * bound:
            return None
        onset = trail.step(Field.FIRST_STEP)
        return Verdict(
            Severity.MEDIUM,
            0.6,
            onset,
            f"the loss began at {start:.4g} and stands at {levels[-1]:.4g} "
            f"after {trail.count} values: no progress",
            evidence(
                rule="flat_from_start", start=start, last=float(levels[-1]), best=trail[Field.MIN],
                change=change, bound=bound, persistence_steps=trail.count, onset_low=onset,
                onset_high=onset,
            ),
        )  # fmt: skip

    def _settle(self, state: FoldState, before: Finding, step: int) -> None:
        """It learns after all: there was no plateau, only a slow start."""
        state.retract(step, before.finding_id)
