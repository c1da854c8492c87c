"""Runs whose outcome is known, against what the detectors say of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ..core import DebugReport, Severity, word
from ..debugger import MLSystemsDebugger
from ._intervals import wilson
from .labels import ACCEPTED_MODES, Label

__all__ = ["Evaluation", "Judgement", "evaluate", "files_of", "judge"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One report against one label.

    Parameters
    ----------
    label : Label
    right : bool
        A faulty run: an accepted mode at the asked severity or above. A
        healthy one: no mode at all at that severity.
    found : mapping of str to str
        Failure modes that fired, with their severities.
    onset_step : int, optional
        Of the accepted mode that fired; the earliest of the worst.
    message : str
        Of the detection that decides.
    cause : str, optional
        The likeliest one of the report.
    confidence : float, optional
        That it is given.
    cause_right : bool, optional
        Whether it is among the label's causes; None where either is not known.
    """

    label: Label
    right: bool
    found: Mapping[str, str]
    onset_step: int | None = None
    message: str = ""
    cause: str | None = None
    confidence: float | None = None
    cause_right: bool | None = None

    @property
    def onset_error(self) -> int | None:
        """Reported minus true onset in steps, where both are known."""
        if self.onset_step is None or self.label.onset_step is None:
            return None
        return self.onset_step - self.label.onset_step


@dataclass(frozen=True)
class Evaluation:
    """All judgements, and what they add up to."""

    judgements: tuple[Judgement, ...]
    at_least: Severity = Severity.HIGH
    missing: tuple[str, ...] = field(default=())

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcomes that occur, faulty ones first."""
        seen = dict.fromkeys(j.label.outcome for j in self.judgements)
        return tuple(sorted(seen, key=lambda name: (not ACCEPTED_MODES.get(name, True), name)))

    def of(self, outcome: str) -> tuple[Judgement, ...]:
        """Return the judgements on runs of one outcome."""
        return tuple(j for j in self.judgements if j.label.outcome == outcome)

    @property
    def missed(self) -> tuple[Judgement, ...]:
        """Faulty runs in which no accepted mode was found."""
        return tuple(j for j in self.judgements if not j.label.healthy and not j.right)

    @property
    def false_alarms(self) -> tuple[Judgement, ...]:
        """Healthy runs with an alarm."""
        return tuple(j for j in self.judgements if j.label.healthy and not j.right)

    def summary(self, outcome: str) -> dict[str, Any]:
        """Return counts for one outcome: runs, right, share with its interval, onsets, causes.

        ``share`` is the recall of a fault, and for healthy runs the part
        without an alarm.
        """
        here = self.of(outcome)
        right = sum(j.right for j in here)
        errors = sorted(abs(j.onset_error) for j in here if j.onset_error is not None)
        low, high = wilson(right, len(here))
        told = [j.cause_right for j in here if j.cause_right is not None]
        return {
            "runs": len(here),
            "right": right,
            "share": right / len(here) if here else None,
            "interval": [round(low, 4), round(high, 4)],
            "onsets": len(errors),
            "onset_error_median": median(errors) if errors else None,
            "onset_error_max": errors[-1] if errors else None,
            "causes": len(told),
            "causes_right": sum(told),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "at_least": self.at_least.value,
            "outcomes": {name: self.summary(name) for name in self.outcomes},
            "runs": [
                {
                    "name": j.label.name,
                    "outcome": j.label.outcome,
                    "right": j.right,
                    "found": dict(j.found),
                    "onset_step": j.onset_step,
                    "onset_error": j.onset_error,
                    "message": j.message,
                    "cause": j.cause,
                    "confidence": j.confidence,
                    "cause_right": j.cause_right,
                }
                for j in self.judgements
            ],
            "missing": list(self.missing),
        }


def judge(report: DebugReport, label: Label, at_least: Severity = Severity.HIGH) -> Judgement:
    """Compare one report with what is known of its run."""
    fired = [d for d in report.failures if d.severity is not None]
    found = {word(d.failure_mode): str(d.severity) for d in fired}
    strong = [d for d in fired if d.severity is not None and d.severity >= at_least]
    first = report.attributions[0] if report.attributions and strong else None
    known: dict[str, Any] = {}
    if first is not None:
        # In a healthy run every cause that is named is a wrong one.
        right = (
            None if not label.causes and not label.healthy else word(first.cause) in label.causes
        )
        known = {"cause": word(first.cause), "confidence": first.confidence, "cause_right": right}
    false = [d for d in strong if word(d.failure_mode) in label.dismissed]
    hits = [d for d in strong if word(d.failure_mode) in label.accepted]
    if label.healthy or (false and not hits):
        wrong = strong if label.healthy else false
        message = wrong[0].message if wrong else ""
        return Judgement(label, not wrong, found, None, message, **known)
    if not hits:
        message = strong[0].message if strong else ""
        return Judgement(label, False, found, None, message, **known)
    dated = [d for d in hits if d.onset_step is not None]
    earliest = min(dated, key=lambda d: d.onset_step or 0) if dated else hits[0]
    return Judgement(label, True, found, earliest.onset_step, earliest.message, **known)


def files_of(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the file of each run under `folder`, by name, with any suffix."""
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            # A run's name may hold dots: every prefix that ends at a dot is one of its names.
            parts = path.name.split(".")
            for used in range(1, len(parts) + 1):
                files.setdefault(".".join(parts[:used]), path)
    return files


def evaluate(
    folder: str | os.PathLike[str],
    labels: Sequence[Label],
    diagnose: Callable[[Path], DebugReport] | None = None,
    at_least: Severity = Severity.HIGH,
) -> Evaluation:
    """Diagnose every labelled run under `folder` and compare.

    Parameters
    ----------
    folder : path
        Holds one file per run, named after it, with any suffix.
    labels : sequence of Label
    diagnose : callable, optional
        From a path to a report; default a debugger with default parameters.
    at_least : Severity
        What counts as an alarm.
    """
    ask = MLSystemsDebugger().debug if diagnose is None else diagnose
    files = files_of(folder)
    here = [label for label in labels if label.name in files]
    return Evaluation(
        tuple(judge(ask(files[label.name]), label, at_least) for label in here),
        at_least,
        tuple(label.name for label in labels if label.name not in files),
    )
