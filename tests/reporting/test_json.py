"""JSON: strict, as its schema says, and back again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from ml_systems_debugger import diagnose
from ml_systems_debugger.core import DebugReport, DetectionResult, Finding, Severity, Status
from ml_systems_debugger.reporting import Reporter, ReportFormat, json_schema, render_many

from .conftest import reports

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def strict(text: str) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


def real_reports() -> dict[str, DebugReport]:
    rng = np.random.default_rng(0)
    loss = 0.3 + 2.0 * np.exp(-np.arange(400) / 80) + rng.normal(0, 0.02, 400)
    broken = loss.copy()
    broken[317:] = np.nan
    return {
        "healthy": diagnose({"loss": loss}),
        "failures": diagnose({"loss": broken, "grad_norm": np.abs(rng.normal(1, 0.1, 400))}),
        "insufficient_data": diagnose({"loss": [1.0, 0.9]}),
    }


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize("status", ["healthy", "failures", "insufficient_data"])
def test_real_reports_are_as_the_schema_says(status: str) -> None:
    report = real_reports()[status]
    assert report.status == Status(status)
    document = strict(Reporter(ReportFormat.JSON).render(report))
    VALIDATOR.validate(document)
    assert document["status"] == status
    assert DebugReport.from_json(report.to_json()).to_dict() == document


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports())
def test_made_up_reports_are_as_the_schema_says_and_come_back(report: DebugReport) -> None:
    text = report.to_json()
    text.encode("utf-8")
    document = strict(text)
    VALIDATOR.validate(document)
    again = DebugReport.from_json(text)
    assert strict(again.to_json()) == document


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports(), reports())
def test_several_runs(first: DebugReport, second: DebugReport) -> None:
    document = strict(render_many([("a", first), ("b\x00", second)], "json"))
    VALIDATOR.validate(document)
    assert [run["path"] for run in document["runs"]] == ["a", "b\x00"]
    assert document["runs"][1]["report"] == second.to_dict()


def test_several_runs_are_as_bad_as_the_worst() -> None:
    made = {status: DebugReport(0.0, status=status) for status in Status}

    def status_of(*members: Status) -> str:
        document = strict(render_many([(s.value, made[s]) for s in members], "json"))
        return str(document["status"])

    assert status_of(*Status) == "failures"
    assert status_of(Status.HEALTHY, Status.INCOMPLETE, Status.INSUFFICIENT) == "incomplete"
    assert status_of(Status.HEALTHY, Status.INSUFFICIENT) == "insufficient_data"
    assert status_of(Status.HEALTHY) == "healthy"
    assert status_of() == "insufficient_data"


def test_the_schema_refuses_what_is_wrong() -> None:
    good = real_reports()["failures"].to_dict()
    VALIDATOR.validate(good)
    for path, value in (
        (("status",), "fine"),
        (("detections", 0, "confidence"), 1.5),
        (("detections", 0, "severity"), "awful"),
        (("detections", 0, "onset_step"), "three"),
        (("detections", 0, "contributing_signals_count"), -1),
        (("attributions", 0, "cause"), "Not A Word"),
        (("schema_version",), "2.0"),
        (("surprise",), 1),
    ):
        wrong = json.loads(json.dumps(good))
        at = wrong
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        assert not VALIDATOR.is_valid(wrong), path


def test_numpy_numbers_of_third_parties() -> None:
    found = DetectionResult(
        "loss_spike", np.bool_(True), np.float32(0.5), {"peak": np.float32(3), "all": np.ones(2)},  # type: ignore[arg-type]
        onset_step=np.int64(7), contributing_count=np.int64(9), severity=Severity.HIGH,  # type: ignore[arg-type]
    )  # fmt: skip
    document = strict(DebugReport(0.0, [found]).to_json())
    VALIDATOR.validate(document)
    assert document["detections"][0]["onset_step"] == 7
    assert document["detections"][0]["findings"][0]["onset_step"] == 7


def test_where_nothing_fired_severity_and_onset_are_null() -> None:
    quiet = DetectionResult("loss_spike", False, 0.0, severity=Severity.HIGH, onset_step=3)
    document = DebugReport(0.0, [quiet]).to_dict()["detections"][0]
    assert document["severity"] is None
    assert document["onset_step"] is None
    assert document["findings"] == []


def test_numbers_that_are_not_finite_are_three_words() -> None:
    evidence = {"a": float("nan"), "b": float("inf"), "c": -np.inf}
    found = DetectionResult("nan_detected", True, 1.0, evidence)
    made = strict(DebugReport(0.0, [found]).to_json())["detections"][0]["evidence"]
    assert made == {"a": "NaN", "b": "Infinity", "c": "-Infinity"}


def test_a_name_that_is_no_text_can_be_written() -> None:
    name = b"layer\xff".decode("utf-8", "surrogateescape")
    found = Finding("loss_spike", Severity.HIGH, 1.0, 3, layer=name, message=name)
    report = DebugReport(0.0, [DetectionResult.of_findings("loss_spike", "x", [found])])
    text = report.to_json()
    text.encode("utf-8")
    document = strict(text)
    VALIDATOR.validate(document)
    assert document["detections"][0]["layer"] == name
    assert r"layer\udcff" in str(report)
    for written in (str(report), report.to_markdown(), render_many([(name, report)], "json")):
        written.encode("utf-8")
