"""Memory that will run out, and memory that only looks like it."""

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
from ml_systems_debugger.detectors import OomPrecursorDetector

DETECTOR = OomPrecursorDetector()
TOTAL = 80e9


def series(name: str, values: Any, replica: int | None = None) -> Series:
    held = np.asarray(values, float)
    return Series(SeriesKey(name, replica_id=replica), np.arange(len(held)), held)


def found(
    values: Any, total: float | None = TOTAL, name: str = "memory_allocated"
) -> DetectionResult:
    parts = [series(name, values)]
    if total is not None:
        parts.append(series("memory_total", np.full(len(values), total)))
    return DETECTOR.detect(SignalSet(parts))


def leak(seed: int, steps: int, begins: int, end: float = 60e9) -> Any:
    """Return memory of 40 GB with the noise of batches, that grows to `end` from a step on."""
    rng = np.random.default_rng(seed)
    slope = (end - 40e9) / (steps - begins)
    return 40e9 + 5e8 * rng.gamma(2, 1, steps) + slope * np.maximum(np.arange(steps) - begins, 0)


@pytest.mark.parametrize("steps", [200, 2000, 20000])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7])
def test_a_leak_is_dated_and_measured(steps: int, part: float) -> None:
    begins = int(part * steps)
    result = found(leak(1, steps, begins))
    assert result.severity is Severity.HIGH
    assert result.evidence["onset_low"] <= begins <= result.evidence["onset_high"]
    assert abs((result.onset_step or 0) - begins) <= 0.05 * steps
    # 20 GB have leaked, 20 GB less the noise of a batch are left: about as many steps again.
    assert 0.7 * (steps - begins) < result.evidence["steps_left"] < 1.05 * (steps - begins)
    assert result.evidence["steps_left_low"] <= result.evidence["steps_left"]
    assert result.evidence["steps_left"] <= result.evidence["steps_left_high"]
    assert result.evidence["full_at_step"] == steps - 1 + result.evidence["steps_left"]


def test_a_slow_leak_is_less_urgent() -> None:
    assert found(leak(2, 1000, 0, 44e9)).severity is Severity.MEDIUM


def test_without_a_total_growth_is_told_and_the_context_may_know_it() -> None:
    values = leak(3, 1000, 200, 100e9)
    assert found(values, None).severity is Severity.MEDIUM
    assert "steps_left" not in found(values, None).evidence
    held = SignalSet([series("memory_allocated", leak(3, 1000, 200))])
    assert DETECTOR.detect(held, {"memory_total": TOTAL}).severity is Severity.HIGH


def test_the_replica_that_leaks_is_named() -> None:
    parts = [
        series("memory_allocated", leak(r, 600, 100) if r == 2 else leak(r, 600, 100, 40e9), r)
        for r in range(4)
    ]
    parts.append(series("memory_total", np.full(600, TOTAL)))
    assert DETECTOR.detect(SignalSet(parts)).replica_id == 2


def test_reserved_memory_is_asked_only_where_nothing_better_is_logged() -> None:
    reserved = series("memory_reserved", leak(4, 600, 100))
    total = series("memory_total", np.full(600, TOTAL))
    assert DETECTOR.detect(SignalSet([reserved, total])).detected
    steady = series("memory_allocated", leak(5, 600, 100, 40e9))
    assert not DETECTOR.detect(SignalSet([reserved, total, steady])).detected


def test_host_memory_leaks_too() -> None:
    result = DETECTOR.detect(
        SignalSet([
            series("host_memory", leak(6, 600, 100)),
            series("host_memory_total", np.full(600, TOTAL)),
        ])
    )  # fmt: skip
    assert (result.severity, result.evidence["quantity"]) == (Severity.HIGH, "host_memory")


def test_units_that_do_not_fit_are_not_set_against_each_other() -> None:
    result = found(leak(7, 600, 100), 80.0)
    assert "steps_left" not in result.evidence


@pytest.mark.parametrize("steps", [100, 2000])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "kind", ["flat", "warm-up", "jump", "jumps", "maxima", "saw", "wide", "full"]
)
def test_healthy_memory_is_left_alone(kind: str, seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    at = np.arange(steps) / steps
    values = {
        "flat": 40 + 0.3 * rng.normal(size=steps),
        "warm-up": 40 * (1 - np.exp(-at * 12)) + 0.3 * rng.normal(size=steps),
        "jump": 40 + 10 * (at > rng.uniform(0.1, 0.95)) + 0.3 * rng.normal(size=steps),
        "jumps": 40 + 4 * ((at > 0.3) + 1.0 * (at > 0.5) + (at > 0.8)),
        "maxima": 40 + np.maximum.accumulate(3 * rng.exponential(size=steps)),
        "saw": 40 + 10 * (np.arange(steps) % 25) / 25,
        "wide": 40 + rng.gamma(2, 4, steps),
        "full": 79.5 + 0.1 * rng.normal(size=steps),
    }[kind]
    assert not found(values, 80.0).detected


def test_a_leak_that_was_stopped_announces_nothing() -> None:
    values = leak(8, 600, 100)
    assert not found(np.concatenate([values, np.full(900, values[-1])])).detected


def test_an_allocation_that_failed_is_certain() -> None:
    result = DETECTOR.detect(
        SignalSet([Series(SeriesKey("allocation_failed"), np.array([77]), np.array([2e9]))])
    )
    assert (result.severity, result.onset_step) == (Severity.HIGH, 77)


@pytest.mark.parametrize("width", [1, 13, 200])
def test_it_is_the_same_however_cut(width: int) -> None:
    whole = SignalSet([
        series("memory_allocated", np.concatenate([leak(9, 500, 100), np.full(300, 45e9)])),
        series("memory_total", np.full(800, TOTAL)),
    ])  # fmt: skip
    state, events = DETECTOR.init(), []
    for start, stop in pairwise([None, *range(width, 800, width), None]):
        events += DETECTOR.update(state, whole.between(start, stop))
    once = DETECTOR.init()
    assert events == list(DETECTOR.update(once, whole))
    assert [e.kind.value for e in events] == ["open", "retract"]
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.conclude(once).to_dict()


def test_the_cause_says_when_it_will_be_full() -> None:
    parts = [series("memory_allocated", leak(10, 1000, 300))]
    report = diagnose(SignalSet([*parts, series("memory_total", np.full(1000, TOTAL))]))
    cause = report.attributions[0]
    assert cause.cause == "memory_leak"
    full = next(d for d in report.failures if d.failure_mode == "oom_precursor")
    assert f"before step {full.evidence['full_at_step']}" in cause.remediation_hints[0]


def test_what_cannot_be_judged() -> None:
    assert found(np.full(10, 1.0)).outcome is Outcome.INSUFFICIENT
    assert DETECTOR.detect(SignalSet()).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("bad", [{"growth": 2}, {"horizon": 0}, {"min_points": 3}])
def test_parameters_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        OomPrecursorDetector(**bad)
