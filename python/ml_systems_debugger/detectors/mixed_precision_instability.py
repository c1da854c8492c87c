"""Loss scaling that does not hold: steps left out in a row, a scale that collapses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

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
    SeriesKind,
    Severity,
    SignalSet,
    check_count,
    detectors,
)
from ..core.sensitivity import COUNT, scales
from ._latency import SLOW
from ._streaks import STREAK, Turn, streaks
from ._trail import evidence

__all__ = ["MixedPrecisionInstabilityDetector"]

_SOURCE = "Micikevicius et al., Mixed Precision Training, ICLR 2018"
_RULES = (
    AttributionRule(
        "MXP001", FailureMode.MIXED_PRECISION_INSTABILITY, RootCause.NUMERICAL_OVERFLOW, 0.6,
        "An operation overflows in float16 at every step since step {onset_step}: {count} steps "
        "were left out in a row.",
        remediation=("Find the operation (trace one step), and run it in float32 or bfloat16.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "MXP002", FailureMode.MIXED_PRECISION_INSTABILITY, RootCause.LOSS_SCALE_EXHAUSTED, 0.45,
        "The loss scale fell to {scale} since step {onset_step}: gradients vanish in float16.",
        raises=((Condition("scale", "<=", 1.0, "a scale of {scale} leaves nothing to lower"),
                 0.3),),
        remediation=("Train in bfloat16, or set a least loss scale and clip gradients.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "MXP003", FailureMode.MIXED_PRECISION_INSTABILITY, RootCause.LEARNING_RATE_TOO_HIGH, 0.15,
        "Gradients grow since step {onset_step} until they overflow.",
        remediation=("Lower the learning rate.",),
        source=_SOURCE,
    ),
)  # fmt: skip

_FOLLOWED = ("skipped_step", "loss_scale")
_STEADY = 50  # values after which a scaler has found its level


@detectors.register("mixed_precision_instability")
@dataclass(frozen=True)
class MixedPrecisionInstabilityDetector(BaseDetector):
    """Dynamic loss scaling that leaves out step after step.

    What it detects
    ---------------
    ``skipped_step`` that is set, or ``loss_scale`` that is lowered, in
    `streak` steps running.

    Why it matters
    --------------
    A step that is left out trains nothing. One now and then is how dynamic
    scaling finds its level; many in a row mean that something overflows
    whatever the scale, and the run burns money until somebody looks
    (DeepSpeed's bfloat16 optimizer does not even say so).

    How it decides
    --------------
    A scale that is too high by a factor of 2^k costs k steps in a row, once:
    at the beginning up to 24, and in the middle of a run, where it was doubled
    last, one or two (Micikevicius et al., 2018). So `streak` skipped steps
    running after the first 50 are medium, `long_streak` are high where they go
    on or the scale has fallen to one or below. From the start on, more than 30
    are needed.

    Parameters
    ----------
    streak, long_streak : int
        Steps.

    Evidence
    --------
    ``series``, ``count`` (values of the streak), ``scale`` (the last one),
    ``skipped`` (in all of the run), ``from_the_start``, ``onset_step``,
    ``onset_low``, ``onset_high``, ``goes_on``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> found = MixedPrecisionInstabilityDetector().detect(
    ...     [Signal("skipped_step", float(i >= 200), step=i) for i in range(260)])
    >>> found.severity.value, found.onset_step
    ('high', 200)
    """

    failure_mode = FailureMode.MIXED_PRECISION_INSTABILITY
    required_signals = _FOLLOWED
    attribution_rules = _RULES
    latency = SLOW
    sensitivity_scales = scales(streak=COUNT.within(3), long_streak=COUNT.within(3))

    streak: int = 5
    long_streak: int = 16

    def __post_init__(self) -> None:
        check_count(3, streak=self.streak)
        check_count(self.streak, long_streak=self.long_streak)

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state."""
        columns = {
            **STREAK, "value": Column(np.float64, (), np.nan), "total": Column(np.int64),
            "longest": Column(np.int64), "opened": Column(np.int64),
        }  # fmt: skip
        state = FoldState(self.name, 1, columns)
        state.memory["open"] = {}
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is what a loss scaler logs."""
        return key.name in _FOLLOWED

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        for one in chunk.named(*_FOLLOWED):
            if one.kind is SeriesKind.SCALAR and len(one):
                self._follow(state, one)
        return tuple(state.take_events())

    def _follow(self, state: FoldState, one: Series) -> None:
        row = state.row(one.key)
        skipped = self._skipped(state, row, one)
        state["total"][row] += int(skipped.sum())
        # The first values, while the scaler looks for its level, take a longer streak.
        early = max(_STEADY - int(state["seen"][row]), 0)
        for part in (slice(0, early), slice(early, None)):
            holds, steps = skipped[part], one.steps[part]
            need = 31 if part.stop is not None else self.streak
            for turn in streaks(state, row, holds, steps, need, 3):
                self._turn(state, row, one.key, turn, int(steps[turn.at]))

    def _skipped(self, state: FoldState, row: int, one: Series) -> npt.NDArray[np.bool_]:
        values = np.asarray(one.values)
        if one.key.name == "skipped_step":
            found = values > 0
        else:
            found = np.diff(values, prepend=state["value"][row]) < 0
        state["value"][row] = values[-1]
        return np.asarray(found, np.bool_)

    def _turn(self, state: FoldState, row: int, key: SeriesKey, turn: Turn, step: int) -> None:
        place = str(row)
        if turn.kind == "close":
            before = state.findings.get(state.memory["open"].pop(place, ""))
            if before is not None:
                told = {**before.evidence, "goes_on": False, "recovered": True}
                state.close(step, replace(before, end_step=turn.last, evidence=told))
            return
        if state["opened"][row] >= 8:
            state.dropped_findings += 1
            return
        state["opened"][row] += 1
        finding = Finding(
            self.failure_mode,
            Severity.MEDIUM,
            0.8,
            turn.first,
            None,
            key.layer,
            key.replica_id,
            f"every step since step {turn.first} was left out by loss scaling",
            evidence(
                series=str(key), onset_step=turn.first, onset_low=turn.before,
                onset_high=turn.first, goes_on=True, from_the_start=turn.first == turn.before,
            ),
            f"{self.name}:{key}:{turn.first}",
        )  # fmt: skip
        if state.open(step, finding):
            state.memory["open"][place] = finding.finding_id

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        rows = {str(key): row for row, key in enumerate(state.keys)}
        if not rows:
            return self._silent(Outcome.NOT_APPLICABLE, "no loss scale or skipped step is logged")
        most = max(int(state["seen"][row]) for row in rows.values())
        if most < self.streak:
            return self._silent(Outcome.INSUFFICIENT, f"{most} values, {self.streak} are needed")
        scales = [float(state["value"][r]) for k, r in rows.items() if k.startswith("loss_scale")]
        found: dict[Any, Finding] = {}
        for finding in state.findings.values():
            row = rows[str(finding.evidence["series"])]
            count = int(state["run"][row]) if finding.end_step is None else self.streak
            goes_on = finding.end_step is None
            low = bool(scales) and min(scales) <= 1.0
            high = (goes_on and count >= self.long_streak) or (goes_on and low)
            told = {
                **finding.evidence, "count": count, "skipped": int(state["total"][row]),
                "scale": min(scales) if scales else None,
            }  # fmt: skip
            one = replace(
                finding, severity=Severity.HIGH if high else Severity.MEDIUM,
                confidence=0.95 if high else 0.75, evidence=evidence(**told),
            )  # fmt: skip
            # The flag and the scale tell one story; the flag knows it better.
            place = (finding.onset_step, finding.replica_id)
            if place not in found or str(told["series"]).startswith("skipped_step"):
                found[place] = one
        return DetectionResult.of_findings(
            self.failure_mode, self.name, _merged(list(found.values())), judged=_FOLLOWED
        )


def _merged(findings: list[Finding]) -> list[Finding]:
    """Drop a falling scale where skipped steps of nearly the same time are told."""
    flags = [f for f in findings if str(f.evidence["series"]).startswith("skipped_step")]
    return [
        f
        for f in findings
        if f in flags or all(abs((f.onset_step or 0) - (g.onset_step or 0)) > 3 for g in flags)
    ]
