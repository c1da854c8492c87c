"""What the four detectors on trails have in common."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_systems_debugger.core import (
    Condition,
    Event,
    EventKind,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
)
from ml_systems_debugger.detectors import (
    DivergentTrainingDetector,
    GradientExplosionDetector,
    GradientVanishingDetector,
    LossPlateauDetector,
)

DETECTORS = [
    DivergentTrainingDetector(),
    GradientExplosionDetector(),
    GradientVanishingDetector(),
    LossPlateauDetector(),
]
each = pytest.mark.parametrize("detector", DETECTORS, ids=lambda one: one.name)


def run(seed: int, size: int = 600) -> SignalSet:
    """Make a run in which some of many things go wrong, at any time."""
    rng = np.random.default_rng(seed)
    steps = np.arange(size)
    loss = 0.3 + 2 * np.exp(-steps / 100) + 0.05 * rng.normal(size=size)
    norm = np.exp(0.3 * rng.normal(size=size))
    accuracy = np.full(size // 20, 0.1) + 0.001 * rng.normal(size=size // 20)
    at, end = np.sort(rng.integers(0, size, 2))
    factor = 10.0 ** rng.uniform(-1, 5)
    what = rng.integers(6)
    if what == 0:
        loss[at:] += factor
    elif what == 1:
        loss[at:end] += factor
    elif what == 2:
        norm[at:] *= factor
    elif what == 3:
        norm[at:] *= 1e-8
        loss[:] = 2.3 + 0.01 * rng.normal(size=size)
    elif what == 4:
        loss[at:] = norm[at:] = np.nan
    else:
        accuracy[len(accuracy) // 2 :] = np.linspace(0.1, 0.9, len(accuracy) - len(accuracy) // 2)
    return SignalSet(
        [
            Series(SeriesKey("loss"), steps, loss),
            Series(SeriesKey("grad_norm"), steps, norm),
            Series(SeriesKey("grad_norm", layer="a", replica_id=1), steps[::3], norm[::3]),
            Series(SeriesKey("accuracy", "val"), steps[::20][: len(accuracy)], accuracy),
            Series(SeriesKey("lr"), steps, np.full(size, 0.1)),
        ]
    )


@each
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 600), max_size=12))
def test_batch_equals_stream(detector, seed, cuts):
    whole = run(seed)
    state = detector.init()
    events = list(detector.update(state, whole))
    parts = detector.init()
    streamed = []
    for start, stop in pairwise([None, *sorted(cuts), None]):
        streamed += detector.update(parts, whole.between(start, stop))
        detector.conclude(parts)
    assert sorted(streamed, key=Event.sort_key) == sorted(events, key=Event.sort_key)
    assert detector.conclude(parts).to_dict() == detector.conclude(state).to_dict()


@each
def test_a_saved_state_goes_on_as_if_nothing_had_been(detector):
    for seed in range(6):
        whole = run(seed)
        state = detector.init()
        detector.update(state, whole.between(None, 300))
        copy = detector.restore(state.to_bytes())
        first = detector.update(state, whole.between(300, None))
        assert detector.update(copy, whole.between(300, None)) == first
        assert detector.conclude(copy).to_dict() == detector.conclude(state).to_dict()


@each
def test_the_order_of_series_changes_nothing(detector):
    for seed in range(6):
        whole = run(seed)
        turned = SignalSet(whole.series[::-1])
        assert detector.detect(turned).to_dict() == detector.detect(whole).to_dict()


@each
def test_what_is_held_does_not_grow_with_the_run(detector):
    sizes = []
    for size in (1000, 20_000):
        state = detector.init()
        detector.update(state, run(0, size))
        sizes.append(state["trail"].nbytes)
    assert sizes[0] == sizes[1]


@each
def test_every_finding_has_its_facts_and_is_strict_json(detector):
    found = [f for seed in range(40) for f in detector.detect(run(seed)).findings]
    assert found
    for finding in found:
        evidence = finding.evidence
        assert evidence["onset_low"] <= finding.onset_step <= evidence["onset_high"]
        assert evidence["onset_step"] == finding.onset_step
        assert {"series", "rule", "persistence_steps", "last"} <= set(evidence)
        assert f"since step {finding.onset_step}" in finding.message
        json.dumps(finding.to_dict(), allow_nan=False)


@each
def test_rules_read_facts_that_are_documented(detector):
    documented = type(detector).__doc__
    for rule in detector.attribution_rules:
        assert rule.mode == detector.failure_mode
        assert rule.source
        assert rule.remediation
        conditions: list[Condition] = [
            *rule.when, *(c for c, _ in rule.raises), *(c for c, _ in rule.lowers)
        ]  # fmt: skip
        for condition in conditions:
            if "." not in condition.fact:
                assert f"``{condition.fact}``" in documented, (rule.code, condition.fact)
        for name in _places(" ".join((rule.hypothesis, *rule.remediation))):
            assert f"``{name}``" in documented, (rule.code, name)


def _places(text: str) -> set[str]:
    return {part.partition("}")[0] for part in text.split("{")[1:]}


def test_what_comes_back_is_the_same_finding():
    loss = 0.3 + 2 * np.exp(-np.arange(2000) / 200)
    loss[500:] += 6 * (np.arange(1500) % 100 < 80)
    detector = DivergentTrainingDetector()
    state = detector.init()
    events = detector.update(state, SignalSet([Series(SeriesKey("loss"), np.arange(2000), loss)]))
    assert [e.kind for e in events].count(EventKind.OPEN) == len(state.findings)
    spans = sorted((f.onset_step, f.end_step or 10**9) for f in state.findings.values())
    assert all(a[1] < b[0] for a, b in pairwise(spans))


def test_a_live_chunk_without_these_series_is_nothing():
    for detector in DETECTORS:
        state = detector.init()
        other = SignalSet([Series(SeriesKey("step_time"), np.arange(3), np.ones(3))])
        assert detector.update(state, other) == ()
        assert not detector.conclude(state).detected


def test_medium_is_the_least_that_is_announced():
    for detector in DETECTORS:
        for seed in range(40):
            state = detector.init()
            for event in detector.update(state, run(seed)):
                if event.kind is EventKind.OPEN:
                    assert event.finding.severity >= Severity.MEDIUM
