"""Weights of a layer that grow or shrink without bound."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger import MLSystemsDebugger
from ml_systems_debugger.core import (
    ConfigurationError,
    DetectionResult,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
)
from ml_systems_debugger.detectors import ParameterRunawayDetector

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def norms(stride: int = 5, **layers: Floats) -> SignalSet:
    return SignalSet(
        Series(SeriesKey("param_norm", layer=k), stride * np.arange(len(v)), v)
        for k, v in layers.items()
    )


def detect(**layers: Floats) -> DetectionResult:
    return ParameterRunawayDetector().detect(norms(**layers))


def learning(n: int = 100) -> Floats:
    """From a small start up, fast at first, as weights that learn."""
    return 1.0 + np.sqrt(np.arange(n))


def growing(pace: float, at: int = 60, n: int = 100) -> Floats:
    return learning(n) * pace ** np.maximum(0, np.arange(n) - at)


@pytest.mark.parametrize("pace", [1.5, 2.0, 10.0])
def test_weights_that_run_away_are_high_where_they_began(pace: float) -> None:
    (one,) = detect(a=learning(), b=growing(pace)).findings
    assert (one.severity, one.layer, one.end_step) == (Severity.HIGH, "b", None)
    assert one.onset_step is not None
    assert abs(one.onset_step - 5 * 61) <= 5
    assert one.evidence["onset_low"] <= one.onset_step <= one.evidence["onset_high"]


def test_weights_that_are_decayed_to_nothing_are_medium() -> None:
    shrinking = learning() * 0.17 ** np.clip(np.arange(100) - 60, 0, 3)
    (one,) = detect(b=shrinking).findings
    assert (one.severity, one.layer) == (Severity.MEDIUM, "b")
    assert one.evidence["ratio"] < 0.01


def test_weights_that_come_back_end_it() -> None:
    values = learning()
    values[60:70] *= 100
    (one,) = detect(b=values).findings
    assert (one.severity, one.onset_step, one.end_step) == (Severity.MEDIUM, 300, 345)


def test_a_tenfold_growth_over_the_run_is_learning() -> None:
    assert not detect(a=learning(2000), b=np.geomspace(1, 1e4, 2000)).findings


def test_an_adapter_that_is_let_go_begins_anew() -> None:
    held = np.concatenate([np.zeros(60), 1e-3 * (1 + np.arange(40.0)) ** 1.5])
    assert not detect(b=held).findings


def test_a_norm_that_overflows_goes_on() -> None:
    values = growing(10.0)
    values[80:] = np.inf
    (one,) = detect(b=values).findings
    assert one.end_step is None


@pytest.mark.parametrize(
    ("pace", "cause"), [(2.0, "learning_rate_too_high"), (0.5, "excessive_regularization")]
)
def test_its_cause(pace: float, cause: str) -> None:
    first = MLSystemsDebugger().debug(norms(a=learning(), b=growing(pace))).attributions[0]
    assert str(first.cause) == cause


def test_many_occurrences_are_only_counted() -> None:
    values = np.ones(400)
    for at in range(30, 400, 60):
        values[at : at + 10] *= 100
    found = detect(b=values)
    assert len(found.findings) == 4
    assert "only counted" in found.message or "only counted" in found.reason


def test_a_factor_of_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="factor"):
        ParameterRunawayDetector(factor=1.0)
