"""Reports as Markdown, fit for a comment on a pull request."""

from __future__ import annotations

import re

from ..core import BaseReporter, DebugReport, reporters, word
from ._words import MOST_FINDINGS, evidence_pairs, printable, span_of

__all__ = ["MarkdownReporter", "escaped"]


def escaped(text: object) -> str:
    """Return `text` in one line, with what Markdown would read as markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", printable(text))


@reporters.register("markdown")
class MarkdownReporter(BaseReporter):
    """Writes one report as Markdown."""

    def render(self, report: DebugReport, *, color: bool = False) -> str:  # noqa: ARG002 - none here
        """Return the report as Markdown text."""
        assert report.status is not None  # set by the report itself  # noqa: S101
        title = report.status.value.replace("_", " ")
        lines = [f"## Diagnosis: {title}", "", escaped(report.summary), ""]
        lines += _findings(report)
        lines += _causes(report)
        lines += _not_checked(report)
        return "\n".join(lines).rstrip()


def _findings(report: DebugReport) -> list[str]:
    if not report.failures:
        return []
    lines = ["### Findings", "", "| severity | failure | where | confidence | what |",
             "|---|---|---|---|---|"]  # fmt: skip
    details = []
    for result in report.failures:
        for finding in result.findings[:MOST_FINDINGS]:
            cells = (
                finding.severity.value, word(finding.failure_mode), span_of(finding) or "-",
                f"{finding.confidence:.0%}", finding.message,
            )  # fmt: skip
            lines.append("| " + " | ".join(escaped(cell) for cell in cells) + " |")
            pairs = ", ".join(
                f"{name} = {value}" for name, value in evidence_pairs(finding.evidence)
            )
            if pairs:
                details.append(f"- {escaped(word(finding.failure_mode))}: {escaped(pairs)}")
        if len(result.findings) > MOST_FINDINGS:
            rest = len(result.findings) - MOST_FINDINGS
            lines.append(f"| | {escaped(word(result.failure_mode))} | and {rest} more | | |")
    if details:
        lines += ["", "<details><summary>Evidence</summary>", "", *details, "", "</details>"]
    return [*lines, ""]


def _causes(report: DebugReport) -> list[str]:
    if not report.attributions:
        return []
    lines = ["### Likely causes", ""]
    for at, hypothesis in enumerate(report.attributions, 1):
        cause = escaped(word(hypothesis.cause))
        lines.append(
            f"{at}. **{cause}** ({hypothesis.confidence:.0%}): {escaped(hypothesis.hypothesis)}"
        )
        lines += [f"   - for: {escaped(text)}" for text in hypothesis.evidence_for]
        lines += [f"   - against: {escaped(text)}" for text in hypothesis.evidence_against]
        lines += [f"   - do: {escaped(text)}" for text in hypothesis.remediation_hints]
    return [*lines, ""]


def _not_checked(report: DebugReport) -> list[str]:
    lines = []
    if report.failed_checks or report.unread:
        lines += ["### Not checked", ""]
        lines += [
            f"- {escaped(d.detector_name)}: {escaped(d.reason)}" for d in report.failed_checks
        ]
        lines += [
            f"- {escaped(text.splitlines()[0] if text else '')}" for text in report.unread[:10]
        ]
        if len(report.unread) > 10:
            lines.append(f"- and {len(report.unread) - 10} more")
        lines.append("")
    if report.skipped:
        skipped = "; ".join(f"{s.detector} ({s.reason})" for s in report.skipped)
        lines += [f"Not applicable: {escaped(skipped)}", ""]
    return lines
