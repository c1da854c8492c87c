"""What every detector must keep, built in or third party."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from histories import cuts, healthy, histories, series, tabled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from third_party import LoudLossDetector

from ml_systems_debugger import (
    BaseDetector,
    DetectionResult,
    Event,
    Outcome,
    Severity,
    Signal,
    SignalSet,
)
from ml_systems_debugger.core import detectors, fold_state

BUILT_IN = dict(detectors.items())
ALL = {**BUILT_IN, "loud_loss": LoudLossDetector}
each = pytest.mark.parametrize("cls", ALL.values(), ids=list(ALL))
built_in = pytest.mark.parametrize("cls", BUILT_IN.values(), ids=list(BUILT_IN))
thorough = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def fold(
    detector: BaseDetector, run: SignalSet, at: Sequence[int]
) -> tuple[list[tuple[Any, ...]], DetectionResult]:
    state = detector.init()
    events: list[Event] = []
    for start, stop in pairwise([None, *at, None]):
        events += detector.update(state, run.between(start, stop))
    events.sort(key=Event.sort_key)
    return [(e.kind, e.step, e.finding.to_dict()) for e in events], detector.conclude(state)


@built_in
def test_parameters_only(cls: type[BaseDetector]) -> None:
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert cls() == cls()
    assert hash(cls()) == hash(cls())


@built_in
def test_the_docstring_is_the_documentation(cls: type[BaseDetector]) -> None:
    text = inspect.getdoc(cls) or ""
    for heading in (
        "What it detects",
        "Why it matters",
        "How it decides",
        "Parameters",
        "Examples",
    ):
        assert f"{heading}\n{'-' * len(heading)}" in text, heading
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        assert field.name in text.partition("Parameters\n")[2], field.name


@built_in
def test_rules_speak_of_its_own_modes(cls: type[BaseDetector]) -> None:
    assert cls.attribution_rules
    codes = [rule.code for rule in cls.attribution_rules]
    assert len(codes) == len(set(codes))


@each
@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_raises_no_alarm(cls: type[BaseDetector], seed: int) -> None:
    result = cls().detect(healthy(seed))
    assert result.severity is None or result.severity < Severity.HIGH, result.message


@each
@thorough
@given(histories(), cuts())
def test_batch_equals_stream(cls: type[BaseDetector], run: SignalSet, at: list[int]) -> None:
    detector = cls()
    events, result = fold(detector, run, at)
    whole_events, whole = fold(detector, run, [])
    assert events == whole_events
    assert result.to_dict() == whole.to_dict() == detector.detect(run).to_dict()


@each
@thorough
@given(histories())
def test_an_onset_lies_within_its_window(cls: type[BaseDetector], run: SignalSet) -> None:
    for finding in cls().detect(run).findings:
        low, high = (finding.evidence.get(f"onset_{end}") for end in ("low", "high"))
        if low is None and high is None:
            continue
        assert [type(low), type(high)] == [int, int], finding
        assert finding.onset_step is not None
        assert low <= finding.onset_step <= high, finding


@each
@thorough
@given(histories(), cuts())
def test_tables_say_what_their_series_say(
    cls: type[BaseDetector], run: SignalSet, at: list[int]
) -> None:
    """A live run comes in tables of the same columns, some of which are missing at times."""
    detector, known = cls(), {}
    state = detector.init()
    events: list[Event] = []
    for start, stop in pairwise([None, *at, None]):
        events += detector.update(state, tabled(run.between(start, stop), known))
    events.sort(key=Event.sort_key)
    expected, result = fold(detector, run, [])
    assert [(e.kind, e.step, e.finding.to_dict()) for e in events] == expected
    assert detector.conclude(state).to_dict() == result.to_dict()


@built_in
@thorough
@given(histories(), st.integers(1, 399), st.booleans())
def test_what_it_does_not_read_changes_nothing(
    cls: type[BaseDetector], run: SignalSet, at: int, in_tables: bool
) -> None:
    """A live monitor leaves such looks out."""
    detector = cls()
    state = detector.init()
    detector.update(state, run.between(None, at))
    before = state.to_bytes()
    unread = SignalSet([one for one in run.between(at, None).series if not detector.reads(one.key)])
    assert detector.update(state, tabled(unread, {}) if in_tables else unread) == ()
    assert state.to_bytes() == before


@built_in
@settings(thorough, max_examples=6)
@given(histories(), cuts())
def test_batch_equals_stream_where_not_all_findings_are_kept(
    cls: type[BaseDetector], run: SignalSet, at: list[int]
) -> None:
    detector = cls()
    with patch.object(fold_state, "MAX_FINDINGS", 1):
        events, result = fold(detector, run, at)
        whole_events, whole = fold(detector, run, [])
    assert events == whole_events
    assert result.to_dict() == whole.to_dict()


@each
@thorough
@given(histories(), st.integers(1, 399))
def test_a_state_survives_saving(cls: type[BaseDetector], run: SignalSet, at: int) -> None:
    detector = cls()
    state = detector.init()
    detector.update(state, run.between(None, at))
    if cls not in BUILT_IN.values() and run.select("gradient", kind=None):
        with pytest.raises(TypeError, match="a history of array values is not saved"):
            state.to_bytes()
        return
    saved = state.to_bytes()
    restored = detector.restore(saved)
    assert detector.conclude(restored).to_dict() == detector.conclude(state).to_dict()
    rest = run.between(at, None)
    again = [(e.kind, e.step, e.finding.to_dict()) for e in detector.update(restored, rest)]
    once = [(e.kind, e.step, e.finding.to_dict()) for e in detector.update(state, rest)]
    assert again == once
    assert detector.conclude(restored).to_dict() == detector.conclude(state).to_dict()


@built_in
def test_a_state_of_somebody_else_is_refused(cls: type[BaseDetector]) -> None:
    detector = cls()
    saved = detector.init().to_bytes()
    other = next(c for c in BUILT_IN.values() if c is not cls)()
    with pytest.raises(ValueError, match="state of"):
        other.restore(saved)
    with pytest.raises(ValueError, match="not a saved state"):
        detector.restore(saved[: len(saved) // 2])


@each
@thorough
@given(histories(), st.integers(1, 399))
def test_snapshot_and_conclude_leave_the_state_alone(
    cls: type[BaseDetector], run: SignalSet, at: int
) -> None:
    detector = cls()
    state = detector.init()
    detector.update(state, run.between(None, at))
    kept = state.snapshot()
    first = detector.conclude(state).to_dict()
    assert detector.conclude(state).to_dict() == first
    detector.update(state, run.between(at, None))
    assert detector.conclude(kept).to_dict() == first, "the snapshot moved with the state"
    assert detector.conclude(state).to_dict() == detector.detect(run).to_dict()


@each
@thorough
@given(histories())
def test_results_make_sense(cls: type[BaseDetector], run: SignalSet) -> None:
    result = cls().detect(run)
    assert result.detector_name == cls.name
    assert result.detected == bool(result.findings)
    assert 0 <= result.confidence <= 1
    assert result.outcome is not Outcome.FAILED
    last = (run.step_range or (0, 0))[1]
    for finding in result.findings:
        assert finding.message, "a finding says something"
        if finding.onset_step is not None:
            assert 0 <= finding.onset_step <= last
            assert finding.end_step is None or finding.onset_step <= finding.end_step <= last
    ids = [finding.finding_id for finding in result.findings]
    assert len(ids) == len(set(ids))
    if not result.detected:
        assert result.severity is None
        assert result.onset_step is None


@each
@thorough
@given(histories())
def test_the_input_is_left_alone_and_the_answer_is_the_same_twice(
    cls: type[BaseDetector], run: SignalSet
) -> None:
    before = [
        one.values.tobytes()
        if one.values.dtype != object
        else [np.array(a).tobytes() for a in one.values]
        for one in run.series
    ]
    first = cls().detect(run).to_dict()
    assert cls().detect(run).to_dict() == first
    after = [
        one.values.tobytes()
        if one.values.dtype != object
        else [np.array(a).tobytes() for a in one.values]
        for one in run.series
    ]
    assert before == after


@each
@thorough
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_the_series_does_not_matter(
    cls: type[BaseDetector], run: SignalSet, random: Any
) -> None:
    shuffled = list(run.series)
    random.shuffle(shuffled)
    assert cls().detect(SignalSet(shuffled)).to_dict() == cls().detect(run).to_dict()


def awkward() -> dict[str, SignalSet]:
    names = ("loss", "accuracy", "grad_norm", "lr", "param_norm", "kl_divergence")
    values = {
        "empty": [],
        "one": [1.0],
        "two": [1.0, 2.0],
        "short": [1.0, 0.5, 0.7],
        "all NaN": [np.nan] * 50,
        "all Inf": [np.inf, -np.inf] * 25,
        "constant": [0.5] * 200,
        "zeros": [0.0] * 200,
        "negative": list(-np.linspace(5, 1, 200)),
        "huge": [1e308, -1e308] * 100,
        "tiny": [5e-324, 1e-310] * 100,
        "mixed sizes": list(10.0 ** np.linspace(-300, 300, 200)),
        "one repeated step": [1.0] * 3,
    }
    sets = {
        label: SignalSet(
            series(name, held, stride=0 if label == "one repeated step" else 1) for name in names
        )
        for label, held in values.items()
    }
    sets["no series"] = SignalSet()
    sets["text alone"] = SignalSet.from_signals([Signal("loss", "oops", step=i) for i in range(30)])
    sets["negative steps"] = SignalSet([series("loss", np.linspace(2, 1, 60), start=-30)])
    sets["far steps"] = SignalSet([series("loss", np.linspace(2, 1, 60), start=2**62)])
    return sets


@each
@pytest.mark.parametrize("label", awkward())
def test_awkward_input_never_raises(cls: type[BaseDetector], label: str) -> None:
    result = cls().detect(awkward()[label])
    assert isinstance(result, DetectionResult)
    result.to_dict()


@each
def test_a_plain_list_of_signals_is_as_good(cls: type[BaseDetector]) -> None:
    run = healthy(1, 60)
    assert cls().detect(list(run)).detected == cls().detect(run).detected
