"""`LossPlateauDetector`: training goes on and nothing is learnt."""

# ruff: noqa: ARG002 - the hooks of `TrailDetector` have the same arguments everywhere
from __future__ import annotations

import math
from collections.abc import Sequence
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
    check_range,
    detectors,
)
from ..core.sensitivity import RISK, SLACK, scales
from ..kernels.trail import EARLY, Field, settings
from ._latency import SLOW
from ._learning import (
    RATE_SETTINGS,
    Followed,
    is_learning_rate,
    is_training_loss,
    learning_rate_facts,
    losses_of,
    progress,
)
from ._loss_rules import PLATEAU
from ._trail import Floats, Onset, Trail, Verdict, evidence, spread
from ._trail_detector import TrailDetector

__all__ = ["LossPlateauDetector"]

_HIGHEST_CHANCE = 0.6  # the larger of two classes is rarely more; beyond it accuracy says skill
_PLAIN = 0.05  # part of its start that an accuracy has to gain to be called rising
_SMALL = 0.005  # accuracy that nobody would call learnt
_MUCH = 0.05  # noise of an accuracy beyond which it is none
_LEARNT, _FEW_CLASSES = 0.3, 0.2  # part of its start that a loss has lost; chance of five classes
_RESUMED = 0.1  # of the steps seen: a history that begins later begins in the middle
_FEW = 5
_MEDIAN_ERROR = math.sqrt(math.pi / 2)  # of a median, in those of a mean, where noise is normal
_TINY_RATE = 1e-6  # no usual optimizer gets anywhere from a random start with less
_WITNESS = 10  # values of a training loss from which it can say that something was learnt


@detectors.register("loss_plateau")
@dataclass(frozen=True)
class LossPlateauDetector(TrailDetector):
    """Loss plateau: training goes on and nothing is learnt.

    What it detects
    ---------------
    An accuracy that stands where it began (at chance), also after it had been
    better; and a training loss that is as high at the end as at the start. A
    loss that fell and then is flat has most likely converged and is healthy.

    Why it matters
    --------------
    The run costs and gives nothing: a learning rate too low or zero, dead
    units, shuffled labels, parameters that the optimiser does not know, or a
    blow-up after which the model only knows the class frequencies.

    How it decides
    --------------
    A flat loss cannot tell stuck from converged; an accuracy can. The median
    of its last quarter must be no more than `chance_factor` times its first
    value (or above it by three spreads of its noise, at most 0.05), with at
    most a tenth of what was left to gain; or the accuracy of the whole second
    half is one and the same number, which only a constant prediction gives,
    below a quarter of what was left to gain. Accuracies over 0.6 never count.
    ``num_classes`` in the context confirms it (1 / num_classes is chance) or
    makes it medium; without it, an accuracy above 0.2 beside a training loss
    that has lost three tenths of its start is medium. Live, such a finding is
    retracted as soon as it learns.

    The loss: the Theil-Sen slope (Sen, JASA 63, 1968) of at most 24 medians,
    over the whole run, and the distance from start to end, lie inside an
    equivalence bound of `flat` of the level plus two standard errors. A
    Mann-Kendall test would reject flatness on 70 % of AR(0.9) series; a bound
    on the effect does not. What only the noise of single values explains (an early
    level or a line that strays by no more than two of its standard errors) is flat
    where the learning rate never exceeds 1e-6. It is medium at most, and nothing where the history
    does not begin with the run.

    Parameters
    ----------
    chance_factor : float
        Accuracy over its first value that still counts as chance.
    flat : float
        Change over the run, as a part of the level, that counts as none.
    min_points : int
        Evaluations of an accuracy below which it is not judged.
    min_loss_points : int
        Values of a loss below which it is not judged.

    Evidence
    --------
    ``rule`` (accuracy_at_start, flat_from_start), ``series``, ``start``,
    ``last``, ``best``, ``best_step``, ``gain`` (part of what was left to
    gain), ``constant``, ``was_better``, ``rises``, ``chance``, ``change``, ``bound``, ``in_noise``,
    ``persistence_steps``, ``onset_step``, ``onset_low``, ``onset_high``,
    ``lr_at_onset``, ``lr_jump``, ``lr_is_constant``, ``lr_max``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> stuck = [Signal("val_accuracy", 0.1, step=i) for i in range(20)]
    >>> found = LossPlateauDetector().detect(stuck)
    >>> found.severity.value, found.onset_step
    ('high', 0)
    """

    failure_mode = FailureMode.LOSS_PLATEAU
    required_signals = ("loss", "accuracy")
    attribution_rules = PLATEAU
    latency = SLOW
    sensitivity_scales = scales(chance_factor=SLACK.within(1.0, 100.0), flat=RISK)

    chance_factor: float = 1.3
    flat: float = 0.02
    min_points: int = 10
    min_loss_points: int = 100

    def __post_init__(self) -> None:
        check_range("chance_factor", self.chance_factor, 1.0, 100.0)
        check_fraction(flat=self.flat)
        check_count(_FEW, min_points=self.min_points)
        check_count(40, min_loss_points=self.min_loss_points)

    @cached_property
    def _settings(self) -> Floats:
        return settings(relative=0.1, early=5.0, always=True)

    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Training losses and accuracies; the learning rate as a witness."""
        if self.enough(key) is not None:
            return self._settings
        return RATE_SETTINGS if is_learning_rate(key) else None

    def enough(self, key: SeriesKey) -> int | None:
        """Losses need more values than accuracies, which are means over a data set."""
        if key.name == "accuracy" and key.kind is SeriesKind.SCALAR and key.layer is None:
            return self.min_points
        return self.min_loss_points if is_training_loss(key) else None

    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Judge one series by itself; after a restart its start says nothing of chance."""
        if key.segment:
            return None
        return self._at_chance(key, trail) if key.name == "accuracy" else self._flat(trail)

    def weigh(
        self, key: SeriesKey, verdict: Verdict, followed: Sequence[Followed], context: Context
    ) -> Verdict | None:
        """Compare with chance where the number of classes is known, else ask the loss.

        An accuracy that is first logged after an epoch may begin where it
        converges; then the loss has fallen. At a fifth or less that is no skill.
        """
        if key.name != "accuracy":
            if not verdict.evidence.get("in_noise"):
                return verdict
            rate = learning_rate_facts(key, followed, verdict.onset.step).get("lr_max")
            return None if rate is None or rate > _TINY_RATE else verdict
        last, constant = verdict.evidence["last"], verdict.evidence["constant"]
        classes = context.get("num_classes")
        if isinstance(classes, (int, float)) and classes >= 2:
            chance = 1.0 / float(classes)
            verdict = replace(verdict, evidence={**verdict.evidence, "chance": round(chance, 6)})
            if last <= self.chance_factor * chance:
                return replace(verdict, confidence=0.97)
            skilled = last > 2 * chance
        else:
            losses = losses_of(key, followed, _WITNESS)
            learnt = max((progress(loss) for loss in losses), default=0.0)
            skilled = learnt > _LEARNT and last > _FEW_CLASSES
        if skilled and not constant:
            slow = verdict.evidence.get("rises", False)
            severity = Severity.LOW if slow else Severity.MEDIUM
            return replace(verdict, severity=severity, confidence=0.5)
        return verdict

    def _begins_within_noise(self, trail: Trail, middle: float) -> bool:
        """Return whether the noise of single values explains where the loss began.

        The standard error is that of the median of the first eight values; of the
        first value alone there is one.
        """
        one = spread(trail.recent)
        few = one * _MEDIAN_ERROR / math.sqrt(EARLY)
        flat = self.flat * abs(middle)
        return (
            abs(trail.first_level - middle) <= 2 * (flat + few)
            and trail[Field.FIRST] - middle <= 2 * flat + 3 * one
        )

    def _changes_within_noise(self, trail: Trail, change: float, middle: float) -> bool:
        """Return whether it explains the change: the standard error of a least-squares line."""
        levels = trail.groups.levels
        way = change * np.arange(len(levels)) / (len(levels) - 1)
        line = spread(levels - way) * math.sqrt(12.0 / len(levels))
        return abs(change) <= self.flat * abs(middle) + 2 * line

    def settled(self, before: Finding, step: int) -> Finding | None:
        """Take it back: it learns after all, there was only a slow start."""
        return None

    def _at_chance(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        entries, steps, width = trail.entries
        percent = 100.0 if trail[Field.MAX] > 1.5 else 1.0
        values = entries / percent
        if len(values) < 2 * _FEW:
            return None
        start = trail[Field.FIRST] / percent
        half, late = values[len(values) // 2 :], values[-max(_FEW, len(values) // 4) :]
        now = float(np.median(late))
        if max(now, start) > _HIGHEST_CHANCE:
            return None
        noise = spread(late)
        constant = bool(np.ptp(half) <= 1e-9 * max(1.0, abs(now)))
        gain = (now - start) / (1.0 - start)
        slack = min(max(_SMALL, 3 * noise), _MUCH)
        at_start = now <= self.chance_factor * start + slack and gain <= 0.1
        if not (at_start or (constant and gain <= 0.25)):
            return None
        rises = now - start > max(_PLAIN * start, 3 * noise)
        line = max(now, start) + max(0.05 * (1.0 - start), 5 * noise)
        above = np.flatnonzero(values > line)
        first = int(above[-1]) + 1 if len(above) else 0
        if (len(values) - first) * width < self.min_points:
            return None
        step, low = int(steps[first]), int(steps[max(0, first - 1)])
        where = "held-out" if key.held_out else "training"
        return Verdict(
            Severity.HIGH,
            0.9,
            Onset(step, low, step),
            f"{where} accuracy stands at {now:.4g}, where it began ({start:.4g}), "
            f"after {trail.count} evaluations",
            evidence(
                rule="accuracy_at_start",
                start=start,
                last=now,
                best=trail[Field.MAX] / percent,
                best_step=trail.step(Field.MAX_STEP),
                gain=gain,
                constant=constant,
                was_better=bool(len(above)),
                rises=True if rises and not len(above) else None,
                persistence_steps=(len(values) - first) * width,
            ),
        )

    def _flat(self, trail: Trail) -> Verdict | None:
        groups = trail.groups
        levels = groups.levels
        began, ended = trail[Field.FIRST_STEP], trail[Field.LAST_STEP]
        if len(levels) < 8 or began > _RESUMED * (ended - began):
            return None
        middle = float(np.median(levels))
        error = groups.noise * math.sqrt(2.0 / max(1, len(trail.entries[0])))
        bound = self.flat * abs(middle) + 2 * error
        start, last = trail.first_level, float(levels[-1])
        fell = max(start, trail[Field.FIRST] - groups.noise) - last
        stands = max(fell, last - start) <= 2 * bound
        begins = self._begins_within_noise(trail, middle)
        if not stands and not begins:
            return None  # most losses: the slope need not be known
        i, j = np.triu_indices(len(levels), 1)
        slope = float(np.median((levels[j] - levels[i]) / (j - i)))
        change = slope * (len(levels) - 1)
        sure = stands and abs(change) <= bound
        if not sure and not (begins and self._changes_within_noise(trail, change, middle)):
            return None
        step = trail.step(Field.FIRST_STEP)
        return Verdict(
            Severity.MEDIUM,
            0.6,
            Onset(step, step, step),
            f"the loss began at {start:.4g} and stands at {last:.4g} after {trail.count} values: "
            f"no progress",
            evidence(
                rule="flat_from_start",
                start=start,
                last=last,
                best=trail[Field.MIN],
                best_step=trail.step(Field.MIN_STEP),
                change=change,
                bound=bound,
                in_noise=None if sure else True,
                persistence_steps=trail.count,
            ),
        )
