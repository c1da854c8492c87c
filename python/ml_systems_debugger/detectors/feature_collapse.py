"""Activations that become the same for every input."""

# ruff: noqa: ARG002 - the hooks of `LayerDetector` have the same arguments everywhere
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..core import (
    AttributionRule,
    Column,
    FailureMode,
    Finding,
    FoldState,
    RootCause,
    SeriesKey,
    Severity,
    check_count,
    check_range,
    detectors,
)
from ..core.sensitivity import COUNT, RATIO, scales
from ._latency import SLOW
from ._layers import LayerDetector, early_columns, learn_early
from ._streaks import Turn
from ._trail import Floats, evidence

__all__ = ["FeatureCollapseDetector"]

_SOURCE = "Jing et al., Understanding Dimensional Collapse, ICLR 2022"
_RULES = (
    AttributionRule(
        "COL001", FailureMode.FEATURE_COLLAPSE, RootCause.INSUFFICIENT_REGULARIZATION, 0.5,
        "The features of {layer} have become the same for all inputs since step {onset_step}: "
        "nothing keeps them apart.",
        remediation=(("Check the objective for a trivial solution (a missing stop-gradient, a "
                     "penalty that is too strong), and normalise the features of {layer}."),),
        source=_SOURCE,
    ),
    AttributionRule(
        "COL002", FailureMode.FEATURE_COLLAPSE, RootCause.SATURATING_ACTIVATIONS, 0.3,
        "The activations of {layer} saturate, so that different inputs look the same.",
        remediation=("Look at the scale of what goes into {layer}; normalise it.",),
        source=_SOURCE,
    ),
)  # fmt: skip

_SAMPLE = 16


@detectors.register("feature_collapse")
@dataclass(frozen=True)
class FeatureCollapseDetector(LayerDetector):
    """A layer whose features no longer tell one input from another.

    What it detects
    ---------------
    ``activation_std/<layer>`` (the deviation over a batch, averaged over units)
    that falls to a small part of what it was and stays there.

    Why it matters
    --------------
    Features that are the same for all inputs carry nothing: all layers above
    see a constant. Self-supervised and contrastive training fail like this
    with a loss that looks excellent.

    How it decides
    --------------
    The reference is the median of the first 16 measurements. Below `part` of it
    for `persistence` measurements running is a collapse; below a fifth of
    `part` it is high.

    Parameters
    ----------
    part : float
        Of the reference.
    persistence : int
        Measurements.

    Evidence
    --------
    ``series``, ``reference``, ``last``, ``part``, ``measurements``,
    ``onset_step``, ``onset_low``, ``onset_high``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> found = FeatureCollapseDetector().detect(
    ...     [Signal("activation_std/head", 1.0 if i < 60 else 1e-3, step=i) for i in range(90)])
    >>> found.severity.value, found.findings[0].layer, found.onset_step
    ('high', 'head', 60)
    """

    failure_mode = FailureMode.FEATURE_COLLAPSE
    required_signals = ("activation_std",)
    attribution_rules = _RULES
    latency = SLOW
    sensitivity_scales = scales(part=RATIO.within(0.0, 0.5), persistence=COUNT.within(2))
    followed = ("activation_std",)
    columns: ClassVar[dict[str, Column]] = early_columns(_SAMPLE)

    part: float = 0.05
    persistence: int = 6

    def __post_init__(self) -> None:
        check_range("part", self.part, 0.0, 0.5, open_low=True)
        check_count(2, persistence=self.persistence)

    def bad(
        self, state: FoldState, row: int, key: SeriesKey, values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which deviations are collapsed ones."""
        taken, reference = learn_early(state, row, values)
        limit = np.full(len(values), -np.inf)
        limit[taken:] = np.nan_to_num(self.part * reference, nan=-np.inf)
        return np.asarray(values < limit, np.bool_)

    def opened(self, state: FoldState, row: int, key: SeriesKey, turn: Turn) -> Finding:
        """Return the finding; how far it went is known at the end."""
        return self.occurrence(
            key,
            turn,
            0.8,
            f"the features of {key.layer} have hardly differed between inputs since step "
            f"{turn.first}",
            {"reference": float(state["usual"][row])},
            measurements=self.persistence,
        )

    def weigh(self, state: FoldState, findings: list[Finding]) -> list[Finding]:
        """Judge by where the deviation stands now."""
        names = {str(key): (row, key) for row, key in enumerate(state.keys)}
        found = []
        for finding in findings:
            row, key = names[str(finding.evidence["series"])]
            now, reference = float(state["value"][row]), float(state["usual"][row])
            part = now / reference if reference > 0 else 0.0
            high = finding.end_step is None and part <= self.part / 5
            told = {**finding.evidence, "last": now, "part": part, "layer": key.layer}
            message = finding.message
            if finding.end_step is None:
                message = f"{finding.message}: deviation {now:.3g}, {reference:.3g} at first"
            found.append(
                replace(
                    finding, severity=Severity.HIGH if high else Severity.MEDIUM,
                    confidence=0.9 if high else 0.75, evidence=evidence(**told), message=message,
                )
            )  # fmt: skip
        return found
