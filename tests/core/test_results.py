"""Results and hypotheses: what authors pass loosely comes out strict."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from core_strategies import hypotheses, results
from hypothesis import given

from ml_systems_debugger.core import (
    AttributionHypothesis,
    DetectionResult,
    Finding,
    Outcome,
    Severity,
    Signal,
)


def written(result: Any) -> str:
    return json.dumps(result.to_dict(), allow_nan=False)


@given(results)
def test_a_result_through_json_and_back(one: DetectionResult) -> None:
    back = DetectionResult.from_dict(json.loads(written(one)))
    if one.detected or not one.findings:  # findings of what did not fire are not written
        assert back == one
    assert written(back) == written(one)


@given(hypotheses)
def test_a_hypothesis_through_json_and_back(one: AttributionHypothesis) -> None:
    back = AttributionHypothesis.from_dict(json.loads(written(one)))
    assert written(back) == written(one)
    assert (back.cause, back.confidence, back.severity) == (
        one.cause, one.confidence, one.severity,
    )  # fmt: skip


def test_numpy_answers_are_strict_json() -> None:
    one = DetectionResult(
        "loss_spike", np.any([True]), np.float32(0.5), {"z": np.float32(2)}, np.float32(8),
        onset_step=np.int64(3), replica_id=np.int16(1),
    )  # fmt: skip
    assert json.loads(written(one))["detected"] is True
    assert one.findings[0].onset_step == 3


def test_nothing_detected_has_no_severity() -> None:
    one = DetectionResult("loss_spike", False, 0.1, severity=Severity.HIGH)
    assert one.to_dict()["severity"] is None


def test_a_bare_detection_gets_a_finding_of_its_own() -> None:
    one = DetectionResult("loss_spike", True, 0.7, {"x": 1}, onset_step=4, detector_name="mine")
    assert one.severity is Severity.HIGH
    (own,) = one.findings
    assert (own.onset_step, own.evidence["x"], own.finding_id) == (4, 1, "mine:4")


def test_the_headline_is_the_worst_then_the_earliest() -> None:
    made = [Finding("loss_spike", s, 0.5, onset_step=at, finding_id=str(at))
            for s, at in (("medium", 1), ("high", 9), ("high", 5))]  # fmt: skip
    one = DetectionResult.of_findings("loss_spike", "mine", made)
    assert (one.severity, one.onset_step) == (Severity.HIGH, 5)
    assert [f.onset_step for f in one.findings] == [5, 9, 1]


def test_no_findings_is_not_detected() -> None:
    one = DetectionResult.of_findings("loss_spike", "mine", [], reason="none")
    assert (one.detected, one.confidence, one.reason) == (False, 0.0, "none")


def test_one_sentence_is_not_its_letters() -> None:
    one = AttributionHypothesis("x", 0.5, remediation_hints="lower it", evidence_for="it rose")
    assert one.remediation_hints == ("lower it",)
    assert one.evidence_for == ("it rose",)
    assert DetectionResult("loss_spike", False, 0.0, judged="loss").judged == ("loss",)


def test_contributing_signals_are_counted() -> None:
    heard = [Signal("loss", 1.0, step=0), Signal("loss", np.ones(3), step=1)]
    one = DetectionResult("loss_spike", True, 1.0, contributing_signals=heard)
    assert one.to_dict()["contributing_signals_count"] == 2
    assert isinstance(hash(one), int)


def test_results_are_frozen() -> None:
    one = DetectionResult("loss_spike", False, 0.0)
    with pytest.raises(AttributeError):
        one.detected = True  # type: ignore[misc]
    with pytest.raises(ValueError, match="no_such"):
        DetectionResult("loss_spike", False, 0.0, outcome="no_such")  # type: ignore[arg-type]
    assert DetectionResult("loss_spike", False, 0.0, outcome="failed").outcome is Outcome.FAILED  # type: ignore[arg-type]
