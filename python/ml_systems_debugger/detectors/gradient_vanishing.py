"""`GradientVanishingDetector`: gradients fade by orders of magnitude before the loss is learnt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
    check_fraction,
    check_positive,
    detectors,
)
from ..kernels.trail import Field, settings
from ._learning import is_training_loss, progress, same_run
from ._trail import Trail, Verdict
from ._trail_detector import Followed, TrailDetector, evidence

__all__ = ["GradientVanishingDetector"]


@detectors.register("gradient_vanishing")
@dataclass(frozen=True)
class GradientVanishingDetector(TrailDetector):
    failure_mode = FailureMode.VANISHING_GRADIENTS
    required_signals = ("grad_norm", "gradient")

    ratio: float = 1e-3
    layer_ratio: float = 1e-3
    learnt: float = 0.5
    persistence: float = 0.05
    min_points: int = 20

    def __post_init__(self) -> None:
        check_positive(persistence=self.persistence, ratio=self.ratio, layer_ratio=self.layer_ratio)
        check_fraction(ratio=self.ratio, layer_ratio=self.layer_ratio, learnt=self.learnt)
        check_count(8, min_points=self.min_points)

    @cached_property
    def _norms(self) -> npt.NDArray[np.float64]:
        return settings(
            logarithm=True, sign=-1, floor=math.log(2), early=3.0, rise=-0.7 * math.log(self.ratio)
        )

    @cached_property
    def _losses(self) -> npt.NDArray[np.float64]:
        return settings(relative=0.1, early=5.0, rise=math.inf)

    def settings_for(self, key: SeriesKey) -> npt.NDArray[np.float64] | None:
        """Gradient norms; and the training loss, to tell fading from convergence."""
        if key.name in ("grad_norm", "gradient"):
            return self._norms
        return self._losses if is_training_loss(key) else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Values are folded as -log: a fading norm rises."""
        if key.name == "loss":
            return None
        groups = trail.groups
        if len(groups.levels) < 3:
            return None
        # What is normal is the largest level that lasted: the second largest group.
        usual = float(np.partition(groups.levels, 1)[1])
        now = min(float(np.median(trail.last(16))), float(trail.last(16).min()) + math.log(10))
        need = -math.log(self.ratio)
        enough = max(self.min_points, self.persistence * trail.count)
        line = usual + 0.7 * need
        high = groups.levels > line
        first = len(high) - (int(np.argmin(high[::-1])) if not high.all() else len(high))
        length = max(trail.excursion, (len(high) - first) * groups.points, int(trail[Field.ZEROS]))
        if now - usual < need or length < enough:
            return None
        low = int(groups.steps[max(0, first - 1)])
        onset = int(groups.steps[min(first, len(high) - 1)])
        if trail.excursion >= 16 and trail[Field.START_STEP] <= onset:
            low, onset = trail.step(Field.BEFORE), trail.step(Field.START_STEP)
        zeros = int(trail[Field.ZEROS])
        if zeros >= enough:
            onset = trail.step(Field.ZERO_STEP)
            low = min(low, onset)
        last = 0.0 if zeros else math.exp(-now)
        return Verdict(
            Severity.MEDIUM,
            0.6,
            onset,
            f"the gradient norm fell from {math.exp(-usual):.4g} to {last:.4g} "
            f"for {length} values from step {onset} on",
            evidence(
                rule="fading", ratio=last / math.exp(-usual), baseline=math.exp(-usual), last=last,
                persistence_steps=length, zeros=zeros, onset_low=low, onset_high=onset,
            ),
        )  # fmt: skip

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        losses = same_run(key, followed, self.min_points)
        if not losses:
            certain = verdict.evidence.get("zeros", 0) >= self.min_points
            return replace(verdict, severity=Severity.HIGH, confidence=0.8) if certain else verdict
        learnt = max(progress(loss) for loss in losses)
        if learnt >= self.learnt:
            return None
        return replace(
            verdict,
            severity=Severity.HIGH,
            confidence=0.9,
            message=f"{verdict.message}, while the loss has lost only "
            f"{max(learnt, 0.0):.0%} of its start",
            evidence={**verdict.evidence, "loss_progress": round(learnt, 6)},
        )

    def across(
        self, followed: Sequence[Followed], context: Context
    ) -> Iterable[tuple[SeriesKey, Verdict]]:
        """Layers whose norms fade towards the input."""
        places: dict[tuple[object, ...], list[Followed]] = {}
        for key, trail in followed:
            if key.layer is not None and key.name in ("grad_norm", "gradient"):
                place = (key.name, key.run, key.segment, key.replica_id)
                places.setdefault(place, []).append((key, trail))
        for layers in places.values():
            if len(layers) >= 3:
                yield from self._faded(layers, followed, context)

    def _faded(
        self, layers: Sequence[Followed], followed: Sequence[Followed], context: Context
    ) -> Iterator[tuple[SeriesKey, Verdict]]:
        norms = np.array([-float(np.median(trail.last(16))) for _, trail in layers])
        usual = float(np.median(norms[len(norms) // 2 :]))
        weakest = int(np.argmin(norms[: max(1, len(norms) // 2)]))
        key, trail = layers[weakest]
        if norms[weakest] - usual > math.log(self.layer_ratio) or self.judge(key, trail):
            return
        ratio = math.exp(norms[weakest] - usual)
        onset = trail.step(Field.FIRST_STEP)
        verdict = Verdict(
            Severity.MEDIUM,
            0.7,
            onset,
            f"the gradient norm of {key.layer} is {math.exp(norms[weakest]):.3g}, "
            f"{ratio:.2g} times that of the layers near the output",
            evidence(
                rule="layers", layer_ratio=ratio, baseline=math.exp(usual),
                last=math.exp(norms[weakest]), layers=len(layers), persistence_steps=trail.count,
                onset_low=onset, onset_high=onset,
            ),
        )  # fmt: skip
        weighed = self.weigh(key, verdict, followed, context)
        if weighed is not None:
            yield key, weighed
