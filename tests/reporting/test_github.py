"""Workflow commands: one line each, escaped as the runner undoes it."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings

from ml_systems_debugger.core import DebugReport, Severity
from ml_systems_debugger.core.verdict import Check, Notice, Place, Verdict
from ml_systems_debugger.reporting import GithubReporter, Reporter

from .conftest import reports

COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")


def undone(text: str, properties: bool = False) -> str:
    if properties:
        text = text.replace("%3A", ":").replace("%2C", ",")
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    found = []
    for line in text.split("\n"):
        if line.startswith("::"):
            match = COMMAND.fullmatch(line)
            assert match is not None, line
            pairs = dict(p.split("=", 1) for p in match[2].split(","))
            found.append((match[1], {k: undone(v, True) for k, v in pairs.items()},
                          undone(match[3])))  # fmt: skip
        else:
            assert line.startswith("mlsd ")
    return found


def notice(severity: Severity, message: str, file: str = "", line: int | None = None) -> Notice:
    return Notice("nan", severity, message, "w", "nan", file, line)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports())
def test_every_report_gives_commands_alone(report: DebugReport) -> None:
    text = Reporter("github").render(report)
    assert text.isprintable() or "\n" in text
    commands(text)


def test_severities_files_and_lines() -> None:
    verdict = Verdict("m", "findings", "three", notices=[
        notice(Severity.CRITICAL, "a", "x.csv", 7), notice(Severity.MEDIUM, "b", "x.csv"),
        notice(Severity.LOW, "c"),
    ])  # fmt: skip
    assert GithubReporter().render(verdict).split("\n") == [
        "mlsd m: findings: three",
        "::error file=x.csv,line=7,title=critical nan::a",
        "::warning file=x.csv,title=medium nan::b",
        "::notice title=low nan::c",
    ]


def test_escaping_comes_back_as_it_was() -> None:
    text, file = "50%: a\r\nb, c%0A", "a,b:c%2C.csv"
    verdict = Verdict("m", "findings", "", notices=[notice(Severity.HIGH, text, file)])
    ((level, properties, message),) = commands(GithubReporter().render(verdict))
    assert (level, properties["file"], message) == ("error", file, text)


def test_no_name_can_start_a_command() -> None:
    evil = "x\n::error::owned"
    verdict = Verdict(evil, "findings", evil,
                      notices=[Notice("nan", Severity.LOW, "m", evil, "i", evil, None,
                                      (Place("tensor", evil),))],
                      checks=[Check(evil, broken=evil)], unread=[evil])  # fmt: skip
    text = GithubReporter().render(verdict)
    assert len(commands(text)) == 3
    assert len(text.split("\n")) == 4


def test_findings_of_one_kind_are_one_annotation() -> None:
    verdict = Verdict("m", "findings", "",
                      notices=[notice(Severity.HIGH, f"layer {n}") for n in range(40)])  # fmt: skip
    ((_, _, message),) = commands(GithubReporter().render(verdict))
    assert message == "layer 0 (and 39 more of its kind)"
