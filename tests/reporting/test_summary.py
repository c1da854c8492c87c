"""The verdict in a sentence or two."""

from __future__ import annotations

from ml_systems_debugger.core import (
    AttributionHypothesis,
    DetectionResult,
    Finding,
    Outcome,
    Severity,
    SkippedDetector,
)
from ml_systems_debugger.reporting import summary_text


def fired(mode: str, step: int | None, severity: str = "high", **more: str) -> DetectionResult:
    found = Finding(mode, Severity(severity), 0.9, step, **more)  # type: ignore[arg-type]
    return DetectionResult.of_findings(mode, mode, [found], judged=("loss",))


def quiet(*judged: str) -> DetectionResult:
    return DetectionResult("loss_spike", False, 0.0, detector_name="q", judged=judged)


def test_what_failed_where_it_began_and_why() -> None:
    results = [
        fired("nan_detected", 300, "critical"),
        fired("exploding_gradients", 250, layer="fc"),
    ]
    cause = AttributionHypothesis(
        "x", 0.8, [results[1]], cause="learning_rate_too_high", severity=Severity.HIGH
    )
    assert summary_text(results, [cause]) == (
        "Exploding gradients from step 250, layer fc, with NaN detected. "
        "Most likely cause: learning rate too high (80%)."
    )


def test_the_cause_named_is_that_of_the_failure_named() -> None:
    results = [fired("nan_detected", 300, "critical"), fired("straggler_effect", 900)]
    slow = AttributionHypothesis("x", 0.99, [results[1]], cause="slow_worker")
    overflow = AttributionHypothesis("x", 0.5, [results[0]], cause="numerical_overflow")
    text = summary_text(results, [slow, overflow])
    assert "NaN detected from step 300" in text
    assert "numerical overflow (50%)" in text


def test_healthy() -> None:
    text = summary_text([quiet("loss"), quiet("loss", "grad_norm")], [])
    assert text == "No failure found in 2 checks of grad_norm and loss."
    many = summary_text([quiet(*(f"q{at}" for at in range(20)))], [])
    assert many == "No failure found in 1 check of q0, q1, q10, q11, q12, q13 and 14 more."


def test_a_minor_finding_is_a_notice() -> None:
    text = summary_text([quiet("loss"), fired("loss_spike", 3, "low")], [])
    assert text == "No failure found in 2 checks of loss. 1 minor notice."


def test_too_little_says_what_is_missing() -> None:
    short = DetectionResult(
        "loss_plateau", False, 0.0, outcome=Outcome.INSUFFICIENT, reason="loss has 2 values"
    )
    assert summary_text([short], []) == (
        "There is too little data for a verdict: loss has 2 values."
    )
    skipped = [SkippedDetector("a", "none of loss is in the input")]
    assert "none of loss is in the input" in summary_text([], [], skipped)
    assert summary_text([], []) == "There is too little data for a verdict."


def test_what_did_not_run_and_was_not_read() -> None:
    failed = DetectionResult(
        "overfitting", False, 0.0, detector_name="own", outcome=Outcome.FAILED, reason="x"
    )
    text = summary_text([quiet("loss"), failed], [], unread=["a"])
    assert text.endswith("Did not run: own. Not all of the input was read (1 note).")
