"""Infinities in any recorded value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import FailureMode, detectors
from ._latency import SLOW
from ._nonfinite import NonFiniteDetector, infinite_elements
from ._nonfinite_rules import INF

__all__ = ["InfDetectionDetector"]


@detectors.register("inf_detection")
@dataclass(frozen=True)
class InfDetectionDetector(NonFiniteDetector):
    """Infinity in a metric, a gradient, a parameter or any other recorded value.

    What it detects
    ---------------
    Positive and negative infinity in every scalar and every array of a run,
    training and held out, per layer and replica. Values that stay infinite, or
    are so with at most 8 good ones between, are one occurrence.

    Why it matters
    --------------
    An infinity is an overflow, and most often the step before NaN: inf - inf
    and 0 x inf have no result. In float16 everything above 65,504 is infinite.

    How it decides
    --------------
    It looks; there is no statistic. The severity follows from what is infinite
    and for how long, by the same table as for NaN: parameters, or a training
    loss that stays so, are critical; an infinite gradient norm is what dynamic
    loss scaling lives by (the step is skipped, the scale halved: Micikevicius
    et al., ICLR 2018), so it is low while the loss is scaled and training goes
    on, medium without, and critical where it stays.

    Parameters
    ----------
    None; what is infinite is no matter of taste.

    Evidence
    --------
    As of `NaNDetectionDetector`.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> norms = [1.0, 4.0, 60.0, float("inf"), float("inf")]
    >>> found = InfDetectionDetector().detect(
    ...     [Signal("grad_norm", x, step=i) for i, x in enumerate(norms)])
    >>> found.severity.value, found.onset_step
    ('critical', 3)
    """

    failure_mode = FailureMode.INF_DETECTED
    attribution_rules = INF
    latency = SLOW
    kind = "inf"

    def bad(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which values [n] are infinite."""
        found: npt.NDArray[np.bool_] = np.isinf(values)
        return found

    def bad_count(self, array: Any) -> int:
        """Return how many elements are infinite."""
        return infinite_elements(array)
