"""`Reporter`: one report, or several runs, in the format asked for."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from rich.table import Table
from rich.text import Text

from ..core import ConfigurationError, DebugReport, Severity, reporters, word
from ._verdicts import VerdictReporter
from ._words import is_troubled, percent, place_of, printable, reached_of
from .html import many_as_html
from .json import many_as_json
from .markdown import escaped
from .text import STATUS_STYLES, console_text, text_of, write_report

__all__ = ["ReportFormat", "Reporter", "render_many"]


class ReportFormat(str, Enum):
    """The built-in formats; others are registered as reporters under their own names."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    SARIF = "sarif"
    JUNIT = "junit"
    GITHUB = "github"
    HTML = "html"

    def __str__(self) -> str:
        return self.value


class Reporter:
    """Writes reports in one format.

    Parameters
    ----------
    format : ReportFormat or str
        One of the built-in formats, or the name of a registered reporter.

    Raises
    ------
    ConfigurationError
        If there is no such format.

    Examples
    --------
    >>> print(Reporter("text").render(DebugReport(0.0, summary="Nothing to judge.")))
    INSUFFICIENT DATA  Nothing to judge.
    """

    def __init__(self, format: ReportFormat | str = ReportFormat.TEXT) -> None:  # noqa: A002 - known name
        self.format = _known(format)
        self._reporter = reporters.get(self.format)()

    def render(self, report: DebugReport, **options: Any) -> str:
        """Return `report` as text; `options` are those of the format's own reporter."""
        text: str = self._reporter.render(report, **options)
        return text

    generate = render


def render_many(
    reports: Sequence[tuple[str, DebugReport]],
    format: ReportFormat | str = ReportFormat.TEXT,  # noqa: A002 - known name
    *,
    color: bool = False,
    width: int | None = None,
    fail_on: Severity | str | None = Severity.HIGH,
) -> str:
    """Return several runs: a table of all, then each one that is not healthy.

    Parameters
    ----------
    reports : sequence of (path, DebugReport)
    format : ReportFormat or str
    color, width
        As for `TextReporter.render`; of text alone.
    fail_on : Severity, str or None
        From which severity on a test of JUnit fails; None for never.

    Raises
    ------
    ConfigurationError
        If there is no such format.
    """
    name = _known(format)
    if name == ReportFormat.JSON.value:
        return many_as_json(reports)
    if name == ReportFormat.HTML.value:
        return many_as_html(reports)
    if name == ReportFormat.MARKDOWN.value:
        return _many_as_markdown(reports)
    if name == ReportFormat.TEXT.value:
        return _many_as_text(reports, color, width)
    reporter = reporters.get(name)()
    if isinstance(reporter, VerdictReporter):
        verdicts = [report.to_verdict(path) for path, report in reports]
        return reporter.render_all(verdicts, fail_on=fail_on)
    single = Reporter(name)
    return "\n".join(f"{path}\n{single.render(report)}" for path, report in reports)


def _known(output_format: ReportFormat | str) -> str:
    name = str(output_format).lower()
    if name not in reporters:
        raise ConfigurationError(
            f"format is one of {', '.join(reporters.names)}, got {str(output_format)!r}"
        )
    return name


def _row(path: str, report: DebugReport) -> tuple[str, str, str, str, str]:
    top = report.failures[0] if report.failures else None
    cause = report.attributions[0] if report.attributions else None
    where = "" if top is None else place_of(top.onset_step, top.layer, top.replica_id)
    return (
        printable(path),
        str(report.status),
        reached_of(report),
        where or "-",
        "-" if cause is None else f"{word(cause.cause)} ({percent(cause.confidence)})",
    )


_HEADINGS = ("run", "status", "worst finding", "where", "likely cause")


def _many_as_text(
    reports: Sequence[tuple[str, DebugReport]], color: bool, width: int | None
) -> str:
    console, out = console_text(color, width)
    table = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    for path, report in reports:
        assert report.status is not None  # set by the report itself  # noqa: S101
        run, status, *rest = (Text(cell) for cell in _row(path, report))
        status.stylize(STATUS_STYLES[report.status])
        table.add_row(run, status, *rest)
    console.print(table)
    for path, report in reports:
        if is_troubled(report):
            console.print()
            console.rule(Text(printable(path)), align="left", characters="-")
            write_report(console, report)
    return text_of(out)


def _many_as_markdown(reports: Sequence[tuple[str, DebugReport]]) -> str:
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    lines += [
        "| " + " | ".join(escaped(cell) for cell in _row(path, report)) + " |"
        for path, report in reports
    ]
    single = Reporter(ReportFormat.MARKDOWN)
    for path, report in reports:
        if is_troubled(report):
            lines += ["", f"# {escaped(path)}", "", single.render(report)]
    return "\n".join(lines)
