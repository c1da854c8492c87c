"""Steps that wait for their data, and loaders that only hiccup."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    ConfigurationError,
    DetectionResult,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
    diagnose,
)
from ml_systems_debugger.detectors import InputStarvationDetector

DETECTOR = InputStarvationDetector()


def run(share: Any, seed: int = 0, replica: int | None = None) -> SignalSet:
    """Return steps of about 0.4 s of which the given share is spent on data."""
    rng = np.random.default_rng(seed)
    share = np.asarray(share, float)
    step = 0.4 * np.exp(0.05 * rng.normal(size=len(share)))
    data = step * share * np.exp(0.3 * rng.normal(size=len(share)))
    return SignalSet(
        Series(SeriesKey(name, replica_id=replica), np.arange(len(share)), values)
        for name, values in (("step_time", step), ("data_time", data))
    )


def found(share: Any, seed: int = 0) -> DetectionResult:
    return DETECTOR.detect(run(share, seed))


def shares(steps: int, usual: float, then: float, start: int, stop: int | None = None) -> Any:
    values = np.full(steps, usual)
    values[start:stop] = then
    return values


@pytest.mark.parametrize("steps", [200, 5000])
def test_a_rise_is_dated_and_measured(steps: int) -> None:
    begins = steps // 2
    result = found(shares(steps, 0.03, 0.6, begins))
    assert result.severity is Severity.HIGH
    assert abs((result.onset_step or 0) - begins) <= 1
    assert 0.5 < result.evidence["share"] < 0.7
    assert 0.02 < result.evidence["usual_share"] < 0.04
    assert result.evidence["rule"] == "rise"


def test_a_loader_that_was_always_too_slow() -> None:
    result = found(np.full(300, 0.7))
    assert (result.severity, result.evidence["rule"]) == (Severity.HIGH, "from_the_start")
    assert (result.onset_step or 0) <= 2


def test_a_third_of_the_time_is_medium() -> None:
    assert found(shares(600, 0.05, 0.45, 300)).severity is Severity.MEDIUM


def test_one_that_recovers_has_an_end() -> None:
    (finding,) = found(shares(600, 0.05, 0.8, 200, 320)).findings
    assert finding.severity is Severity.MEDIUM
    assert abs((finding.onset_step or 0) - 200) <= 1
    assert abs((finding.end_step or 0) - 319) <= 2
    assert finding.evidence["recovered"] is True


@pytest.mark.parametrize("seed", range(5))
def test_healthy_loaders_are_left_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert not found(np.full(2000, 0.08), seed).detected
    epochs = np.full(2000, 0.05)
    for start in range(0, 2000, 100):
        epochs[start : start + 5] = 0.95  # processes start anew
    assert not found(epochs, seed).detected
    heavy = np.minimum(0.05 * np.exp(0.8 * rng.standard_t(3, 2000)), 0.99)
    assert not found(heavy, seed).detected


def test_the_replica_that_waits_is_named() -> None:
    parts = [
        s
        for r in range(4)
        for s in run(shares(400, 0.05, 0.6 if r == 3 else 0.05, 200), r, r).series
    ]
    result = DETECTOR.detect(SignalSet(parts))
    assert (result.replica_id, len(result.findings)) == (3, 1)


@pytest.mark.parametrize("width", [1, 13, 200])
def test_it_is_the_same_however_cut(width: int) -> None:
    share = np.concatenate([shares(400, 0.05, 0.7, 150, 260), np.full(300, 0.5)])
    whole = run(share)
    state, events = DETECTOR.init(), []
    for start, stop in pairwise([None, *range(width, 700, width), None]):
        events += DETECTOR.update(state, whole.between(start, stop))
    once = DETECTOR.init()
    assert events == list(DETECTOR.update(once, whole))
    assert [e.kind.value for e in events] == ["open", "close", "open"]
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.conclude(once).to_dict()


def test_the_cause_is_the_loader() -> None:
    report = diagnose(run(shares(600, 0.03, 0.6, 300)))
    assert report.attributions[0].cause == "data_loader_bottleneck"
    assert "step 300" in report.attributions[0].hypothesis


def test_what_cannot_be_judged() -> None:
    assert found(np.full(8, 0.9)).outcome is Outcome.INSUFFICIENT
    assert DETECTOR.detect(SignalSet()).outcome is Outcome.NOT_APPLICABLE
    alone = SignalSet(s for s in run(np.full(99, 0.5)).series if s.name == "data_time")
    assert DETECTOR.detect(alone).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("bad", [{"share": 0}, {"rise": 2}, {"persistence": 1}])
def test_parameters_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        InputStarvationDetector(**bad)
