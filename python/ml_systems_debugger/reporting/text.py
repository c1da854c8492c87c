"""Reports for people at a terminal, and for logs."""

from __future__ import annotations

import io
import shutil

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..core import (
    AttributionHypothesis,
    BaseReporter,
    DebugReport,
    DetectionResult,
    Severity,
    Status,
    reporters,
    word,
)
from ._words import MOST_FINDINGS, evidence_pairs, printable, span_of

__all__ = ["TextReporter", "console_text"]

STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
}
STATUS_STYLES = {
    Status.FAILURES: "bold red",
    Status.HEALTHY: "bold green",
    Status.INSUFFICIENT: "bold yellow",
    Status.INCOMPLETE: "bold yellow",
}


@reporters.register("text")
class TextReporter(BaseReporter):
    """Writes one report as text: the verdict, the findings, the causes, what was not checked."""

    def render(self, report: DebugReport, *, color: bool = False, width: int | None = None) -> str:
        """Return the report as text.

        Parameters
        ----------
        report : DebugReport
        color : bool
            Whether to use the terminal's colours; never where NO_COLOR is set.
        width : int, optional
            Columns; default those of the terminal, at most 100.
        """
        console, out = console_text(color, width)
        write_report(console, report)
        return out.getvalue().rstrip("\n")


def console_text(color: bool, width: int | None) -> tuple[Console, io.StringIO]:
    """Return a console that writes into a string."""
    out = io.StringIO()
    columns = width or max(60, min(100, shutil.get_terminal_size((100, 24)).columns))
    console = Console(
        file=out, width=columns, force_terminal=color, highlight=False, markup=False, emoji=False,
        color_system="standard" if color else None, soft_wrap=False,
    )  # fmt: skip
    return console, out


def write_report(console: Console, report: DebugReport) -> None:
    """Write one report to a console."""
    assert report.status is not None  # set by the report itself  # noqa: S101
    head = Text(report.status.value.replace("_", " ").upper(), STATUS_STYLES[report.status])
    console.print(Text.assemble(head, "  ", printable(report.summary)))
    for result in report.failures:
        _write_detection(console, result)
    if report.attributions:
        console.print()
        console.print(Text("Likely causes", "bold"))
        for hypothesis in report.attributions:
            _write_cause(console, hypothesis)
    for result in report.failed_checks:
        console.print()
        console.print(Text(f"check failed: {result.detector_name}: {result.reason}", "bold yellow"))
        tail = str(result.evidence.get("traceback", "")).rstrip().splitlines()[-4:]
        _indented(console, "\n".join(printable(line) for line in tail), 4)
    if report.unread:
        console.print()
        console.print(Text("Not read", "bold yellow"))
        for text in report.unread[:10]:
            _indented(console, printable(text.splitlines()[0] if text else ""), 2)
        if len(report.unread) > 10:
            _indented(console, f"and {len(report.unread) - 10} more", 2)
    if report.skipped:
        console.print()
        skipped = "; ".join(f"{s.detector} ({s.reason})" for s in report.skipped)
        console.print(Text(f"Not applicable: {printable(skipped)}", "dim"))


def _write_detection(console: Console, result: DetectionResult) -> None:
    for finding in result.findings[:MOST_FINDINGS]:
        console.print()
        line = Text.assemble(
            (f"{finding.severity.value:<8}", STYLES[finding.severity]),
            " ",
            (word(finding.failure_mode), "bold"),
        )
        if where := span_of(finding):
            line.append(f"  {where}")
        line.append(f"  ({finding.confidence:.0%})", "dim")
        console.print(line)
        _indented(console, printable(finding.message), 9)
        pairs = "  ".join(f"{name}={value}" for name, value in evidence_pairs(finding.evidence))
        if pairs:
            _indented(console, pairs, 9, "dim")
    if len(result.findings) > MOST_FINDINGS:
        rest = len(result.findings) - MOST_FINDINGS
        _indented(console, f"and {rest} more findings of {word(result.failure_mode)}", 9)


def _write_cause(console: Console, hypothesis: AttributionHypothesis) -> None:
    console.print(
        Text.assemble(
            (f"  {hypothesis.confidence:>4.0%}  ", "bold"), (word(hypothesis.cause), "bold")
        )
    )
    _indented(console, printable(hypothesis.hypothesis), 8)
    for text in hypothesis.evidence_for:
        _indented(console, f"+ {printable(text)}", 8, "green")
    for text in hypothesis.evidence_against:
        _indented(console, f"- {printable(text)}", 8, "red")
    for text in hypothesis.remediation_hints:
        _indented(console, f"> {printable(text)}", 8)


def _indented(console: Console, text: str, columns: int, style: str = "") -> None:
    if text:
        console.print(Padding(Text(text, style), (0, 0, 0, columns)))
