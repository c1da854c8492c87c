"""`Reporter`: one report, or several runs, in the format asked for."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from rich.table import Table

from ..core import ConfigurationError, DebugReport, reporters, word
from ._words import printable
from .json import many_as_json
from .markdown import escaped
from .summary import place_of
from .text import STATUS_STYLES, console_text, write_report

__all__ = ["ReportFormat", "Reporter", "render_many"]


class ReportFormat(str, Enum):
    """The built-in formats; others are registered as reporters under their own names."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"

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
    """

    def __init__(self, format: ReportFormat | str = ReportFormat.TEXT) -> None:  # noqa: A002 - known name
        name = str(format).lower()
        if name not in reporters:
            raise ConfigurationError(
                f"format is one of {', '.join(reporters.names)}, got {str(format)!r}"
            )
        self.format = name
        self._reporter = reporters.get(name)()

    def render(self, report: DebugReport, **options: Any) -> str:
        """Return `report` as text; `options` are those of the format's own reporter."""
        text: str = self._reporter.render(report, **options)
        return text

    generate = render


def render_many(
    reports: Sequence[tuple[str, DebugReport]],
    format: ReportFormat | str = ReportFormat.TEXT,  # noqa: A002 - known name
) -> str:
    """Return several runs: a table of all, then each one that is not healthy.

    Parameters
    ----------
    reports : sequence of (path, DebugReport)
    format : ReportFormat or str
    """
    name = str(format).lower()
    if name == ReportFormat.JSON.value:
        return many_as_json(reports)
    if name == ReportFormat.MARKDOWN.value:
        return _many_as_markdown(reports)
    if name == ReportFormat.TEXT.value:
        return _many_as_text(reports)
    single = Reporter(name)
    return "\n".join(f"{path}\n{single.render(report)}" for path, report in reports)


def _row(path: str, report: DebugReport) -> tuple[str, str, str, str, str]:
    top = report.failures[0] if report.failures else None
    cause = report.attributions[0] if report.attributions else None
    return (
        printable(path),
        str(report.status),
        "-" if top is None else f"{word(top.failure_mode)} ({top.severity})",
        "-"
        if top is None
        else printable(place_of(top.onset_step, top.layer, top.replica_id)) or "-",
        "-" if cause is None else f"{word(cause.cause)} ({cause.confidence:.0%})",
    )


_HEADINGS = ("run", "status", "worst finding", "where", "likely cause")


def _many_as_text(reports: Sequence[tuple[str, DebugReport]]) -> str:
    console, out = console_text(color=False, width=None)
    table = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    for path, report in reports:
        assert report.status in STATUS_STYLES  # noqa: S101 - every status has its style
        table.add_row(*_row(path, report))
    console.print(table)
    for path, report in reports:
        if report.failures or report.unread or report.failed_checks:
            console.print()
            console.rule(printable(path), align="left", characters="-")
            write_report(console, report)
    return out.getvalue().rstrip("\n")


def _many_as_markdown(reports: Sequence[tuple[str, DebugReport]]) -> str:
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    lines += [
        "| " + " | ".join(escaped(cell) for cell in _row(path, report)) + " |"
        for path, report in reports
    ]
    single = Reporter(ReportFormat.MARKDOWN)
    for path, report in reports:
        if report.failures or report.unread or report.failed_checks:
            lines += ["", f"# {escaped(path)}", "", single.render(report)]
    return "\n".join(lines)
