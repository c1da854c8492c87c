"""Reports: the verdict, the order of what fired, strict JSON."""

from __future__ import annotations

import json

import pytest
from core_strategies import reports
from hypothesis import given

from ml_systems_debugger.core import (
    DebugReport,
    DetectionResult,
    Outcome,
    Severity,
    SkippedDetector,
    Status,
)


def result(
    severity: str | None = None, outcome: str = "concluded", **more: object
) -> DetectionResult:
    return DetectionResult(
        "loss_spike", severity is not None, 0.5, severity=severity,  # type: ignore[arg-type]
        outcome=Outcome(outcome), judged=("loss",) if outcome == "concluded" else (), **more,  # type: ignore[arg-type]
    )  # fmt: skip


@given(reports)
def test_through_json_and_back(report: DebugReport) -> None:
    text = report.to_json()
    json.loads(text, parse_constant=pytest.fail)  # no NaN, no Infinity
    back = DebugReport.from_json(text)
    assert back.to_json() == text
    assert (back.status, back.metadata, back.skipped) == (
        report.status, report.metadata, report.skipped,
    )  # fmt: skip
    assert hash(back) == hash(report)


def test_a_name_that_is_no_text_can_be_written() -> None:
    report = DebugReport(0.0, summary="run\udcff.csv")
    assert DebugReport.from_json(report.to_json().encode().decode()).summary == "run\udcff.csv"


@pytest.mark.parametrize(
    ("results", "unread", "status"),
    [
        ([result("medium")], [], "failures"),
        ([result("low")], [], "healthy"),
        ([result("high"), result(outcome="failed")], ["line 3"], "failures"),
        ([result(), result(outcome="failed")], [], "incomplete"),
        ([result()], ["line 3"], "incomplete"),
        ([result(outcome="insufficient_data")], [], "insufficient_data"),
        ([], [], "insufficient_data"),
        ([result(), result(outcome="insufficient_data")], [], "healthy"),
    ],
)
def test_the_verdict(results: list[DetectionResult], unread: list[str], status: str) -> None:
    assert DebugReport(0.0, results, unread=unread).status == Status(status)


def test_what_fired_comes_first_worst_first_earliest_first() -> None:
    given_results = [result(), result("low", onset_step=1), result("high", onset_step=9),
                     result("high", onset_step=2), result("critical")]  # fmt: skip
    report = DebugReport(0.0, given_results)
    assert [(d.severity, d.onset_step) for d in report.detections] == [
        ("critical", None), ("high", 2), ("high", 9), ("low", 1), (None, None),
    ]  # fmt: skip
    assert report.worst_severity is Severity.CRITICAL
    assert len(report.failures) == 4


def test_another_major_version_is_refused() -> None:
    written = {**DebugReport(0.0).to_dict(), "schema_version": "2.0"}
    with pytest.raises(ValueError, match=r"schema version 1\.\d, got '2.0'"):
        DebugReport.from_dict(written)


def test_one_unread_sentence_is_not_its_letters() -> None:
    report = DebugReport(0.0, unread="line 3", skipped=[SkippedDetector("x", "none")])  # type: ignore[arg-type]
    assert report.unread == ("line 3",)
    assert report.to_dict()["skipped"] == [{"detector": "x", "reason": "none"}]
