"""JUnit XML: well-formed whatever the names hold, and the verdict that the exit code gives."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import HealthCheck, given, settings

from ml_systems_debugger.core import DebugReport, Severity
from ml_systems_debugger.core.verdict import Check, Notice, Place, Verdict
from ml_systems_debugger.reporting import JUnitReporter, Reporter

from .conftest import reports


def parsed(text: str) -> ElementTree.Element:
    text.encode("ascii")
    root = ElementTree.fromstring(text)  # noqa: S314 - our own output
    assert root.tag == "testsuites"
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.get("tests") == str(len(cases))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(name) == str(sum(c.find(tag) is not None for c in cases))
        for case in cases:
            assert case.get("name")
            assert case.get("classname")
            # The strictest of the schemas in use lets a case have one outcome.
            assert sum(case.find(t) is not None for t in ("failure", "error", "skipped")) <= 1
            assert {child.tag for child in case} <= {"failure", "error", "skipped", "system-out"}
    return root


def notice(severity: Severity, check: str, message: str = "bad") -> Notice:
    return Notice("nan", severity, message, check, "nan", places=(Place("tensor", "w"),))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports())
def test_every_report_is_well_formed(report: DebugReport) -> None:
    root = parsed(Reporter("junit").render(report))
    failed = root.findall("*/testcase/failure")
    bad = [d for d in report.failures if d.severity is not None and d.severity >= "high"]
    assert bool(failed) == bool(bad)


def test_cases_fail_from_the_asked_severity_on() -> None:
    verdict = Verdict(
        "m", "findings", "two",
        notices=[notice(Severity.CRITICAL, "a"), notice(Severity.MEDIUM, "b"),
                 notice(Severity.LOW, "a")],
        checks=[Check("a"), Check("b"), Check("c"), Check("d", skipped="no such signal")],
    )  # fmt: skip
    for fail_on, failing in (("high", ["a"]), ("medium", ["a", "b"]), (None, [])):
        root = parsed(JUnitReporter().render(verdict, fail_on=fail_on))
        cases = {c.get("name"): c for c in root.iter("testcase")}
        assert list(cases) == ["a", "b", "c", "d", "all input was read"]
        assert [n for n, c in cases.items() if c.find("failure") is not None] == failing
        assert cases["d"].find("skipped").get("message") == "no such signal"  # type: ignore[union-attr]
    failure = parsed(JUnitReporter().render(verdict)).find("*/testcase/failure")
    assert failure is not None
    assert failure.get("type") == "critical"
    out = parsed(JUnitReporter().render(verdict)).find("*/testcase[@name='a']/system-out")
    assert out is not None
    assert out.text == "low nan: tensor w: bad"


def test_what_was_not_read_or_broke_is_an_error() -> None:
    verdict = Verdict("m", "incomplete", "", checks=[Check("a", broken="it raised")],
                      unread=["m is cut off"])  # fmt: skip
    root = parsed(JUnitReporter().render(verdict))
    assert [e.get("message") for e in root.iter("error")] == ["it raised", "m is cut off"]
    assert root.get("errors") == "2"


def test_control_characters_are_shown_not_written() -> None:
    name = "w\x00\x1b[2J\ud800\ufffe<&\"']]>"
    verdict = Verdict("m", "findings", "", notices=[notice(Severity.HIGH, name, name)])
    text = JUnitReporter().render(verdict)
    case = parsed(text).find("*/testcase")
    assert case is not None
    assert case.get("name") == "w\\x00\\x1b[2J\\ud800\\ufffe<&\"']]>"
    assert "\x1b" not in text


def test_a_case_of_many_findings_is_cut_and_says_so() -> None:
    notices = [notice(Severity.HIGH, "a", f"no {n}") for n in range(500)]
    verdict = Verdict("m", "findings", "", notices=notices)
    failure = parsed(JUnitReporter().render(verdict)).find("*/testcase/failure")
    assert failure is not None
    lines = (failure.text or "").splitlines()
    assert len(lines) == 101
    assert lines[-1] == "and 400 more"
