"""SARIF: as the standard's schema asks, within the limits of code hosts."""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from ml_systems_debugger.core import DebugReport, DetectionResult, Finding, Severity
from ml_systems_debugger.core.verdict import Check, Notice, Place, Rule, Verdict
from ml_systems_debugger.reporting import Reporter, SarifReporter, render_many, sarif

from .conftest import reports

_TEXT = {"type": "object", "required": ["text"],
         "properties": {"text": {"type": "string", "minLength": 1}}}  # fmt: skip
_LOCATION = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        "physicalLocation": {
            "type": "object",
            "required": ["artifactLocation"],
            "additionalProperties": False,
            "properties": {
                "artifactLocation": {
                    "type": "object",
                    "required": ["uri"],
                    "additionalProperties": False,
                    "properties": {"uri": {"type": "string", "minLength": 1}},
                },
                "region": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"startLine": {"type": "integer", "minimum": 1}},
                },
            },
        },
        "logicalLocations": {
            "type": "array",
            "uniqueItems": True,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    n: {"type": "string"} for n in ("name", "fullyQualifiedName", "kind")
                },
            },
        },
    },
}
_NOTIFICATION = {
    "type": "object",
    "required": ["message"],
    "additionalProperties": False,
    "properties": {
        "message": _TEXT,
        "level": {"enum": ["none", "note", "warning", "error"]},
        "locations": {"type": "array", "items": _LOCATION},
    },
}
# What the standard (OASIS, 2020) asks of the objects that are written here.
SUBSET = {
    "type": "object",
    "required": ["version", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string"},
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "additionalProperties": False,
                "properties": {
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "properties": {"type": "object"},
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "fullName": {"type": "string"},
                                    "version": {"type": "string"},
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "required": ["id"],
                                            "additionalProperties": False,
                                            "properties": {
                                                "id": {"type": "string"},
                                                "name": {"type": "string"},
                                                "shortDescription": _TEXT,
                                                "fullDescription": _TEXT,
                                                "help": _TEXT,
                                            },
                                        },
                                    },
                                },
                            }
                        },
                    },
                    "invocations": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["executionSuccessful"],
                            "properties": {
                                "executionSuccessful": {"type": "boolean"},
                                "toolExecutionNotifications": {
                                    "type": "array",
                                    "items": _NOTIFICATION,
                                },
                            },
                        },
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message"],
                            "additionalProperties": False,
                            "properties": {
                                "ruleId": {"type": "string"},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "rank": {"type": "number", "minimum": 0, "maximum": 100},
                                "message": _TEXT,
                                "locations": {"type": "array", "items": _LOCATION},
                                "partialFingerprints": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"},
                                },
                                "properties": {"type": "object"},
                            },
                        },
                    },
                },
            },
        },
    },
}
VALIDATOR = Draft202012Validator(SUBSET)


def checked(text: str) -> dict[str, Any]:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    text.encode()
    log: dict[str, Any] = json.loads(text, parse_constant=refuse)
    VALIDATOR.validate(log)
    (run,) = log["runs"]
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(ids) == len(set(ids))
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        for location in result.get("locations", ()):
            uri = location.get("physicalLocation", {}).get("artifactLocation", {}).get("uri", "x")
            urlsplit(uri)
            assert uri.isascii()
            assert uri.isprintable()
            assert " " not in uri
    return run  # type: ignore[no-any-return]


def notice(number: int, severity: Severity = Severity.HIGH, text: str = "it is") -> Notice:
    return Notice("nan", severity, text, "w", f"nan:{number}", "a b/m.safetensors", None,
                  (Place("tensor", f"layers.{number}.w"),), {"n": number})  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports())
def test_every_report_is_valid(report: DebugReport) -> None:
    run = checked(Reporter("sarif").render(report))
    found = sum(len(d.findings) or 1 for d in report.failures)
    assert len(run["results"]) == found


def test_levels_places_rules_and_fingerprints() -> None:
    verdict = Verdict(
        "a b", "findings", "", [Rule("nan", "no numbers", "No numbers.\n\nSave again.")],
        [notice(0, Severity.CRITICAL), notice(1, Severity.MEDIUM), notice(2, Severity.LOW)],
    )  # fmt: skip
    run = checked(SarifReporter().render(verdict))
    assert [r["level"] for r in run["results"]] == ["error", "warning", "note"]
    assert [r["properties"]["severity"] for r in run["results"]] == ["critical", "medium", "low"]
    (location,) = run["results"][1]["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "a%20b/m.safetensors"
    assert location["logicalLocations"][0]["name"] == "layers.1.w"
    (rule,) = run["tool"]["driver"]["rules"]
    assert rule["help"]["text"] == "No numbers.\n\nSave again."
    prints = {r["partialFingerprints"]["finding/v1"] for r in run["results"]}
    assert len(prints) == 3
    again = checked(SarifReporter().render(verdict))
    assert prints == {r["partialFingerprints"]["finding/v1"] for r in again["results"]}


def test_a_line_is_given_where_it_is_known() -> None:
    finding = Finding("nan_detected", Severity.HIGH, 1.0, 7, message="NaN", evidence={"line": 9})
    result = DetectionResult.of_findings("nan_detected", "nan_detection", [finding])
    run = checked(render_many([("runs/x.csv", DebugReport(0.0, [result]))], "sarif"))
    (location,) = run["results"][0]["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "runs/x.csv"}, "region": {"startLine": 9},
    }  # fmt: skip
    (rule,) = run["tool"]["driver"]["rules"]
    assert "How it decides" in rule["help"]["text"]


def test_what_was_not_looked_at_is_said() -> None:
    verdict = Verdict("m", "incomplete", "", checks=[Check("a"), Check("b", broken="it raised")],
                      unread=["m is cut off"])  # fmt: skip
    (invocation,) = checked(SarifReporter().render(verdict))["invocations"]
    assert invocation["executionSuccessful"] is False
    texts = [n["message"]["text"] for n in invocation["toolExecutionNotifications"]]
    assert texts == ["m is cut off", "b: it raised"]


def test_at_most_25_000_results_the_worst_kept() -> None:
    severities = [Severity.LOW, Severity.CRITICAL]
    verdict = Verdict("m", "findings", "",
                      notices=[notice(n, severities[n % 2]) for n in range(30_000)])  # fmt: skip
    run = checked(SarifReporter().render(verdict))
    assert len(run["results"]) == 25_000
    assert sum(r["level"] == "error" for r in run["results"]) == 15_000
    (told,) = run["invocations"][0]["toolExecutionNotifications"]
    assert told["message"]["text"].startswith("25000 of 30000 results")


def test_at_most_the_size_that_hosts_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sarif, "MAX_GZIPPED", 20_000)
    noise = [f"{n * 2654435761 % 2**32:08x}" * 2 for n in range(3000)]
    verdict = Verdict("m", "findings", "",
                      notices=[notice(n, text=t) for n, t in enumerate(noise)])  # fmt: skip
    text = SarifReporter().render(verdict)
    run = checked(text)
    kept = len(run["results"])
    assert len(gzip.compress(text.encode(), 6)) <= 20_000
    assert 100 < kept < 3000
    (told,) = run["invocations"][0]["toolExecutionNotifications"]
    assert told["message"]["text"].startswith(f"{kept} of 3000 results")


def test_several_runs_are_one_log() -> None:
    result = DetectionResult.of_findings(
        "nan_detected", "nan_detection", [Finding("nan_detected", Severity.HIGH, 1.0)]
    )
    text = render_many([("a", DebugReport(0.0, [result])), ("b", DebugReport(0.0, [result]))],
                       "sarif")  # fmt: skip
    run = checked(text)
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            for r in run["results"]]  # fmt: skip
    assert uris == ["a", "b"]
    assert len(run["tool"]["driver"]["rules"]) == 1
