"""Reports for people at a terminal, and for logs."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..core import (
    AttributionHypothesis,
    BaseReporter,
    DebugReport,
    DetectionResult,
    Finding,
    Severity,
    Status,
    reporters,
    word,
)
from ..core.curve import Curve
from ._curves import curve_named, sparkline
from ._notes import notes_of
from ._words import (
    against_of,
    by_story,
    evidence_pairs,
    first_line,
    percent,
    printable,
    rule_of,
    shown_findings,
    skipped_of,
    span_of,
    window_of,
)

__all__ = ["STATUS_STYLES", "TextReporter", "console_text", "text_of", "write_report"]

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
_NARROWEST, _WIDEST = 40, 100  # lines of more than 100 characters are hard to follow
_INDENT = 9
_LABEL = 10
_TAIL = 6  # lines of a traceback
_NOTES = 10
_SPARK = 60  # columns of a curve


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
        return text_of(out)


def console_text(color: bool, width: int | None) -> tuple[Console, io.StringIO]:
    """Return a console that writes into a string, wherever the program runs."""
    out = io.StringIO()
    coloured = color and not os.environ.get("NO_COLOR")
    columns = width or min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    console = Console(
        file=out, width=max(_NARROWEST, columns), force_terminal=coloured, force_jupyter=False,
        highlight=False, markup=False, emoji=False, legacy_windows=False,
        color_system="standard" if coloured else None,
    )  # fmt: skip
    return console, out


def text_of(out: io.StringIO) -> str:
    """Return what was written, without the blanks that fill a line."""
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def write_report(console: Console, report: DebugReport) -> None:
    """Write one report to a console."""
    assert report.status is not None  # set by the report itself  # noqa: S101
    head = Text(report.status.value.replace("_", " ").upper(), STATUS_STYLES[report.status])
    console.print(Text.assemble(head, "  ", printable(report.summary)))
    curves = report.curves
    for shown in shown_findings(report):
        worst, *others = shown.findings
        _write_finding(console, worst, shown.result, curves)
        for finding in others:
            _labelled(console, "also", _in_a_line(finding, worst))
        if shown.rest:
            _labelled(console, "also", shown.rest)
    stories = by_story(report.attributions)
    for story, causes in stories:
        console.print()
        console.print(Text("Likely causes", "bold"), end="")
        # With one story the findings above have told it; several need to be told apart.
        console.print(Text(f" of {printable(story)}" if len(stories) > 1 and story else ""))
        for hypothesis in causes:
            _write_cause(console, hypothesis)
    _write_notes(console, report)
    _write_failed(console, report)
    _write_unread(console, report)
    if report.skipped:
        console.print()
        console.print(Text(f"Not applicable: {printable(skipped_of(report))}", "dim"))


def _write_finding(
    console: Console, finding: Finding, result: DetectionResult, curves: Sequence[Curve]
) -> None:
    style = STYLES[finding.severity]
    console.print()
    line = Text.assemble((f"{finding.severity.value:<{_INDENT}}", style))
    line.append(printable(word(finding.failure_mode)), "bold")
    if where := span_of(finding):
        line.append(f"  {where}")
    line.append(f"  ({percent(finding.confidence)} sure)", "dim")
    console.print(line)
    _indented(console, printable(finding.message), _INDENT)
    if (curve := curve_named(curves, finding.evidence.get("series"))) is not None:
        columns = min(_SPARK, console.width - _INDENT - _LABEL)
        _labelled(console, "curve", sparkline(curve, columns))
    pairs = "  ".join(f"{name}={value}" for name, value in evidence_pairs(finding.evidence))
    _labelled(console, "evidence", pairs)
    _labelled(console, "window", window_of(finding))
    _labelled(console, "against", against_of(finding))
    rule = rule_of(finding)
    source = printable(result.detector_name)
    _labelled(console, "rule", f"{rule} of {source}" if rule and source else rule or source)


def _in_a_line(finding: Finding, worst: Finding) -> str:
    """Return a further finding of the same detector: what differs from its worst one."""
    level = "" if finding.severity is worst.severity else f"{finding.severity.value}, "
    where = span_of(finding)
    message = printable(finding.message)
    told = f"{where}: {message}" if where and message else where or message
    return f"{told} ({level}{percent(finding.confidence)} sure)"


def _labelled(console: Console, label: str, text: str) -> None:
    if text:
        body = _wrapped(console, text, _INDENT + _LABEL, _LABEL)
        _indented(console, f"{label:<{_LABEL}}{body}", _INDENT, "dim")


def _write_cause(console: Console, hypothesis: AttributionHypothesis) -> None:
    name = printable(word(hypothesis.cause))
    console.print(Text.assemble((f"  {percent(hypothesis.confidence):>4}  {name}", "bold")))
    _indented(console, printable(hypothesis.hypothesis), 8)
    for mark, texts, style in (
        ("+", hypothesis.evidence_for, "green"),
        ("-", hypothesis.evidence_against, "red"),
        ("x", [f"ruled out: {text}" for text in hypothesis.ruled_out], "dim"),
        (">", hypothesis.remediation_hints, ""),
    ):
        for text in texts:
            body = _wrapped(console, printable(text), 10, 2)
            console.print(Padding(Text(f"{mark} {body}", style), (0, 0, 0, 8)))


def _write_notes(console: Console, report: DebugReport) -> None:
    notes = notes_of(report)
    if notes:
        console.print()
        console.print(Text("The source says", "bold"))
        for note in notes:
            _indented(console, _wrapped(console, note, 4, 2), 2)


def _write_failed(console: Console, report: DebugReport) -> None:
    for result in report.failed_checks:
        console.print()
        name = printable(result.detector_name)
        console.print(Text(f"Check failed: {name}: {first_line(result.reason)}", "bold yellow"))
        tail = str(result.evidence.get("traceback", "")).rstrip().splitlines()[-_TAIL:]
        for line in tail:
            _indented(console, printable(line), 4, "dim")


def _write_unread(console: Console, report: DebugReport) -> None:
    if not report.unread:
        return
    console.print()
    console.print(Text("Not read", "bold yellow"))
    for text in report.unread[:_NOTES]:
        _indented(console, first_line(text), 2)
    if len(report.unread) > _NOTES:
        _indented(console, f"and {len(report.unread) - _NOTES} more", 2)


def _wrapped(console: Console, text: str, taken: int, hang: int) -> str:
    """Return `text` in rows of what `taken` columns leave, all but the first `hang` columns in."""
    rows = Text(text).wrap(console, max(_LABEL, console.width - taken))
    return f"\n{' ' * hang}".join(row.plain.rstrip() for row in rows)


def _indented(console: Console, text: str, columns: int, style: str = "") -> None:
    if text:
        console.print(Padding(Text(text, style), (0, 0, 0, columns)))
