"""`DivergentTrainingDetector`: the loss has left the way down and stays away."""

# ruff: noqa: ARG002 - the hooks of `TrailDetector` have the same arguments everywhere
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

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
from ..core.sensitivity import DISTANCE, PART, scales
from ..kernels.trail import Field, settings
from ._learning import (
    RATE_SETTINGS,
    Followed,
    held_out_rise,
    is_learning_rate,
    is_training_loss,
)
from ._loss_rules import DIVERGENCE
from ._rise import HUGE, SHORT, broken, bursts, last_words, rise_verdict, start_line, thrown
from ._trail import Floats, Trail, Verdict, jitter, wander
from ._trail_detector import TrailDetector

__all__ = ["DivergentTrainingDetector"]

_WINDOW = 32
_FAR = 3.0
_MOST = 0.8  # of the values since the onset stay above the middle
_FAINT = 1.0 / 3.0  # of `rise`: lost progress that matters, but not for sure,
_SHIFTED, _LONG = 0.4, 0.05  # of `lost_gain`, and of the run, for a level that changed at once:
_AT_ONCE = 0.6  # this part of the rise by the first entry of the history behind it
_LEARNT = 0.25  # where there was some, as a part of the best level


@detectors.register("divergent_training")
@dataclass(frozen=True)
class DivergentTrainingDetector(TrailDetector):
    """Divergent training: the loss climbs off its way down and does not come back.

    What it detects
    ---------------
    A training loss that stands, for long, well above its best level or above
    where it began: after a blow-up in the first steps, a climb, a fall back to
    the loss of chance, or in bursts that return again and again. Held-out
    losses rise for another reason (overfitting); they are judged only where no
    training loss is logged.

    Why it matters
    --------------
    Such a run is lost from the onset on. Most often the learning rate is too
    high; a restart from a checkpoint before the onset with a lower one saves it.

    How it decides
    --------------
    An excursion is nominated where a value leaves a robust running level by
    `sigmas` of its running scale (both moved by a bounded amount per value:
    Huber, Robust Statistics, 1981), and every series is looked at again each
    time it has grown by an eighth. A nomination is no verdict. The verdict
    compares medians: the recent level must exceed the best of at most 24
    medians over the history (a remedian, Rousseeuw and Bassett, JASA 85, 1990)
    by the greatest of `lost_gain` of all progress, `rise` of the best level
    (TheDeepChecker alarms at a whole one), and `noise_factor` times the
    distance at which the medians stray from their isotonic fit downwards, so
    that slow noise such as AR(0.9) does not count as a climb. Four of five
    values since must stay above half of that, over at least `persistence` of
    the run. Where the loss never was below its
    start, or for good above it, it must stand above the start by `start_rise`
    and, since the start is one value that may have been a lucky one, by two
    spreads of the last values (four where later ones went below the start);
    with less than that a held-out loss above its own start must confirm it.
    Bursts: three or more, and a fifth of the last quarter lies above the start
    by `start_rise` and over the best level five times as high as in the calmest
    stretch. A third of `rise` is a medium finding, and so are a third of it and two
    fifths of `lost_gain` where most of them came at once and stay for a twentieth of
    the run; what recovers
    becomes one, or a low one where its peak rose less than three times what is asked.
    A history that breaks off within 16 values of ten times that is medium; so is a
    loss that the first 20 updates raised tenfold and that in 64 values or more has
    not come below its start.

    Parameters
    ----------
    lost_gain : float
        Part of the progress (first loss minus best level) that must be lost.
    rise : float
        Rise over the best level, as a part of its absolute value.
    start_rise : float
        The same over the first loss, where no level was below it.
    noise_factor : float
        Rise in units of how far the medians stray from the best way down.
    sigmas : float
        Nomination of an excursion, in running standard deviations.
    persistence : float
        Part of the run for which it must last (`min_points` values at least;
        16 where the rise is ten times what is asked for).
    min_points : int
        Values of a series below which nothing is judged.

    Evidence
    --------
    ``rule`` (jump, shift, climb, bursts, thrown, growth_then_non_finite, breaks_off), ``series``,
    ``start``, ``best``, ``last``, ``rise``, ``asked``, ``ratio`` (last over
    best), ``lost_gain`` (part of the progress), ``above_start``,
    ``held_out_rise``, ``peak``, ``peak_step``, ``early_peak`` (over the start),
    ``to_start`` (it went straight back to the level of the start),
    ``persistence_steps``, ``onset_step``,
    ``onset_low``, ``onset_high``, ``noise``, ``recovered``,
    ``first_non_finite_step``, ``at_once``, ``lr_at_onset``, ``lr_jump``,
    ``lr_is_constant``, ``lr_max``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> losses = [2.0 * 0.97**i for i in range(100)] + [9.0] * 40
    >>> found = DivergentTrainingDetector().detect(
    ...     [Signal("loss", x, step=i) for i, x in enumerate(losses)])
    >>> found.severity.value, found.onset_step
    ('high', 100)
    """

    failure_mode = FailureMode.DIVERGENT_TRAINING
    required_signals = ("loss",)
    attribution_rules = DIVERGENCE
    sensitivity_scales = scales(
        lost_gain=DISTANCE,
        rise=DISTANCE,
        start_rise=DISTANCE,
        noise_factor=DISTANCE,
        sigmas=DISTANCE,
        persistence=PART,
    )

    lost_gain: float = 0.5
    rise: float = 0.3
    start_rise: float = 0.5
    noise_factor: float = 6.0
    sigmas: float = 6.0
    persistence: float = 0.01
    min_points: int = 20

    def __post_init__(self) -> None:
        check_positive(
            lost_gain=self.lost_gain,
            rise=self.rise,
            start_rise=self.start_rise,
            noise_factor=self.noise_factor,
            sigmas=self.sigmas,
        )
        check_fraction(persistence=self.persistence)
        check_count(8, min_points=self.min_points)

    @cached_property
    def _settings(self) -> Floats:
        return settings(
            sigmas=self.sigmas,
            relative=0.1,
            early=5.0,
            rise_of_gain=0.5 * self.lost_gain,
            rise_of_best=_FAINT * self.rise,
        )

    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Losses; the learning rate as a witness."""
        if key.name == "loss" and key.kind is SeriesKind.SCALAR and key.layer is None:
            return self._settings
        return RATE_SETTINGS if is_learning_rate(key) else None

    def enough(self, key: SeriesKey) -> int | None:
        """Every loss is judged."""
        return self.min_points if key.name == "loss" else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Judge a training loss by itself; held-out ones wait for `across`."""
        return None if key.held_out else self._judged(trail)

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        """Ask held-out losses, which are means over a data set, where noise leaves a doubt."""
        if verdict.severity > Severity.MEDIUM or verdict.evidence["above_start"] <= 0:
            return verdict
        rise = held_out_rise(key, followed, self.start_rise)
        if rise is not None:
            facts = {**verdict.evidence, "held_out_rise": round(rise, 6)}
            return replace(verdict, severity=Severity.HIGH, evidence=facts)
        return None if verdict.severity is Severity.LOW else verdict

    def settled(self, before: Finding, step: int) -> Finding | None:
        """Close it; what recovered matters where it was far, not where it was a mere hill."""
        facts = before.evidence
        far = max(facts["rise"], facts["peak"] - facts["best"]) >= _FAR * facts["asked"]
        found = super().settled(before, step)
        return found if far or found is None else replace(found, severity=Severity.LOW)

    def across(
        self, followed: Sequence[Followed], context: Context
    ) -> Iterable[tuple[SeriesKey, Verdict]]:
        """Judge held-out losses where the run has no training loss."""
        if any(is_training_loss(key) for key, _ in followed):
            return
        for key, trail in followed:
            if key.name == "loss" and trail.count >= self.min_points:
                verdict = self._judged(trail)
                if verdict is not None and verdict.evidence["above_start"] > 0:
                    yield key, verdict

    def _judged(self, trail: Trail) -> Verdict | None:
        best, asked = self._asked(trail, len(trail.groups.levels))
        return (
            broken(trail, best, asked)
            or self._jump(trail)
            or self._climb(trail)
            or bursts(trail, self.start_rise)
            or thrown(trail)
            or last_words(trail, best, asked)
        )

    def _asked(
        self, trail: Trail, before: int, part: float = 1.0, of_gain: float = 1.0
    ) -> tuple[float, float]:
        """Return the best level of the first `before` groups, and the rise above it that is much.

        `part` lowers what is asked of that rise, `of_gain` of the lost progress, which is
        measured from the first value or the median of the first eight, whichever is
        lower: neither a blow-up in the second step nor one wild first value is a start.
        """
        groups = trail.groups
        first = trail[Field.FIRST]
        calm = groups.levels[:before]
        if not len(calm) or first < calm.min():
            return start_line(trail, self.start_rise)
        best = float(calm.min())
        gain = min(first, trail.first_level) - best
        # Behind the best level there may be the climb itself, which is no noise.
        stray = wander(calm[: int(np.argmin(calm)) + 1])
        noise = self.noise_factor * max(stray, jitter(groups.levels)) + 3 * groups.noise
        return best, max(of_gain * self.lost_gain * gain, part * self.rise * abs(best), noise)

    def _long(self, trail: Trail) -> float:
        return max(self.min_points, self.persistence * trail.count)

    def _jump(self, trail: Trail) -> Verdict | None:
        """Judge an excursion that goes on; its onset is exact."""
        length = trail.excursion
        if length < SHORT:
            return None
        groups = trail.groups
        before = int(np.searchsorted(groups.steps, trail[Field.START_STEP], "left"))
        best, asked = self._asked(trail, before)
        window = trail.recent[-min(length, _WINDOW) :]
        now = float(np.median(window))
        rise = now - best
        if rise < asked:
            return self._shift(trail, before, now, length)
        if length < (SHORT if rise >= HUGE * asked else self._long(trail)):
            return None
        if np.mean(window > best + 0.5 * asked) < _MOST:
            return None
        onset = trail.rise_onset(best, max(3 * groups.noise, 0.25 * asked))
        return rise_verdict(trail, best, now, asked, length, onset, "jump")

    def _shift(self, trail: Trail, before: int, now: float, length: int) -> Verdict | None:
        """Judge a lesser rise that came with one step and stays, as with other data."""
        best, asked = self._asked(trail, before, _FAINT, _SHIFTED)
        values, steps, _ = trail.entries
        since = values[int(np.searchsorted(steps, trail[Field.START_STEP])) :]
        if now - best < asked or length < max(_WINDOW, _LONG * trail.count) or len(since) < 3:
            return None
        base = trail[Field.BASE_LEVEL]
        sudden = float(since[1]) - base >= _AT_ONCE * (float(since[1:].max()) - base)
        if not sudden or np.mean(since[1:] > best + 0.5 * asked) < _MOST:
            return None
        onset = trail.excursion_onset()
        found = rise_verdict(trail, best, now, asked, length, onset, "shift")
        return replace(found, severity=Severity.MEDIUM)

    def _lines(self, trail: Trail) -> Iterator[tuple[tuple[float, float], Severity, float]]:
        """Yield levels with the rise asked over them, what it then is, and for how long."""
        groups = len(trail.groups.levels)
        yield self._asked(trail, groups), Severity.HIGH, self._long(trail)
        yield start_line(trail, self.start_rise), Severity.HIGH, self._long(trail)
        best, asked = self._asked(trail, groups, _FAINT)
        if trail[Field.FIRST] - best >= _LEARNT * abs(best):
            yield (best, asked), Severity.MEDIUM, 0.05 * trail.count
        # Nothing by itself: a held-out loss must confirm it.
        yield start_line(trail, self.start_rise, doubt=False), Severity.LOW, 0.1 * trail.count

    def _climb(self, trail: Trail) -> Verdict | None:
        """Judge a level above the best one for long, however it came there."""
        groups = trail.groups
        if len(groups.levels) < 3:
            return None
        now = min(float(groups.levels[-1]), trail.now)
        for (best, asked), severity, long in self._lines(trail):
            first = groups.trailing(best + 0.5 * asked)
            length = (len(groups.levels) - first) * groups.points
            if now - best < asked or length < max(self.min_points, long):
                continue
            values, steps, _ = trail.entries
            since = groups.steps[first]
            if np.mean(values[steps >= since] > best + 0.5 * asked) < _MOST:
                continue
            level = float(groups.levels[:first].min(initial=best))
            onset = trail.departure(since, level, 3 * groups.noise)
            found = rise_verdict(trail, best, now, asked, length, onset, "climb")
            return replace(found, severity=severity)
        return None
