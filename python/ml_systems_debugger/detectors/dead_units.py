"""Units that answer nothing."""

# ruff: noqa: ARG002 - the hooks of `LayerDetector` have the same arguments everywhere
from __future__ import annotations

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
    check_fraction,
    detectors,
)
from ..core.sensitivity import COUNT, SHARE, scales
from ._layers import LayerDetector, early_columns, learn_early
from ._streaks import Turn
from ._trail import Floats

__all__ = ["DeadUnitsDetector"]

_SOURCE = "Zhang et al., AutoTrainer, ICSE 2021; Lu et al., Dying ReLU, 2020"
_RULES = (
    AttributionRule(
        "DED001", FailureMode.DEAD_UNITS, RootCause.DEAD_ACTIVATIONS, 0.75,
        "{share} of the units of {layer} have been zero for every input since step {onset_step}.",
        lowers=((Condition("onset_step", "<=", 20, "it came with the first updates"), 0.3),),
        remediation=(("Use a leaky activation or normalise before it; check the biases of {layer} "
                     "and what changed them at step {onset_step}."),),
        source=_SOURCE,
    ),
    AttributionRule(
        "DED002", FailureMode.DEAD_UNITS, RootCause.LEARNING_RATE_TOO_HIGH, 0.25,
        "A step that was too large drove units of {layer} into the dead zone at step {onset_step}.",
        when=(Condition("from_the_start", "==", False, "they had been alive before"),),
        raises=((Condition("onset_step", "<=", 20, "it came with the first updates"), 0.7),),
        remediation=("Lower the learning rate or clip gradients.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "DED004", FailureMode.DEAD_UNITS, RootCause.LEARNING_RATE_SCHEDULE_FAULT, 0.4,
        "The learning rate rose {story.lr_jump} times, and units of {layer} died.",
        when=(Condition("story.lr_jump", ">=", 3.0, "the learning rate rose {story.lr_jump} "
                                                    "times"),),
        remediation=("Check the schedule before step {onset_step}.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "DED003", FailureMode.DEAD_UNITS, RootCause.POOR_INITIALIZATION, 0.4,
        "The weights of {layer} began so that its units never answer.",
        when=(Condition("from_the_start", "==", True, "they never were alive"),),
        remediation=("Use He initialisation before a ReLU and biases of zero.",),
        source=_SOURCE,
    ),
)  # fmt: skip

_EARLY = 8  # measurements that say what is usual


@detectors.register("dead_units")
@dataclass(frozen=True)
class DeadUnitsDetector(LayerDetector):
    """A layer most of whose activations are zero and stay zero.

    What it detects
    ---------------
    ``activation_zero_fraction/<layer>`` that stays at or above `share` and has
    risen there, or is at or above `certain`.

    Why it matters
    --------------
    A unit that is zero for every input has no gradient and never comes back:
    the layer has lost that much of its width, in the end all of it.

    How it decides
    --------------
    Half to nine tenths of zeros are usual behind a ReLU, so a level alone says
    little (AutoTrainer alarms from 0.7 on): the fraction must be at or above
    `share` and also half-way between its usual value (the median of its first
    eight measurements) and one, for `persistence` measurements running. High
    from `certain` on, where nothing passes the layer any more.

    Parameters
    ----------
    share, certain : float
        Fractions of zero activations.
    persistence : int
        Measurements.

    Evidence
    --------
    ``series``, ``share``, ``usual``, ``from_the_start``, ``kind`` (dead),
    ``measurements``, ``onset_step``, ``onset_low``, ``onset_high``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> found = DeadUnitsDetector().detect(
    ...     [Signal("activation_zero_fraction/act1", 0.5 if i < 50 else 1.0, step=i)
    ...      for i in range(90)])
    >>> found.severity.value, found.findings[0].layer, found.onset_step
    ('high', 'act1', 50)
    """

    failure_mode = FailureMode.DEAD_UNITS
    required_signals = ("activation_zero_fraction",)
    attribution_rules = _RULES
    sensitivity_scales = scales(share=SHARE, certain=SHARE, persistence=COUNT.within(2))
    followed = ("activation_zero_fraction",)
    columns: ClassVar[dict[str, Column]] = early_columns(_EARLY)

    share: float = 0.9
    certain: float = 0.99
    persistence: int = 6

    def __post_init__(self) -> None:
        check_fraction(share=self.share, certain=self.certain)
        check_count(2, persistence=self.persistence)

    def bad(
        self, state: FoldState, row: int, key: SeriesKey, values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which fractions are dead ones."""
        taken, usual = learn_early(state, row, values)
        limit = np.full(len(values), self.certain)
        # Whatever is usual counts from the eighth measurement on, however it was cut.
        limit[taken:] = max(self.share, 0.5 * (1 + np.nan_to_num(usual)))
        return np.asarray(values >= np.minimum(limit, self.certain), np.bool_)

    def opened(self, state: FoldState, row: int, key: SeriesKey, turn: Turn) -> Finding:
        """Return the finding; how bad it became is known at the end."""
        return self.occurrence(
            key,
            turn,
            0.7,
            f"most units of {key.layer} have been zero since step {turn.first}",
            {"kind": "dead"},
            measurements=self.persistence,
            from_the_start=turn.first <= int(state["started"][row]),
        )

    def weigh(self, state: FoldState, findings: list[Finding]) -> list[Finding]:
        """Judge by where the fraction stands now."""
        names = {str(key): (row, key) for row, key in enumerate(state.keys)}
        found = []
        for finding in findings:
            row, key = names[str(finding.evidence["series"])]
            now = float(state["value"][row])
            goes_on = finding.end_step is None
            severity = Severity.HIGH if goes_on and now >= self.certain else Severity.MEDIUM
            usual = float(state["usual"][row])
            told = {**finding.evidence, "share": round(now, 4), "layer": key.layer}
            if np.isfinite(usual):
                told["usual"] = round(usual, 4)
            message = finding.message
            if goes_on:
                message = (
                    f"{now:.1%} of the units of {key.layer} have been zero since step "
                    f"{finding.onset_step}"
                )
            sure = 0.95 if severity is Severity.HIGH else 0.7
            found.append(
                replace(finding, severity=severity, confidence=sure, evidence=told, message=message)
            )
        return found
