"""Markdown: tables that hold, nothing that a name can break."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_systems_debugger.core import DebugReport, DetectionResult, Finding, Severity
from ml_systems_debugger.reporting import render_many
from ml_systems_debugger.reporting.markdown import escaped

from .conftest import reports
from .test_text import FULL


def test_everything_is_told() -> None:
    text = FULL.to_markdown()
    for part in (
        "## Diagnosis: failures", "| high | exploding\\_gradients |", "layer fc1, replica 3",
        "window: began between steps 10 and 14; ends at 20", "against: the loss does not suffer",
        "rule: jump of gradient\\_explosion", "1. **learning\\_rate\\_too\\_high** (71%)",
        "**do**: Try 0.001.", "ruled out: corrupted\\_batch", "### Not checked",
    ):  # fmt: skip
        assert part in text, part


def test_names_cannot_break_the_table_or_call_people() -> None:
    nasty = "a|b\n<img src=x> `c` @octocat [x](y) **d** &lt;"
    found = Finding("loss_spike", Severity.HIGH, 1.0, 3, layer=nasty, message=nasty)
    text = DebugReport(
        0.0, [DetectionResult.of_findings("loss_spike", "x", [found])], summary=nasty
    ).to_markdown()
    row = next(line for line in text.splitlines() if line.startswith("| high"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    for broken in ("<img", "`c", "[x", "**d", "&lt;"):
        assert not re.search(rf"(?<!\\){re.escape(broken)}", text), broken
    assert "@octocat" not in text


@given(st.text(max_size=60))
def test_escaped_text_is_one_cell(text: str) -> None:
    made = escaped(text)
    assert "\n" not in made
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<`]", made)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports())
def test_every_row_has_its_five_cells(report: DebugReport) -> None:
    for line in report.to_markdown().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 6, line


def test_several_runs() -> None:
    text = render_many([("a.csv", DebugReport(0.0)), ("b|c.csv", FULL)], "markdown")
    assert text.startswith("| run | status |")
    assert "| a.csv | insufficient\\_data | - | - | - |" in text
    assert "# b\\|c.csv" in text
    assert "# a.csv" not in text
