"""What detectors and the attribution say: `DetectionResult`, `AttributionHypothesis`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .finding import Finding, checked_confidence, settle_place
from .frozen import FrozenDict, freeze_evidence, numbers_back, to_jsonable
from .signal import ReplicaId, Signal, scalar_value
from .vocabulary import FailureModeLike, RootCauseLike, Severity, failure_mode, root_cause, word

__all__ = ["AttributionHypothesis", "DetectionResult", "Outcome"]


class Outcome(str, Enum):
    """How far a detector came."""

    CONCLUDED = "concluded"  # it looked and could judge
    INSUFFICIENT = "insufficient_data"  # its signals are there, too few to judge
    NOT_APPLICABLE = "not_applicable"  # its signals are not there
    FAILED = "failed"  # it raised; the traceback is in the evidence


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """What one detector says of one run.

    Parameters
    ----------
    failure_mode : FailureMode or registered ``vendor:name``
    detected : bool
    confidence : float
        From 0 to 1, of the worst finding; for a hand-written result whatever
        its author sets.
    evidence : mapping
        Read-only.
    timestamp : float, optional
        Seconds since the epoch of the last measurement looked at, where known.
    detector_name : str
    contributing_signals : sequence of Signal
        Those that speak for the result; kept short, the count is `contributing_count`.
    severity, onset_step, end_step, layer, replica_id, message
        Of the worst finding (then the earliest); None and "" where nothing fired.
    findings : tuple of Finding
        One per place and occurrence, worst first.
    outcome : Outcome
    judged : tuple of str
        The quantities on which this detector could conclude, sorted.
    reason : str
        Why it is insufficient, not applicable or failed.
    contributing_count : int, optional
        How many signals were looked at; default the length of `contributing_signals`.
    """

    failure_mode: FailureModeLike
    detected: bool
    confidence: float
    evidence: Mapping[str, Any] = field(default_factory=FrozenDict)
    timestamp: float | None = None
    detector_name: str = ""
    contributing_signals: Sequence[Signal] = ()
    severity: Severity | None = None
    onset_step: int | None = None
    end_step: int | None = None
    layer: str | None = None
    replica_id: ReplicaId | None = None
    message: str = ""
    findings: tuple[Finding, ...] = ()
    outcome: Outcome = Outcome.CONCLUDED
    judged: tuple[str, ...] = ()
    reason: str = ""
    contributing_count: int | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "failure_mode", failure_mode(self.failure_mode))
        put(self, "detected", bool(self.detected))  # NumPy's own is no JSON
        put(self, "confidence", checked_confidence(self.confidence))
        put(self, "evidence", freeze_evidence(self.evidence))
        put(self, "timestamp", scalar_value(self.timestamp))
        settle_place(self)
        put(self, "contributing_signals", tuple(self.contributing_signals))
        put(self, "findings", tuple(sorted(self.findings, key=_worst_first)))
        put(self, "outcome", Outcome(self.outcome))
        put(self, "judged", tuple(sorted(set(texts(self.judged)))))
        if not self.detected:  # nothing fired: it has neither a severity nor a beginning
            for name in ("severity", "onset_step", "end_step"):
                put(self, name, None)
        if self.severity is not None:
            put(self, "severity", Severity(self.severity))
        if self.contributing_count is None:
            put(self, "contributing_count", len(self.contributing_signals))
        if self.detected and self.severity is None:
            # A detector written against the three contracts alone may set none.
            put(self, "severity", self.findings[0].severity if self.findings else Severity.HIGH)
        if self.detected and not self.findings:
            put(self, "findings", (self._own_finding(),))

    def _own_finding(self) -> Finding:
        return Finding(
            self.failure_mode, self.severity or Severity.HIGH, self.confidence, self.onset_step,
            self.end_step, self.layer, self.replica_id, self.message, self.evidence,
            f"{self.detector_name}:{self.onset_step}",
        )  # fmt: skip

    @classmethod
    def of_findings(
        cls,
        mode: FailureModeLike,
        detector_name: str,
        findings: Iterable[Finding],
        **more: Any,
    ) -> DetectionResult:
        """Build the result whose headline is the worst, then earliest, of `findings`."""
        ordered = tuple(sorted(findings, key=_worst_first))
        if not ordered:
            return cls(mode, False, 0.0, detector_name=detector_name, **more)
        top = ordered[0]
        more.setdefault("evidence", top.evidence)
        return cls(
            mode, True, top.confidence, detector_name=detector_name, severity=top.severity,
            onset_step=top.onset_step, end_step=top.end_step, layer=top.layer,
            replica_id=top.replica_id, message=top.message, findings=ordered, **more,
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((word(self.failure_mode), self.detector_name, self.onset_step))

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms, in the order that the schema documents.

        Severity, place and findings are those of what fired: empty where nothing did.
        """
        fired = self.detected
        return {
            "failure_mode": word(self.failure_mode),
            "detected": fired,
            "severity": self.severity.value if fired and self.severity is not None else None,
            "confidence": self.confidence,
            "onset_step": to_jsonable(self.onset_step) if fired else None,
            "end_step": to_jsonable(self.end_step) if fired else None,
            "layer": self.layer,
            "replica_id": to_jsonable(self.replica_id),
            "detector_name": self.detector_name,
            "message": self.message,
            "timestamp": to_jsonable(self.timestamp),
            "evidence": to_jsonable(self.evidence),
            "contributing_signals_count": to_jsonable(self.contributing_count),
            "findings": [finding.to_dict() for finding in self.findings] if fired else [],
            "outcome": self.outcome.value,
            "judged": list(self.judged),
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DetectionResult:
        """Build from what `to_dict` returned; contributing signals come back as their count."""
        rest = dict(data)
        rest["contributing_count"] = rest.pop("contributing_signals_count", None)
        rest["findings"] = tuple(Finding.from_dict(f) for f in rest.get("findings", ()))
        rest["evidence"] = numbers_back(rest.get("evidence", {}))
        rest["timestamp"] = numbers_back(rest.get("timestamp"))
        return cls(**rest)


def texts(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return sentences as a tuple; a single one is one, not its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def _worst_first(finding: Finding) -> tuple[Any, ...]:
    onset = finding.onset_step
    return (
        -finding.severity.rank,
        onset is None,
        onset or 0,
        -finding.confidence,
        finding.layer or "",
        str(finding.replica_id),
        finding.finding_id,
    )


@dataclass(frozen=True, slots=True)
class AttributionHypothesis:
    """One possible cause, with what speaks for and against it.

    Parameters
    ----------
    hypothesis : str
        The cause in one sentence, with the step, layer or replica at hand.
    confidence : float
        From 0 to 1.
    supporting_detections : sequence of DetectionResult or Finding
    remediation_hints : sequence of str
        What to do, most useful first.
    severity : Severity
    cause : RootCause or registered ``vendor:name``
        The stable code behind the sentence.
    evidence_for, evidence_against : sequence of str
        One sentence each.
    ruled_out : sequence of str
        Other causes that come to mind, each with what speaks against it.
    story : str
        What happened, in order of onset: the same for all causes of one story.
    """

    hypothesis: str
    confidence: float
    supporting_detections: Sequence[DetectionResult | Finding] = ()
    remediation_hints: Sequence[str] = ()
    severity: Severity = Severity.MEDIUM
    cause: RootCauseLike = "unknown"
    evidence_for: Sequence[str] = ()
    evidence_against: Sequence[str] = ()
    ruled_out: Sequence[str] = ()
    story: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "confidence", checked_confidence(self.confidence))
        put(self, "severity", Severity(self.severity))
        put(self, "cause", root_cause(self.cause))
        put(self, "supporting_detections", tuple(self.supporting_detections))
        for name in ("remediation_hints", "evidence_for", "evidence_against", "ruled_out"):
            put(self, name, texts(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms; supporting detections as references into the report."""
        return {
            "cause": word(self.cause),
            "hypothesis": self.hypothesis,
            "confidence": self.confidence,
            "severity": self.severity.value,
            "remediation_hints": list(self.remediation_hints),
            "supporting_detections": [_reference(d) for d in self.supporting_detections],
            "evidence_for": list(self.evidence_for),
            "evidence_against": list(self.evidence_against),
            "ruled_out": list(self.ruled_out),
            "story": self.story,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttributionHypothesis:
        """Build from what `to_dict` returned; supports come back as bare findings."""
        supports = [_support(reference) for reference in data["supporting_detections"]]
        return cls(**{**data, "supporting_detections": supports})


def _reference(support: DetectionResult | Finding) -> dict[str, Any]:
    finding_id = (
        support.finding_id
        if isinstance(support, Finding)
        else (support.findings[0].finding_id if support.findings else "")
    )
    return {
        "failure_mode": word(support.failure_mode),
        "severity": None if support.severity is None else support.severity.value,
        "confidence": support.confidence,
        "onset_step": to_jsonable(support.onset_step),
        "layer": support.layer,
        "replica_id": to_jsonable(support.replica_id),
        "finding_id": finding_id,
    }


def _support(reference: Mapping[str, Any]) -> Finding:
    return Finding(
        reference["failure_mode"],
        Severity(reference["severity"] or "low"),
        reference["confidence"],
        reference["onset_step"],
        layer=reference["layer"],
        replica_id=reference["replica_id"],
        finding_id=reference["finding_id"],
    )
