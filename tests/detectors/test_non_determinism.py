"""Runs of one seed that part, and runs that may differ."""

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
    SeriesKind,
    Severity,
    SignalSet,
    diagnose,
)
from ml_systems_debugger.detectors import NonDeterminismDetector

DETECTOR = NonDeterminismDetector()
Change = Callable[[str, str, Any], Any]


def runs(change: Change | None = None, names: str = "ab", seeds: Any = None) -> SignalSet:
    """Return runs of 100 steps that are equal but for `change`."""
    parts = []
    for at, run in enumerate(names):
        rng = np.random.default_rng(0)
        for name in ("loss", "grad_norm", "param_norm", "lr", "step_time"):
            values = np.exp(0.2 * rng.normal(size=100))
            if name == "lr":
                values = np.full(100, 1e-3)
            if name == "step_time":
                values = values + 0.01 * at
            if change is not None:
                values = change(run, name, values)
            parts.append(Series(SeriesKey(name, run=run), np.arange(100), values))
        digests = np.arange(100, dtype=np.uint64)
        if change is not None:
            digests = change(run, "param_digest", digests)
        key = SeriesKey("param_digest", run=run, kind=SeriesKind.DIGEST)
        parts.append(Series(key, np.arange(100), digests))
        if seeds is not None:
            held = np.array([float(seeds[at])])
            parts.append(Series(SeriesKey("seed", run=run), np.array([0]), held))
    return SignalSet(parts)


def part(at: int, first: str, factor: float = 1.01) -> Change:
    """From a step on, run b differs: in one quantity at once, in the others a step later."""

    def change(run: str, name: str, values: Any) -> Any:
        if run == "b" and name not in ("lr", "step_time"):
            begin = at if name == first else at + 1
            if name == "param_digest":
                values[begin:] += np.uint64(1)
            else:
                values[begin:] *= factor
        return values

    return change


@pytest.mark.parametrize("first", ["loss", "grad_norm", "param_norm", "param_digest"])
def test_the_step_and_the_quantity_that_part_first_are_named(first: str) -> None:
    result = DETECTOR.detect(runs(part(40, first)))
    assert (result.severity, result.onset_step) == (Severity.MEDIUM, 40)
    assert result.evidence["quantity"] == first
    assert result.evidence["last_equal_step"] == 39
    assert result.evidence["runs"] == ("a", "b")
    assert result.evidence["quantities_parted"] == 4
    assert "39" in result.message


def test_equal_runs_are_healthy_whatever_their_times() -> None:
    result = DETECTOR.detect(runs())
    assert (result.detected, result.outcome) == (False, Outcome.CONCLUDED)
    assert "loss" in result.judged


def test_nan_equals_nan() -> None:
    def broken(_: str, name: str, values: Any) -> Any:
        if name == "loss":
            values[50:] = np.nan
        return values

    assert not DETECTOR.detect(runs(broken)).detected


def test_runs_of_other_seeds_may_differ() -> None:
    def other(run: str, name: str, values: Any) -> Any:
        return values * 1.1 if run == "b" and name not in ("param_digest", "lr") else values

    def free(run: str, name: str, values: Any) -> Any:
        return values + (7 if name == "param_digest" else 0) if run == "b" else values

    result = DETECTOR.detect(runs(other, seeds=(1, 2)))
    assert (result.detected, result.outcome) == (False, Outcome.NOT_APPLICABLE)
    apart = runs(lambda r, n, v: free(r, n, other(r, n, v)))
    assert DETECTOR.detect(apart).outcome is Outcome.NOT_APPLICABLE
    assert DETECTOR.detect(apart, {"same_seed": True}).onset_step == 0
    known = runs(lambda r, n, v: free(r, n, other(r, n, v)), seeds=(1, 1))
    assert DETECTOR.detect(known).evidence["rule"] == "from_the_start"


def test_who_asks_for_determinism_is_told_more_sharply() -> None:
    found = DETECTOR.detect(runs(part(40, "loss")), {"deterministic": True})
    assert found.severity is Severity.HIGH


def test_rounding_in_another_order_is_low() -> None:
    def rounded(run: str, name: str, values: Any) -> Any:
        if run == "b" and name == "loss":
            values[30:] *= 1 + 1e-9
        return values

    assert DETECTOR.detect(runs(rounded)).severity is Severity.LOW


def test_of_three_runs_the_odd_one_is_in_every_pair() -> None:
    found = DETECTOR.detect(runs(part(40, "loss"), "abc")).findings
    assert {f.evidence["runs"] for f in found} == {("a", "b"), ("b", "c")}


def test_only_common_steps_are_compared() -> None:
    whole = runs(part(41, "loss"))
    thin = [
        Series(s.key, s.steps[::10], s.values[::10]) if s.key.run == "b" else s
        for s in whole.series
    ]
    result = DETECTOR.detect(SignalSet(thin))
    assert (result.onset_step, result.evidence["last_equal_step"]) == (50, 40)


@pytest.mark.parametrize("width", [1, 7, 50])
def test_it_is_the_same_however_cut(width: int) -> None:
    whole = runs(part(40, "grad_norm"), "abc", seeds=(3, 3, 3))
    state, events = DETECTOR.init(), []
    for start, stop in pairwise([None, *range(width, 100, width), None]):
        events += DETECTOR.update(state, whole.between(start, stop))
    once = DETECTOR.init()
    assert events == list(DETECTOR.update(once, whole))
    assert {(e.kind, e.step) for e in events} == {("open", 40)}
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.conclude(once).to_dict()
    again = DETECTOR.restore(state.to_bytes())
    assert DETECTOR.conclude(again).to_dict() == DETECTOR.conclude(once).to_dict()


def test_the_cause_names_the_steps_to_replay() -> None:
    report = diagnose(runs(part(40, "grad_norm")))
    cause = next(c for c in report.attributions if c.cause == "non_deterministic_execution")
    assert "grad_norm parts at step 40" in cause.hypothesis
    assert "steps 39 to 40" in cause.remediation_hints[0]


def test_one_run_has_nothing_to_be_compared_with() -> None:
    assert DETECTOR.detect(runs(names="a")).outcome is Outcome.NOT_APPLICABLE
    assert DETECTOR.detect(SignalSet()).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("bad", [{"agreeing": 0}, {"negligible": 0}])
def test_parameters_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        NonDeterminismDetector(**bad)
