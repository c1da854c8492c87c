"""The engine: order, stories, noisy-OR, evidence against, unknown, determinism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger import diagnose
from ml_systems_debugger.attribution import AttributionEngine, Platt
from ml_systems_debugger.core import (
    AttributionRule,
    Condition,
    DetectionResult,
    FailureMode,
    Finding,
    RegistryError,
    RootCause,
    Severity,
    Signal,
    register_failure_mode,
    register_root_cause,
)

ENGINE = AttributionEngine()


def found(mode: Any, step: int | None = 100, confidence: float = 0.95, **more: Any) -> Finding:
    """Return a finding that goes on, unless `end_step` says otherwise."""
    evidence = more.pop("evidence", {})
    return Finding(
        mode, more.pop("severity", Severity.HIGH), confidence, step,
        message=more.pop("message", f"{mode} at {step}"), evidence=evidence,
        finding_id=f"{mode}:{step}:{more.get('layer')}:{more.get('replica_id')}", **more,
    )  # fmt: skip


def results(*findings: Finding) -> list[DetectionResult]:
    return [DetectionResult.of_findings(f.failure_mode, "test", [f]) for f in findings]


def told(hypotheses: Any) -> list[tuple[Any, ...]]:
    return [
        (h.cause, h.confidence, h.hypothesis, h.remediation_hints, h.evidence_for,
         h.evidence_against, h.ruled_out, h.story, h.severity)
        for h in hypotheses
    ]  # fmt: skip


JUMP = {"lr_jump": 30.0, "lr_at_onset": 0.03, "series": "grad_norm", "baseline": 1.0,
        "ratio": 500.0, "onset_low": 248, "onset_high": 252}  # fmt: skip


def test_nothing_found_has_no_cause() -> None:
    assert ENGINE.attribute([]) == ()
    assert ENGINE.attribute([DetectionResult("nan_detected", False, 0.0)]) == ()


def test_nan_after_explosion_after_a_jump_of_the_rate_is_one_story_told_in_order() -> None:
    run = results(
        found("nan_detected", 300, severity=Severity.CRITICAL, evidence={"growth_before": 5.0}),
        found("exploding_gradients", 250, evidence=JUMP),
        found("divergent_training", 255, evidence={**JUMP, "series": "loss"}),
    )
    causes = ENGINE.attribute(run)
    told_once = (
        "exploding gradients (step 250), then divergent training (step 255), "
        "then NaN detected (step 300)"
    )
    assert {h.story for h in causes} == {told_once}
    assert causes[0].cause is RootCause.LEARNING_RATE_SCHEDULE_FAULT
    assert causes[1].cause is RootCause.LEARNING_RATE_TOO_HIGH
    assert causes[0].severity is Severity.CRITICAL, "the worst of what it explains"
    assert "30" in causes[0].hypothesis
    hint = causes[1].remediation_hints[0]
    assert "0.001" in hint, "the rate before the jump"
    assert "248" in hint, "a step before the earliest onset"


def test_a_nan_out_of_nothing_is_no_matter_of_the_learning_rate() -> None:
    causes = ENGINE.attribute(
        results(found("nan_detected", 300, evidence={"growth_before": 1.0, "began_at": 300,
                                                     "began_in": "loss"}))
    )  # fmt: skip
    assert causes[0].cause is RootCause.INVALID_OPERATION
    assert "300" in " ".join(causes[0].remediation_hints)


def test_an_effect_counts_less_than_a_beginning() -> None:
    alone = ENGINE.attribute(results(found("nan_detected", 300)))
    after = ENGINE.attribute(results(found("exploding_gradients", 250), found("nan_detected", 300)))
    share = {h.cause: h.confidence for h in after}
    before = {h.cause: h.confidence for h in alone}
    assert before[RootCause.INVALID_OPERATION] > 2 * share.get(RootCause.INVALID_OPERATION, 0.0)


def test_what_cannot_have_met_is_two_stories() -> None:
    apart = results(
        found("loss_spike", 1_000, end_step=1_003), found("divergent_training", 90_000),
        found("training_serving_skew", None),
    )  # fmt: skip
    assert len({h.story for h in ENGINE.attribute(apart)}) == 3
    near = results(found("loss_spike", 1_000, end_step=1_003), found("divergent_training", 1_040))
    assert len({h.story for h in ENGINE.attribute(near)}) == 1
    replicas = results(
        found("straggler_effect", 10, replica_id=1),
        found("partial_worker_failure", 50, replica_id=2),
    )
    assert len({h.story for h in ENGINE.attribute(replicas)}) == 2


def test_an_effect_does_not_come_before_its_cause() -> None:
    causes = ENGINE.attribute(results(found("nan_detected", 10), found("exploding_gradients", 500)))
    assert len({h.story for h in causes}) == 2


def test_one_that_comes_again_is_one_story() -> None:
    run = results(found("loss_spike", 1_000, end_step=1_003), found("loss_spike", 90_000))
    assert len({h.story for h in ENGINE.attribute(run)}) == 1


def test_a_plateau_from_the_start_is_explained_by_what_happens_early_in_it() -> None:
    nan = found("nan_detected", 12, evidence={"last_bad_step": 40_000, "growth_before": 1e9})
    stuck = found("loss_plateau", 0, evidence={"rule": "accuracy_at_start"})
    causes = ENGINE.attribute(results(stuck, nan))
    assert {h.story for h in causes} == {"NaN detected (step 12), then loss plateau (step 0)"}
    assert causes[0].cause is RootCause.LEARNING_RATE_TOO_HIGH
    late = found("nan_detected", 30_000, evidence={"last_bad_step": 40_000})
    assert len({h.story for h in ENGINE.attribute(results(stuck, late))}) == 2


def test_uncertain_onsets_may_overlap() -> None:
    run = results(
        found("exploding_gradients", 105, evidence={"onset_low": 95, "onset_high": 105}),
        found("divergent_training", 100, evidence={"onset_low": 98, "onset_high": 104}),
    )
    assert len({h.story for h in ENGINE.attribute(run)}) == 1


def test_evidence_against_lowers_and_is_said() -> None:
    run = results(found("exploding_gradients", 250, evidence={"baseline": 1.0, "peak": 9.0}))
    without = {h.cause: h for h in ENGINE.attribute(run)}
    clipped = ENGINE.attribute(run, {"gradient_clipping": 1.0})
    kept = {h.cause: h.confidence for h in clipped}
    cause = RootCause.MISSING_GRADIENT_CLIPPING
    assert kept.get(cause, 0.0) < 0.5 * without[cause].confidence
    said = [*clipped[0].ruled_out, *(t for h in clipped for t in h.evidence_against)]
    assert any("clipped" in text for text in said)


def test_a_check_that_looked_and_found_nothing_is_evidence() -> None:
    run = results(found("divergent_training", 200, evidence={"lr_is_constant": True}))
    calm = DetectionResult("exploding_gradients", False, 0.0, judged=("grad_norm",))
    blind = DetectionResult("exploding_gradients", False, 0.0, outcome="not_applicable")  # type: ignore[arg-type]
    assert ENGINE.attribute([*run, calm])[0].cause is RootCause.DATA_DISTRIBUTION_CHANGE
    assert told(ENGINE.attribute([*run, blind])) == told(ENGINE.attribute(run))


def test_confidences_of_a_story_add_up_to_at_most_one() -> None:
    run = results(*(found(mode, 100 + at) for at, mode in enumerate(FailureMode)))
    totals: dict[str, float] = {}
    for h in ENGINE.attribute(run):
        totals[h.story] = totals.get(h.story, 0.0) + h.confidence
        assert 0.0 <= h.confidence <= 1.0
    assert all(total <= 1.0 + 1e-9 for total in totals.values())


def test_unknown_where_no_rule_knows() -> None:
    mode = register_failure_mode("acme:melted")
    causes = ENGINE.attribute(results(found(mode, 5)))
    assert [(h.cause, h.confidence) for h in causes] == [(RootCause.UNKNOWN, 1.0)]
    assert causes[0].remediation_hints


def test_unknown_where_the_leak_wins() -> None:
    causes = ENGINE.attribute(results(found("exploding_gradients", 50, confidence=0.02)))
    assert causes[0].cause is RootCause.UNKNOWN
    sure = ENGINE.attribute(results(found("exploding_gradients", 50, confidence=1.0)))
    assert RootCause.UNKNOWN not in {h.cause for h in sure}


def test_many_layers_are_one_piece_of_evidence() -> None:
    one = ENGINE.attribute(results(found("exploding_gradients", 50)))
    layers = [found("exploding_gradients", 50, layer=f"l{at}") for at in range(1000)]
    many = ENGINE.attribute([DetectionResult.of_findings("exploding_gradients", "x", layers)])
    assert [h.cause for h in many] == [h.cause for h in one]
    assert [h.confidence for h in many] == pytest.approx([h.confidence for h in one])


def test_what_many_layers_say_is_told_once() -> None:
    layers = [
        found("exploding_gradients", 100, layer=f"l{at}", evidence={**JUMP, "ratio": 10.0 + at})
        for at in range(6)
    ]
    for cause in ENGINE.attribute(results(*layers)):
        told_of = [text for text in cause.evidence_for if "exploding_gradients at 100" in text]
        assert len(told_of) == 1
        assert told_of[0].endswith(", and 5 more findings of this kind")
        assert len(set(cause.evidence_against)) == len(cause.evidence_against)


def test_pieces_of_advice_ask_for_different_things() -> None:
    rules = [
        AttributionRule(
            f"TST{at}", "nan_detected", "corrupted_batch", 0.9 - 0.1 * at, "A bad batch.",
            remediation=(f"Look at the batch of step {at}.", f"{word} it out."),
        )
        for at, word in enumerate(("Leave", "Filter"))
    ]  # fmt: skip
    (cause, *_) = AttributionEngine(rules).attribute(results(found("nan_detected")))
    assert cause.remediation_hints[1:] == (
        "Look at the batch of step 0.", "Leave it out.", "Filter it out.",
    )  # fmt: skip


def test_the_worst_of_many_is_heard_however_late() -> None:
    findings = [found("loss_spike", at, severity=Severity.LOW) for at in range(50)]
    findings.append(found("loss_spike", 60, severity=Severity.CRITICAL))
    causes = ENGINE.attribute([DetectionResult.of_findings("loss_spike", "x", findings)])
    assert causes[0].severity is Severity.CRITICAL


@given(st.data())
def test_the_same_answer_for_every_order(data: st.DataObject) -> None:
    modes = data.draw(st.lists(st.sampled_from(list(FailureMode)), min_size=1, max_size=8))
    steps = st.one_of(st.none(), st.integers(0, 400))
    findings = [
        found(
            mode, data.draw(steps), confidence=data.draw(st.floats(0, 1)),
            severity=data.draw(st.sampled_from(list(Severity))),
            layer=data.draw(st.sampled_from([None, "a", "b"])),
            evidence=data.draw(st.dictionaries(
                st.sampled_from(["lr_jump", "recovered", "onset_low", "ratio", "rule"]),
                st.one_of(st.floats(), st.booleans(), st.text(max_size=3), st.integers()),
            )),
        )
        for mode in modes
    ]  # fmt: skip
    run = results(*findings)
    first = told(ENGINE.attribute(run))
    order = data.draw(st.permutations(run))
    assert told(ENGINE.attribute(order)) == first
    assert told(AttributionEngine().attribute(run[::-1])) == first
    causes = [(h[7], h[0]) for h in first]
    assert len(set(causes)) == len(causes), "each cause once a story"
    ranked = [h[1] for h in first]
    assert ranked == sorted(ranked, reverse=True)


def test_evidence_may_be_arrays_and_other_types() -> None:
    odd = {"ratio": np.ones(3), "lr_jump": "much", "baseline": None, "series": object(),
           "onset_low": 3.5}  # fmt: skip
    assert ENGINE.attribute(results(found("exploding_gradients", 50, evidence=odd)))


def test_rules_of_a_third_party_take_part() -> None:
    mode, cause = register_failure_mode("acme:hot"), register_root_cause("acme:fan")
    rule = AttributionRule(
        "ACME1", mode, cause, 0.8, "The fan of {layer} stopped at step {onset_step}.",
        raises=((Condition("lead.loss_spike", ">=", 0, "the loss spiked before"), 0.5),),
    )  # fmt: skip
    engine = AttributionEngine(extra_rules=[rule])
    causes = engine.attribute(results(found("loss_spike", 10), found(mode, 20, layer="fc")))
    best = next(h for h in causes if h.cause == cause)
    assert best.hypothesis == "The fan of fc stopped at step 20."
    assert "then acme:hot" in best.story, "its rule says that a spike leads to it"
    assert "the loss spiked before" in best.evidence_for


def test_one_code_two_rules_is_an_error() -> None:
    rule = AttributionRule("X1", "loss_spike", "corrupted_batch", 0.5, "A.")
    other = AttributionRule("X1", "loss_spike", "corrupted_batch", 0.6, "A.")
    with pytest.raises(RegistryError, match="X1"):
        AttributionEngine(rules=[rule, other])
    assert AttributionEngine(rules=[rule, rule]).rules == (rule,)


def test_calibration_changes_confidence_and_not_order() -> None:
    run = results(found("exploding_gradients", 50))
    raw = ENGINE.attribute(run)
    calibrated = AttributionEngine(calibrate=Platt(0.5, -1.0)).attribute(run)
    assert [h.cause for h in calibrated] == [h.cause for h in raw]
    assert calibrated[0].confidence != raw[0].confidence


def test_timeline_is_json_in_order() -> None:
    run = results(found("nan_detected", 30, layer="fc"), found("loss_spike", 10))
    assert [(t["step"], t["failure_mode"], t["layer"]) for t in ENGINE.timeline(run)] == [
        (10, "loss_spike", None), (30, "nan_detected", "fc"),
    ]  # fmt: skip


def test_gradients_that_stay_infinite_beside_a_finite_loss_overflow() -> None:
    steps = range(200)
    falling = [2.0 * 0.97**at + 0.01 * (at % 7) for at in steps]
    run = [Signal("loss", falling[at], step=at) for at in steps]
    run += [Signal("grad_norm", 1.0 if at < 120 else float("inf"), step=at) for at in steps]
    assert diagnose(run).attributions[0].cause is RootCause.NUMERICAL_OVERFLOW
    broken = [Signal("loss", falling[at] if at < 120 else float("nan"), step=at) for at in steps]
    assert diagnose(broken).attributions[0].cause is RootCause.INVALID_OPERATION
