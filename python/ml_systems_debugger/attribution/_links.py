"""Rules that hold on the findings of a story, gathered by the cause they speak for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core import AttributionRule, Condition, Finding, RootCauseLike, word
from .consequences import SPECIAL_CASES
from .facts import fill
from .stories import Story

__all__ = ["Case", "Link", "cases_of"]

Facts = Mapping[str, Any]

_EFFECT = 0.5  # weight of a rule on a finding that an earlier one explains
_FURTHEST = 2  # a second effect counts a quarter; the third no less
_EXPLAINED = 0.2  # least part of its odds that a general cause keeps beside a special one
_CERTAIN = 0.999  # no sum of rules is more
_OF_THE_ORDER = ("lead.", "mode.", "story.")


@dataclass(frozen=True, slots=True)
class Link:
    """One rule that holds on one finding."""

    rule: AttributionRule
    finding: Finding
    facts: Facts
    weight: float
    spoke_for: tuple[tuple[Condition, float], ...]
    spoke_against: tuple[tuple[Condition, float], ...]

    @property
    def strength(self) -> float:
        """Probability of this link alone."""
        missing = 1.0 - self.rule.strength * self.weight
        for _, strength in self.spoke_for:
            missing *= 1.0 - strength * self.weight
        return 1.0 - missing


@dataclass(frozen=True, slots=True)
class Case:
    """All that is said of one cause in one story: `links` strongest first, `findings` in order."""

    cause: RootCauseLike
    links: tuple[Link, ...]
    findings: tuple[Finding, ...]
    odds: float
    against: tuple[str, ...]

    def sentence(self) -> str | None:
        """Return the strongest rule's sentence that can be filled; None where none can."""
        filled = (fill(link.rule.hypothesis, link.facts) for link in self.links)
        return next((text for text in filled if text), None)

    def hints(self) -> list[str]:
        """Return what to do, the strongest rule's advice first, each piece of advice once."""
        texts: dict[str, str] = {}
        for link in self.links:
            for hint in link.rule.remediation:
                if hint not in texts and (text := fill(hint, link.facts)):
                    texts[hint] = text
        return list(texts.values())

    def evidence_for(self) -> list[str]:
        """Return the findings, each with the rules that read it, then what else speaks for it."""
        alike: dict[tuple[str, str], list[Link]] = {}
        for finding in self.findings:
            own = [link for link in self.links if link.finding is finding]
            codes = ", ".join(dict.fromkeys(link.rule.code for link in own))
            alike.setdefault((word(finding.failure_mode), codes), []).extend(own)
        texts: list[str] = []
        said: dict[tuple[str, str, str], str] = {}
        for (_, codes), links in alike.items():
            # The same rules on many layers are one piece of evidence (`_case`): the first is told.
            more = len({id(link.finding) for link in links}) - 1
            texts.append(f"{_shown(links[0].finding)} [{codes}]{_and_more(more)}")
            for link in links:
                for condition in (*link.rule.when, *(c for c, _ in link.spoke_for)):
                    if condition.says and _same(condition) not in said:
                        said[_same(condition)] = _said(condition, link.facts)
                        texts.append(said[_same(condition)])
        return texts


def cases_of(
    story: Story,
    facts: Sequence[Facts],
    rules: Mapping[str, Sequence[AttributionRule]],
    defaults: Mapping[str, Sequence[AttributionRule]],
) -> list[Case]:
    """Return the causes that rules name, most likely first.

    `defaults` are asked where none of `rules` holds on a finding.
    """
    by_cause: dict[str, list[Link]] = {}
    for finding, depth, known in zip(story.findings, story.depths, facts, strict=True):
        mode = word(finding.failure_mode)
        for rule in _holding(rules.get(mode, ()), known) or _holding(defaults.get(mode, ()), known):
            link = _link(rule, finding, depth, known)
            by_cause.setdefault(word(rule.cause), []).append(link)
    cases = _explained_away({cause: _case(links) for cause, links in by_cause.items()})
    return sorted(cases, key=lambda case: (-case.odds, word(case.cause)))


def _holding(rules: Sequence[AttributionRule], facts: Facts) -> list[AttributionRule]:
    return [rule for rule in rules if all(condition.holds(facts) for condition in rule.when)]


def _explained_away(cases: Mapping[str, Case]) -> list[Case]:
    """Lower a general cause by how likely a special one is: what it explains needs no other."""
    made = []
    for cause, case in cases.items():
        for special in SPECIAL_CASES.get(cause, ()):
            if (other := cases.get(special)) is not None:
                doubt = max(1.0 / (1.0 + other.odds), _EXPLAINED)
                case = replace(case, odds=case.odds * doubt)
                if doubt < 0.5:
                    text = f"{special.replace('_', ' ')} would explain the same"
                    case = replace(case, against=(*case.against, text))
        made.append(case)
    return made


def _link(rule: AttributionRule, finding: Finding, depth: int, facts: Facts) -> Link:
    ordered = any(condition.fact.startswith(_OF_THE_ORDER) for condition in rule.when)
    discount = 1.0 if ordered else _EFFECT ** min(depth, _FURTHEST)
    return Link(
        rule,
        finding,
        facts,
        finding.confidence * discount,
        tuple((c, strength) for c, strength in rule.raises if c.holds(facts)),
        tuple((c, factor) for c, factor in rule.lowers if c.holds(facts)),
    )


def _case(found: Sequence[Link]) -> Case:
    """Weigh all links of one cause.

    The same rule on many layers, or the same circumstance read by many rules,
    is one piece of evidence: its strongest reading counts.
    """
    links = tuple(sorted(found, key=lambda link: -link.strength))
    pieces: dict[object, float] = {}
    against: dict[object, float] = {}
    texts: dict[object, str] = {}
    for link in links:
        base = ("rule", link.rule.code)
        pieces[base] = max(pieces.get(base, 0.0), link.rule.strength * link.weight)
        for condition, strength in link.spoke_for:
            said = _same(condition)
            pieces[said] = max(pieces.get(said, 0.0), strength * link.weight)
        for condition, factor in link.spoke_against:
            said = _same(condition)
            against[said] = min(against.get(said, 1.0), factor)
            texts.setdefault(said, _said(condition, link.facts))
    missing, odds = 1.0, 1.0
    for strength in pieces.values():
        missing *= 1.0 - strength
    for factor in against.values():
        odds *= factor
    probability = min(1.0 - missing, _CERTAIN)
    # Each finding once, by identity: evidence may hold arrays, which have no equality.
    findings = tuple({id(link.finding): link.finding for link in found}.values())
    return Case(
        links[0].rule.cause, links, findings, probability / (1.0 - probability) * odds,
        tuple(dict.fromkeys(texts.values())),
    )  # fmt: skip


def _shown(finding: Finding) -> str:
    mode, step = word(finding.failure_mode).replace("_", " "), finding.onset_step
    return finding.message or (mode if step is None else f"{mode} at step {step}")


def _and_more(count: int) -> str:
    if not count:
        return ""
    return f", and {count} more finding{'s' if count > 1 else ''} of this kind"


def _same(condition: Condition) -> tuple[str, str, str]:
    return condition.fact, condition.op, repr(condition.value)


def _said(condition: Condition, facts: Facts) -> str:
    """Return the condition in words, with its numbers; bare where one of them is not known."""
    text = fill(condition.says, facts)
    return text or f"{condition.fact} {condition.op} {condition.value or ''}".rstrip()
