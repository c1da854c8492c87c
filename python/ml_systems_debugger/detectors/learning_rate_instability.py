"""A learning rate that jumps, and a loss that answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import (
    AttributionRule,
    BaseDetector,
    Column,
    Condition,
    Context,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Outcome,
    RootCause,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
    check_count,
    check_positive,
    detectors,
)
from ..core.sensitivity import RATIO, scales
from ._learning import is_learning_rate, is_training_loss
from ._trail import evidence, sureness

__all__ = ["LearningRateInstabilityDetector"]

_SOURCE = "Zhang et al., AutoTrainer, ICSE 2021; Goodfellow et al., Deep Learning, 2016, 8.3"
_RULES = (
    AttributionRule(
        "LRI001", FailureMode.LR_INSTABILITY, RootCause.LEARNING_RATE_SCHEDULE_FAULT, 0.8,
        "The learning rate rose from {lr_before} to {lr_after} within one step at step "
        "{onset_step}, {over_usual} times what it had ever been.",
        remediation=(("Check the schedule at step {onset_step}: a resume that lost its place, "
                     "units of epochs taken for steps, a factor applied twice."),),
        source=_SOURCE,
    ),
    AttributionRule(
        "LRI002", FailureMode.LR_INSTABILITY, RootCause.LEARNING_RATE_TOO_HIGH, 0.45,
        "A learning rate of {lr_after} is too high: the loss rose from {loss_before} to "
        "{loss_after}.",
        when=(Condition("loss_rise", ">=", 1.2, "the loss rose {loss_rise} times after it"),),
        remediation=("Go back to a rate of {lr_before}.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "LRI003", FailureMode.LR_INSTABILITY, RootCause.OPTIMIZER_STATE_LOST, 0.4,
        "The run was resumed before step {onset_step} with another learning rate.",
        when=(Condition("after_restart", "==", True, "it came with a restart"),),
        remediation=("Save and load the scheduler with the optimizer.",),
        source=_SOURCE,
    ),
)  # fmt: skip

_KEPT = 8
_LOOK = 16  # losses before and after
_LARGEST = 1e300
_MEMORY = 256  # rates of the last steps, to which a restart may go back
_BEYOND = 1.5  # times the greatest rate so far, for a resumed schedule to be another
_BLOCK = 1 << 16


@detectors.register("learning_rate_instability")
@dataclass(frozen=True)
class LearningRateInstabilityDetector(BaseDetector):
    """A learning rate that jumps beyond anything it had been.

    What it detects
    ---------------
    A rise of the learning rate within one measurement by `factor` or more, to
    `factor` times its greatest value so far or more; with what the loss did. After
    a restart that goes back, also a rate `resumed` times what it was at the same step.

    Why it matters
    --------------
    A schedule that is wrong at one step undoes all steps before: a resume that
    restarts the warm-up without the optimizer's memory, epochs taken for
    steps, a factor applied twice.

    How it decides
    --------------
    Warm-ups rise by little from step to step, warm restarts and cycles return
    to what was there before: neither goes beyond the greatest rate so far
    within one step. The first `settled` measurements are left out. Medium; high
    where the median of the next 16 training losses stands `loss_rise` times
    above the 16 before. Jumps that follow within 200 measurements of another
    belong to it and are counted. A resumed schedule gives a step the rate that it
    had: `resumed` times of that, and half as much again as any rate before, is another
    schedule. Lower rates after a restart are somebody's decision.

    Parameters
    ----------
    factor : float
    loss_rise : float
    resumed : float
        After a restart, over the rate of the same step before it.
    settled : int
        Measurements.

    Evidence
    --------
    ``series``, ``lr_before``, ``lr_after``, ``over_usual``, ``jumps``,
    ``loss_before``, ``loss_after``, ``loss_rise``, ``after_restart``, ``same_step``,
    ``onset_step``, ``onset_low``, ``onset_high``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> run = [Signal("lr", 0.1 if i >= 300 else 0.001, step=i) for i in range(400)]
    >>> run += [Signal("loss", 5.0 if i > 300 else 0.5, step=i) for i in range(400)]
    >>> found = LearningRateInstabilityDetector().detect(run)
    >>> found.severity.value, found.onset_step, found.evidence["over_usual"]
    ('high', 300, 100.0)
    """

    failure_mode = FailureMode.LR_INSTABILITY
    required_signals = ("lr",)
    attribution_rules = _RULES
    sensitivity_scales = scales(factor=RATIO, loss_rise=RATIO, resumed=RATIO)

    factor: float = 4.0
    loss_rise: float = 1.2
    settled: int = 20
    resumed: float = 2.0

    def __post_init__(self) -> None:
        check_positive(factor=self.factor, loss_rise=self.loss_rise, resumed=self.resumed)
        check_count(2, settled=self.settled)

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state."""
        columns = {
            "seen": Column(np.int64),
            "last": Column(np.float64, (), np.nan),
            "last_step": Column(np.int64),
            "most": Column(np.float64),
            "usual": Column(np.float64),  # greatest rate before the first jump
            "jumps": Column(np.int64),
            "inherited": Column(np.int64),  # measurements of the segments before a restart
            "jump_at": Column(np.int64),  # number of measurements at the last jump
            "losses": Column(np.float64, (_LOOK,), np.nan),
            "rates": Column(np.float64, (_MEMORY,), np.nan),
            "rate_steps": Column(np.int64, (_MEMORY,)),
        }
        state = FoldState(self.name, 2, columns)
        state.memory["jumps"] = []  # facts of each, bounded by _KEPT per series
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is a learning rate or a loss."""
        return key.name in ("lr", "loss")

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        here = {o.key: o for o in chunk.named("lr") if is_learning_rate(o.key) and len(o)}
        for one in sorted(here.values(), key=lambda o: o.key.segment):
            self._segment(state, one, here)
        losses = [o for o in chunk.named("loss") if is_training_loss(o.key) and len(o)]
        if losses or state.memory["jumps"]:
            self._losses(state, losses)
        return tuple(state.take_events())

    def _segment(self, state: FoldState, one: Series, here: Mapping[SeriesKey, Series]) -> None:
        """Fold a segment; what follows a restart inherits from what came before its first step."""
        following = None
        if len(here) > 1:
            following = here.get(one.key._replace(segment=one.key.segment + 1))
        if following is None or following.key in state.keys:
            self._rates(state, one)
            return
        first = int(following.steps[0])
        self._rates(state, one.between(None, first))
        self._inherit(state, following, one)
        self._rates(state, one.between(first, None))

    def _inherit(self, state: FoldState, one: Series, former: Series | None) -> None:
        """Begin a segment with what is known of the one before it."""
        rows = {key: row for row, key in enumerate(state.keys)}
        known = rows.get(one.key._replace(segment=one.key.segment - 1))
        row = state.row(one.key)
        if known is None:
            return
        for name in ("last", "last_step", "most", "seen"):
            state[name][row] = state[name][known]
        state["inherited"][row] = state["seen"][known]
        self._restart(state, row, known, one, former)

    def _rates(self, state: FoldState, one: Series) -> None:
        if not len(one):
            return
        if one.key.segment and one.key not in state.keys:
            self._inherit(state, one, None)
        row = state.row(one.key)
        for start in range(0, len(one), _BLOCK):  # what is held does not grow with the run
            self._block(state, row, one, start)
        for name, given in (("rates", one.values), ("rate_steps", one.steps)):
            kept = state[name][row]
            size = min(len(given), _MEMORY)
            kept[: _MEMORY - size] = kept[size:]
            kept[_MEMORY - size :] = given[-size:]

    def _restart(
        self, state: FoldState, row: int, old: int, one: Series, former: Series | None
    ) -> None:
        """Compare the first rate after a restart with that of the same step before it."""
        step, value, most = int(one.steps[0]), float(one.values[0]), float(state["most"][row])
        steps, rates = state["rate_steps"][old], state["rates"][old]
        if former is not None:
            steps = np.concatenate([steps, former.steps])
            rates = np.concatenate([rates, former.values])
        at = np.flatnonzero((steps == step) & np.isfinite(rates))
        if not len(at) or int(state["seen"][row]) < self.settled or not value <= _LARGEST:
            return
        before = float(rates[at[-1]])
        if before <= 0 or value < self.resumed * before or value < _BEYOND * most:
            return
        if value >= self.factor * max(most, float(state["last"][row])):
            return  # a jump, which is found as such
        self._jump(state, row, one, 0, before, most, step, int(state["seen"][row]), resumed=True)

    def _block(self, state: FoldState, row: int, one: Series, start: int) -> None:
        values = np.asarray(one.values[start : start + _BLOCK])
        lowest, highest, last = float(values.min()), float(values.max()), float(state["last"][row])
        # Most schedules are smooth. NaN and a first value fail the comparison.
        if lowest >= 0.0 and highest < self.factor * min(lowest, last) and highest <= _LARGEST:
            state["last"][row] = values[-1]
            state["last_step"][row] = one.steps[start + len(values) - 1]
            state["most"][row] = max(float(state["most"][row]), highest)
            state["seen"][row] += len(values)
            return
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        values = np.clip(values, 0.0, _LARGEST)
        before = np.concatenate([[np.nan_to_num(state["last"][row])], values[:-1]])
        most = np.maximum.accumulate(np.concatenate([[state["most"][row]], values]))[:-1]
        places = np.arange(len(values)) + int(state["seen"][row])
        jumped = (values >= self.factor * before) & (values >= self.factor * most)
        jumped &= (places >= self.settled) & (most > 0)
        # Once it has jumped, coming back to that height is one more jump of the same fault.
        again = (values >= self.factor * before) & (places >= self.settled) & (most > 0)
        marks = np.flatnonzero(jumped | (again & (state["jumps"][row] > 0)))
        if not state["jumps"][row] and len(np.flatnonzero(jumped)):
            marks = np.flatnonzero(again & (places >= places[np.flatnonzero(jumped)[0]]))
        for at in marks.tolist():
            whole = start + at
            step_before = int(one.steps[whole - 1]) if whole else int(state["last_step"][row])
            self._jump(state, row, one, whole, float(before[at]), float(most[at]), step_before,
                       int(places[at]))  # fmt: skip
        state["last"][row] = values[-1]
        state["last_step"][row] = one.steps[start + len(values) - 1]
        state["most"][row] = max(float(state["most"][row]), float(values.max()))
        state["seen"][row] += len(values)

    def _jump(
        self, state: FoldState, row: int, one: Series, at: int, before: float, most: float,
        step_before: int, place: int, resumed: bool = False,
    ) -> None:  # fmt: skip
        near = state["jumps"][row] and place - int(state["jump_at"][row]) <= 200
        state["jumps"][row] += 1
        state["jump_at"][row] = place
        told: list[dict[str, Any]] = state.memory["jumps"]
        own = [fact for fact in told if fact["series"] == str(one.key)]
        if near and own:
            own[-1]["jumps"] += 1
            return
        if len(own) >= _KEPT:
            state.dropped_findings += 1
            return
        value, step = float(one.values[at]), int(one.steps[at])
        if value < self.factor * most and not resumed:
            return  # it comes back to where an earlier fault had been
        fact = {
            "key": one.key.to_list(), "series": str(one.key), "lr_before": before,
            "lr_after": value, "over_usual": value / most, "jumps": 1, "onset_step": step,
            "onset_low": step_before, "onset_high": step,
            "after_restart": self._fresh(state, row, one.key, place), "before": [], "after": [],
            "same_step": resumed or None,
        }  # fmt: skip
        told.append(fact)
        state.open(step, self._finding(fact))

    def _fresh(self, state: FoldState, row: int, key: SeriesKey, place: int) -> bool:
        """Return whether a measurement is among the first after a restart."""
        return bool(key.segment) and place - int(state["inherited"][row]) < 60

    def _losses(self, state: FoldState, pieces: Sequence[Series]) -> None:
        """Put the losses around each jump beside it, whatever the chunks and the series' order."""
        for fact in state.memory["jumps"]:
            if "loss" not in fact:  # a jump of this chunk: all losses up to it are known
                fact["loss"], fact["before"] = _losses_before(state, fact, pieces)
            for one in pieces:
                if fact["loss"] == one.key.to_list() and len(fact["after"]) < _LOOK:
                    at = int(np.searchsorted(one.steps, fact["onset_step"], "right"))
                    room = _LOOK - len(fact["after"])
                    fact["after"] += np.asarray(one.values[at : at + room]).tolist()
        for one in pieces:
            row = state.row(one.key)
            kept = np.concatenate([state["losses"][row], one.values[-_LOOK:]])
            state["losses"][row] = kept[-_LOOK:]

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        rows = [row for row, key in enumerate(state.keys) if is_learning_rate(key)]
        if not rows:
            return self._silent(Outcome.NOT_APPLICABLE, "no learning rate is in the input")
        most = max(int(state["seen"][row]) for row in rows)
        if most <= self.settled:
            return self._silent(
                Outcome.INSUFFICIENT, f"{most} learning rates, {self.settled + 1} are needed"
            )
        findings = [self._finding(fact) for fact in state.memory["jumps"]]
        return DetectionResult.of_findings(self.failure_mode, self.name, findings, judged=("lr",))

    def _finding(self, fact: dict[str, Any]) -> Finding:
        key = SeriesKey.from_list(fact["key"])
        before = [v for v in fact["before"] if math.isfinite(v)]
        after = [v if math.isfinite(v) else math.inf for v in fact["after"]]
        rise = None
        levels: dict[str, float] = {}
        if before and after:
            levels = {
                "loss_before": float(np.median(before)), "loss_after": float(np.median(after)),
            }  # fmt: skip
            if levels["loss_before"] > 0:
                rise = min(levels["loss_after"] / levels["loss_before"], 1e9)
        high = rise is not None and rise >= self.loss_rise
        text = (
            f"the learning rate rose from {fact['lr_before']:.4g} to {fact['lr_after']:.4g} within "
            f"one step at step {fact['onset_step']}"
        )
        if fact["same_step"]:
            text = (
                f"the learning rate of step {fact['onset_step']} was {fact['lr_before']:.4g} "
                f"before the restart and is {fact['lr_after']:.4g} after it"
            )
        if fact["jumps"] > 1:
            text += f", and {fact['jumps'] - 1} more times after"
        if high:
            text += (
                f"; the loss rose from {levels['loss_before']:.4g} to {levels['loss_after']:.4g}"
            )
        told = {
            k: v for k, v in fact.items() if k not in ("key", "before", "after", "loss")
        }  # fmt: skip
        return Finding(
            self.failure_mode,
            Severity.HIGH if high else Severity.MEDIUM,
            sureness(fact["over_usual"] / self.factor) if high else 0.7,
            fact["onset_step"],
            None,
            key.layer,
            key.replica_id,
            text,
            evidence(**told, **levels, loss_rise=rise),
            f"{self.name}:{key}:{fact['onset_step']}",
        )


def _losses_before(
    state: FoldState, fact: dict[str, Any], pieces: Sequence[Series]
) -> tuple[list[Any] | None, list[float]]:
    """Return the training loss with most values just before a jump, and those that are finite."""
    key = SeriesKey.from_list(fact["key"])
    chosen: list[Any] | None = None
    best: list[float] = []
    here = {one.key: one for one in pieces}
    known = {other for other in state.keys if is_training_loss(other)}
    for other in sorted(known | here.keys(), key=lambda k: repr(k.to_list())):
        if (other.run, other.segment) != (key.run, key.segment):
            continue
        if key.replica_id is not None and key.replica_id != other.replica_id:
            continue
        past = state["losses"][state.row(other)] if other in known else np.empty(0)
        if other in here:
            one = here[other]
            at = int(np.searchsorted(one.steps, fact["onset_step"], "right"))
            past = np.concatenate([past, one.values[max(0, at - _LOOK) : at]])[-_LOOK:]
        past = past[np.isfinite(past)]
        if len(past) > len(best):
            chosen, best = other.to_list(), past.tolist()
    return chosen, best
