"""Drift: silent on what stays, dated and named where it moves, ended where it returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    DistributionDriftDetector,
    Outcome,
    Series,
    SeriesKey,
    SeriesKind,
    Severity,
    SignalSet,
)

DETECTOR = DistributionDriftDetector()


def run(values: Any, name: str = "feature", **key: Any) -> SignalSet:
    values = np.asarray(values, np.float64)
    return SignalSet([Series(SeriesKey(name, layer="age", **key), np.arange(len(values)), values)])


def noise(seed: int, n: int = 6000) -> Any:
    return np.random.default_rng(seed).normal(size=n)


def test_a_shift_is_dated_and_high_when_it_lasts() -> None:
    values = noise(0)
    values[3130:] += 1.0
    found = DETECTOR.detect(run(values)).findings
    assert len(found) == 1
    assert found[0].severity is Severity.HIGH
    assert found[0].evidence["kind"] == "shift"
    # The window that it begins in, or the one after.
    assert found[0].evidence["onset_low"] <= 3130 <= found[0].onset_step + 500
    assert abs(found[0].onset_step - 3130) <= 500


def test_a_small_shift_is_medium_at_most() -> None:
    values = noise(1)
    values[3000:] += 0.4
    found = DETECTOR.detect(run(values)).findings
    assert [one.severity for one in found] == [Severity.MEDIUM]


def test_what_returns_has_an_end() -> None:
    values = noise(2)
    values[2000:4000] *= 4
    found = DETECTOR.detect(run(values)).findings
    assert len(found) == 1
    assert found[0].evidence["kind"] == "scale"
    assert found[0].end_step is not None
    assert abs(found[0].end_step - 4000) <= 500


def test_missing_values_that_begin_are_drift() -> None:
    values = noise(3)
    values[3000:][noise(4, 3000) > 1] = np.nan
    found = DETECTOR.detect(run(values)).findings
    assert [one.evidence["kind"] for one in found] == ["nulls"]


@pytest.mark.parametrize("kind", ["normal", "t2", "counts", "slow"])
def test_what_stays_raises_no_alarm(kind: str) -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        if kind == "slow":  # neighbours resemble each other
            values = np.empty(8000)
            values[0] = 0.0
            steps = rng.normal(size=8000)
            for at in range(1, 8000):
                values[at] = 0.9 * values[at - 1] + steps[at]
        else:
            values = {
                "normal": lambda g: g.normal(size=8000),
                "t2": lambda g: g.standard_t(2, 8000),
                "counts": lambda g: g.poisson(3, 8000).astype(float),
            }[kind](rng)
        alarms += DETECTOR.detect(run(values)).detected
    assert alarms <= 2  # 0.6 are promised


def test_batches_of_values_per_step() -> None:
    rng = np.random.default_rng(5)
    held = np.empty(100, object)
    for at in range(100):
        held[at] = rng.normal(1.0 if at >= 60 else 0.0, 1, 64)
    key = SeriesKey("prediction", kind=SeriesKind.ARRAY)
    found = DETECTOR.detect(SignalSet([Series(key, np.arange(0, 1000, 10), held)])).findings
    assert len(found) == 1
    assert abs(found[0].onset_step - 600) <= 80


def test_training_data_is_no_use_over_time() -> None:
    values = noise(6)
    values[3000:] += 2
    assert DETECTOR.detect(run(values, split="train")).outcome is Outcome.NOT_APPLICABLE


def test_too_few_values_are_no_verdict() -> None:
    found = DETECTOR.detect(run(noise(7, 1700)))
    assert found.outcome is Outcome.INSUFFICIENT
    assert "2000 values" in str(found.reason)
