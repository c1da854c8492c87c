"""Leaks: a feature that is the label, rows in both sets, perfection too soon."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    ConfigurationError,
    LabelLeakageDetector,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
)

DETECTOR = LabelLeakageDetector()
RNG = np.random.default_rng(0)
N = 2000
BINARY = RNG.integers(0, 2, N)
WORDS = np.array(["yes" if v else "no" for v in BINARY], object)
NUMBER = RNG.normal(size=N)


def judged(feature: Any, labels: Any) -> Any:
    return DETECTOR.detect([], {"features": {"f": feature}, "labels": labels})


@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        (BINARY.astype(float), BINARY),
        (np.where(BINARY, RNG.normal(10, 1, N), RNG.normal(-10, 1, N)), BINARY),
        (WORDS, BINARY),
        (BINARY, WORDS),
        (np.where(BINARY, 3.0, -1.0), WORDS),
        (NUMBER * 3 + 1, NUMBER),
        (np.exp(NUMBER), NUMBER),
        (RNG.permuted(np.repeat(np.arange(10), N // 10)), None),
    ],
)
def test_a_feature_that_is_the_label(feature: Any, labels: Any) -> None:
    found = judged(feature, feature if labels is None else labels)
    assert found.severity is Severity.HIGH
    assert found.evidence["feature"] == "f"


@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        (RNG.normal(size=N), BINARY),
        (BINARY + RNG.normal(0, 0.7, N), BINARY),  # a good feature
        (np.array([f"id{k}" for k in range(N)], object), BINARY),  # an identifier
        (RNG.integers(0, 1000, N), BINARY),
        (NUMBER + RNG.normal(0, 0.5, N), NUMBER),
        (RNG.normal(size=N), (np.arange(N) < 4).astype(int)),  # nearly one class
        (RNG.normal(size=N), np.zeros(N)),
    ],
)
def test_features_that_only_help(feature: Any, labels: Any) -> None:
    assert not judged(feature, labels).detected


def test_rows_in_both_sets() -> None:
    train = RNG.normal(size=(1000, 5))
    test = RNG.normal(size=(200, 5))
    assert not DETECTOR.detect([], {"train_rows": train, "test_rows": test}).detected
    test[:30] = train[:30]
    found = DETECTOR.detect([], {"train_rows": train, "test_rows": test})
    assert (found.severity, found.evidence["rows"]) == (Severity.HIGH, 30)


def accuracy(values: Any) -> SignalSet:
    key = SeriesKey("accuracy", split="val")
    return SignalSet([Series(key, np.arange(len(values)) * 100, np.asarray(values, np.float64))])


def test_perfect_from_the_first_evaluation() -> None:
    found = DETECTOR.detect(accuracy([1.0] * 8))
    assert found.severity is Severity.MEDIUM
    assert found.evidence["evaluations"] == 8
    assert not DETECTOR.detect(accuracy([0.6, 0.9, *[1.0] * 8])).detected
    assert not DETECTOR.detect(accuracy([0.98, 0.985, 0.99])).detected
    assert not DETECTOR.detect(accuracy([100.0] * 5)).detected  # per cent: another unit


def test_nothing_to_judge_is_said() -> None:
    assert DETECTOR.detect([]).outcome is Outcome.NOT_APPLICABLE
    assert DETECTOR.detect(accuracy([1.0])).outcome is Outcome.INSUFFICIENT


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'f' has 3 values, labels have 2000"):
        judged(np.zeros(3), BINARY)
    with pytest.raises(ConfigurationError, match="maps names to values"):
        DETECTOR.detect([], {"features": [1, 2], "labels": [0, 1]})
    with pytest.raises(ConfigurationError, match=r"shapes \(2, 3\) and \(2, 4\)"):
        DETECTOR.detect([], {"train_rows": np.zeros((2, 3)), "test_rows": np.zeros((2, 4))})
