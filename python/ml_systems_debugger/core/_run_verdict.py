"""The verdict on a run, out of its report."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .finding import Finding
from .frozen import to_jsonable
from .registry import detectors
from .results import DetectionResult, Outcome
from .shown import shown
from .verdict import Check, Notice, Place, Rule, Verdict
from .vocabulary import Severity, word

if TYPE_CHECKING:
    from .report import DebugReport

__all__ = ["run_verdict"]

_LONG = 4096


def run_verdict(report: DebugReport, path: str | None = None) -> Verdict:
    """Return the verdict on a run.

    Parameters
    ----------
    report : DebugReport
    path : str, optional
        Default: the source that the report names.
    """
    source = report.metadata.get("source", "") if path is None else path
    file = source if isinstance(source, str) and source != "-" else ""
    notices = [n for result in report.failures for n in _notices(report, result, file)]
    notices.sort(key=lambda n: -n.severity.rank)
    checks = [_check(result) for result in report.detections]
    checks += [Check(shown(s.detector, _LONG), skipped=_line(s.reason)) for s in report.skipped]
    return Verdict(
        str(source), str(report.status), _line(report.summary), _rules(report), notices, checks,
        [_line(text) for text in report.unread],
    )  # fmt: skip


def _line(text: str) -> str:
    return shown(" ".join(text.split()), _LONG)


def _check_name(result: DetectionResult) -> str:
    return shown(result.detector_name or word(result.failure_mode), _LONG)


def _check(result: DetectionResult) -> Check:
    name = _check_name(result)
    if result.outcome is Outcome.FAILED:
        return Check(name, broken=_line(result.reason) or "the check failed")
    if result.outcome is Outcome.CONCLUDED or result.detected:
        return Check(name)
    return Check(name, skipped=_line(result.reason) or result.outcome.value.replace("_", " "))


def _notices(report: DebugReport, result: DetectionResult, file: str) -> Iterator[Notice]:
    for finding in result.findings or (_alone(result),):
        step = "" if finding.onset_step is None else f"step {finding.onset_step}"
        places = tuple(
            Place(kind, shown(str(name), _LONG))
            for kind, name in (("layer", finding.layer), ("replica", finding.replica_id))
            if name is not None
        )
        said = _line(finding.message) or word(finding.failure_mode).replace("_", " ")
        evidence: dict[str, Any] = {
            "confidence": finding.confidence, "onset_step": finding.onset_step,
            "end_step": finding.end_step, **_causes(report, finding),
            **to_jsonable(finding.evidence),
        }  # fmt: skip
        line = finding.evidence.get("line")
        identity = finding.finding_id or ":".join(
            (word(finding.failure_mode), step, *(p.name for p in places))
        )
        yield Notice(
            word(finding.failure_mode), finding.severity,
            f"{said} ({step})" if step and step not in said else said,
            _check_name(result), identity, file,
            line if type(line) is int and line > 0 else None, places, evidence,
        )  # fmt: skip


def _alone(result: DetectionResult) -> Finding:
    """Return a hand-written result, which may hold no findings, as one."""
    return Finding(
        result.failure_mode, result.severity or Severity.MEDIUM, result.confidence,
        result.onset_step,
        result.end_step, result.layer, result.replica_id, result.message, result.evidence,
    )  # fmt: skip


def _causes(report: DebugReport, finding: Finding) -> dict[str, Any]:
    """Return the best cause that a finding speaks for, and what to do about it."""
    for hypothesis in report.attributions:
        supports: list[Any] = []
        for support in hypothesis.supporting_detections:
            supports.extend(getattr(support, "findings", None) or (support,))
        if finding.finding_id and any(
            getattr(s, "finding_id", "") == finding.finding_id for s in supports
        ):
            return {
                "likely_cause": word(hypothesis.cause),
                "cause_confidence": hypothesis.confidence,
                "remediation": list(hypothesis.remediation_hints),
            }
    return {}


def _rules(report: DebugReport) -> list[Rule]:
    rules: dict[str, Rule] = {}
    for result in report.failures:
        detector = (
            detectors.get(result.detector_name) if result.detector_name in detectors else None
        )
        text = (inspect.getdoc(detector) if detector else None) or ""
        for finding in result.findings or (_alone(result),):
            code = word(finding.failure_mode)
            title = text.partition("\n")[0] or code.replace("_", " ")
            rules.setdefault(code, Rule(code, title, text))
    return list(rules.values())
