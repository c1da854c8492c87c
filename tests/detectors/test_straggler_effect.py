"""Slow replicas and slow jobs, and what only looks like one."""

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
from ml_systems_debugger.detectors import StragglerEffectDetector
from ml_systems_debugger.detectors._lasting import TAIL, Lasting, Tail, keep_quiet

DETECTOR = StragglerEffectDetector()


def run(times: Any, name: str = "step_time", stride: int = 1) -> SignalSet:
    """Return times [steps, replicas] as a run."""
    return SignalSet(
        Series(SeriesKey(name, replica_id=r), stride * np.arange(len(times)), np.array(column))
        for r, column in enumerate(np.asarray(times, float).T)
    )


def paces(seed: int, steps: int, replicas: int, noise: float = 0.05, differ: float = 0.1) -> Any:
    """Healthy times: a job with its own noise, replicas that differ, each with its noise."""
    rng = np.random.default_rng(seed)
    shared = 0.05 * rng.normal(size=(steps, 1))
    own = noise * rng.normal(size=(steps, replicas))
    return 0.4 * np.exp(shared + own + differ * rng.normal(size=replicas))


def found(times: Any, **more: Any) -> DetectionResult:
    return DETECTOR.detect(run(times, **more))


@pytest.mark.parametrize("replicas", [2, 3, 8, 64])
def test_a_replica_that_slows_is_named_with_its_first_step(replicas: int) -> None:
    times = paces(replicas, 900, replicas)
    times[400:, 1] *= 2.0
    result = found(times, stride=10)
    assert (result.severity, result.replica_id) == (Severity.HIGH, 1)
    assert result.onset_step == 4000
    assert result.end_step is None
    assert result.evidence["onset_low"] <= 4000 <= result.evidence["onset_high"]
    assert 1.8 < result.evidence["slowdown"] < 2.2
    lost = (times[400:, 1] / 2).sum()
    assert lost / 1.3 < result.evidence["excess_time"] < 1.3 * lost
    assert [f.replica_id for f in result.findings if f.severity >= Severity.MEDIUM] == [1]


def test_one_that_recovers_has_an_end_and_is_no_longer_high() -> None:
    times = paces(0, 600, 8)
    times[300:360, 5] *= 2.5
    (finding,) = found(times).findings
    assert (finding.replica_id, finding.onset_step, finding.end_step) == (5, 300, 359)
    assert finding.severity is Severity.MEDIUM
    assert finding.evidence["recovered"] is True
    assert "from step 300 to 359" in finding.message


def test_slow_from_the_start_is_medium() -> None:
    times = paces(1, 300, 8, differ=0.02)
    times[:, 2] *= 2.0
    result = found(times)
    assert (result.severity, result.replica_id, result.onset_step) == (Severity.MEDIUM, 2, 0)
    assert result.evidence["rule"] == "from_the_start"


def test_a_replica_that_creeps_up_is_found() -> None:
    times = paces(2, 2000, 8)
    times[:, 3] *= np.exp(np.linspace(0, np.log(2.2), 2000))
    assert found(times).replica_id == 3


@pytest.mark.parametrize("replicas", [1, 2, 8, 64])
@pytest.mark.parametrize("seed", range(4))
def test_healthy_jobs_are_left_alone(replicas: int, seed: int) -> None:
    assert not found(paces(seed, 2000, replicas)).detected


@pytest.mark.parametrize("seed", range(4))
def test_heavy_tails_and_pauses_are_no_stragglers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heavy = 0.4 * np.exp(0.1 * rng.standard_t(3, (2000, 8)))
    assert not found(heavy).detected
    checkpoints = paces(seed, 2000, 8)
    checkpoints[::100] *= 20
    checkpoints[50::100, 0] *= 30  # the first replica alone writes
    assert not found(checkpoints).detected
    evaluations = paces(seed, 2000, 8)
    for start in range(200, 2000, 500):
        evaluations[start : start + 20] *= 3
    assert not found(evaluations).detected


def test_replicas_of_unlike_hardware_are_healthy() -> None:
    times = paces(3, 1000, 8, differ=0)
    times[:, 4:] *= 1.8
    result = found(times)
    assert result.severity is None or result.severity < Severity.MEDIUM


def test_where_all_slow_none_is_to_blame() -> None:
    times = paces(4, 1000, 8)
    times[600:] *= 2.0
    (finding,) = found(times).findings
    assert (finding.severity, finding.replica_id) == (Severity.LOW, None)
    assert finding.onset_step == 600
    assert finding.evidence["rule"] == "job"


@pytest.mark.parametrize("name", ["step_time", "tokens_per_second"])
def test_a_single_replica_is_judged_against_its_past(name: str) -> None:
    times = paces(5, 1000, 1)
    times[600:] *= 1.8
    result = found(1 / times if name == "tokens_per_second" else times, name=name)
    assert (result.severity, result.onset_step, result.end_step) == (Severity.MEDIUM, 600, None)
    assert "the job takes 1.8" in result.message


def test_a_rate_and_a_time_tell_it_once() -> None:
    times = paces(6, 600, 4)
    times[300:, 2] *= 2
    both = run(times).with_series(run(4096 / times, "tokens_per_second").series)
    result = DETECTOR.detect(both)
    assert [f.evidence["quantity"] for f in result.findings] == ["step_time"]


def test_who_waits_is_not_who_is_waited_for() -> None:
    rng = np.random.default_rng(7)
    busy = 0.3 * np.exp(0.02 * rng.normal(size=(600, 4)))
    busy[300:, 1] *= 2
    steps = np.repeat(busy.max(axis=1, keepdims=True), 4, axis=1) + 0.05
    result = DETECTOR.detect(run(steps).with_series(run(steps - busy, "comm_time").series))
    assert (result.replica_id, result.onset_step) == (1, 300)
    assert "without comm_time" in result.message


def test_a_replica_that_joins_late_or_misses_steps_is_judged_by_its_own_values() -> None:
    times = paces(8, 800, 6)
    times[500:, 4] *= 2
    late = [one.between(100, None) if one.key.replica_id == 4 else one for one in run(times).series]
    result = DETECTOR.detect(SignalSet(late))
    assert (result.replica_id, result.onset_step) == (4, 500)


@pytest.mark.parametrize("width", [1, 7, 64, 250])
def test_an_occurrence_is_the_same_however_cut(width: int) -> None:
    times = paces(9, 700, 5)
    times[3:40, 0] *= 1.9  # before anything is taught
    times[200:290, 1] *= 1.6
    times[280:420, 2] *= np.linspace(1, 3, 140)
    times[500:] *= 1.9
    whole = run(times)
    state, events = DETECTOR.init(), []
    for start, stop in pairwise([None, *range(width, 700, width), None]):
        events += DETECTOR.update(state, whole.between(start, stop))
    once = DETECTOR.init()
    assert events == list(DETECTOR.update(once, whole))
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.conclude(once).to_dict()
    assert {f.replica_id for f in DETECTOR.conclude(once).findings} >= {1, 2, None}


def test_the_cause_names_replica_and_step() -> None:
    times = paces(10, 600, 8)
    times[300:, 6] *= 2
    report = diagnose(run(times))
    cause = report.attributions[0]
    assert cause.cause == "slow_worker"
    assert "Replica 6" in cause.hypothesis
    assert "step 300" in cause.hypothesis
    assert "replica 6" in cause.remediation_hints[0]


def test_too_few_values_are_not_judged() -> None:
    assert found(paces(0, 5, 4)).outcome is Outcome.INSUFFICIENT
    assert DETECTOR.detect(SignalSet()).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("bad", [{"score": 1.5}, {"sigmas": 0}, {"rounds": 9}, {"job_ratio": 1}])
def test_parameters_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        StragglerEffectDetector(**bad)


def test_the_short_way_of_quiet_values_keeps_what_the_long_one_keeps() -> None:
    rng = np.random.default_rng(0)
    long, short = (np.full((3, TAIL), np.nan) for _ in range(2))
    long_steps, short_steps = np.zeros(TAIL, np.int64), np.zeros(TAIL, np.int64)
    step = 0
    for size in (1, 3, TAIL - 1, 2, TAIL, 5 * TAIL, 1, 16, 7):
        excess, facts = rng.random(size), rng.normal(size=(2, size))
        steps = np.arange(step, step + size)
        step += size
        tail = Tail.of(long, long_steps, excess, facts, steps)
        assert list(Lasting(8, 5, 8).turns(tail, False)) == []
        tail.keep(long, long_steps)
        assert keep_quiet(short, short_steps, excess, facts, steps)
        np.testing.assert_array_equal(short, long)
        held = np.isfinite(long[0])
        np.testing.assert_array_equal(short_steps[held], long_steps[held])
    for loud in (1.5, np.nan):
        before = short.copy()
        given = np.array([0.5, loud])
        assert not keep_quiet(short, short_steps, given, np.zeros((2, 2)), np.arange(2))
        np.testing.assert_array_equal(short, before)
