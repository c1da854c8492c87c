"""Replicas that part, by norm and by digest; and those that may differ."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    ConfigurationError,
    DistributedDesyncDetector,
    FailureMode,
    Outcome,
    Severity,
    Signal,
    SignalSet,
)

DETECTOR = DistributedDesyncDetector()
NORMS = np.random.default_rng(0).lognormal(0, 0.3, 400)


def signals(
    name: str, value: Callable[[int, int], float], replicas: int = 4, steps: int = 300, **more: Any
) -> list[Signal]:
    return [
        Signal(name, value(r, i), step=i, replica_id=r, **more)
        for r in range(replicas)
        for i in range(steps)
    ]


def test_a_replica_that_leaves_the_others_is_named() -> None:
    run = signals("grad_norm", lambda r, i: NORMS[i] * (1.05 if r == 3 and i >= 100 else 1), 8)
    found = DETECTOR.detect(run)
    assert (found.severity, found.onset_step, found.replica_id) == (Severity.HIGH, 100, 3)
    assert found.failure_mode is FailureMode.GRADIENT_DESYNC
    assert found.evidence["agreed_before"] is True
    assert len(found.findings) == 1


def test_of_two_replicas_neither_is_the_culprit_and_it_does_not_become_usual() -> None:
    run = signals("grad_norm", lambda r, i: NORMS[i] * (1.05 if r and i >= 100 else 1), 2)
    found = DETECTOR.detect(run)
    assert (found.onset_step, found.end_step, found.replica_id) == (100, None, None)
    assert found.evidence["culprit_known"] is False


def test_rounding_is_no_desync() -> None:
    rng = np.random.default_rng(1)
    noise = 1 + 1e-6 * rng.normal(size=(8, 300))
    assert not DETECTOR.detect(
        signals("grad_norm", lambda r, i: NORMS[i] * noise[r, i], 8)
    ).detected


@pytest.mark.parametrize("name", ["grad_norm", "loss"])
@pytest.mark.parametrize("seed", range(5))
def test_replicas_with_data_of_their_own_differ_by_nature(name: str, seed: int) -> None:
    draws = np.exp(0.3 * np.random.default_rng(seed).standard_t(3, (8, 300)))
    found = DETECTOR.detect(signals(name, lambda r, i: draws[r, i], 8))
    assert found.severity is None or found.severity < Severity.HIGH


def test_a_loss_is_medium_at_most() -> None:
    run = signals("loss", lambda r, i: 2.0 * (30 if r == 2 and i >= 150 else 1) + 0.01 * r)
    found = DETECTOR.detect(run)
    assert (found.severity, found.replica_id) == (Severity.MEDIUM, 2)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("param_digest", FailureMode.PARAMETER_DESYNC),
        ("grad_digest", FailureMode.GRADIENT_DESYNC),
    ],
)
def test_a_digest_of_its_own_is_certain_at_once(name: str, mode: FailureMode) -> None:
    run = signals(name, lambda r, i: i * 7 + (r == 2 and i >= 50), 4, 60)
    found = DETECTOR.detect(run)
    assert [(f.failure_mode, f.replica_id, f.onset_step, f.end_step) for f in found.findings] == [
        (mode, 2, 50, None)
    ]
    assert found.severity == Severity.HIGH
    assert found.evidence["steps"] == 10


def test_two_digests_that_differ_have_no_known_culprit() -> None:
    found = DETECTOR.detect(signals("param_digest", lambda r, i: i + 1000 * (r and i > 9), 2, 20))
    assert (found.onset_step, found.replica_id) == (10, None)
    assert "parts replica 0 from replica 1" in found.message
    assert "nobody can say" in found.message


def test_digests_that_agree_again_end_it() -> None:
    run = signals("grad_digest", lambda r, i: i * 7 + (r == 1 and 20 <= i < 23), 4, 60)
    found = DETECTOR.detect(run)
    assert (found.onset_step, found.end_step) == (20, 22)
    assert found.evidence["goes_on"] is False


def test_the_layer_where_it_began_leads() -> None:
    run = [
        s
        for at, layer in enumerate(("fc1", "fc2", "fc3"))
        for s in signals(
            "param_digest", lambda r, i, at=at: i + (r == 0 and i >= 30 - 5 * at) * 1000, 4, 60,
            layer_name=layer,
        )
    ]  # fmt: skip
    found = DETECTOR.detect(run)
    assert (found.layer, found.onset_step, found.replica_id) == ("fc3", 20, 0)


def test_a_replica_that_turns_nan_alone_has_parted() -> None:
    run = signals("grad_norm", lambda r, i: np.nan if r == 1 and i >= 40 else NORMS[i])
    found = DETECTOR.detect(run)
    assert (found.replica_id, found.onset_step) == (1, 40)


def test_a_step_that_one_replica_logs_alone_is_not_judged() -> None:
    run = [
        *signals("grad_norm", lambda r, i: NORMS[i], 3, 200),
        *[Signal("grad_norm", 1e6, step=i, replica_id=0) for i in range(200, 260)],
    ]
    assert not DETECTOR.detect(run).detected


def test_one_replica_has_nobody_to_agree_with() -> None:
    found = DETECTOR.detect(signals("grad_norm", lambda r, i: 1.0, 1))
    assert found.outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("width", [1, 5, 9, 70])
def test_a_parting_in_the_first_steps_is_the_same_however_cut(width: int) -> None:
    draws = np.exp(0.2 * np.random.default_rng(2).normal(size=(2, 300)))
    run = SignalSet.of(
        signals("grad_norm", lambda r, i: draws[r, i] * (9 if r and 5 < i < 60 else 1), 2)
    )
    state, events = DETECTOR.init(), []
    for start, stop in pairwise([None, *range(width, 300, width), None]):
        events += DETECTOR.update(state, run.between(start, stop))
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.detect(run).to_dict()


@pytest.mark.parametrize("bad", [{"tolerance": 0}, {"sigmas": -1}, {"persistence": 0}])
def test_parameters_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        DistributedDesyncDetector(**bad)


@pytest.mark.parametrize("seed", range(20))
def test_two_replicas_that_share_a_finding_are_the_same_however_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    draws = np.exp(0.1 * rng.normal(size=(2, 200)))
    draws[1, 60:140] *= 9
    draws[rng.random((2, 200)) < 0.02] = np.nan
    run = SignalSet.of(signals("grad_norm", lambda r, i: draws[r, i], 2, 200))
    state = DETECTOR.init()
    for start, stop in pairwise([None, *range(1, 200), None]):
        DETECTOR.update(state, run.between(start, stop))
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.detect(run).to_dict()
