"""Confidences that hold what they say: learnt on labelled runs, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..attribution.calibration import Calibration, Isotonic, Platt
from ..core import ConfigurationError
from .labelled_runs import Evaluation

__all__ = ["Reliability", "learn", "reliability"]

_LEAST = 20
_MANY = 200  # of labels, from which on no shape of the curve has to be assumed


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well confidences agree with what was right.

    Parameters
    ----------
    predictions : int
    brier : float
        Mean squared difference of confidence and outcome (Brier, 1950).
    ece : float
        Expected calibration error over at most ten equally full bins (Naeini
        et al., AAAI 2015).
    bins : tuple of (float, float, int)
        Mean confidence, share that was right, and number, of each bin.
    """

    predictions: int
    brier: float
    ece: float
    bins: tuple[tuple[float, float, int], ...]


def learn(evaluation: Evaluation) -> Calibration:
    """Return a calibration of the causes' confidences.

    A logistic curve (Platt) below 200 labels, an isotonic one from there on.

    Raises
    ------
    ConfigurationError
        If fewer than 20 diagnosed runs have a known cause, or all were right or
        all were wrong: nothing can be learnt from that.
    """
    confidences, right = _pairs(evaluation)
    if len(right) < _LEAST:
        raise ConfigurationError(
            f"{len(right)} runs have both a diagnosis and a known cause; at least {_LEAST} are "
            f"needed (give 'causes' in the labels)"
        )
    if all(right) or not any(right):
        raise ConfigurationError(
            f"all {len(right)} causes were {'right' if right[0] else 'wrong'}: a calibration needs "
            f"both"
        )
    fit = Isotonic.fit if len(right) >= _MANY else Platt.fit
    return fit(confidences, right)


def reliability(
    evaluation: Evaluation, calibration: Calibration | None = None
) -> Reliability | None:
    """Return how well the confidences hold; None where no cause is known."""
    confidences, right = _pairs(evaluation)
    if not right:
        return None
    if calibration is not None:
        confidences = [calibration(value) for value in confidences]
    p, y = np.asarray(confidences), np.asarray(right, np.float64)
    parts = np.array_split(np.argsort(p, kind="stable"), min(10, len(p)))
    bins = tuple((float(p[i].mean()), float(y[i].mean()), len(i)) for i in parts)
    error = sum(n * abs(said - was) for said, was, n in bins) / len(p)
    return Reliability(len(p), float(np.mean((p - y) ** 2)), error, bins)


def _pairs(evaluation: Evaluation) -> tuple[Sequence[float], Sequence[bool]]:
    told = [j for j in evaluation.judgements if j.cause_right is not None]
    return [j.confidence or 0.0 for j in told], [bool(j.cause_right) for j in told]
