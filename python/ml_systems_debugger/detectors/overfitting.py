"""Training data learnt by heart: the held-out loss rises while the training loss falls."""

# ruff: noqa: ARG002 - the hooks of `TrailDetector` have the same arguments everywhere
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core import (
    AttributionRule,
    Condition,
    Context,
    FailureMode,
    Finding,
    RootCause,
    SeriesKey,
    SeriesKind,
    Severity,
    check_count,
    check_fraction,
    detectors,
)
from ..core.sensitivity import DISTANCE, PART, scales
from ..kernels.trail import Field, settings
from ._latency import SLOW
from ._learning import LOSS_SETTINGS, Followed, is_training_loss, losses_of, suffers
from ._trail import Floats, Onset, Trail, Verdict, evidence, jitter, sureness
from ._trail_detector import TrailDetector

__all__ = ["OverfittingDetector"]

_RULES = (
    AttributionRule(
        "OVF001", FailureMode.OVERFITTING, RootCause.INSUFFICIENT_REGULARIZATION, 0.75,
        "The model has learnt its training data by heart since step {onset_step}: the held-out "
        "loss rose from {best} to {last}.",
        when=(Condition("sudden", "==", False, "it rose over several evaluations"),),
        lowers=((Condition("mode.divergent_training", "present", None, "training diverged"), 0.5),
                (Condition("mode.learning_rate_instability", "present", None,
                           "the learning rate jumped"), 0.5),
                (Condition("mode.exploding_gradients", "present", None, "gradients exploded"), 0.3),
                (Condition("mode.loss_spike", "present", None, "the training loss spiked"), 0.3)),
        remediation=("Stop at step {best_step}, or use the checkpoint from there.",
                     "Add dropout, weight decay or augmentation, or get more data."),
        source="Prechelt, Early Stopping - But When?, 1998",
    ),
    AttributionRule(
        "OVF002", FailureMode.OVERFITTING, RootCause.DATA_DISTRIBUTION_CHANGE, 0.15,
        "Training and held-out data differ: their losses part at step {onset_step}.",
        raises=((Condition("training_fell", "==", False, "the training loss did not fall"), 0.3),
                (Condition("sudden", "==", True, "it rose between two evaluations"), 0.5)),
        remediation=("Check how the held-out data was split off.",),
        source="Prechelt, Early Stopping - But When?, 1998",
    ),
)  # fmt: skip

_HOLDS = 0.02  # of the best accuracy: a loss of less is none
_AFTER = 3  # evaluations after the best one before anything is said


@detectors.register("overfitting")
@dataclass(frozen=True)
class OverfittingDetector(TrailDetector):
    """Overfitting: the held-out loss rises from its minimum while the training loss falls.

    What it detects
    ---------------
    A held-out loss that stands above its best value and stays there, with at
    least three evaluations after the best.

    Why it matters
    --------------
    Every step after the best one costs money and makes the model worse on data
    that it has not seen; the last checkpoint is not the one to keep.

    How it decides
    --------------
    The generalisation loss of Prechelt (1998): the median of the last
    evaluations over the best. It must exceed `gap` of the best, four spreads of
    the noise between neighbouring evaluations and a fiftieth of what the loss
    had gained, in all of the last evaluations. Where the training loss rose as
    well it is no overfitting but divergence, and nothing is said; where it did
    not fall, or none is logged, or most of the rise came between two
    evaluations, it is medium at most; likewise where a held-out accuracy of the
    same data stands at its best, by two spreads of its noise or a fiftieth: the
    model then grows surer of its mistakes and makes no more of them (Guo et al.,
    On Calibration of Modern Neural Networks, 2017). High from `high_gap` on.

    Parameters
    ----------
    gap, high_gap : float
        Rise over the best value, as a part of it (AutoTrainer and SageMaker use
        0.1).
    min_points : int
        Evaluations below which nothing is said.

    Evidence
    --------
    ``best``, ``best_step``, ``last``, ``gap`` (rise over best), ``noise``,
    ``evaluations_since``, ``sudden``, ``training_fell``, ``accuracy`` and
    ``best_accuracy`` where logged, ``against``, ``onset_step``, ``onset_low``,
    ``onset_high``, ``series``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> train = [Signal("loss", 2.0 / (1 + i), step=i) for i in range(100)]
    >>> held = [1.0, 0.6, 0.5, 0.55, 0.7, 0.8, 0.9]
    >>> evals = [Signal("val_loss", x, step=10 * i) for i, x in enumerate(held)]
    >>> found = OverfittingDetector().detect(train + evals)
    >>> found.severity.value, found.onset_step
    ('high', 20)
    """

    failure_mode = FailureMode.OVERFITTING
    required_signals = ("loss",)
    attribution_rules = _RULES
    latency = SLOW
    sensitivity_scales = scales(gap=PART, high_gap=DISTANCE)

    gap: float = 0.1
    high_gap: float = 0.25
    min_points: int = 5

    def __post_init__(self) -> None:
        check_fraction(gap=self.gap)
        check_count(4, min_points=self.min_points)

    @cached_property
    def _settings(self) -> Floats:
        return settings(relative=self.gap, early=5.0, always=True)

    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Held-out losses; training losses and held-out accuracies as witnesses."""
        if self.enough(key) is not None:
            return self._settings
        return LOSS_SETTINGS if is_training_loss(key) or _is_accuracy(key) else None

    def enough(self, key: SeriesKey) -> int | None:
        """Held-out losses of the whole model are judged."""
        held = key.name == "loss" and key.kind is SeriesKind.SCALAR and key.layer is None
        return self.min_points if held and key.held_out else None

    def _wanted(self) -> str:
        """Return that a loss of held-out data is needed: one of training alone says nothing."""
        return "held-out loss"

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Judge one held-out loss by itself."""
        values, steps, width = trail.entries
        if len(values) < self.min_points:
            return None
        at = int(np.argmin(values))
        after = values[at + 1 :]
        if len(after) * width < _AFTER:
            return None
        best = float(values[at])
        late = after[-min(len(after), 5) :]
        last = float(np.median(late))
        noise = jitter(values)
        learnt = max(trail[Field.FIRST] - best, 0.0)
        least = max(self.gap * abs(best), 4 * noise, 0.02 * learnt)
        rise = last - best
        # All of the last three stand out, not their median alone.
        if rise <= least or float(values[-min(_AFTER, len(after)) :].min()) - best <= least / 2:
            return None
        step = trail.step(Field.MIN_STEP) if width == 1 else int(steps[at])
        low = int(steps[at - 1]) if at else step
        high = int(steps[at + 1])
        part = rise / abs(best) if best else float("inf")
        # Learning by heart takes time; what happens between two evaluations is something else.
        sudden = bool(np.diff(values[at:]).max() > 0.7 * rise)
        severe = part >= self.high_gap and not sudden
        severity = Severity.HIGH if severe else Severity.MEDIUM
        return Verdict(
            severity,
            sureness(rise / least),
            Onset(step, low, high),
            f"the held-out loss rose from its best of {best:.4g} (step {step}) to {last:.4g} "
            f"({part:.0%}) over {len(after) * width} evaluations",
            evidence(
                best=best, best_step=step, last=last, gap=part, noise=noise,
                evaluations_since=len(after) * width, sudden=sudden,
            ),
        )  # fmt: skip

    def settled(self, before: Finding, step: int) -> Finding | None:
        """Take it back: the loss went on falling after all."""
        return None

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        """Ask the training loss, which falls where the model learns by heart, and the accuracy."""
        verdict = _beside_accuracy(key, verdict, followed)
        losses = losses_of(key, followed, _AFTER)
        if not losses:
            return replace(verdict, severity=Severity.MEDIUM, confidence=0.6)
        loss = losses[0]
        if suffers(loss, verdict.onset.step):
            return None
        fell = _fell(loss, verdict.onset.step)
        told = {**verdict.evidence, "training_fell": fell}
        if not fell:
            return replace(verdict, severity=Severity.MEDIUM, confidence=0.5, evidence=told)
        return replace(verdict, evidence=told)


def _is_accuracy(key: SeriesKey) -> bool:
    """Return whether a series is a held-out accuracy of the whole model."""
    scalar = key.kind is SeriesKind.SCALAR and key.layer is None
    return key.name == "accuracy" and scalar and key.held_out


def _beside_accuracy(key: SeriesKey, verdict: Verdict, followed: Sequence[Followed]) -> Verdict:
    """Lower `verdict` where the accuracy on the same data has not fallen with the loss."""
    wanted = key._replace(name="accuracy")
    trail = next((trail for other, trail in followed if other == wanted), None)
    values = None if trail is None else trail.entries[0]
    if values is None or len(values) < _AFTER:
        return verdict
    best, now = float(values.max()), float(np.median(values[-min(len(values), 5) :]))
    told = {**verdict.evidence, "accuracy": now, "best_accuracy": best}
    if best - now > max(2 * jitter(values), _HOLDS * abs(best)):
        return replace(verdict, evidence=told)
    told["against"] = f"the held-out accuracy stands at {now:.4g}, its best is {best:.4g}"
    return replace(
        verdict,
        severity=min(verdict.severity, Severity.MEDIUM),
        confidence=min(verdict.confidence, 0.6),
        evidence=told,
    )


def _fell(loss: Trail, since: int) -> bool:
    """Return whether the training loss stands lower than it stood at step `since`."""
    values, steps, _ = loss.entries
    before = values[steps <= since]
    if not len(before):
        return loss.now < loss[Field.FIRST]
    return loss.now < float(np.median(before[-5:]))
