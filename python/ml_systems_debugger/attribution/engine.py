"""`AttributionEngine`: from findings to causes, with what speaks for and against each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core import (
    AttributionHypothesis,
    AttributionRule,
    DetectionResult,
    Finding,
    RegistryError,
    RootCause,
    RootCauseLike,
    detectors,
    word,
)
from .causes import generic_hint, generic_sentence
from .facts import earliest_onsets, facts_of, fill
from .rules import DEFAULT_RULES, LEADS_TO

__all__ = ["AttributionEngine"]

_UNKNOWN_ODDS = 0.12  # the leak: something that no rule knows of
_DOWNSTREAM = 0.5  # weight of a finding that an earlier one explains
_MOST = 5  # hypotheses; further ones are noise to a reader
_LEAST = 0.02  # confidence under which a cause is not worth a line
_FINDINGS_PER_MODE = 20  # judged by rules; a thousand alike say no more than twenty


@dataclass(frozen=True, slots=True)
class _Link:
    """One rule that speaks for one cause."""

    rule: AttributionRule
    finding: Finding
    facts: Mapping[str, Any]
    strength: float
    spoke_for: tuple[str, ...]
    spoke_against: tuple[str, ...]
    odds: float


class AttributionEngine:
    """Names the likely causes of what was found.

    Findings are ordered by onset, then layer, then replica; one that an
    earlier finding can bring about (a NaN after exploding gradients) counts
    half for causes of its own, so the story is told from its beginning. Each
    rule that holds is a link of a leaky noisy-OR (Pearl, Probabilistic
    Reasoning in Intelligent Systems, 1988, section 4.3.2); evidence against
    multiplies the odds. The odds of all causes and of the leak share one
    whole, so the confidences add up to 1 with what stays unknown.

    Parameters
    ----------
    rules : iterable of AttributionRule, optional
        Instead of those of the registered detectors and the defaults.
    extra_rules : iterable of AttributionRule
        Beside them.
    calibrate : callable, optional
        From a confidence in [0, 1] to a calibrated one; identity by default.

    Raises
    ------
    RegistryError
        If two different rules have one code.
    """

    def __init__(
        self,
        rules: Iterable[AttributionRule] | None = None,
        extra_rules: Iterable[AttributionRule] = (),
        calibrate: Callable[[float], float] | None = None,
    ) -> None:
        known: dict[str, AttributionRule] = {}
        for rule in (*(_registered_rules() if rules is None else rules), *extra_rules):
            if known.setdefault(rule.code, rule) != rule:
                raise RegistryError(f"attribution rule {rule.code} is defined twice, differently")
        if rules is None:
            covered = {rule.mode for rule in known.values()}
            known.update({r.code: r for r in DEFAULT_RULES if r.mode not in covered})
        self._rules = tuple(sorted(known.values(), key=lambda rule: rule.code))
        self._calibrate = calibrate
        by_mode: dict[str, list[AttributionRule]] = {}
        for rule in self._rules:
            by_mode.setdefault(word(rule.mode), []).append(rule)
        self._by_mode = {mode: tuple(found) for mode, found in by_mode.items()}

    @property
    def rules(self) -> tuple[AttributionRule, ...]:
        """All rules, by code."""
        return self._rules

    def attribute(
        self,
        detections: Sequence[DetectionResult],
        context: Mapping[str, Any] | None = None,
    ) -> tuple[AttributionHypothesis, ...]:
        """Return the likely causes, best first; none where nothing was found.

        Parameters
        ----------
        detections : sequence of DetectionResult
            Their order does not matter.
        context : mapping, optional
            What is known of the run: ``gradient_clipping``, ``precision``, ...
        """
        findings = sorted(
            (finding for result in detections if result.detected for finding in result.findings),
            key=_in_order,
        )
        if not findings:
            return ()
        links = self._links(findings, context or {})
        by_cause: dict[str, list[_Link]] = {}
        for link in links:
            by_cause.setdefault(word(link.rule.cause), []).append(link)
        odds = {cause: _odds(found) for cause, found in by_cause.items()}
        total = sum(odds.values()) + _UNKNOWN_ODDS
        ranked = sorted(odds, key=lambda cause: (-odds[cause], cause))
        made = [
            self._hypothesis(by_cause[cause], odds[cause] / total, findings)
            for cause in ranked[:_MOST]
            if odds[cause] / total >= _LEAST
        ]
        unknown = _UNKNOWN_ODDS / total
        if not made or unknown >= max(odds[cause] / total for cause in ranked):
            made.append(self._unknown(unknown, findings))
        return tuple(sorted(made, key=lambda h: (-h.confidence, word(h.cause))))

    def _links(self, findings: Sequence[Finding], context: Mapping[str, Any]) -> list[_Link]:
        onsets = earliest_onsets(findings)
        seen: dict[str, int] = {}
        links: list[_Link] = []
        for at, finding in enumerate(findings):
            mode = word(finding.failure_mode)
            seen[mode] = seen.get(mode, 0) + 1
            if seen[mode] > _FINDINGS_PER_MODE:
                continue
            explained = any(
                mode in LEADS_TO.get(word(earlier.failure_mode), ()) for earlier in findings[:at]
            )
            weight = finding.confidence * (_DOWNSTREAM if explained else 1.0)
            facts = facts_of(finding, onsets, context)
            links += [
                _weigh(rule, finding, facts, weight)
                for rule in self._by_mode.get(mode, ())
                if all(condition.holds(facts) for condition in rule.when)
            ]
        return links

    def _hypothesis(
        self, links: Sequence[_Link], confidence: float, findings: Sequence[Finding]
    ) -> AttributionHypothesis:
        first, best = links[0], max(links, key=lambda link: link.strength)
        cause = best.rule.cause
        sentence = next(
            (
                text
                for link in (best, first, *links)
                if (text := fill(link.rule.hypothesis, link.facts))
            ),
            generic_sentence(cause),
        )
        hints: list[str] = []
        for link in sorted(links, key=lambda link: -link.strength):
            hints += [text for hint in link.rule.remediation if (text := fill(hint, link.facts))]
        supports = tuple(dict.fromkeys(link.finding for link in links))
        return AttributionHypothesis(
            hypothesis=_story(sentence, best.finding, findings),
            confidence=self._calibrated(confidence),
            supporting_detections=supports,
            remediation_hints=tuple(dict.fromkeys(hints))[:4] or generic_hint(cause),
            severity=max(support.severity for support in supports),
            cause=cause,
            evidence_for=_unique(
                text for link in links for text in (_because(link), *link.spoke_for)
            ),
            evidence_against=_unique(text for link in links for text in link.spoke_against),
        )

    def _unknown(self, share: float, findings: Sequence[Finding]) -> AttributionHypothesis:
        cause: RootCauseLike = RootCause.UNKNOWN
        return AttributionHypothesis(
            generic_sentence(cause),
            self._calibrated(share),
            tuple(findings[:3]),
            generic_hint(cause),
            max(finding.severity for finding in findings),
            cause,
        )

    def _calibrated(self, confidence: float) -> float:
        value = confidence if self._calibrate is None else self._calibrate(confidence)
        return min(1.0, max(0.0, value))


def _registered_rules() -> list[AttributionRule]:
    """Return the rules that registered detectors carry, and the defaults of the other modes."""
    return [
        rule for cls in detectors.items().values() for rule in getattr(cls, "attribution_rules", ())
    ]


def _in_order(finding: Finding) -> tuple[Any, ...]:
    """Earliest first; at one step the more upstream mode, then layer, then replica."""
    onset = finding.onset_step
    reach = len(LEADS_TO.get(word(finding.failure_mode), ()))
    return (
        onset is not None, onset or 0, -reach, word(finding.failure_mode), finding.layer or "",
        str(finding.replica_id), finding.finding_id,
    )  # fmt: skip


def _weigh(
    rule: AttributionRule, finding: Finding, facts: Mapping[str, Any], weight: float
) -> _Link:
    missing = 1.0 - rule.strength
    odds = 1.0
    spoke_for, spoke_against = [], []
    for condition, strength in rule.raises:
        if condition.holds(facts):
            missing *= 1.0 - strength
            spoke_for.append(fill(condition.says, facts) or condition.says or condition.fact)
    for condition, factor in rule.lowers:
        if condition.holds(facts):
            odds *= factor
            spoke_against.append(fill(condition.says, facts) or condition.says or condition.fact)
    return _Link(
        rule, finding, facts, (1.0 - missing) * weight, tuple(spoke_for), tuple(spoke_against), odds
    )


def _odds(links: Sequence[_Link]) -> float:
    # One rule that fires on many layers is one piece of evidence: its strongest link counts.
    strongest: dict[str, _Link] = {}
    for link in links:
        held = strongest.get(link.rule.code)
        if held is None or link.strength * link.odds > held.strength * held.odds:
            strongest[link.rule.code] = link
    missing, against = 1.0, 1.0
    for link in strongest.values():
        missing *= 1.0 - link.strength
        against = min(against, link.odds)
    probability = min(1.0 - missing, 0.999)
    return probability / (1.0 - probability) * against


def _because(link: _Link) -> str:
    finding = link.finding
    text = finding.message or f"{word(finding.failure_mode)} at step {finding.onset_step}"
    return f"{text} [{link.rule.code}]"


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))[:8]


def _story(sentence: str, own: Finding, findings: Sequence[Finding]) -> str:
    """Add what came of it, in order: ``... Then: nan_detected (step 40)``."""
    later: dict[str, int] = {}
    reached = {word(own.failure_mode)}
    for finding in findings:
        mode = word(finding.failure_mode)
        if mode in reached or mode in later or finding.onset_step is None:
            continue
        if own.onset_step is not None and finding.onset_step < own.onset_step:
            continue
        if any(mode in LEADS_TO.get(source, ()) for source in reached):
            later[mode] = finding.onset_step
            reached.add(mode)
    if not later:
        return sentence
    then = ", ".join(f"{mode.replace('_', ' ')} (step {step})" for mode, step in later.items())
    return f"{sentence} Then: {then}."
