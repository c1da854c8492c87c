"""A traced producer leads to its cause, whatever else is known."""

from __future__ import annotations

from typing import Any

import pytest

from ml_systems_debugger.attribution import TRACE_RULES, AttributionEngine
from ml_systems_debugger.core import DetectionResult, Finding, Severity

WHERE = "in the forward pass, aten.log outside the model, loss.py:7"


def traced(kind: str, step: int = 60, mode: str = "nan_detected", **more: Any) -> Finding:
    evidence = {"producer_kind": kind, "producer_where": WHERE, "producer_name": "batch[0]",
                "producer_dtype": "float32", "producer_op": "aten.log", **more}  # fmt: skip
    return Finding(mode, Severity.CRITICAL, 1.0, step, message=f"begins {WHERE}",
                   evidence=evidence, finding_id=f"trace:{step}")  # fmt: skip


def seen(mode: str, step: int, **evidence: Any) -> Finding:
    return Finding(mode, Severity.HIGH, 0.95, step, message=mode, evidence=evidence,
                   finding_id=f"{mode}:{step}")  # fmt: skip


def causes(*findings: Finding) -> Any:
    results = [DetectionResult.of_findings(f.failure_mode, "test", [f]) for f in findings]
    return AttributionEngine().attribute(results)


CAUSES = {
    "invalid_operation": "invalid_operation", "fully_masked": "invalid_operation",
    "constant": "invalid_operation", "uninitialised_memory": "invalid_operation",
    "overflow": "numerical_overflow", "non_finite_input": "non_finite_input",
    "non_finite_parameter": "replica_data_corruption",
    "non_finite_optimizer_state": "replica_data_corruption",
    "non_finite_buffer": "replica_data_corruption",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["nan_detected", "inf_detected"])
@pytest.mark.parametrize("kind", CAUSES)
def test_each_kind_leads_to_its_cause(kind: str, mode: str) -> None:
    # The series beside it suggest a sudden invalid operation, and a scaled loss an overflow.
    suggestive = seen(mode, 60, growth_before=1.0, from_the_start=False, loss_scaling=True,
                      series="loss", began_in="loss", began_at=60, goes_on=True)  # fmt: skip
    first = causes(traced(kind, mode=mode), suggestive)[0]
    assert str(first.cause) == CAUSES[kind]
    assert first.confidence >= (0.6 if kind == "non_finite_buffer" else 0.8)
    assert WHERE in " ".join((first.hypothesis, *first.evidence_for))


def test_without_a_trace_the_same_series_leave_it_open() -> None:
    suggestive = seen("nan_detected", 60, growth_before=1.0, from_the_start=False,
                      loss_scaling=True, series="loss", began_in="loss", began_at=60,
                      goes_on=True)  # fmt: skip
    assert causes(suggestive)[0].confidence < 0.7


def test_half_precision_is_named_and_widened() -> None:
    first = causes(traced("overflow", producer_dtype="float16"))[0]
    assert "float16" in first.hypothesis
    assert any("float32" in hint for hint in first.remediation_hints)


@pytest.mark.parametrize("kind", ["overflow", "invalid_operation", "non_finite_parameter"])
def test_the_end_of_a_runaway_is_explained_by_its_beginning(kind: str) -> None:
    jump = seen("learning_rate_instability", 40, lr_jump=30.0, lr_at_onset=0.03)
    grew = seen("exploding_gradients", 45, ratio=500.0)
    first = causes(jump, grew, traced(kind))[0]
    assert str(first.cause) in ("learning_rate_schedule_fault", "learning_rate_too_high")


def test_what_a_trace_rules_out_is_said() -> None:
    found = causes(traced("non_finite_input"), seen("nan_detected", 60, growth_before=1.0))
    assert str(found[0].cause) == "non_finite_input"
    assert any("invalid_operation" in text for text in found[0].ruled_out)


def test_every_kind_that_a_producer_can_have_is_read() -> None:
    read = {kind for rule in TRACE_RULES if rule.strength > 0.1
            for condition in rule.when if condition.fact == "producer_kind"
            for kind in condition.value}  # fmt: skip
    assert read == set(CAUSES)
