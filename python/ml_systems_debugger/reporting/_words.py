"""Pieces of text that several formats share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core import (
    AttributionHypothesis,
    DebugReport,
    DetectionResult,
    Finding,
    to_jsonable,
    word,
)

__all__ = [
    "Shown", "against_of", "by_story", "evidence_pairs", "first_line", "is_troubled", "percent",
    "place_of", "printable", "reached_of", "rule_of", "shortened", "shown_findings", "skipped_of",
    "span_of", "window_of",
]  # fmt: skip

_EACH = 10  # findings of one detector that are written out; the rest is counted
_ALL = 30  # of all detectors together; beyond it, each shows its worst alone
_REASONS = 3  # checks that do not apply whose reasons are told
_LONG = 60  # characters of one value of evidence

# Keys of evidence that have a line of their own.
_TOLD_APART = frozenset(
    {"traceback", "rule", "against", "onset_step", "onset_low", "onset_high", "loss_suffers",
     "recovered"}
)  # fmt: skip


def printable(text: object) -> str:
    """Return `text` in one line with control characters escaped: names come from files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def shortened(text: str, most: int) -> str:
    """Return `text`, or its beginning where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_line(text: str) -> str:
    """Return the first line, printable."""
    return printable(text.splitlines()[0]) if text.strip() else "(no text)"


def percent(confidence: float) -> str:
    """Return a confidence in whole percent; what is short of certain is not rounded to it."""
    if 0.995 <= confidence < 1.0:
        return ">99%"
    if 0.0 < confidence < 0.005:
        return "<1%"
    return f"{confidence:.0%}"


def place_of(
    onset_step: int | None, layer: str | None, replica_id: object, end_step: int | None = None
) -> str:
    """Return where in words: ``steps 12 to 40, layer fc1, replica 3``."""
    parts = []
    if onset_step is not None:
        ended = end_step is not None and end_step != onset_step
        parts.append(f"steps {onset_step} to {end_step}" if ended else f"step {onset_step}")
    if layer is not None:
        parts.append(f"layer {printable(layer)}")
    if replica_id is not None:
        parts.append(f"replica {printable(replica_id)}")
    return ", ".join(parts)


def span_of(finding: Finding) -> str:
    """Return where a finding lies, in words."""
    return place_of(finding.onset_step, finding.layer, finding.replica_id, finding.end_step)


def window_of(finding: Finding) -> str:
    """Return when it began and ended, as exactly as is known; empty where only a step is."""
    low, high = finding.evidence.get("onset_low"), finding.evidence.get("onset_high")
    if low is None or high is None or finding.onset_step is None:
        return ""
    began = f"began at step {low}" if low == high else f"began between steps {low} and {high}"
    return f"{began}; {'goes on' if finding.end_step is None else f'ends at {finding.end_step}'}"


def rule_of(finding: Finding) -> str:
    """Return the name of the detector's rule that fired; empty where it gives none."""
    return printable(finding.evidence.get("rule", ""))


def against_of(finding: Finding) -> str:
    """Return what spoke against the finding, in words; empty where nothing did."""
    evidence = finding.evidence
    said = evidence.get("against")
    texts = [str(one) for one in (said if isinstance(said, (list, tuple)) else [said]) if one]
    if evidence.get("recovered") is True:
        texts.append("it recovered by itself")
    if evidence.get("loss_suffers") is False:
        texts.append("the loss does not suffer")
    return printable("; ".join(texts))


def evidence_pairs(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the evidence as short words; what has a line of its own and tracebacks are left out.

    Whole lists are left to JSON.
    """
    return [
        (printable(name), shortened(_value(value), _LONG))
        for name, value in evidence.items()
        if value is not None and name not in _TOLD_APART
    ]


def _value(value: Any) -> str:
    plain = to_jsonable(value)
    if isinstance(plain, float):
        return f"{plain:.4g}"
    if isinstance(plain, dict):
        return f"({', '.join(f'{printable(name)} {_value(v)}' for name, v in plain.items())})"
    if isinstance(plain, list):
        return f"[{', '.join(map(_value, plain))}]"
    return printable(plain)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is written out of one detection: some findings, and words for the rest."""

    result: DetectionResult
    findings: Sequence[Finding]
    rest: str


def shown_findings(report: DebugReport) -> list[Shown]:
    """Return what a person can read of all findings: the worst, and a count of the others."""
    left, shown = _ALL, []
    for result in report.failures:
        most = max(1, min(_EACH, left))
        left -= min(most, len(result.findings))
        shown.append(Shown(result, result.findings[:most], _rest(result.findings[most:])))
    return shown


def _rest(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    text = f"and {len(findings)} more"
    layers = len({f.layer for f in findings if f.layer is not None})
    replicas = len({str(f.replica_id) for f in findings if f.replica_id is not None})
    steps = [f.onset_step for f in findings if f.onset_step is not None]
    places = [f"{n} {what}" for n, what in ((layers, "layers"), (replicas, "replicas")) if n > 1]
    if places:
        text += f" in {' and '.join(places)}"
    if steps:
        many = f"steps {min(steps)} to {max(steps)}"
        text += f", from {f'step {steps[0]}' if min(steps) == max(steps) else many}"
    return text


def skipped_of(report: DebugReport) -> str:
    """Return which checks did not apply; of a few also why, of many where to look that up."""
    if len(report.skipped) <= _REASONS:
        return "; ".join(f"{s.detector} ({s.reason})" for s in report.skipped)
    names = ", ".join(s.detector for s in report.skipped)
    return f"{names} (what each reads: mlsd detectors; why it was left out: --format json)"


def by_story(
    attributions: Sequence[AttributionHypothesis],
) -> list[tuple[str, list[AttributionHypothesis]]]:
    """Return the causes under the story that they explain, in the order given."""
    stories: dict[str, list[AttributionHypothesis]] = {}
    for one in attributions:
        stories.setdefault(one.story, []).append(one)
    return list(stories.items())


def reached_of(report: DebugReport) -> str:
    """Return the worst finding of a report in two words; ``-`` where there is none."""
    top = report.failures[0] if report.failures else None
    return "-" if top is None else f"{word(top.failure_mode)} ({top.severity})"


def is_troubled(report: DebugReport) -> bool:
    """Return whether a report says more than that all is well."""
    return bool(report.failures or report.unread or report.failed_checks)
