"""How bad a NaN or an infinity is, by what it is in and how long it lasts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core import Finding, SeriesKey, SeriesKind, Severity

__all__ = ["PERSISTENT", "SCALING", "TELLING", "first_marked", "numeric", "place", "severity_of"]

PERSISTENT = 3  # bad values in one occurrence that are no accident

# Quantities whose being non-finite ends a training, as against one more number in a log.
_STATE = frozenset({"parameter", "param_norm"})
_GRADIENT = frozenset({"grad_norm", "gradient", "update_ratio"})
# Data, where NaN most often means missing: the skew detector judges the share of it.
_DATA = frozenset({"feature", "training_distribution", "serving_distribution"})
SCALING = ("loss_scale", "skipped_step")
# What a run is called healthy by; a finite learning rate says nothing of it.
TELLING = frozenset({"loss", "grad_norm", "param_norm"})


def place(key: SeriesKey) -> str:
    """Return the series in words that no other series has."""
    train = " (train)" if key.split == "train" else ""  # `str` leaves the usual split out
    arrays = " (arrays)" if key.kind is SeriesKind.ARRAY else ""
    replica = " (by name)" if isinstance(key.replica_id, str) else ""
    return f"{key}{train}{arrays}{replica}"


def numeric(array: Any) -> bool:
    """Return whether an array holds numbers; text and objects have no NaN to look for."""
    kind = getattr(getattr(array, "dtype", None), "kind", None)  # torch's dtypes have none
    return kind is None or kind in "biufcV"  # V: bfloat16 and the like of ml_dtypes


def severity_of(key: SeriesKey, count: int, goes_on: bool, scaled: bool) -> Severity:
    """Return the severity of `count` bad values of one occurrence.

    Parameters
    ----------
    goes_on : bool
        Nothing finite came after them.
    scaled : bool
        A dynamic loss scale is at work.
    """
    lasting = goes_on or count >= PERSISTENT
    if key.name in _STATE:
        return Severity.CRITICAL
    if key.name == "loss":
        if key.held_out:
            return Severity.MEDIUM
        return Severity.CRITICAL if lasting else Severity.HIGH
    if key.name in _GRADIENT:
        if goes_on:
            if count > 1:
                return Severity.CRITICAL
            return Severity.MEDIUM if scaled else Severity.HIGH
        if scaled:  # dynamic loss scaling skips such steps: that is how it works
            return Severity.LOW if count < 50 else Severity.MEDIUM
        return Severity.MEDIUM  # float16 without its loss scale logged looks like this
    if key.name.partition("/")[0] in _DATA:
        return Severity.LOW
    if key.kind is SeriesKind.ARRAY:
        return Severity.HIGH
    return Severity.MEDIUM if lasting and key.layer is not None else Severity.LOW


def first_marked(findings: list[Finding]) -> list[Finding]:
    """Mark the earliest as the producer; the others are later, or only pass it on."""
    if not findings:
        return findings
    first = min(findings, key=lambda f: (f.onset_step or 0, f.layer is None, f.finding_id))
    return [
        replace(f, evidence={**f.evidence, "began_in": first.evidence["series"],
                             "began_at": first.onset_step})
        for f in findings
    ]  # fmt: skip
