"""Text for people: plain where piped, complete, escaped, folded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from ml_systems_debugger import diagnose
from ml_systems_debugger.core import (
    AttributionHypothesis,
    BaseReporter,
    ConfigurationError,
    DebugReport,
    DetectionResult,
    Finding,
    Outcome,
    Severity,
    SkippedDetector,
    reporters,
)
from ml_systems_debugger.reporting import Reporter, ReportFormat, render_many

from .conftest import reports


def finding(step: int = 12, **more: Any) -> Finding:
    more.setdefault("evidence", {"ratio": 123.456, "rule": "jump", "onset_low": 10,
                                 "onset_high": 14, "loss_suffers": False})  # fmt: skip
    return Finding(
        "exploding_gradients", Severity.HIGH, 0.9, step, message=f"norm left at {step}",
        finding_id=str(step), **more,
    )  # fmt: skip


def report_of(*findings: Finding, **more: Any) -> DebugReport:
    result = DetectionResult.of_findings("exploding_gradients", "gradient_explosion", findings)
    return DebugReport(0.0, [result], summary="Gradients explode.", **more)


FULL = report_of(
    finding(12, layer="fc1", replica_id=3, end_step=20),
    attributions=[
        AttributionHypothesis(
            "The rate is too high.", 0.71, [finding()], ["Try 0.001."], Severity.HIGH,
            "learning_rate_too_high", ["norm left at 12 [EXP001]"], ["it recovered"],
            ["corrupted_batch (the rate changed)"], "exploding gradients (step 12)",
        )
    ],
    skipped=[SkippedDetector("skew", "no features")],
    unread=["a.csv:7: no number: 'x'\nmore"],
)  # fmt: skip


def test_everything_is_told() -> None:
    text = Reporter(ReportFormat.TEXT).render(FULL)
    assert text == str(FULL)
    for part in (
        "FAILURES  Gradients explode.", "high     exploding_gradients", "steps 12 to 20",
        "layer fc1", "replica 3", "90% sure", "norm left at 12", "ratio=123.5",
        "began between steps 10 and 14; ends at 20", "against   the loss does not suffer",
        "rule      jump of gradient_explosion", "71%  learning_rate_too_high",
        "+ norm left at 12 [EXP001]", "- it recovered", "ruled out: corrupted_batch",
        "> Try 0.001.", "Not applicable: skew (no features)", "a.csv:7: no number: 'x'",
    ):  # fmt: skip
        assert part in text, part


def test_plain_by_default_and_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in str(FULL)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in Reporter("text").render(FULL, color=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in Reporter("text").render(FULL, color=True)


def test_a_notebook_does_not_swallow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "FAILURES" in str(FULL)


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_no_line_is_wider_than_asked(width: int) -> None:
    lines = Reporter("text").render(FULL, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports())
def test_any_report_is_plain_printable_text(report: DebugReport) -> None:
    for text in (str(report), report.to_markdown(), render_many([("\x1b[31m", report)], "text")):
        text.encode("utf-8")
        assert all(c.isprintable() or c in "\n\u200b" for c in text)


def test_ten_findings_are_shown_a_thousand_are_folded() -> None:
    ten = str(report_of(*(finding(at) for at in range(10))))
    assert ten.count("norm left at") == 10
    assert " more" not in ten
    many = report_of(*(finding(at, layer=f"l{at}") for at in range(1000)))
    text = str(many)
    assert text.count("norm left at") == 10
    assert "and 990 more in 990 layers, from steps 10 to 999" in text
    assert len(text.splitlines()) < 100
    assert len(many.to_markdown()) < 65_536, "fits into a comment"
    assert len(many.to_dict()["detections"][0]["findings"]) == 1000


def test_further_findings_of_a_detector_take_a_line() -> None:
    text = str(report_of(finding(12), finding(30, layer="fc2")))
    assert text.count("evidence") == 1
    assert "also      step 30, layer fc2: norm left at 30 (90% sure)" in text


def test_what_is_short_of_certain_is_not_rounded_to_it() -> None:
    sure = replace(finding(), confidence=0.9999)
    for form in ("text", "markdown"):
        assert "100%" not in Reporter(form).render(report_of(sure))
    assert "(>99% sure)" in str(report_of(sure))
    assert "(100% sure)" in str(report_of(replace(sure, confidence=1.0)))
    assert "(0% sure)" in str(report_of(replace(sure, confidence=0.0)))
    assert "(<1% sure)" in str(report_of(replace(sure, confidence=0.001)))


def test_many_checks_that_do_not_apply_are_named_alone() -> None:
    skipped = [SkippedDetector(f"check_{at}", "no such series") for at in range(9)]
    text = str(DebugReport(0.0, skipped=skipped))
    assert "check_8 (what each reads" in " ".join(text.split())
    assert "no such series" not in text


def test_many_detectors_show_their_worst() -> None:
    results = [
        DetectionResult.of_findings("loss_spike", f"d{at}", [finding(s) for s in range(20)])
        for at in range(20)
    ]
    text = str(DebugReport(0.0, results))
    assert all(f"of d{at}" in text for at in range(20))
    assert text.count("norm left at") < 60


def test_a_check_that_failed_shows_the_end_of_its_traceback() -> None:
    trace = "\n".join([*(f"line {at}" for at in range(50)), "ZeroDivisionError: planted"])
    failed = DetectionResult(
        "overfitting", False, 0.0, {"traceback": trace}, detector_name="own",
        outcome=Outcome.FAILED, reason="ZeroDivisionError: planted",
    )  # fmt: skip
    text = str(DebugReport(0.0, [failed]))
    assert "Check failed: own: ZeroDivisionError: planted" in text
    assert "line 49" in text
    assert "line 3\n" not in text


def test_two_stories_are_told_apart() -> None:
    causes = [
        AttributionHypothesis("A.", 0.9, cause="slow_worker", story="straggler effect (step 1)"),
        AttributionHypothesis("B.", 0.8, cause="target_leak", story="label leakage"),
    ]
    text = str(report_of(finding(), attributions=causes))
    assert "Likely causes of straggler effect (step 1)" in text
    assert "Likely causes of label leakage" in text


def test_several_runs_begin_with_a_table() -> None:
    healthy = diagnose({"loss": 1 / np.arange(1.0, 400.0)})
    text = render_many([("good.csv", healthy), ("bad.csv", FULL)], width=140)
    table, _, rest = text.partition("\n\n")
    assert "good.csv" in table
    assert "learning_rate_too_high (71%)" in table
    assert "bad.csv" in rest
    assert "good.csv" not in rest, "a healthy run is only in the table"
    assert "\x1b[" in render_many([("bad.csv", FULL)], color=True)


def test_formats_are_words_and_unknown_ones_an_error() -> None:
    assert Reporter("JSON").format == "json"
    assert Reporter(ReportFormat.MARKDOWN).generate(FULL) == FULL.to_markdown()
    with pytest.raises(ConfigurationError, match="'pdf'"):
        Reporter("pdf")
    with pytest.raises(ConfigurationError, match="'pdf'"):
        render_many([], "pdf")


def test_a_registered_reporter_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Reporter("text").format == "text"
    monkeypatch.setattr(reporters, "_classes", dict(reporters._classes))

    @reporters.register("shout")
    class Shout(BaseReporter):
        def render(self, report: DebugReport) -> str:
            return report.summary.upper()

    assert Reporter("shout").render(FULL) == "GRADIENTS EXPLODE."
    assert render_many([("a", FULL)], "shout") == "a\nGRADIENTS EXPLODE."


@pytest.mark.parametrize("form", [ReportFormat.TEXT, ReportFormat.MARKDOWN])
def test_what_the_source_says_is_told(form: ReportFormat) -> None:
    log = (
        b"step 1: loss 0.5\nstep 2: loss 0.4\nGradient overflow.  Skipping step\n"
        b"Gradient overflow.  Skipping step, again\n"
        b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    )
    text = Reporter(form).render(diagnose(log))
    assert "The source says" in text
    told = " ".join(text.split())
    assert "skipped step at line 3, step 2 (2 of this kind): Gradient overflow." in told
    assert "out of memory at line 5, step 2: torch.OutOfMemoryError" in told


def test_a_source_that_says_nothing_has_no_section() -> None:
    assert "The source says" not in Reporter("text").render(diagnose({"loss": [1.0, 2.0]}))


def test_hidden_losses_are_told() -> None:
    rows = [{"step": i, "loss": 0.0, "grad_norm": float("nan")} for i in range(5)]
    assert "the logger hides losses" in " ".join(Reporter("text").render(diagnose(rows)).split())
