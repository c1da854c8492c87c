"""Replicas that part with no majority: both sides are told, nobody is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import DistributedDesyncDetector, FailureMode, Signal, diagnose

DETECTOR = DistributedDesyncDetector()
NORMS = np.random.default_rng(0).lognormal(0, 0.3, 400)


def norms(name: str, factors: list[float], onset: int = 100, steps: int = 200) -> list[Signal]:
    return [
        Signal(name, NORMS[i] * (factor if i >= onset else 1.0), step=i, replica_id=r)
        for i in range(steps)
        for r, factor in enumerate(factors)
    ]


def digests(name: str, values: list[int], onset: int = 10, steps: int = 30) -> list[Signal]:
    return [
        Signal(name, i + (value if i >= onset else 0), step=i, replica_id=r)
        for i in range(steps)
        for r, value in enumerate(values)
    ]


@pytest.mark.parametrize("name", ["grad_norm", "param_norm"])
def test_two_against_two_are_one_finding_with_both_sides(name: str) -> None:
    (one,) = DETECTOR.detect(norms(name, [1.0, 5.0, 1.0, 5.0])).findings
    assert (one.onset_step, one.replica_id) == (100, None)
    assert one.evidence["sides"] == ((0, 2), (1, 3))
    assert one.evidence["culprit_known"] is False
    assert "parts replicas 0, 2 from replicas 1, 3" in one.message
    assert "nobody can say" in one.message


@pytest.mark.parametrize(
    ("factors", "named"),
    [
        ([1.0, 1.0, 1.0, 5.0], [3]),
        ([1.0, 1.0, 1.0, 5.0, 0.2], [3, 4]),
        ([1.0] * 5 + [5.0, 5.0], [5, 6]),
    ],
)
def test_a_majority_names_the_others(factors: list[float], named: list[int]) -> None:
    found = DETECTOR.detect(norms("grad_norm", factors)).findings
    assert sorted(one.replica_id for one in found) == named  # type: ignore[type-var]
    assert all("sides" not in one.evidence for one in found)


def test_three_that_all_differ_name_nobody() -> None:
    (one,) = DETECTOR.detect(norms("grad_norm", [1.0, 2.0, 5.0])).findings
    assert one.replica_id is None


def test_two_that_are_not_finite_are_no_side() -> None:
    found = DETECTOR.detect(norms("grad_norm", [1.0, 1.0, float("nan"), float("nan")])).findings
    assert sorted(one.replica_id for one in found) == [2, 3]  # type: ignore[type-var]


def test_a_tie_that_ends_is_closed() -> None:
    run = [one for one in norms("grad_norm", [1.0, 1.0, 5.0, 5.0]) if (one.step or 0) < 150]
    run += [
        Signal("grad_norm", NORMS[i], step=i, replica_id=r) for i in range(150, 200)
        for r in range(4)
    ]  # fmt: skip
    (one,) = DETECTOR.detect(run).findings
    assert one.end_step == 149
    assert one.evidence["goes_on"] is False


def test_digests_tell_which_replicas_stand_together() -> None:
    (one,) = DETECTOR.detect(digests("param_digest/fc.weight", [0, 7, 7, 0])).findings
    assert one.evidence["sides"] == ((0, 3), (1, 2))
    assert "parts replicas 0, 3 from replicas 1, 2 from step 10 on" in one.message


@pytest.mark.parametrize(
    ("signals", "mode"),
    [
        (norms("param_norm", [1.0, 1.0, 1.0, 5.0]), FailureMode.PARAMETER_DESYNC),
        (norms("weight_norm", [1.0, 1.0, 5.0, 5.0]), FailureMode.PARAMETER_DESYNC),
        (digests("param_digest", [0, 0, 0, 1]), FailureMode.PARAMETER_DESYNC),
        (norms("grad_norm", [1.0, 1.0, 1.0, 5.0]), FailureMode.GRADIENT_DESYNC),
        (digests("grad_digest", [0, 0, 0, 1]), FailureMode.GRADIENT_DESYNC),
    ],
)
def test_the_mode_is_of_what_parted(signals: list[Any], mode: FailureMode) -> None:
    result = DETECTOR.detect(signals)
    assert result.failure_mode is mode
    assert {one.failure_mode for one in result.findings} == {mode}
    detections = [d for d in diagnose(signals).detections if d.detector_name == DETECTOR.name]
    assert [d.failure_mode for d in detections] == [mode]
