"""Parameters that stop moving while the others learn."""

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
    check_count,
    detectors,
)
from ..core.sensitivity import COUNT, scales
from ._latency import SLOW
from ._layers import LayerDetector, Rows
from ._streaks import Turn
from ._trail import Floats

__all__ = ["FrozenParametersDetector"]

_SOURCE = "Jiang et al., TrainCheck, OSDI 2025"
_RULES = (
    AttributionRule(
        "FRZ001", FailureMode.FROZEN_PARAMETERS, RootCause.PARAMETERS_NOT_UPDATED, 0.8,
        "{layer} has not changed since step {onset_step}, while {moving} other layers go on: the "
        "optimizer does not update it.",
        when=(Condition("moving", ">=", 1, "{moving} other layers move"),),
        lowers=((Condition("lead.dead_units", ">=", 0, "units had died before"), 0.2),
                (Condition("lead.vanishing_gradients", ">=", 0, "gradients had vanished"), 0.4)),
        remediation=(("Check that {layer} is among the optimizer's parameter groups and that "
                     "nothing overwrites it after the step."),
                     "Look at what was done at step {onset_step}: a resume, a change of groups."),
        source=_SOURCE,
    ),
    AttributionRule(
        "FRZ002", FailureMode.FROZEN_PARAMETERS, RootCause.LOW_PRECISION_UPDATE_LOSS, 0.15,
        "Updates of {layer} round to nothing since step {onset_step}.",
        remediation=("Keep master weights in float32.",),
        source=_SOURCE,
    ),
)  # fmt: skip


@detectors.register("frozen_parameters")
@dataclass(frozen=True)
class FrozenParametersDetector(LayerDetector):
    """A layer whose parameters stop changing while others learn.

    What it detects
    ---------------
    ``update_ratio/<layer>`` that is exactly zero, or ``param_norm/<layer>`` that
    is the same number, in `persistence` measurements running.

    Why it matters
    --------------
    A layer that the optimizer does not know of, or that something writes back,
    costs accuracy silently; runs look healthy and are worth less.

    How it decides
    --------------
    An optimizer's step must change the parameters (TrainCheck, OSDI 2025): with
    real gradients an update of exactly zero does not happen by chance. High
    where the layer had moved before and others still move; low where it never
    moved, which is what freezing on purpose looks like, unless its gradients
    are logged and are not zero (medium). Where every layer stands still it is
    no layer's fault and another detector's business (precision_loss, a
    learning rate of zero).

    Parameters
    ----------
    persistence : int
        Measurements.

    Evidence
    --------
    ``series``, ``quantity``, ``moved_before``, ``moving`` (layers that go on),
    ``standing`` (layers that stand still), ``gradient``, ``measurements``,
    ``onset_step``, ``onset_low``, ``onset_high``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> runs = [Signal(f"update_ratio/{name}", 0.0 if name == "b" and i > 40 else 1e-3, step=i)
    ...         for i in range(80) for name in "abc"]
    >>> found = FrozenParametersDetector().detect(runs)
    >>> found.severity.value, found.findings[0].layer, found.onset_step
    ('high', 'b', 41)
    """

    failure_mode = FailureMode.FROZEN_PARAMETERS
    required_signals = ("update_ratio", "param_norm")
    attribution_rules = _RULES
    latency = SLOW
    sensitivity_scales = scales(persistence=COUNT.within(2))
    followed = ("update_ratio", "param_norm")
    witnesses = ("grad_norm",)
    columns: ClassVar[dict[str, Column]] = {
        "norm": Column(np.float64, (), np.nan), "moves": Column(np.int64),
    }  # fmt: skip

    persistence: int = 8

    def __post_init__(self) -> None:
        check_count(2, persistence=self.persistence)

    def bad(
        self, state: FoldState, row: int, key: SeriesKey, values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which measurements show no movement at all."""
        if key.name == "update_ratio":
            still = values == 0.0
        else:
            # Of the first norm nobody knows whether it moved.
            before = np.concatenate([[state["norm"][row]], values[:-1]])
            still = (values == before) | np.isnan(before)
        state["norm"][row] = values[-1]
        state["moves"][row] += int((~still & np.isfinite(values)).sum())
        return np.asarray(still, np.bool_)

    def bad_many(
        self, state: FoldState, rows: Rows, keys: Sequence[SeriesKey], values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which measurements [n, series] show no movement at all."""
        if keys[0].name == "update_ratio":
            still = values == 0.0
        else:
            before = np.concatenate([state["norm"][rows][None], values[:-1]])
            still = (values == before) | np.isnan(before)
        state["norm"][rows] = values[-1]
        state["moves"][rows] += (~still & np.isfinite(values)).sum(axis=0)
        return np.asarray(still, np.bool_)

    def opened(self, state: FoldState, row: int, key: SeriesKey, turn: Turn) -> Finding:
        """Return the finding; whether others move is known at the end."""
        return self.occurrence(
            key,
            turn,
            0.7,
            f"the parameters of {key.layer} have not changed since step {turn.first}",
            {"quantity": key.name},
            measurements=self.persistence,
            from_the_start=turn.first <= int(state["started"][row]),
        )

    def weigh(self, state: FoldState, findings: list[Finding]) -> list[Finding]:
        """Tell freezing on purpose, and layers that stand still together, from a fault."""
        rows = [(r, k) for r, k in self.rows(state, *self.followed) if k.layer is not None]
        names = {str(key): (row, key) for row, key in rows}
        standing = {k.layer for r, k in rows if state["open"][r]}
        moving = {k.layer for r, k in rows if not state["open"][r] and state["moves"][r]} - standing
        gradients = {
            key.layer: bool(state["positive"][row]) for row, key in self.rows(state, "grad_norm")
        }
        measured = {(k.layer, k.replica_id) for _, k in rows if k.name == "update_ratio"}
        kept: dict[tuple[object, ...], Finding] = {}
        for finding in findings:
            _, key = names[str(finding.evidence["series"])]
            if not moving and finding.end_step is None:
                continue
            if key.name == "param_norm" and (key.layer, key.replica_id) in measured:
                continue  # the norm of a layer that moves sideways may stay the same number
            start = bool(finding.evidence["from_the_start"])
            gradient = gradients.get(key.layer)
            if start:
                # A norm of zero that stays is a bias that nothing fills; a ratio is not.
                severity = Severity.MEDIUM if gradient else Severity.LOW
            else:
                sure_of_it = finding.end_step is None and key.name == "update_ratio"
                severity = Severity.HIGH if sure_of_it else Severity.MEDIUM
            told = {
                **finding.evidence, "moving": len(moving), "standing": len(standing),
                "moved_before": not start, "layer": key.layer,
            }  # fmt: skip
            if gradient is not None:
                told["gradient"] = gradient
            sure = 0.95 if severity is Severity.HIGH else 0.6
            one = replace(finding, severity=severity, confidence=sure, evidence=told)
            # The ratio and the norm of a layer tell the same story: one is enough.
            place = (key.layer, key.replica_id, key.run, key.segment)
            if place not in kept or key.name == "update_ratio":
                kept[place] = one
        return list(kept.values())
