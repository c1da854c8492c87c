"""Gradients that carry over between the optimizer's steps."""

from __future__ import annotations

import pytest

from ml_systems_debugger import MLSystemsDebugger
from ml_systems_debugger.core import ConfigurationError, Severity, Signal
from ml_systems_debugger.detectors import StaleGradientsDetector


def carried(*spans: tuple[int, int], layers: str = "ab", steps: int = 60) -> list[Signal]:
    return [
        Signal(f"carried_gradient/{name}", float(any(a <= i < b for a, b in spans)), step=i)
        for i in range(steps)
        for name in layers
    ]


def test_two_parameters_are_one_finding() -> None:
    (one,) = StaleGradientsDetector().detect(carried((40, 60))).findings
    assert (one.severity, one.onset_step, one.layer) == (Severity.HIGH, 40, None)
    assert one.evidence["layers"] == ("a", "b")
    assert one.evidence["followed"] == 2


def test_one_parameter_of_two_is_named() -> None:
    signals = carried((40, 60), layers="a") + carried(layers="b")
    (one,) = StaleGradientsDetector().detect(signals).findings
    assert (one.layer, one.evidence["followed"]) == ("a", 2)


def test_one_step_alone_is_none() -> None:
    found = StaleGradientsDetector().detect(carried((40, 42), (50, 51)))
    assert not found.findings
    assert found.judged == ("carried_gradient",)


def test_what_ended_is_medium() -> None:
    (one,) = StaleGradientsDetector().detect(carried((20, 30))).findings
    assert (one.severity, one.end_step) == (Severity.MEDIUM, 29)


def test_its_cause_is_gradients_that_are_not_zeroed() -> None:
    report = MLSystemsDebugger().debug(carried((40, 60)))
    first = report.attributions[0]
    assert str(first.cause) == "gradients_not_zeroed"
    assert first.confidence >= 0.8


def test_a_persistence_of_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="persistence"):
        StaleGradientsDetector(persistence=1)
