"""Reports as Markdown, fit for a comment on a pull request."""

from __future__ import annotations

import re

from ..core import AttributionHypothesis, BaseReporter, DebugReport, Finding, reporters, word
from ._notes import notes_of
from ._words import (
    against_of,
    by_story,
    evidence_pairs,
    first_line,
    percent,
    printable,
    rule_of,
    shortened,
    shown_findings,
    skipped_of,
    span_of,
    window_of,
)

__all__ = ["MarkdownReporter", "escaped"]

_LONG = 400  # characters of one text; a comment holds 65,536
_NOTES = 10


def escaped(text: object, most: int = _LONG) -> str:
    """Return `text` in one line, with what Markdown would read as markup escaped.

    An ``@`` is kept from calling people: a zero-width space follows it.
    """
    plain = shortened(printable(text), most)
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", plain).replace("@", "@\u200b")


@reporters.register("markdown")
class MarkdownReporter(BaseReporter):
    """Writes one report as Markdown."""

    def render(self, report: DebugReport, *, color: bool = False) -> str:  # noqa: ARG002 - none here
        """Return the report as Markdown text."""
        assert report.status is not None  # set by the report itself  # noqa: S101
        title = report.status.value.replace("_", " ")
        lines = [f"## Diagnosis: {title}", "", escaped(report.summary, 1000), ""]
        lines += _findings(report)
        lines += _causes(report)
        if notes := notes_of(report):
            lines += ["### The source says", "", *(f"- {escaped(note)}" for note in notes), ""]
        lines += _not_checked(report)
        return "\n".join(lines).rstrip()


def _findings(report: DebugReport) -> list[str]:
    if not report.failures:
        return []
    lines = ["### Findings", "", "| severity | failure | where | confidence | what |",
             "|---|---|---|---|---|"]  # fmt: skip
    details = []
    for shown in shown_findings(report):
        for finding in shown.findings:
            cells = (
                finding.severity.value, word(finding.failure_mode), span_of(finding) or "-",
                percent(finding.confidence), finding.message or "-",
            )  # fmt: skip
            lines.append("| " + " | ".join(escaped(cell) for cell in cells) + " |")
            details += _details(finding, shown.result.detector_name)
        if shown.rest:
            mode = escaped(word(shown.result.failure_mode))
            lines.append(f"| | {mode} | {escaped(shown.rest)} | | |")
    if details:
        lines += ["", "<details><summary>Evidence</summary>", "", *details, "", "</details>"]
    return [*lines, ""]


def _details(finding: Finding, detector: str) -> list[str]:
    where = span_of(finding)
    head = f"- **{escaped(word(finding.failure_mode))}**{f', {escaped(where)}' if where else ''}"
    pairs = ", ".join(f"{name} = {value}" for name, value in evidence_pairs(finding.evidence))
    rule = rule_of(finding)
    parts = (
        ("evidence", pairs),
        ("window", window_of(finding)),
        ("against", against_of(finding)),
        ("rule", f"{rule} of {detector}" if rule and detector else rule or detector),
    )
    said = [f"  - {label}: {escaped(text, 1000)}" for label, text in parts if text]
    return [head, *said] if said else []


def _causes(report: DebugReport) -> list[str]:
    lines: list[str] = []
    stories = by_story(report.attributions)
    for story, causes in stories:
        of = f" of {escaped(story)}" if len(stories) > 1 and story else ""
        lines += [f"### Likely causes{of}", ""]
        for at, hypothesis in enumerate(causes, 1):
            lines += _cause(at, hypothesis)
        lines.append("")
    return lines


def _cause(at: int, hypothesis: AttributionHypothesis) -> list[str]:
    cause = escaped(word(hypothesis.cause))
    return [
        f"{at}. **{cause}** ({percent(hypothesis.confidence)}): {escaped(hypothesis.hypothesis)}",
        *(f"   - for: {escaped(text)}" for text in hypothesis.evidence_for),
        *(f"   - against: {escaped(text)}" for text in hypothesis.evidence_against),
        *(f"   - ruled out: {escaped(text)}" for text in hypothesis.ruled_out),
        *(f"   - **do**: {escaped(text)}" for text in hypothesis.remediation_hints),
    ]


def _not_checked(report: DebugReport) -> list[str]:
    lines = []
    if report.failed_checks or report.unread:
        lines += ["### Not checked", ""]
        lines += [
            f"- {escaped(d.detector_name)} failed: {escaped(first_line(d.reason))}"
            for d in report.failed_checks
        ]
        lines += [f"- {escaped(first_line(text))}" for text in report.unread[:_NOTES]]
        if len(report.unread) > _NOTES:
            lines.append(f"- and {len(report.unread) - _NOTES} more")
        lines.append("")
    if report.skipped:
        lines += [f"Not applicable: {escaped(skipped_of(report), 4000)}", ""]
    return lines
