"""`GradientVanishingDetector`: gradients fade before the loss is learnt."""

# ruff: noqa: ARG002 - the hooks of `TrailDetector` have the same arguments everywhere
from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core import (
    Context,
    FailureMode,
    SeriesKey,
    Severity,
    check_count,
    check_fraction,
    check_range,
    detectors,
)
from ..core.sensitivity import PART, RATIO, RISK, scales
from ..kernels.trail import Field, settings
from ._gradient_rules import VANISHING
from ._latency import SLOW
from ._learning import LOSS_SETTINGS, Followed, has_norm, is_training_loss, losses_of, progress
from ._trail import Floats, Onset, Trail, Verdict, evidence, sureness
from ._trail_detector import TrailDetector

__all__ = ["GradientVanishingDetector"]

_NORMS = ("grad_norm", "gradient")
_EARLY = math.log2(100.0)  # while fewer than 8 values are known, only a hundredfold change counts
_STARVED = 1.5  # power of `layer_ratio` at which a falling loss excuses nothing
_ZEROS = 16  # in a row
_LAYERS = 3  # fewer have no usual norm


@detectors.register("gradient_vanishing")
@dataclass(frozen=True)
class GradientVanishingDetector(TrailDetector):
    """Vanishing gradients: norms fade by orders of magnitude before the loss is learnt.

    What it detects
    ---------------
    A gradient norm that falls to at most `ratio` of its own normal level and
    stays there (zeros too), and layers near the input whose norm is at most
    `layer_ratio` of that near the output, while the loss has come nowhere. A
    run that has converged has small gradients and is healthy.

    Why it matters
    --------------
    Layers without a gradient do not learn: deep sigmoid or tanh stacks, dead
    rectifiers, a detached graph. The loss then looks like a plateau, and more
    epochs do not help.

    How it decides
    --------------
    On the logarithm of the norm. The normal level is the second highest of at
    most 24 medians over the history (the highest may be one transient); the
    median of the last 16 values must lie below `ratio` of it, and the history
    since must stay below the seven tenths power of `ratio`, for `persistence`
    of the run. Whether that is a fault, the training loss says: with less than `learnt` of
    its start gone it is high, with more it is convergence and nothing is said.
    Without a loss it is medium, and high only where the norm of the whole model
    is exactly zero. A single layer of exact zeros may be frozen on purpose: it
    is medium at most, and nothing where it never had a gradient.
    Layers are compared in the order in which they are logged: the weakest of
    the first half against the median of the second (AutoTrainer, ICSE 2021:
    1e-3 between first and last layer); at `layer_ratio` to the power of 1.5 it is
    medium whatever the loss does.

    Parameters
    ----------
    ratio : float
        Norm over its normal level.
    layer_ratio : float
        Norm of a layer near the input over that of layers near the output.
    learnt : float
        Part of its start that the loss must have lost to count as converging.
    persistence : float
        Part of the run for which it must last (at least `min_points` values; 16 of exact
        zeros).
    min_points : int
        Values of a series below which nothing is judged.

    Evidence
    --------
    ``rule`` (fading, layers), ``series``, ``ratio``, ``layer_ratio``,
    ``baseline``, ``last``, ``zeros`` (in a row at the end), ``layers``,
    ``loss_progress``, ``persistence_steps``, ``onset_step``, ``onset_low``,
    ``onset_high``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> signals = [Signal("grad_norm", 1.0 if i < 50 else 1e-6, step=i) for i in range(100)]
    >>> signals += [Signal("loss", 2.3, step=i) for i in range(100)]
    >>> found = GradientVanishingDetector().detect(signals)
    >>> found.severity.value, found.onset_step
    ('high', 50)
    """

    failure_mode = FailureMode.VANISHING_GRADIENTS
    required_signals = _NORMS
    attribution_rules = VANISHING
    latency = SLOW
    sensitivity_scales = scales(
        ratio=RATIO.within(0.0, 0.5),
        layer_ratio=RATIO.within(0.0, 0.5),
        learnt=RISK,
        persistence=PART,
    )

    ratio: float = 1e-3
    layer_ratio: float = 1e-3
    learnt: float = 0.5
    persistence: float = 0.05
    min_points: int = 20

    def __post_init__(self) -> None:
        for name in ("ratio", "layer_ratio"):
            check_range(name, getattr(self, name), 0.0, 0.5, open_low=True)
        check_fraction(learnt=self.learnt, persistence=self.persistence)
        check_count(8, min_points=self.min_points)

    @property
    def _gone(self) -> int:
        """Zeros in a row that are judged."""
        return min(self.min_points, _ZEROS)

    @cached_property
    def _settings(self) -> Floats:
        return settings(
            logarithm=True,
            sign=-1,
            floor=math.log(2.0),
            early=_EARLY,
            rise=-0.7 * math.log(self.ratio),
        )

    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Gradient norms; the training loss as a witness."""
        if key.name in _NORMS:
            return self._settings
        return LOSS_SETTINGS if is_training_loss(key) else None

    def enough(self, key: SeriesKey) -> int | None:
        """Every norm is judged."""
        return self.min_points if key.name in _NORMS else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Judge one norm by itself; values are folded as -log, so a fading norm rises."""
        groups = trail.groups
        if len(groups.levels) < 3:
            return None
        usual = float(np.partition(groups.levels, 1)[1])
        asked = -math.log(self.ratio)
        if trail.now - usual < asked:
            return None
        zeros = int(trail[Field.ZEROS])
        line = usual + 0.7 * asked
        first = groups.trailing(line)
        length = max(
            (len(groups.levels) - first) * groups.points,
            zeros,
            trail.excursion if trail[Field.BASE_LEVEL] < line else 0,
        )
        # Exact zeros after values that were none are no matter of noise: an excursion that has
        # triggered (16 values) is long enough.
        asked_for = self._gone if zeros >= self._gone else self.min_points
        if length < max(asked_for, self.persistence * trail.count):
            return None
        if zeros >= self._gone:
            step = trail.step(Field.ZERO_STEP)
            onset = Onset(step, step, step)
        else:
            since = groups.steps[min(first, len(groups.steps) - 1)]
            band = max(3 * groups.noise, math.log(2.0))
            onset = trail.departure(since, _before(trail, float(since), usual), band)
        last = 0.0 if zeros else math.exp(-trail.now)
        return Verdict(
            Severity.MEDIUM,
            0.6,
            onset,
            f"the gradient norm fell from {math.exp(-usual):.4g} to {last:.4g} for {length} values",
            evidence(
                rule="fading",
                ratio=last / math.exp(-usual),
                baseline=math.exp(-usual),
                last=last,
                zeros=zeros,
                persistence_steps=length,
            ),
        )

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        """Ask the loss whether this is convergence."""
        if has_norm(key, followed):
            return None
        losses = losses_of(key, followed, self.min_points)
        zeros = verdict.evidence.get("zeros", 0) >= self._gone
        if not losses:
            certain = zeros and key.layer is None
            return replace(verdict, severity=Severity.HIGH, confidence=0.8) if certain else verdict
        learnt = max(progress(loss) for loss in losses)
        if learnt >= self.learnt:
            # Biases and the last layers can learn alone while nothing reaches the first.
            starved = verdict.evidence.get("layer_ratio", 1.0) <= self.layer_ratio**_STARVED
            return verdict if starved else None
        # One layer of many may be frozen on purpose, or small by its nature.
        some = key.layer is not None and (zeros or learnt >= 0.5 * self.learnt)
        fallen = verdict.evidence.get("ratio", verdict.evidence.get("layer_ratio", 0.0))
        excess = math.log(max(fallen, 1e-300)) / math.log(self.ratio)
        return replace(
            verdict,
            severity=Severity.MEDIUM if some else Severity.HIGH,
            confidence=0.5 if some else sureness(excess),
            message=f"{verdict.message}; the loss has lost {max(learnt, 0.0):.0%} of its start",
            evidence={**verdict.evidence, "loss_progress": round(learnt, 6)},
        )

    def stands(self, key: SeriesKey, followed: Sequence[Followed], context: Context) -> bool:
        """Small gradients that came and went in a run that learnt are nothing."""
        losses = losses_of(key, followed, self.min_points)
        return not has_norm(key, followed) and all(progress(x) < self.learnt for x in losses)

    def across(
        self, followed: Sequence[Followed], context: Context
    ) -> Iterable[tuple[SeriesKey, Verdict]]:
        """Compare the layers of each replica."""
        places: dict[tuple[object, ...], list[Followed]] = {}
        for key, trail in followed:
            frozen = trail[Field.ZEROS] == trail.count
            if key.layer is not None and self.enough(key) and not frozen:
                place = (key.name, key.run, key.segment, key.replica_id)
                places.setdefault(place, []).append((key, trail))
        for layers in places.values():
            if len(layers) >= _LAYERS and all(t.count >= self.min_points for _, t in layers):
                yield from self._faded(layers, followed, context)

    def _faded(
        self, layers: Sequence[Followed], followed: Sequence[Followed], context: Context
    ) -> Iterator[tuple[SeriesKey, Verdict]]:
        norms = np.array([-trail.now for _, trail in layers])
        half = len(norms) // 2
        usual = float(np.median(norms[half:]))
        weakest = int(np.argmin(norms[: max(1, half)]))
        key, trail = layers[weakest]
        distance = float(norms[weakest]) - usual
        if distance > math.log(self.layer_ratio) or self.judge(key, trail) is not None:
            return
        ratio = math.exp(max(distance, -700.0))
        step = trail.step(Field.FIRST_STEP)
        verdict = Verdict(
            Severity.MEDIUM,
            0.6,
            Onset(step, step, step),
            f"the gradient norm of {key.layer} is {math.exp(norms[weakest]):.3g}, "
            f"{ratio:.2g} times that of the layers near the output",
            evidence(
                rule="layers",
                layer_ratio=ratio,
                baseline=math.exp(usual),
                last=math.exp(float(norms[weakest])),
                layers=len(layers),
                zeros=int(trail[Field.ZEROS]),
                persistence_steps=trail.count,
            ),
        )
        weighed = self.weigh(key, verdict, followed, context)
        if weighed is not None:
            yield key, weighed


def _before(trail: Trail, since: float, usual: float) -> float:
    """Return the level from which the fall began: that of the groups before it, not the best."""
    groups = trail.groups
    calm = groups.levels[groups.steps < since]
    return float(np.median(calm)) if len(calm) else usual
