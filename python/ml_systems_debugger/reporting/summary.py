"""The verdict in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import (
    AttributionHypothesis,
    DetectionResult,
    Outcome,
    Severity,
    SkippedDetector,
    word,
)
from ._words import percent, place_of

__all__ = ["summary_text"]

_NAMES = 6  # quantities that are named; the rest is counted


def summary_text(
    detections: Sequence[DetectionResult],
    attributions: Sequence[AttributionHypothesis],
    skipped: Sequence[SkippedDetector] = (),
    unread: Sequence[str] = (),
) -> str:
    """Return what failed, where it began and the likely cause; or what is missing for a verdict."""
    found = [d for d in detections if d.detected and d.severity is not None]
    serious = [d for d in found if d.severity is not None and d.severity >= Severity.MEDIUM]
    if serious:
        text = _failed(serious, attributions)
    else:
        text = _not_failed(detections, skipped)
        if found:
            text += f" {len(found)} minor {'notice' if len(found) == 1 else 'notices'}."
    failed = [d.detector_name for d in detections if d.outcome is Outcome.FAILED]
    if failed:
        text += f" Did not run: {', '.join(failed)}."
    if unread:
        notes = "1 note" if len(unread) == 1 else f"{len(unread)} notes"
        text += f" Not all of the input was read ({notes})."
    return text


def _failed(
    serious: Sequence[DetectionResult], attributions: Sequence[AttributionHypothesis]
) -> str:
    # What began first leads the sentence: the rest most often follows from it.
    worst = max(d.severity for d in serious if d.severity is not None)
    grave = [
        d for d in serious if d.severity is not None and d.severity >= min(worst, Severity.HIGH)
    ]
    first = min(
        grave, key=lambda d: (d.onset_step is not None, d.onset_step or 0, word(d.failure_mode))
    )
    where = place_of(first.onset_step, first.layer, first.replica_id)
    text = f"{_spoken(word(first.failure_mode))}{f' from {where}' if where else ''}"
    others = dict.fromkeys(word(d.failure_mode) for d in serious if d is not first)
    others.pop(word(first.failure_mode), None)
    if others:
        text += f", with {_listed([_plain(other) for other in others])}"
    text += "."
    cause = _cause_of(first, attributions)
    if cause is not None:
        text += f" Most likely cause: {_plain(word(cause.cause))} ({percent(cause.confidence)})."
    return text


def _cause_of(
    result: DetectionResult, attributions: Sequence[AttributionHypothesis]
) -> AttributionHypothesis | None:
    """Return the best cause of what `result` found; else the best of all."""
    place = (word(result.failure_mode), result.onset_step)
    for one in attributions:
        if place in ((word(s.failure_mode), s.onset_step) for s in one.supporting_detections):
            return one
    return attributions[0] if attributions else None


def _not_failed(detections: Sequence[DetectionResult], skipped: Sequence[SkippedDetector]) -> str:
    judged = sorted(
        {name for d in detections if d.outcome is Outcome.CONCLUDED for name in d.judged}
    )
    checks = sum(1 for d in detections if d.outcome is Outcome.CONCLUDED and d.judged)
    if checks:
        counted = f"{checks} {'check' if checks == 1 else 'checks'}"
        return f"No failure found in {counted} of {_listed(judged)}."
    short = [d.reason for d in detections if d.outcome is Outcome.INSUFFICIENT and d.reason]
    reasons = list(dict.fromkeys(short)) or list(dict.fromkeys(s.reason for s in skipped))
    if not reasons:
        return "There is too little data for a verdict."
    return f"There is too little data for a verdict: {'; '.join(reasons[:3])}."


def _listed(names: Sequence[str]) -> str:
    """Return ``a, b and c``; the tail of a long list is counted."""
    shown = [*names[:_NAMES], f"{len(names) - _NAMES} more"] if len(names) > _NAMES else [*names]
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("nan ", "NaN ").replace("inf ", "Inf ")


def _spoken(mode: str) -> str:
    text = _plain(mode)
    return text[:1].upper() + text[1:]
