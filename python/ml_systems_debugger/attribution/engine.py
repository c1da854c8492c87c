"""`AttributionEngine`: from findings to causes, with what speaks for and against each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..core import (
    AttributionHypothesis,
    AttributionRule,
    DetectionResult,
    RegistryError,
    RootCause,
    detectors,
    word,
)
from ._links import Case, cases_of
from .breadth import is_narrow, looked_inside
from .calibration import Calibration, Identity
from .causes import generic_hint, generic_sentence, specific_hints
from .consequences import LEADS_TO
from .facts import context_facts, earliest_onsets, facts_of, fill, quiet_modes, story_facts
from .rules import DEFAULT_RULES
from .stories import Story, all_findings, stories_of, timeline
from .story_rules import STORY_RULES
from .trace_rules import TRACE_RULES

__all__ = ["AttributionEngine"]

_UNKNOWN_ODDS = 0.12  # the leak: something that no rule knows of
_MOST = 5  # hypotheses of one story; further ones are noise to a reader
_LEAST = 0.02  # confidence under which a cause is not worth a line
_HINTS = 4
_TEXTS = 8
_OPENING = 3  # words in which two pieces of advice are the same


class AttributionEngine:
    """Names the likely causes of what was found.

    Findings that can have brought one another about are one story, told in
    order of onset (step, then layer, then replica). In a story, an effect
    counts half for causes of its own, and a quarter from the second effect on,
    so that a story is explained from its beginning; rules that read the order
    itself count in full. Each rule that holds is a link of a leaky noisy-OR
    (Pearl, Probabilistic Reasoning in Intelligent Systems, 1988, section
    4.3.2); evidence against multiplies the odds, once for each thing said. The
    odds of all causes of a story and of the leak share one whole: the
    confidences of a story add up to 1 with what stays unknown.

    Parameters
    ----------
    rules : iterable of AttributionRule, optional
        Instead of those of the registered detectors and the built-in ones.
    extra_rules : iterable of AttributionRule
        Beside them.
    calibrate : callable, optional
        From a confidence in [0, 1] to a calibrated one, as `Platt` or what
        `load_calibration` reads; identity by default. A `Calibration` may hold
        another one for causes that rest on three curves alone (`ByEvidence`).

    Raises
    ------
    RegistryError
        If two different rules have one code.

    Examples
    --------
    >>> found = DetectionResult("exploding_gradients", True, 0.9, onset_step=40)
    >>> later = DetectionResult("nan_detected", True, 1.0, onset_step=52)
    >>> causes = AttributionEngine().attribute([later, found])
    >>> causes[0].cause.value
    'learning_rate_too_high'
    >>> causes[0].story
    'exploding gradients (step 40), then NaN detected (step 52)'
    """

    def __init__(
        self,
        rules: Iterable[AttributionRule] | None = None,
        extra_rules: Iterable[AttributionRule] = (),
        calibrate: Callable[[float], float] | None = None,
    ) -> None:
        known: dict[str, AttributionRule] = {}
        given = (
            (*_registered_rules(), *STORY_RULES, *TRACE_RULES) if rules is None else tuple(rules)
        )
        for rule in (*given, *extra_rules):
            if known.setdefault(rule.code, rule) != rule:
                raise RegistryError(f"attribution rule {rule.code} is defined twice, differently")
        defaults: list[AttributionRule] = []
        if rules is None:
            # A detector's own rule knows its evidence: the default for that mode and cause is
            # asked only where none of its rules holds, as on somebody else's finding.
            covered = {(rule.mode, rule.cause) for rule in known.values()}
            defaults = [r for r in DEFAULT_RULES if known.setdefault(r.code, r) == r]
            replaced = {r.code for r in defaults if (r.mode, r.cause) in covered}
        else:
            replaced = set()
        self._rules = tuple(sorted(known.values(), key=lambda rule: rule.code))
        self._calibrate = Identity() if calibrate is None else calibrate
        held = self._calibrate
        self._narrow = held.narrow if isinstance(held, Calibration) else held
        self._edges = _edges_of(self._rules)
        self._by_mode = _by_mode(rule for rule in self._rules if rule.code not in replaced)
        self._defaults = _by_mode(defaults)

    @property
    def rules(self) -> tuple[AttributionRule, ...]:
        """All rules, by code."""
        return self._rules

    def timeline(self, detections: Sequence[DetectionResult]) -> list[dict[str, Any]]:
        """Return what began when: step, failure_mode, severity, layer, replica_id, in order."""
        return timeline(detections, self._edges)

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
        findings = all_findings(detections, self._edges)
        onsets = earliest_onsets(findings)
        known = {**quiet_modes(detections), **context_facts(context or {})}
        inside = looked_inside(detections)
        made = [
            hypothesis
            for story in stories_of(findings, self._edges)
            for hypothesis in self._explain(story, onsets, known, inside)
        ]
        # Ordered before calibration, which may make different shares equal.
        made.sort(key=lambda pair: (-pair[0], word(pair[1].cause), pair[1].story))
        return tuple(hypothesis for _, hypothesis in made)

    def _explain(
        self,
        story: Story,
        onsets: Mapping[str, int | None],
        known: Mapping[str, Any],
        inside: bool,
    ) -> list[tuple[float, AttributionHypothesis]]:
        """Return the causes of a story, each behind its share."""
        shared = {**known, **story_facts(story)}
        narrow = not inside and is_narrow(story.findings)
        calibrate = self._narrow if narrow else self._calibrate
        facts = [facts_of(finding, onsets, shared) for finding in story.findings]
        cases = cases_of(story, facts, self._by_mode, self._defaults)
        total = sum(case.odds for case in cases) + _UNKNOWN_ODDS
        shares = [(case, case.odds / total) for case in cases]
        kept = [(case, share) for case, share in shares[:_MOST] if share >= _LEAST]
        ruled_out = [
            f"{word(case.cause)} ({'; '.join(case.against)})"
            for case, share in shares[len(kept) :]
            if case.against
        ]
        made = [
            (
                share,
                self._hypothesis(
                    case, _held(calibrate, share), story, shared, ruled_out if at == 0 else ()
                ),
            )
            for at, (case, share) in enumerate(kept)
        ]
        unknown = _UNKNOWN_ODDS / total
        if all(unknown >= share for _, share in shares):
            held = _held(calibrate, unknown)
            made.append((unknown, self._unknown(held, story, ruled_out if not made else ())))
        return made

    def _hypothesis(
        self,
        case: Case,
        confidence: float,
        story: Story,
        shared: Mapping[str, Any],
        ruled_out: Sequence[str],
    ) -> AttributionHypothesis:
        hints = [*specific_hints(case.cause, shared), *case.hints()]
        return AttributionHypothesis(
            hypothesis=case.sentence() or _default_sentence(case),
            confidence=confidence,
            supporting_detections=case.findings,
            remediation_hints=_apart(hints, _HINTS) or generic_hint(case.cause),
            severity=max(finding.severity for finding in case.findings),
            cause=case.cause,
            evidence_for=_unique(case.evidence_for(), _TEXTS),
            evidence_against=_unique(case.against, _TEXTS),
            ruled_out=_unique(ruled_out, _TEXTS),
            story=story.told(),
        )

    def _unknown(
        self, confidence: float, story: Story, ruled_out: Sequence[str]
    ) -> AttributionHypothesis:
        return AttributionHypothesis(
            hypothesis=generic_sentence(RootCause.UNKNOWN),
            confidence=confidence,
            supporting_detections=story.findings[:3],
            remediation_hints=generic_hint(RootCause.UNKNOWN),
            severity=max(finding.severity for finding in story.findings),
            cause=RootCause.UNKNOWN,
            ruled_out=_unique(ruled_out, _TEXTS),
            story=story.told(),
        )


def _held(calibrate: Callable[[float], float], confidence: float) -> float:
    return min(1.0, max(0.0, float(calibrate(confidence))))


def _registered_rules() -> list[AttributionRule]:
    """Return the rules that the registered detectors carry."""
    return [
        rule for cls in detectors.items().values() for rule in getattr(cls, "attribution_rules", ())
    ]


def _by_mode(rules: Iterable[AttributionRule]) -> dict[str, tuple[AttributionRule, ...]]:
    found: dict[str, tuple[AttributionRule, ...]] = {}
    for rule in rules:
        found[word(rule.mode)] = (*found.get(word(rule.mode), ()), rule)
    return found


def _edges_of(rules: Iterable[AttributionRule]) -> dict[str, frozenset[str]]:
    """Return what leads to what: the built-in edges, and those that rules presuppose.

    A rule that asks for ``lead.x >= 0`` says that x brings its mode about.
    """
    edges = dict(LEADS_TO)
    for rule in rules:
        for condition in (*rule.when, *(c for c, _ in rule.raises)):
            kind, _, mode = condition.fact.partition(".")
            if kind == "lead" and condition.op in (">", ">="):
                edges[mode] = edges.get(mode, frozenset()) | {word(rule.mode)}
    return edges


def _default_sentence(case: Case) -> str:
    """Return the sentence of a plainer rule for the same mode and cause, or of the cause alone."""
    for link in case.links:
        for rule in DEFAULT_RULES:
            same = (rule.mode, rule.cause) == (link.rule.mode, case.cause)
            if same and (text := fill(rule.hypothesis, link.facts)):
                return text
    return generic_sentence(case.cause)


def _unique(texts: Iterable[str], most: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))[:most]


def _apart(hints: Iterable[str], most: int) -> tuple[str, ...]:
    """Return advice that asks for different things.

    Rules that read the same fault from several quantities each have their advice for it, which
    opens in the same words; that of the strongest rule comes first and is kept.
    """
    kept: dict[tuple[str, ...], str] = {}
    for hint in hints:
        kept.setdefault(tuple(hint.lower().split()[:_OPENING]), hint)
    return tuple(kept.values())[:most]
