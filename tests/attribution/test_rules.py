"""Every rule that is built in: templates, reach over modes and causes, sources."""

from __future__ import annotations

import string
from typing import Any

import pytest

from ml_systems_debugger.attribution import (
    DEFAULT_RULES,
    LEADS_TO,
    STORY_RULES,
    TRACE_RULES,
    AttributionEngine,
)
from ml_systems_debugger.attribution.causes import generic_hint, generic_sentence
from ml_systems_debugger.core import (
    AttributionRule,
    Condition,
    ConfigurationError,
    DetectionResult,
    FailureMode,
    Finding,
    RootCause,
    Severity,
)

ENGINE = AttributionEngine()
RULES = ENGINE.rules
ALL_RULES = tuple(
    {rule.code: rule for rule in (*RULES, *DEFAULT_RULES, *STORY_RULES, *TRACE_RULES)}.values()
)


def minimal_run(rule: AttributionRule) -> tuple[list[DetectionResult], dict[str, Any]]:
    """Return the least that makes all conditions of `rule` hold: results and context."""
    step: int | None = 1000
    evidence: dict[str, Any] = {}
    context: dict[str, Any] = {}
    own: dict[str, Any] = {}
    others: list[Finding] = []
    silent: list[DetectionResult] = []
    for condition in rule.when:
        value = _value_for(condition)
        kind, _, name = condition.fact.partition(".")
        if condition.fact == "onset_step":
            step = value
        elif kind == "context":
            context[name] = value
        elif kind in ("mode", "lead"):
            at = 0 if "from the start" in condition.says else 500
            others = [f for f in others if f.failure_mode != name]
            others.append(Finding(name, Severity.HIGH, 1.0, at))
        elif kind == "quiet":
            silent.append(DetectionResult(name, False, 0.0, judged=("x",)))
        elif kind == "finding":
            own[name] = value
        elif value is not None:
            evidence[name if kind == "story" else condition.fact] = value
    target = Finding(rule.mode, Severity.HIGH, 1.0, step, evidence=evidence, **own)
    fired = [DetectionResult.of_findings(f.failure_mode, "x", [f]) for f in (target, *others)]
    return [*fired, *silent], context


def _value_for(condition: Condition) -> Any:
    if condition.op == "absent":
        return None
    if condition.op == "present":
        return 1
    if condition.op == "in":
        return next(iter(condition.value))
    if condition.op == "!=":
        return "something else"
    if condition.op in ("<", ">"):
        return condition.value + (1 if condition.op == ">" else -1)
    return condition.value


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.code)
def test_each_rule_speaks_for_its_cause_with_the_least_evidence(rule: AttributionRule) -> None:
    engine = AttributionEngine(rules=[rule])
    run, context = minimal_run(rule)
    causes = {h.cause: h for h in engine.attribute(run, context)}
    assert rule.cause in causes
    made = causes[rule.cause]
    assert made.hypothesis
    assert made.remediation_hints
    for text in (made.hypothesis, *made.remediation_hints, *made.evidence_for):
        assert "{" not in text, text
        assert "None" not in text, text


@pytest.mark.parametrize("mode", list(FailureMode))
def test_every_mode_has_a_sensible_cause(mode: FailureMode) -> None:
    bare = DetectionResult(mode, True, 0.9)
    causes = ENGINE.attribute([bare])
    assert causes
    assert causes[0].cause is not RootCause.UNKNOWN
    assert causes[0].remediation_hints


@pytest.mark.parametrize("cause", [c for c in RootCause if c is not RootCause.UNKNOWN])
def test_every_cause_is_named_by_the_whole_engine_when_its_evidence_is_there(
    cause: RootCause,
) -> None:
    # Unknown is what is left where no rule holds: no rule speaks for it.
    runs = [minimal_run(rule) for rule in RULES if rule.cause is cause]
    assert any(cause in {h.cause for h in ENGINE.attribute(*run)} for run in runs)


def test_every_cause_has_its_sentence_and_advice() -> None:
    for cause in RootCause:
        assert generic_sentence(cause).endswith(".")
        assert generic_hint(cause)
    assert generic_hint("acme:fan") == ()
    assert "acme:fan" in generic_sentence("acme:fan")


def test_codes_are_stable_words_and_weights_sane() -> None:
    for rule in ALL_RULES:
        assert rule.code.isalnum()
        assert rule.code == rule.code.upper()
        assert 0.0 < rule.strength < 1.0
        for condition in (c for c, _ in (*rule.raises, *rule.lowers)):
            assert condition.says or condition.fact


def test_conditions_that_are_shown_have_words() -> None:
    for rule in (*DEFAULT_RULES, *STORY_RULES, *TRACE_RULES):
        for condition in (*rule.when, *(c for c, _ in (*rule.raises, *rule.lowers))):
            assert condition.says, (rule.code, condition.fact)


def test_the_causal_graph_knows_its_modes() -> None:
    modes = {mode.value for mode in FailureMode}
    assert set(LEADS_TO) <= modes
    for source, effects in LEADS_TO.items():
        assert effects <= modes
        assert source not in effects


def test_templates_name_facts() -> None:
    for rule in ALL_RULES:
        for template in (rule.hypothesis, *rule.remediation):
            for _, name, _, _ in string.Formatter().parse(template):
                assert name is None or name, rule.code


@pytest.mark.parametrize("template", ["{onset_step", "at }", "at {}"])
def test_a_template_that_cannot_be_filled_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="BAD1"):
        AttributionRule("BAD1", "loss_spike", "corrupted_batch", 0.5, template)
