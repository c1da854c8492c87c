"""Gradients that still hold those of the step before."""

# ruff: noqa: ARG002 - the hooks of `LayerDetector` have the same arguments everywhere
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..core import (
    AttributionRule,
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
from ._layers import LayerDetector
from ._streaks import Turn
from ._trail import Floats

__all__ = ["StaleGradientsDetector"]

_RULES = (
    AttributionRule(
        "STL001", FailureMode.STALE_GRADIENTS, RootCause.GRADIENTS_NOT_ZEROED, 0.9,
        "Every step from {onset_step} on adds its gradients to those that the optimizer had "
        "already used: they are not set to zero.",
        lowers=((Condition("goes_on", "==", False, "it ended by itself"), 0.2),),
        remediation=("Call optimizer.zero_grad() after optimizer.step() or before backward().",
                     "Look at what changed at step {onset_step}: a branch that skips zero_grad()."),
        source="Jiang et al., TrainCheck, OSDI 2025",
    ),
)  # fmt: skip


@detectors.register("stale_gradients")
@dataclass(frozen=True)
class StaleGradientsDetector(LayerDetector):
    """Gradients that carry over from one step of the optimizer to the next.

    What it detects
    ---------------
    ``carried_gradient/<layer>`` that is 1 for `persistence` steps running: when
    the first backward pass after an optimizer's step began, the gradient was what
    that step had used, and it was not cleared before the next one either. The
    monitor measures it on two parameters of the optimizer.

    Why it matters
    --------------
    Without `zero_grad` each step follows the sum of all gradients so far: a
    momentum that never decays. The loss may fall for a while, then swings or
    diverges, and nothing but its gradients says why.

    How it decides
    --------------
    `backward()` adds to what it finds; between two steps somebody has to clear
    it (TrainCheck, OSDI 2025, checks the call). High: a gradient that was used
    twice is no matter of chance. Several backward passes for one step
    (accumulation) are well, as long as the first of them finds nothing.

    Parameters
    ----------
    persistence : int
        Steps.

    Evidence
    --------
    ``series``, ``layers`` (parameters that show it), ``followed`` (that were
    looked at), ``goes_on``, ``measurements``, ``from_the_start``, ``onset_step``,
    ``onset_low``, ``onset_high``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> found = StaleGradientsDetector().detect(
    ...     [Signal("carried_gradient/head.bias", float(i >= 40), step=i) for i in range(60)])
    >>> found.severity.value, found.onset_step
    ('high', 40)
    """

    failure_mode = FailureMode.STALE_GRADIENTS
    required_signals = ("carried_gradient",)
    attribution_rules = _RULES
    sensitivity_scales = scales(persistence=COUNT.within(2))
    followed = ("carried_gradient",)

    persistence: int = 3

    def __post_init__(self) -> None:
        check_count(2, persistence=self.persistence)

    def bad(
        self, state: FoldState, row: int, key: SeriesKey, values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return at which steps a gradient was carried over."""
        return np.asarray(values > 0, np.bool_)

    def opened(self, state: FoldState, row: int, key: SeriesKey, turn: Turn) -> Finding:
        """Return the finding; how many parameters show it is known at the end."""
        return self.occurrence(
            key,
            turn,
            0.95,
            f"the gradient of {key.layer} has held what earlier steps used since step "
            f"{turn.first}: it is not cleared",
            measurements=self.persistence,
            from_the_start=turn.first <= int(state["started"][row]),
        )

    def weigh(self, state: FoldState, findings: list[Finding]) -> list[Finding]:
        """Tell parameters that show it from the same step on as one."""
        names = {str(key): key for _, key in self.rows(state, *self.followed)}
        stories: dict[tuple[object, ...], list[Finding]] = {}
        for one in findings:
            key = names[str(one.evidence["series"])]
            place = (one.onset_step, one.end_step, key.replica_id, key.run, key.segment)
            stories.setdefault(place, []).append(one)
        found = []
        for told in stories.values():
            first, layers = told[0], [one.layer for one in told]
            key = names[str(first.evidence["series"])]
            followed = sum(
                (k.replica_id, k.run, k.segment) == (key.replica_id, key.run, key.segment)
                for k in names.values()
            )
            goes_on = first.end_step is None
            about = {
                **first.evidence, "layers": layers, "followed": followed, "goes_on": goes_on,
            }  # fmt: skip
            message = first.message
            if len(layers) > 1:
                message = (
                    f"gradients have held what earlier steps used since step {first.onset_step}: "
                    f"they are not cleared ({len(layers)} of {followed} parameters looked at)"
                )
            severity = Severity.HIGH if goes_on else Severity.MEDIUM
            found.append(
                replace(
                    first, severity=severity, evidence=about, message=message,
                    layer=first.layer if len(layers) == 1 else None,
                )
            )  # fmt: skip
        return found
