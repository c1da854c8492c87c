"""Runs whose outcome is known, against what the detectors say of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from ..core import ConfigurationError, DebugReport, Severity, failure_mode, word
from ..debugger import MLSystemsDebugger
from ._intervals import wilson

__all__ = [
    "ACCEPTED_MODES",
    "Evaluation",
    "Judgement",
    "Label",
    "evaluate",
    "judge",
    "read_labels",
]

ACCEPTED_MODES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "healthy": frozenset(),
        "nonfinite": frozenset({"nan_detected", "inf_detected"}),
        "diverged": frozenset({"divergent_training", "exploding_gradients"}),
        "stuck": frozenset({"loss_plateau", "divergent_training"}),
    }
)
"""Outcome -> the failure modes that are a right answer to it."""


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one run.

    Parameters
    ----------
    name : str
        File name of the run without its suffixes.
    outcome : str
        ``healthy``, or what went wrong.
    accepted : frozenset of str
        Failure modes that are a right answer; empty for a healthy run.
    onset_step : int, optional
        Where it began, where that is known.
    """

    name: str
    outcome: str
    accepted: frozenset[str]
    onset_step: int | None = None

    @property
    def healthy(self) -> bool:
        """Whether nothing should be found."""
        return not self.accepted


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
    """

    label: Label
    right: bool
    found: Mapping[str, str]
    onset_step: int | None = None
    message: str = ""

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
        """Return counts for one outcome: runs, right, share with its 95 % interval, onset errors.

        ``share`` is the recall of a fault, and for healthy runs the part
        without an alarm.
        """
        here = self.of(outcome)
        right = sum(j.right for j in here)
        errors = sorted(abs(j.onset_error) for j in here if j.onset_error is not None)
        low, high = wilson(right, len(here))
        return {
            "runs": len(here),
            "right": right,
            "share": right / len(here) if here else None,
            "interval": [round(low, 4), round(high, 4)],
            "onsets": len(errors),
            "onset_error_median": median(errors) if errors else None,
            "onset_error_max": errors[-1] if errors else None,
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
                }
                for j in self.judgements
            ],
            "missing": list(self.missing),
        }


def read_labels(path: str | os.PathLike[str]) -> tuple[Label, ...]:
    """Read a JSON object of run names.

    Each has ``outcome``, optionally ``onset_step``, and ``accepted`` (failure
    modes) where the outcome is none of `ACCEPTED_MODES`.

    Raises
    ------
    ConfigurationError
        With the file, the run and the value, where it is not as said.
    """
    where = os.fspath(path)
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: an object of run names is needed, got {type(data)}")
    return tuple(_label(where, name, entry) for name, entry in data.items())


def _label(where: str, name: str, entry: Any) -> Label:
    if not isinstance(entry, dict) or not isinstance(entry.get("outcome"), str):
        raise ConfigurationError(f"{where}: run {name!r} has no outcome, got {entry!r}")
    outcome = entry["outcome"]
    accepted = entry.get("accepted", ACCEPTED_MODES.get(outcome))
    if not isinstance(accepted, (list, tuple, frozenset)):
        known = ", ".join(ACCEPTED_MODES)
        raise ConfigurationError(
            f"{where}: run {name!r} has the outcome {outcome!r}, which is none of {known}: "
            f"a list 'accepted' of failure modes is needed"
        )
    onset = entry.get("onset_step")
    if onset is not None and (isinstance(onset, bool) or not isinstance(onset, int)):
        raise ConfigurationError(f"{where}: run {name!r}: onset_step is an int, got {onset!r}")
    return Label(name, outcome, frozenset(word(failure_mode(m)) for m in accepted), onset)


def judge(report: DebugReport, label: Label, at_least: Severity = Severity.HIGH) -> Judgement:
    """Compare one report with what is known of its run."""
    fired = [d for d in report.failures if d.severity is not None]
    found = {word(d.failure_mode): str(d.severity) for d in fired}
    strong = [d for d in fired if d.severity is not None and d.severity >= at_least]
    if label.healthy:
        message = strong[0].message if strong else ""
        return Judgement(label, not strong, found, None, message)
    hits = [d for d in strong if word(d.failure_mode) in label.accepted]
    if not hits:
        return Judgement(label, False, found, None, strong[0].message if strong else "")
    known = [d for d in hits if d.onset_step is not None]
    first = min(known, key=lambda d: d.onset_step or 0) if known else hits[0]
    return Judgement(label, True, found, first.onset_step, first.message)


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
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            # A run's name may hold dots: every prefix that ends at a dot is one of its names.
            parts = path.name.split(".")
            for used in range(1, len(parts) + 1):
                files.setdefault(".".join(parts[:used]), path)
    here = [label for label in labels if label.name in files]
    return Evaluation(
        tuple(judge(ask(files[label.name]), label, at_least) for label in here),
        at_least,
        tuple(label.name for label in labels if label.name not in files),
    )
