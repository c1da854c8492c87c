"""`DebugReport`: everything that is said of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .curve import Curve
from .frozen import FrozenDict, freeze_evidence, numbers_back, to_jsonable
from .results import AttributionHypothesis, DetectionResult, Outcome, texts
from .verdict import Verdict
from .vocabulary import Severity

__all__ = ["SCHEMA_VERSION", "DebugReport", "SkippedDetector", "Status"]

SCHEMA_VERSION = "1.0"


class Status(str, Enum):
    """The verdict on one run."""

    FAILURES = "failures"
    HEALTHY = "healthy"
    INSUFFICIENT = "insufficient_data"
    INCOMPLETE = "incomplete"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class SkippedDetector:
    """A detector that did not apply, and why."""

    detector: str
    reason: str


@dataclass(frozen=True, slots=True)
class DebugReport:
    """What was found in one run, why, and what to do.

    Parameters
    ----------
    timestamp : float
        Seconds since the epoch when the report was made.
    detections : tuple of DetectionResult
        One per detector that ran; those that fired first, worst first.
    attributions : tuple of AttributionHypothesis
        Best first.
    summary : str
        The verdict in a sentence or two.
    metadata : mapping
        Of the source and the run; read-only.
    status : Status, optional
        Default: what the detections and `unread` say.
    skipped : tuple of SkippedDetector
    unread : tuple of str
        Parts of the input that could not be read.
    """

    timestamp: float
    detections: Sequence[DetectionResult] = ()
    attributions: Sequence[AttributionHypothesis] = ()
    summary: str = ""
    metadata: Mapping[str, Any] = field(default_factory=FrozenDict)
    status: Status | None = None
    skipped: Sequence[SkippedDetector] = ()
    unread: Sequence[str] = ()

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "detections", tuple(sorted(self.detections, key=_fired_first)))
        put(
            self,
            "attributions",
            tuple(sorted(self.attributions, key=lambda a: (-a.confidence, str(a.cause)))),
        )
        put(self, "timestamp", float(self.timestamp))
        put(self, "metadata", freeze_evidence(self.metadata))
        put(self, "skipped", tuple(self.skipped))
        put(self, "unread", texts(self.unread))
        put(self, "status", self._verdict() if self.status is None else Status(self.status))

    def _verdict(self) -> Status:
        """Failures, then incomplete, then insufficient: the first that holds."""
        if (worst := self.worst_severity) is not None and worst >= Severity.MEDIUM:
            return Status.FAILURES
        if self.unread or any(d.outcome is Outcome.FAILED for d in self.detections):
            return Status.INCOMPLETE
        if not any(d.outcome is Outcome.CONCLUDED and d.judged for d in self.detections):
            return Status.INSUFFICIENT
        return Status.HEALTHY

    @property
    def worst_severity(self) -> Severity | None:
        """Severity of the worst finding, or None."""
        found = [d.severity for d in self.detections if d.detected and d.severity is not None]
        return max(found, default=None)

    @property
    def failures(self) -> tuple[DetectionResult, ...]:
        """The detections that fired, worst first."""
        return tuple(d for d in self.detections if d.detected)

    @property
    def failed_checks(self) -> tuple[DetectionResult, ...]:
        """The detectors that raised instead of judging."""
        return tuple(d for d in self.detections if d.outcome is Outcome.FAILED)

    @property
    def curves(self) -> tuple[Curve, ...]:
        """What is worth a look, small enough to be drawn; empty where no series were at hand."""
        return tuple(Curve.from_dict(one) for one in self.metadata.get("curves", ()))

    def __hash__(self) -> int:
        return hash((self.timestamp, self.status, self.detections))

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms, as the published schema says."""
        assert self.status is not None  # set by __post_init__  # noqa: S101
        return {
            "schema_version": SCHEMA_VERSION,
            "timestamp": to_jsonable(self.timestamp),
            "status": self.status.value,
            "summary": {
                "text": self.summary,
                "total_detections": len(self.detections),
                "detected_failures": len(self.failures),
                "total_attributions": len(self.attributions),
            },
            "detections": [d.to_dict() for d in self.detections],
            "attributions": [a.to_dict() for a in self.attributions],
            "skipped": [{"detector": s.detector, "reason": s.reason} for s in self.skipped],
            "unread": list(self.unread),
            "metadata": to_jsonable(self.metadata),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DebugReport:
        """Build from what `to_dict` returned.

        Raises
        ------
        ValueError
            If `data` is of another major version of the schema.
        """
        version = data.get("schema_version")
        if str(version).partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
            raise ValueError(f"a report of schema version {SCHEMA_VERSION}, got {version!r}")
        return cls(
            numbers_back(data["timestamp"]),
            [DetectionResult.from_dict(d) for d in data["detections"]],
            [AttributionHypothesis.from_dict(a) for a in data["attributions"]],
            data["summary"]["text"],
            numbers_back(data["metadata"]),
            Status(data["status"]),
            [SkippedDetector(s["detector"], s["reason"]) for s in data["skipped"]],
            data.get("unread", ()),
        )

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as strict JSON (no NaN token)."""
        return strict_json(self.to_dict(), indent)

    @classmethod
    def from_json(cls, text: str) -> DebugReport:
        """Build from what `to_json` returned."""
        return cls.from_dict(json.loads(text))

    def to_verdict(self, path: str | None = None) -> Verdict:
        """Return what SARIF, JUnit and CI annotations need; `path` is that of the source."""
        from ._run_verdict import run_verdict

        return run_verdict(self, path)

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        return _rendered(self, "markdown")

    def to_html(self) -> str:
        """Return the report as one HTML file, with its curves."""
        return _rendered(self, "html")

    def __str__(self) -> str:
        return _rendered(self, "text")


def strict_json(document: Mapping[str, Any], indent: int | None = 2) -> str:
    """Return `document` as JSON that every parser reads and UTF-8 can hold."""
    text = json.dumps(document, indent=indent, allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a name with bytes that were no text: lone surrogates
        return json.dumps(document, indent=indent, allow_nan=False)
    return text


def _fired_first(result: DetectionResult) -> tuple[Any, ...]:
    severity = -1 if result.severity is None or not result.detected else result.severity.rank
    onset = result.onset_step if result.detected else None
    return (not result.detected, -severity, onset is None, onset or 0, -result.confidence,
            result.detector_name)  # fmt: skip


def _rendered(report: DebugReport, output_format: str) -> str:
    # Rendering lives above `core`; the registry finds it without `core` importing it.
    from .registry import reporters

    text: str = reporters.get(output_format)().render(report)
    return text
