"""NaN in any recorded value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import FailureMode, detectors
from ._latency import SLOW
from ._nonfinite import NonFiniteDetector, nan_elements
from ._nonfinite_rules import NAN

__all__ = ["NaNDetectionDetector"]


@detectors.register("nan_detection")
@dataclass(frozen=True)
class NaNDetectionDetector(NonFiniteDetector):
    """NaN in a metric, a gradient, a parameter or any other recorded value.

    What it detects
    ---------------
    NaN in every scalar and every array of a run, training and held out, per
    layer and replica, whether or not somebody flagged it. Values that stay
    NaN, or are NaN with at most 8 good ones between, are one occurrence.

    Why it matters
    --------------
    NaN spreads: once it is in a parameter, every later loss is NaN, and the
    training so far is lost unless a checkpoint from before is at hand. Where
    it came first tells the operation that made it from those that pass it on.

    How it decides
    --------------
    It looks; there is no statistic. The severity follows from what is NaN and
    for how long: parameters, or a training loss that stays NaN, are critical;
    a training loss that recovers is high; a gradient norm is critical where it
    stays so, and medium at most where training goes on after it (low where a
    dynamic loss scale skips such steps: Micikevicius et al., ICLR 2018); a
    held-out loss is medium, and high where it stays NaN and no training loss is
    logged; any other metric is medium at most, and a missing value of a feature
    low. Of one series, 8 short occurrences are kept; further ones are counted,
    lasting ones always kept.

    What it finds clean it may vouch for only where that tells something of the
    run: ``judged`` names loss, gradient and parameter norms with 10 finite
    values or more, and arrays.

    Parameters
    ----------
    None; what is NaN is no matter of taste.

    Evidence
    --------
    ``series``, ``quantity``, ``count``, ``last_bad_step``, ``last_finite``,
    ``growth_before`` (largest of the last 4 finite values over the median of the 4 before),
    ``from_the_start``, ``goes_on``, ``recovered``, ``loss_scaling``,
    ``occurrences``, ``checked``, ``began_in`` and ``began_at`` (the earliest finding); of
    arrays ``elements``, ``bad_elements``, ``first_flat_index``, ``first_index``,
    ``shape``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> losses = [1.0, 0.9, float("nan"), float("nan")]
    >>> found = NaNDetectionDetector().detect(
    ...     [Signal("loss", x, step=10 * i) for i, x in enumerate(losses)])
    >>> found.severity.value, found.onset_step
    ('critical', 20)
    """

    failure_mode = FailureMode.NAN_DETECTED
    attribution_rules = NAN
    latency = SLOW
    kind = "nan"

    def bad(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which values [n] are NaN."""
        found: npt.NDArray[np.bool_] = np.isnan(values)
        return found

    def bad_count(self, array: Any) -> int:
        """Return how many elements are NaN."""
        return nan_elements(array)
