"""Infinities: overflow in numbers and arrays, what follows them, and which are no failure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    InfDetectionDetector,
    NaNDetectionDetector,
    SeriesKey,
    Severity,
    Signal,
    SignalSet,
    diagnose,
)
from ml_systems_debugger.core import SeriesTable, TableKeys

INF = float("inf")


def signals(name: str, values: Any, **more: Any) -> list[Signal]:
    return [Signal(name, v, step=i, **more) for i, v in enumerate(values)]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_both_signs_are_found(sign: float) -> None:
    found = InfDetectionDetector().detect(signals("loss", [1.0] * 5 + [sign * INF] * 4))
    assert (found.severity, found.onset_step) == (Severity.CRITICAL, 5)


def test_an_infinity_that_becomes_nan_has_not_recovered() -> None:
    run = signals("loss", [1.0, 9.0, 900.0, INF] + [float("nan")] * 30)
    found = InfDetectionDetector().detect(run)
    assert (found.severity, found.onset_step) == (Severity.CRITICAL, 3)
    assert found.evidence["growth_before"] > 4
    after = NaNDetectionDetector().detect(run)
    assert after.onset_step == 4


def test_a_run_that_ends_in_an_infinite_gradient_norm_is_high() -> None:
    norms = signals("grad_norm", [1.0] * 64 + [INF])
    found = InfDetectionDetector().detect([*norms, *signals("loss", [0.5] * 65)])
    assert (found.severity, found.onset_step) == (Severity.HIGH, 64)


def test_a_skipped_step_of_float16_training_is_low() -> None:
    norms = signals("grad_norm", [INF, INF, INF, *([1.0] * 60), INF, *([1.0] * 60)])
    scale = signals("loss_scale", [2.0**16] * len(norms))
    found = InfDetectionDetector().detect([*norms, *scale])
    assert found.detected
    assert found.severity == Severity.LOW


def test_perplexity_overflow_is_no_failed_run() -> None:
    report = diagnose(
        {"loss": list(np.linspace(12, 2, 60)), "val_perplexity": [INF] * 3 + [90.0] * 57}
    )
    assert report.worst_severity is None or report.worst_severity < Severity.HIGH


def test_nan_is_none_of_its_business() -> None:
    assert not InfDetectionDetector().detect(signals("loss", [1.0, float("nan")])).detected


def test_half_precision_overflow_in_an_array() -> None:
    array = np.array([1.0, 65504.0, INF], np.float16)
    found = InfDetectionDetector().detect([Signal("activation", array, step=2)])
    assert found.evidence["first_index"] == (2,)


def test_series_of_a_table_recover_and_go_on_one_by_one() -> None:
    keys = TableKeys([SeriesKey("grad_norm", layer=layer) for layer in "abcd"])
    values = 1 + np.random.default_rng(0).random((120, 4))
    values[30:35, 1], values[60, 3], values[100:, 2] = np.inf, np.inf, np.inf
    run = SignalSet.of_tables([SeriesTable(keys, np.arange(120), values)])
    whole = InfDetectionDetector().detect(SignalSet(run.series))
    assert len(whole.findings) == 3
    for width in (1, 3, 8, 50):
        detector = InfDetectionDetector()
        state = detector.init()
        for at in range(0, 120, width):
            detector.update(state, run.between(at, at + width))
        assert detector.conclude(state).to_dict() == whole.to_dict()
