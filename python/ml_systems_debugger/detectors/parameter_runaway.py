"""Weights of a layer that grow or shrink without bound."""

# ruff: noqa: ARG002 - the hooks of `LayerDetector` have the same arguments everywhere
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..core import (
    AttributionRule,
    Column,
    Condition,
    FailureMode,
    Finding,
    FoldState,
    RootCause,
    SeriesKey,
    Severity,
    check_range,
    detectors,
)
from ..core.sensitivity import RATIO, scales
from ._latency import SLOW
from ._layers import SEPARATE, LayerDetector, Rows
from ._streaks import Turn
from ._trail import Floats, evidence, sureness

__all__ = ["ParameterRunawayDetector"]

_SOURCE = "van Laarhoven, L2 Regularization versus Batch and Weight Normalization, 2017"
_GROWS = Condition("ratio", ">", 1.0, "the norm is {ratio} times what it was")
_SHRINKS = Condition("ratio", "<", 1.0, "the norm is {ratio} times what it was")
_RULES = (
    AttributionRule(
        "PRW001", FailureMode.PARAMETER_RUNAWAY, RootCause.LEARNING_RATE_TOO_HIGH, 0.5,
        "Steps are too large for {layer}: its weights have grown {ratio} times since step "
        "{onset_step}.",
        when=(_GROWS,),
        remediation=(("Lower the learning rate of {layer}, or give it weight decay; go back to a "
                      "checkpoint before step {onset_step}."),),
        source=_SOURCE,
    ),
    AttributionRule(
        "PRW002", FailureMode.PARAMETER_RUNAWAY, RootCause.MISSING_GRADIENT_CLIPPING, 0.35,
        "Nothing bounds the updates of {layer}, whose weights have grown {ratio} times since step "
        "{onset_step}.",
        when=(_GROWS,),
        lowers=((Condition("context.gradient_clipping", "present",
                           says="gradients are clipped"), 0.2),),
        remediation=(("Clip the gradient norm, or bound the update of each layer by the norm of "
                      "its weights."),),
        source="You et al., Large Batch Training of Convolutional Networks (LARS), 2017",
    ),
    AttributionRule(
        "PRW003", FailureMode.PARAMETER_RUNAWAY, RootCause.EXCESSIVE_REGULARIZATION, 0.7,
        "Something drives the weights of {layer} to nothing since step {onset_step}: they are "
        "{ratio} times what they were.",
        when=(_SHRINKS,),
        remediation=("Check the weight decay and the penalties that reach {layer}.",),
        source=_SOURCE,
    ),
)  # fmt: skip

_WINDOW = 8  # measurements within which the norm is compared
_SETTLED = 20  # measurements, none of them zero, before anything is judged
_CERTAIN = 2.0  # powers of `factor` over which growth that goes on is high
_BEGUN = 0.1  # of the way on the logarithm: where the growth began


@detectors.register("parameter_runaway")
@dataclass(frozen=True)
class ParameterRunawayDetector(LayerDetector):
    """Weights of a layer that grow or shrink tenfold within a few measurements.

    What it detects
    ---------------
    ``param_norm/<layer>`` that becomes `factor` times what it was 8 measurements
    before, or that part of it, after the first 20.

    Why it matters
    --------------
    Where a normalisation follows, the loss does not depend on the scale of the
    weights: they can run away, or be decayed to nothing, while every curve
    looks well, until they overflow, or until the layer learns nothing, since its
    gradient falls as its weights grow.

    How it decides
    --------------
    Weights that learn grow by their steps, which are small beside them (a
    thousandth each is usual), and fastest at first. A factor of ten within 8
    measurements late in a run is exponential growth, and no learning. A layer
    that was exactly zero (an adapter that has just been let go) begins anew with its first
    20 measurements. An occurrence goes on until the norm has come back half of the
    way, on the logarithm. Medium; high where growth by `factor` squared goes on.

    Parameters
    ----------
    factor : float

    Evidence
    --------
    ``series``, ``before`` (the norm 8 measurements before), ``ratio`` (of the farthest norm
    to that), ``goes_on``, ``onset_step``, ``onset_low``, ``onset_high``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> found = ParameterRunawayDetector().detect(
    ...     [Signal("param_norm/head", 5.0 * 2.0 ** max(0, i - 60), step=i) for i in range(90)])
    >>> found.severity.value, found.findings[0].layer, found.onset_step
    ('high', 'head', 61)
    """

    failure_mode = FailureMode.PARAMETER_RUNAWAY
    required_signals = ("param_norm",)
    attribution_rules = _RULES
    sensitivity_scales = scales(factor=RATIO.within(2.0, 1e6))
    followed = ("param_norm",)
    latency = SLOW
    columns: ClassVar[dict[str, Column]] = {
        "past": Column(np.float64, (_WINDOW,), np.nan),
        "alive": Column(np.int64),  # finite values above zero, running
        "held": Column(np.float64, (), np.nan),  # the norm before the occurrence that goes on
        "quiet": Column(np.int64),
        "number": Column(np.int64),
        "befores": Column(np.float64, (SEPARATE,), np.nan),
        "ratios": Column(np.float64, (SEPARATE,), 1.0),
        "back": Column(np.int64, (SEPARATE,)),  # measurements from the onset to the first one seen
    }

    factor: float = 10.0

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 1.0, 1e6, open_low=True)

    @property
    def lasting(self) -> int:
        """One measurement is enough: it is compared with one of some time before."""
        return 1

    def bad(
        self, state: FoldState, row: int, key: SeriesKey, values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return at which measurements the norm has run away."""
        rows = np.array([row], np.int64)
        return self.bad_many(state, rows, (key,), values[:, None])[:, 0]

    def bad_many(
        self, state: FoldState, rows: Rows, keys: Sequence[SeriesKey], values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return at which measurements [n, series] norms have run away; as `bad` of each."""
        count = len(values)
        bad = np.zeros(values.shape, np.bool_)
        joined = np.concatenate([state["past"][rows].T, values])
        now, before = joined[_WINDOW:], joined[:-_WINDOW]
        state["past"][rows] = joined[-_WINDOW:].T
        # NaN, which the first measurements have before them, fails both comparisons.
        moved = (now >= self.factor * before) | (self.factor * now <= before)
        dead = ~((now > 0) & (now < np.inf))
        state["alive"][rows] += count
        odd = moved.any(axis=0) | dead.any(axis=0) | ~np.isnan(state["held"][rows])
        if odd.any():
            every = np.arange(len(state.keys))[rows]
            for at in np.flatnonzero(odd).tolist():
                row = int(every[at])
                state["alive"][row] -= count
                self._fold(state, row, joined[:, at], bad[:, at])
        return bad

    def _fold(self, state: FoldState, row: int, joined: Floats, bad: npt.NDArray[np.bool_]) -> None:
        """Fold the measurements behind the first 8 of one row, and mark what has run away."""
        alive, held = int(state["alive"][row]), float(state["held"][row])
        values = joined.tolist()
        for at in range(len(bad)):
            before, value = values[at], values[at + _WINDOW]
            fine = 0 < value < np.inf
            if held != held:  # NaN: nothing goes on
                if fine and alive >= _SETTLED and self._far(value / before):
                    held = before
                    bad[at] = True
                    self._begin(state, row, before, joined[at : at + _WINDOW + 1])
            else:
                ratio = value / held if fine else 1e300
                up = float(state["ratios"][row, self._at(state, row)]) > 1
                bad[at] = ratio >= self.factor**0.5 if up else ratio <= self.factor**-0.5
                bad[at] |= value == 0 and not up
                state["quiet"][row] = 0 if bad[at] else state["quiet"][row] + 1
                if bad[at]:
                    self._reach(state, row, ratio if value else 1e-300)
                elif state["quiet"][row] >= self.calm:
                    held, alive = np.nan, 0  # what comes back is followed anew
            alive = alive + 1 if fine else 0
        state["alive"][row], state["held"][row] = alive, held

    def _far(self, ratio: float) -> bool:
        return ratio >= self.factor or ratio <= 1 / self.factor

    def _at(self, state: FoldState, row: int) -> int:
        return min(int(state["number"][row]), SEPARATE) - 1

    def _begin(self, state: FoldState, row: int, before: float, window: Floats) -> None:
        state["number"][row] += 1
        state["quiet"][row] = 0
        at = self._at(state, row)
        if state["number"][row] <= SEPARATE:
            way = np.log(window / before)
            state["back"][row, at] = _WINDOW - int(
                np.flatnonzero(np.abs(way) >= _BEGUN * abs(way[-1]))[0]
            )
            state["befores"][row, at] = before
            state["ratios"][row, at] = window[-1] / before

    def _reach(self, state: FoldState, row: int, ratio: float) -> None:
        at = self._at(state, row)
        if state["number"][row] <= SEPARATE:
            far = float(state["ratios"][row, at])
            state["ratios"][row, at] = max(far, ratio) if far > 1 else min(far, ratio)

    def opened(self, state: FoldState, row: int, key: SeriesKey, turn: Turn) -> Finding:
        """Return the finding; how far it went is known at the end."""
        at = min(int(state["opened"][row]), SEPARATE - 1)
        stride = turn.first - turn.before
        began = turn.first - int(state["back"][row, at]) * stride
        found = self.occurrence(
            key,
            turn,
            0.75,
            f"the weights of {key.layer} have been running away since step {began}",
            {"before": float(state["befores"][row, at])},
        )
        told = {**found.evidence, "onset_step": began, "onset_low": began - stride}
        return replace(found, onset_step=began, evidence=told)

    def weigh(self, state: FoldState, findings: list[Finding]) -> list[Finding]:
        """Tell how far each occurrence went."""
        names = {str(key): row for row, key in enumerate(state.keys)}
        number: dict[int, int] = {}
        found = []
        for finding in findings:
            row = names[str(finding.evidence["series"])]
            at = number[row] = number.get(row, -1) + 1
            ratio = float(state["ratios"][row, at])
            goes_on = finding.end_step is None
            high = goes_on and ratio >= self.factor**_CERTAIN
            told = {**finding.evidence, "ratio": ratio, "goes_on": goes_on}
            verb = "grown" if ratio > 1 else "shrunk"
            found.append(
                replace(
                    finding,
                    severity=Severity.HIGH if high else Severity.MEDIUM,
                    confidence=sureness(max(ratio, 1 / ratio) / self.factor),
                    evidence=evidence(**told),
                    message=(
                        f"the norm of {finding.layer} has {verb} to {ratio:.3g} times what it was "
                        f"since step {finding.onset_step}"
                    ),
                )
            )
        return found
