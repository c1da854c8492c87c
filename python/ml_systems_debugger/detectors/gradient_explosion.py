"""`GradientExplosionDetector`: gradient norms grow by orders of magnitude and stay there."""

# ruff: noqa: ARG002 - the hooks of `TrailDetector` have the same arguments everywhere
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
from ..core.sensitivity import DISTANCE, PART, RATIO, scales
from ..kernels.trail import Field, settings
from ._gradient_growth import sum_began
from ._gradient_rules import EXPLOSION
from ._learning import (
    LOSS_SETTINGS,
    RATE_SETTINGS,
    Followed,
    has_norm,
    is_learning_rate,
    is_training_loss,
    losses_of,
    suffers,
)
from ._trail import Floats, Onset, Trail, Verdict, evidence, sureness
from ._trail_detector import TrailDetector

__all__ = ["GradientExplosionDetector"]

_NORMS = ("grad_norm", "gradient")
_EARLY = math.log2(100.0)  # while fewer than 8 values are known, only a hundredfold change counts
_SHORT = 16  # values that a verdict takes, however plain it is
_WINDOW = 32
_FEW = 3
_DEVIATION = 1.2533  # sigma of a normal law over its mean absolute deviation
_OF_LAYERS = 1.0 / 3.0  # that show a sum: what is added up is so in all of them
_LARGEST = 700.0  # exp of more is no float


@detectors.register("gradient_explosion")
@dataclass(frozen=True)
class GradientExplosionDetector(TrailDetector):
    """Exploding gradients: norms grow by orders of magnitude and stay, or break.

    What it detects
    ---------------
    A gradient norm (of the model, a layer, a replica; of arrays the Euclidean
    one) that rises to at least `ratio` times its normal level and stays there,
    grows slowly far beyond the first half of the run, or grows until it is not
    finite. Single outliers are none of it: recurrent networks and early
    training have them while they learn well.

    Why it matters
    --------------
    One step along an exploded gradient can undo the training so far. Where it
    began (layer, step) tells an unstable layer from a learning rate too high.

    How it decides
    --------------
    On the logarithm of the norm: a running level and scale that each value
    moves by a bounded amount (Huber, 1981) take the place of a mean, which
    the explosion itself would drag along (ZClip, 2025, has the same aim).
    An excursion begins `sigmas` above that level, and is judged once it has
    lasted 16, 32, 64, ... values: its median must be `ratio` times the level
    before it (`early_ratio` where fewer than 8 values came before), for at
    least `persistence` of the run, without falling back. It is high where the
    norm is also `over_highest` times above every earlier level, or the ratio
    is ten times what is asked for, or the loss rises with it; it is medium at
    most where the loss logged beside it does not suffer. Growth that ends in
    NaN or Inf, with nothing finite after it, is critical; a skipped
    mixed-precision step, after which norms go on, is not. A history that breaks
    off within 16 values of growth by `early_ratio` is medium. So is a fourfold growth
    that follows a power of the steps since its onset, as gradients do that are added
    up because nothing sets them to zero.

    Parameters
    ----------
    ratio : float
        Growth over the normal level (TheDeepChecker: 2 per check, 5 in a row;
        AutoTrainer: 70 between layers).
    early_ratio : float
        The same while fewer than 8 values are known.
    over_highest : float
        Factor over the highest earlier level.
    sigmas : float
        Nomination, in running standard deviations of the log norm.
    persistence : float
        Part of the run for which it must last (at least `min_points` values;
        16 where the growth is the third power of `ratio`).
    min_points : int
        Values of a series below which nothing is judged.

    Evidence
    --------
    ``rule`` (jump, growth, growth_then_non_finite, breaks_off, sum), ``series``, ``ratio``,
    ``baseline``, ``last``, ``peak``, ``peak_step``, ``start``, ``highest_before``,
    ``z``, ``persistence_steps``, ``growth`` (linear, where it is that of a sum),
    ``loss_suffers``, ``onset_step``,
    ``onset_low``, ``onset_high``, ``first_non_finite_step``, ``recovered``,
    ``at_once``, ``lr_at_onset``, ``lr_jump``, ``lr_is_constant``, ``lr_max``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> norms = [1.0, 1.2, 0.9, 1.1] * 15 + [250.0] * 30
    >>> found = GradientExplosionDetector().detect(
    ...     [Signal("grad_norm", x, step=i) for i, x in enumerate(norms)])
    >>> found.severity.value, found.onset_step
    ('high', 60)
    """

    failure_mode = FailureMode.EXPLODING_GRADIENTS
    required_signals = _NORMS
    attribution_rules = EXPLOSION
    sensitivity_scales = scales(
        ratio=RATIO, early_ratio=RATIO, over_highest=RATIO, sigmas=DISTANCE, persistence=PART
    )

    ratio: float = 10.0
    early_ratio: float = 100.0
    over_highest: float = 3.0
    sigmas: float = 6.0
    persistence: float = 0.01
    min_points: int = 20

    def __post_init__(self) -> None:
        for name in ("ratio", "early_ratio", "over_highest"):
            check_range(name, getattr(self, name), 1.0, 1e300, open_low=True)
        check_range("sigmas", self.sigmas, 0.0, 1e6, open_low=True)
        check_fraction(persistence=self.persistence)
        check_count(8, min_points=self.min_points)

    @cached_property
    def _settings(self) -> Floats:
        return settings(
            logarithm=True,
            sigmas=self.sigmas,
            floor=math.log(2.0),
            early=_EARLY,
            rise=math.log(self.ratio),
        )

    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Gradient norms; the training loss and the learning rate as witnesses."""
        if key.name in _NORMS:
            return self._settings
        if is_training_loss(key):
            return LOSS_SETTINGS
        return RATE_SETTINGS if is_learning_rate(key) else None

    def enough(self, key: SeriesKey) -> int | None:
        """Every norm is judged."""
        return self.min_points if key.name in _NORMS else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Judge one norm by itself."""
        return (
            self._broken(trail)
            or self._jump(trail)
            or self._growth(trail)
            or self._last_words(trail)
        )

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        """Ask the loss whether it suffers."""
        if has_norm(key, followed):
            return None
        losses = losses_of(key, followed, self.min_points)
        if verdict.severity is Severity.CRITICAL or not losses:
            return verdict
        hurt = any(loss.broke or suffers(loss, verdict.onset.step) for loss in losses)
        facts = {**verdict.evidence, "loss_suffers": hurt}
        if hurt:
            return replace(verdict, severity=Severity.HIGH, evidence=facts)
        return replace(
            verdict,
            severity=min(verdict.severity, Severity.MEDIUM),
            confidence=0.5 * verdict.confidence,
            message=f"{verdict.message} (the loss does not suffer)",
            evidence=facts,
        )

    def stands(self, key: SeriesKey, followed: Sequence[Followed], context: Context) -> bool:
        """Judge arrays by the norm that is given, where it is."""
        return not has_norm(key, followed)

    def across(
        self, followed: Sequence[Followed], context: Context
    ) -> Iterable[tuple[SeriesKey, Verdict]]:
        """Judge lesser growth that is that of a sum; a layer alone shows none."""
        places: dict[SeriesKey, list[Followed]] = {}
        for key, trail in followed:
            if self.enough(key) is not None and trail.count >= self.min_points:
                places.setdefault(key._replace(layer=None), []).append((key, trail))
        for whole, norms in places.items():
            begun = {
                k: (t, onset)
                for k, t in norms
                if (onset := sum_began(t, k.layer is None)) is not None
            }
            layers = sum(key.layer is not None for key, _ in norms)
            if whole in begun:
                begun = {whole: begun[whole]}
            elif len(begun) < min(2, layers) or len(begun) < _OF_LAYERS * layers:
                continue
            for key, (trail, onset) in begun.items():
                if self.judge(key, trail) is not None:
                    break
                found = self.weigh(key, self._summed(trail, onset), followed, context)
                if found is not None:
                    yield key, found
                    break

    def _summed(self, trail: Trail, onset: Onset) -> Verdict:
        steps, width = trail.entries[1], trail.entries[2]
        groups = trail.groups
        base = float(np.median(groups.levels[groups.steps < onset.step]))
        length = int((steps >= onset.step).sum()) * width
        found = self._verdict(trail, base, base, trail.now, length, onset, "sum")
        facts = {**found.evidence, "growth": "linear"}
        return replace(found, severity=Severity.MEDIUM, confidence=0.65, evidence=facts)

    def _broken(self, trail: Trail) -> Verdict | None:
        """Judge growth that ends in a non-finite norm, after which nothing finite came."""
        length = trail.excursion
        if not trail.broke or not length:
            return None
        base, last = trail[Field.BASE_LEVEL], trail[Field.LAST]
        if last - base < math.log(self.ratio):
            return None
        bad = trail.step(Field.FIRST_BAD_STEP)
        onset = trail.excursion_onset()
        found = self._verdict(trail, base, base, last, length, onset, "growth_then_non_finite")
        return replace(
            found,
            severity=Severity.CRITICAL,
            confidence=0.98,
            message=f"{found.message}, and is not finite from step {bad}",
            evidence={**found.evidence, "first_non_finite_step": bad},
        )

    def _jump(self, trail: Trail) -> Verdict | None:
        """Judge an excursion that goes on; its onset is exact."""
        length = trail.excursion
        if length < _SHORT:
            return None
        base = trail[Field.BASE_LEVEL]
        window = trail.recent[-min(length, _WINDOW) :]
        now, low = (float(q) for q in np.quantile(window, (0.5, 0.2)))
        asked = math.log(self.ratio if trail[Field.START_INDEX] >= 8 else self.early_ratio)
        long = max(self.min_points, self.persistence * trail.count)
        if now - base < asked or length < (_SHORT if now - base >= 3 * asked else long):
            return None
        if low - base < 0.7 * asked:
            return None
        groups = trail.groups
        earlier = groups.levels[groups.steps < trail[Field.START_STEP]]
        highest = max(base, trail.first_level, float(earlier[:-1].max(initial=-math.inf)))
        onset = trail.excursion_onset()
        found = self._verdict(trail, base, highest, now, length, onset, "jump")
        plain = now - highest >= math.log(self.over_highest) or now - base >= 2 * asked
        return found if plain else replace(found, severity=Severity.MEDIUM)

    def _last_words(self, trail: Trail) -> Verdict | None:
        """Judge a history that breaks off, or is asked, in the first steps of an explosion."""
        length = trail.excursion
        base = trail[Field.BASE_LEVEL]
        if not _FEW <= length < _SHORT or trail[Field.START_INDEX] < 8:
            return None
        now = float(trail.recent[-_FEW:].min())
        if now - base < math.log(self.early_ratio):
            return None
        found = self._verdict(trail, base, base, now, length, trail.excursion_onset(), "breaks_off")
        return replace(found, severity=Severity.MEDIUM, confidence=0.6)

    def _growth(self, trail: Trail) -> Verdict | None:
        """Judge slow growth, far above every level of the first half of the run."""
        groups = trail.groups
        levels = groups.levels
        if len(levels) < 6:
            return None
        half = levels[: len(levels) // 2]
        now = min(float(levels[-1]), trail.now)
        highest = max(float(half.max()), trail[Field.FIRST])
        usual = float(np.median(half))
        step = math.log(self.ratio)
        if now - highest < step or now - usual < 2 * step:
            return None
        first = groups.trailing(highest + 0.5 * step)
        length = (len(levels) - first) * groups.points
        if length < max(self.min_points, self.persistence * trail.count):
            return None
        onset = trail.departure(groups.steps[first], usual, 3 * max(groups.noise, 0.1))
        return self._verdict(trail, usual, highest, now, length, onset, "growth")

    def _verdict(
        self,
        trail: Trail,
        base: float,
        highest: float,
        now: float,
        length: int,
        onset: Onset,
        rule: str,
    ) -> Verdict:
        ratio = math.exp(min(now - base, _LARGEST))
        scale = _DEVIATION * max(trail[Field.BASE_SCALE], 1e-3)
        return Verdict(
            Severity.HIGH,
            sureness((now - base) / math.log(self.ratio)),
            onset,
            f"the gradient norm rose from {math.exp(base):.4g} to {_exp(now):.4g} "
            f"({ratio:.3g} times) for {length} values",
            evidence(
                rule=rule,
                ratio=ratio,
                baseline=math.exp(base),
                last=_exp(now),
                highest_before=_exp(highest),
                peak=_exp(trail[Field.MAX]),
                peak_step=trail.step(Field.MAX_STEP),
                start=_exp(trail[Field.FIRST]),
                z=(now - base) / scale,
                persistence_steps=length,
                growth="linear" if sum_began(trail) is not None else None,
            ),
        )


def _exp(value: float) -> float:
    return math.exp(min(value, _LARGEST))
