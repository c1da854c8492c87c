"""The facts of one finding: what conditions ask and templates print."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ..core import DetectionResult, Finding, Outcome, Severity, word
from .stories import Story, onset_interval

__all__ = [
    "context_facts", "earliest_onsets", "facts_of", "fill", "quiet_modes", "story_facts",
]  # fmt: skip

_OWN = ("severity", "confidence", "onset_step", "end_step", "layer", "replica_id", "message")
_LR_PART = 3.0  # a third of a rate that was too high is the usual next try
_CLIP_AT = 2.5  # clipping at two to three times the normal norm leaves normal steps alone


def earliest_onsets(findings: Sequence[Finding]) -> dict[str, int | None]:
    """Return each mode's first onset; None where only findings without a step have it.

    What is low is worth a line, but no evidence for or against anything else.
    """
    onsets: dict[str, int | None] = {}
    for finding in findings:
        if finding.severity < Severity.MEDIUM:
            continue
        mode = word(finding.failure_mode)
        known = [s for s in (onsets.get(mode), finding.onset_step) if s is not None]
        onsets[mode] = min(known, default=None)
    return onsets


def story_facts(story: Story) -> dict[str, Any]:
    """Return what the findings of one story know together.

    ``story.<key>``: that evidence of the earliest finding that has it;
    ``story.first``: the mode that it began with; ``story.has.<mode>``: True for all of them;
    ``try.learning_rate``, ``try.clip_norm``, ``try.resume_before``: values to
    try, where the evidence gives them.
    """
    facts: dict[str, Any] = {
        "story.first": word(story.findings[0].failure_mode),
        **{f"story.has.{word(f.failure_mode)}": True for f in story.findings},
        "story.told": story.told(),
    }
    for finding in story.findings:
        for name, value in finding.evidence.items():
            if value is not None:
                facts.setdefault(f"story.{name}", value)
    facts.update(_to_try(story, facts))
    return facts


def _to_try(story: Story, facts: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    rate, jump = facts.get("story.lr_at_onset"), facts.get("story.lr_jump")
    if _is_number(rate) and rate > 0:
        # After a jump the value before it was good; without one, less than it.
        part = jump if _is_number(jump) and jump >= 1.5 else _LR_PART
        values["try.learning_rate"] = rate / part
    for finding in story.findings:
        evidence = finding.evidence
        quantity = f"{evidence.get('quantity', '')} {evidence.get('series', '')}"
        if "grad" in quantity and _is_number(level := evidence.get("baseline")) and level > 0:
            values["try.clip_norm"] = _CLIP_AT * level
            break
    starts = [interval[0] for f in story.findings if (interval := onset_interval(f)) is not None]
    if starts and min(starts) > 0:
        values["try.resume_before"] = min(starts)
    return values


def context_facts(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the run beside its signals: ``context.<key>``."""
    return {f"context.{name}": value for name, value in context.items()}


def quiet_modes(detections: Sequence[DetectionResult]) -> dict[str, bool]:
    """Return ``quiet.<mode>``: True where a check looked for that mode and found none."""
    fired = {word(result.failure_mode) for result in detections if result.detected}
    return {
        f"quiet.{word(result.failure_mode)}": True
        for result in detections
        if result.outcome is Outcome.CONCLUDED
        and result.judged
        and word(result.failure_mode) not in fired
    }


def facts_of(
    finding: Finding,
    onsets: Mapping[str, int | None],
    shared: Mapping[str, Any],
) -> dict[str, Any]:
    """Return every fact that a rule on `finding` may name.

    The finding's evidence by its keys; its own fields bare and as
    ``finding.<field>``; what the whole story shares (`story_facts`,
    `context_facts`, `quiet_modes`);
    ``mode.<mode>`` (first onset, "the start" where it has none) for the other
    modes found; ``lead.<mode>``, by how many steps that mode began before this
    finding (negative: after).
    """
    own = {name: getattr(finding, name) for name in _OWN} | {"severity": finding.severity.value}
    facts: dict[str, Any] = {**own, **finding.evidence, **shared}
    facts.update({f"finding.{name}": value for name, value in own.items()})
    mine = word(finding.failure_mode)
    for mode, onset in onsets.items():
        if mode == mine:
            continue
        facts[f"mode.{mode}"] = "the start" if onset is None else onset
        if finding.onset_step is not None and onset is not None:
            facts[f"lead.{mode}"] = finding.onset_step - onset
    return facts


class _Template(string.Formatter):
    """``str.format`` whose names may hold dots, with numbers shortened."""

    def get_field(
        self,
        field_name: str,
        args: Sequence[Any],  # noqa: ARG002 - the base class's signature
        kwargs: Mapping[str, Any],
    ) -> Any:
        value = kwargs.get(field_name)
        if value is None:
            raise KeyError(field_name)
        return value, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        return str(super().format_field(value, format_spec)) if format_spec else shown(value)


def shown(value: Any) -> str:
    """Return a fact as people read it: four digits are plenty, steps are whole."""
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e6):
        return f"{value:.4g}"
    if isinstance(value, float):
        return str(int(value))
    return str(value)


_TEMPLATE = _Template()


def fill(template: str, facts: Mapping[str, Any]) -> str | None:
    """Return `template` with its facts put in; None where one is not known or does not fit."""
    try:
        return _TEMPLATE.vformat(template, (), facts)
    except (KeyError, ValueError, TypeError):  # TypeError: a format that its value does not have
        return None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
