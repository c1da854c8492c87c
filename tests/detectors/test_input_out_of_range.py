"""Batches whose values leave the range of all batches before."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger import MLSystemsDebugger
from ml_systems_debugger.core import (
    ConfigurationError,
    DetectionResult,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
)
from ml_systems_debugger.detectors import InputOutOfRangeDetector

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def usual(seed: int, n: int = 400) -> Floats:
    return np.exp(0.05 * np.random.default_rng(seed).normal(size=n))


def fed(**series: Floats) -> SignalSet:
    return SignalSet(Series(SeriesKey(k), np.arange(len(v)), v) for k, v in series.items())


def detect(**series: Floats) -> DetectionResult:
    return InputOutOfRangeDetector().detect(fed(**series))


@pytest.mark.parametrize("factor", [300.0, 5.0, 0.1, 0.0])
def test_one_batch_out_of_range_is_medium(factor: float) -> None:
    std = usual(0)
    std[250] *= factor
    (one,) = detect(input_std=std).findings
    assert (one.severity, one.onset_step, one.end_step) == (Severity.MEDIUM, 250, 250)
    assert one.evidence["batches"] == 1


def test_two_statistics_of_one_batch_are_one_finding() -> None:
    std, top = usual(0), 6 * usual(1)
    std[250] *= 20
    top[250] *= 300
    (one,) = detect(input_std=std, input_absmax=top).findings
    assert one.evidence["series"] == "input_absmax"


def test_data_that_stay_out_of_range_are_high() -> None:
    std = usual(0)
    std[250:] *= 30
    (one,) = detect(input_std=std).findings
    assert (one.severity, one.onset_step, one.end_step) == (Severity.HIGH, 250, None)
    assert one.evidence["batches"] == 150
    assert one.evidence["ratio"] == pytest.approx(30, rel=0.3)


def test_a_run_that_goes_on_after_it_has_another_finding_for_another_batch() -> None:
    std = usual(0)
    std[[200, 300]] *= 50
    assert [f.onset_step for f in detect(input_std=std).findings] == [200, 300]


@pytest.mark.parametrize("seed", range(20))
def test_heavy_tailed_data_are_usual(seed: int) -> None:
    # Largest of 64 values whose tail is a power law of index 1.5: their variance is infinite.
    rng = np.random.default_rng(seed)
    top = (rng.pareto(1.5, (2000, 64)) + 1).max(axis=1)
    assert not detect(input_absmax=top).findings


def test_growth_over_the_run_is_usual() -> None:
    assert not detect(input_std=usual(0) * np.geomspace(1, 50, 400)).findings


def test_few_batches_are_not_judged_and_other_inputs_not_read() -> None:
    assert detect(input_std=usual(0)[:60]).findings == ()
    assert detect(loss=usual(0)).outcome is Outcome.NOT_APPLICABLE


def test_inputs_of_zeros_are_not_judged() -> None:
    assert not detect(input_std=np.zeros(100)).findings


@pytest.mark.parametrize(
    ("batches", "cause"), [(1, "corrupted_batch"), (200, "unscaled_input")]
)  # fmt: skip
def test_its_cause(batches: int, cause: str) -> None:
    std = usual(0)
    std[200 : 200 + batches] *= 30
    first = MLSystemsDebugger().debug(fed(input_std=std)).attributions[0]
    assert str(first.cause) == cause


def test_it_comes_before_the_spike_that_it_brings_about() -> None:
    std, loss = usual(0), 0.5 * usual(1)
    std[250] *= 30
    loss[250] *= 40
    first = MLSystemsDebugger().debug(fed(input_std=std, loss=loss)).attributions[0]
    assert first.story.startswith("input out of range (step 250)")


def test_a_factor_of_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="factor"):
        InputOutOfRangeDetector(factor=1.0)
