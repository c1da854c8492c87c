"""Workers that stop, or whose values die, while the others go on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    ConfigurationError,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
    diagnose,
)
from ml_systems_debugger.detectors import PartialWorkerFailureDetector

DETECTOR = PartialWorkerFailureDetector()
Change = Callable[[str, int, Any], Any]


def job(
    replicas: int = 4,
    steps: int = 300,
    layers: int = 0,
    change: Change | None = None,
    seed: int = 0,
) -> SignalSet:
    """Return a job with a loss and norms of its own on every replica."""
    rng = np.random.default_rng(seed)
    found = []
    places = [("loss", None), ("grad_norm", None), ("step_time", None)]
    places += [("grad_norm", f"layer.{at}") for at in range(layers)]
    for name, layer in places:
        for replica in range(replicas):
            values = np.exp(0.2 * rng.normal(size=steps))
            if change is not None:
                values = change(name, replica, values)
            key = SeriesKey(name, layer=layer, replica_id=replica)
            found.append(Series(key, np.arange(len(values)), values))
    return SignalSet(found)


def set_from(at: int, value: float, replica: int = 2, stop: int | None = None) -> Change:
    def change(name: str, which: int, values: Any) -> Any:
        if which == replica and name != "step_time":
            values[at:stop] = values[at - 1] if value == -1 else value
        return values

    return change


def ends(at: int, *replicas: int) -> Change:
    return lambda _, which, values: values[:at] if which in replicas else values


@pytest.mark.parametrize("replicas", [2, 4, 16])
def test_a_replica_that_stops_is_named_with_its_last_step(replicas: int) -> None:
    result = DETECTOR.detect(job(replicas, change=ends(180, 1)))
    (finding,) = result.findings
    assert (finding.severity, finding.replica_id) == (Severity.HIGH, 1)
    assert (finding.onset_step, finding.end_step) == (180, None)
    assert finding.evidence["last_seen_step"] == 179
    assert finding.evidence["persistence_steps"] == 120
    assert set(finding.evidence["quantities"]) == {"loss", "grad_norm", "step_time"}


@pytest.mark.parametrize(
    ("value", "rule"),
    [(0.0, "zero"), (np.nan, "non_finite"), (np.inf, "non_finite"), (-1, "constant")],
)
@pytest.mark.parametrize("layers", [0, 6])
def test_values_that_die_are_found_at_their_first_step(
    value: float, rule: str, layers: int
) -> None:
    result = DETECTOR.detect(job(layers=layers, change=set_from(200, value)))
    (finding,) = result.findings
    assert (finding.severity, finding.replica_id) == (Severity.HIGH, 2)
    assert finding.onset_step == 200
    assert finding.evidence["rule"] == rule
    assert finding.evidence["persistence_steps"] == 100
    assert finding.evidence["quantities"] == ("grad_norm", "loss")


def test_one_that_comes_back_has_an_end() -> None:
    result = DETECTOR.detect(job(change=set_from(100, 0.0, stop=150)))
    (finding,) = result.findings
    assert (finding.onset_step, finding.end_step) == (100, 149)
    assert finding.severity is Severity.MEDIUM
    run = job()
    gone = [
        one
        for s in run.series
        for one in ([s] if s.key.replica_id != 1 else [_without(s, 60, 130)])
    ]
    (finding,) = DETECTOR.detect(SignalSet(gone)).findings
    assert (finding.replica_id, finding.onset_step, finding.end_step) == (1, 60, 129)


def _without(one: Series, start: int, stop: int) -> Series:
    kept = (one.steps < start) | (one.steps >= stop)
    return Series(one.key, one.steps[kept], one.values[kept])


def test_healthy_jobs_are_left_alone() -> None:
    for seed in range(5):
        assert not DETECTOR.detect(job(8, layers=3, seed=seed)).detected


def test_ranks_that_log_less_often_are_healthy() -> None:
    run = job(4, 2000)
    thinned = [
        s if s.key.replica_id == 0 else Series(s.key, s.steps[::25], s.values[::25])
        for s in run.series
    ]
    assert not DETECTOR.detect(SignalSet(thinned)).detected


def test_a_last_line_that_came_late_is_no_failure() -> None:
    assert not DETECTOR.detect(job(8, change=ends(292, 3))).detected


def test_where_most_stop_at_once_it_is_how_they_log() -> None:
    result = DETECTOR.detect(job(4, change=ends(100, 1, 2, 3)))
    assert {f.severity for f in result.findings} == {Severity.LOW}


def test_what_is_so_on_all_replicas_is_no_matter_of_one() -> None:
    def flat(name: str, which: int, values: Any) -> Any:
        values[100:] = 0.0 if name == "loss" else np.nan
        return values

    assert not DETECTOR.detect(job(change=flat)).detected


def test_infinities_of_both_signs_are_only_not_finite() -> None:
    def swinging(name: str, which: int, values: Any) -> Any:
        if which == 1:
            values[100::2], values[101::2] = np.inf, -np.inf
        return values

    (finding,) = DETECTOR.detect(job(change=swinging)).findings
    assert (finding.replica_id, finding.evidence["rule"]) == (1, "non_finite")


def test_values_of_few_digits_repeat_by_nature() -> None:
    for seed in range(5):
        run = job(8, 600, change=lambda _, __, values: np.round(values, 1), seed=seed)
        assert not DETECTOR.detect(run).detected


def test_one_layer_of_many_is_not_the_worker() -> None:
    run = job(layers=6)
    parts = []
    for one in run.series:
        values = one.values.copy()
        if (one.key.layer, one.key.replica_id) == ("layer.3", 1):
            values[50:] = 0.0
        parts.append(Series(one.key, one.steps, values))
    assert not DETECTOR.detect(SignalSet(parts)).detected


def test_a_replica_that_did_not_join_a_call_is_named() -> None:
    parts = []
    for replica in range(4):
        count = 90 if replica == 3 else 91
        steps = np.arange(1, count + 1)
        done = np.ones(count)
        done[-1] = replica == 3
        parts += [
            Series(SeriesKey("collective_seq", replica_id=replica), steps, steps.astype(float)),
            Series(SeriesKey("collective_completed", replica_id=replica), steps, done),
        ]
    result = DETECTOR.detect(SignalSet(parts))
    assert (result.severity, result.replica_id, result.onset_step) == (Severity.HIGH, 3, 91)
    assert result.evidence["waiting"] == (0, 1, 2)


def test_calls_that_all_completed_are_healthy() -> None:
    parts = []
    for replica in range(2):
        steps = np.arange(1, 60 + replica)
        parts += [
            Series(SeriesKey("collective_seq", replica_id=replica), steps, steps.astype(float)),
            Series(
                SeriesKey("collective_completed", replica_id=replica), steps, np.ones(len(steps))
            ),
        ]
    assert not DETECTOR.detect(SignalSet(parts)).detected


@pytest.mark.parametrize("width", [1, 7, 64])
def test_it_is_the_same_however_cut(width: int) -> None:
    def change(name: str, which: int, values: Any) -> Any:
        if which == 1:
            values[40:75] = 0.0
        if which == 2 and name == "loss":
            values[120:] = values[119]
        return values[:260] if which == 3 else values

    whole = job(change=change, layers=2)
    whole = SignalSet(_without(s, 80, 111) if s.key.replica_id == 0 else s for s in whole.series)
    state, events = DETECTOR.init(), []
    for start, stop in pairwise([None, *range(width, 300, width), None]):
        events += DETECTOR.update(state, whole.between(start, stop))
    once = DETECTOR.init()
    assert events == list(DETECTOR.update(once, whole))
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.conclude(once).to_dict()
    rules = {(f.replica_id, f.evidence["rule"]) for f in DETECTOR.conclude(once).findings}
    assert rules == {(0, "stopped"), (1, "zero"), (2, "constant"), (3, "stopped")}
    again = DETECTOR.restore(state.to_bytes())
    assert DETECTOR.conclude(again).to_dict() == DETECTOR.conclude(once).to_dict()


def test_the_cause_names_replica_and_step() -> None:
    report = diagnose(job(8, change=ends(150, 5)))
    cause = next(c for c in report.attributions if c.cause == "lost_worker")
    assert "Replica 5 stopped after step 149" in cause.hypothesis


def test_what_cannot_be_judged() -> None:
    assert DETECTOR.detect(job(1)).outcome is Outcome.NOT_APPLICABLE
    assert DETECTOR.detect(job(4, 5)).outcome is Outcome.INSUFFICIENT


@pytest.mark.parametrize("bad", [{"missing": 1}, {"persistence": 0}])
def test_parameters_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        PartialWorkerFailureDetector(**bad)
