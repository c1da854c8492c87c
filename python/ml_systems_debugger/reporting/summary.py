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

__all__ = ["place_of", "summary_text"]


def place_of(
    onset_step: int | None, layer: str | None, replica_id: object, end_step: int | None = None
) -> str:
    """Return where in words: ``from step 12 to 40, layer fc1, replica 3``."""
    parts = []
    if onset_step is not None:
        ended = end_step is not None and end_step != onset_step
        parts.append(f"steps {onset_step} to {end_step}" if ended else f"step {onset_step}")
    if layer is not None:
        parts.append(f"layer {layer}")
    if replica_id is not None:
        parts.append(f"replica {replica_id}")
    return ", ".join(parts)


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
        text += f" Not all of the input was read ({len(unread)} notes)."
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
        text += f", with {', '.join(other.replace('_', ' ') for other in others)}"
    text += "."
    if attributions:
        cause = attributions[0]
        name = word(cause.cause).replace("_", " ")
        text += f" Most likely cause: {name} ({cause.confidence:.0%})."
    return text


def _not_failed(detections: Sequence[DetectionResult], skipped: Sequence[SkippedDetector]) -> str:
    judged = sorted(
        {name for d in detections if d.outcome is Outcome.CONCLUDED for name in d.judged}
    )
    checks = sum(1 for d in detections if d.outcome is Outcome.CONCLUDED and d.judged)
    if checks:
        return f"No failure found by {checks} checks of {', '.join(judged)}."
    short = [d.reason for d in detections if d.outcome is Outcome.INSUFFICIENT and d.reason]
    reasons = list(dict.fromkeys(short)) or list(dict.fromkeys(s.reason for s in skipped))
    if not reasons:
        return "There is too little data for a verdict."
    return f"There is too little data for a verdict: {'; '.join(reasons[:3])}."


def _spoken(mode: str) -> str:
    text = mode.replace("_", " ").replace("nan ", "NaN ").replace("inf ", "Inf ")
    return text[:1].upper() + text[1:]
