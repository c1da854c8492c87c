"""``mlsd diagnose``: runs in, verdicts out, exit codes that CI can use."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..configuration import Configuration
from ..core import DebugReport, IngestionError, Status, UnsupportedFormatError
from ..core.verdict import Verdict
from ..debugger import MLSystemsDebugger
from ..ingestion import find_runs
from ..ingestion.lines import lines_of_steps
from ..monitoring.session import diagnose_pieces
from ..reporting import Reporter, ReportFormat, render_many
from ._errors import EXIT_CLEAN, EXIT_FINDINGS, EXIT_INCOMPLETE, UsageFailure, usage_failures
from ._output import NEVER, OUTPUT, FormatName, verdicts_text, write_output, writes_verdicts
from ._runs import Selection, judging_options, mapping_of, run_options

__all__ = ["diagnose", "exit_code"]

LARGE = 1 << 30
"""Bytes from which on a file is judged piece by piece."""
_JUDGED = (Status.HEALTHY, Status.FAILURES)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--format",
    "output_format",
    type=FormatName([f.value for f in ReportFormat]),
    default="text",
    show_default=True,
    help="How to write the report.",
)
@OUTPUT
@judging_options
@run_options
def diagnose(
    paths: tuple[str, ...],
    output_format: str,
    output: str | None,
    fail_on: str | None,
    config: str | None,
    sensitivity: float | None,
    mapping: tuple[str, ...],
    since: int | None,
    metrics: tuple[str, ...],
) -> None:
    """Say what failed in a run, where it began, the likely cause, and what to do.

    PATH is a file, a folder of runs, or - for standard input.

    \b
    Exit codes:
      0  nothing at or above --fail-on
      1  a finding at or above --fail-on
      2  wrong usage, a missing file, no permission, an I/O error
      3  content that cannot be read, or too little of it to judge
    """  # noqa: D301 - click's \b keeps the list as it is
    with usage_failures(config):
        configuration = Configuration.of(config).with_sensitivity(sensitivity)
    runs = _runs(paths)
    debugger = MLSystemsDebugger(config=configuration)
    selection = Selection(mapping_of(mapping), since, metrics)
    reports = []
    with _progress(len(runs)) as advance:
        for run in runs:
            reports.append((run, _report(debugger, run, selection)))
            advance()
    several = len(reports) > 1 or any(Path(p).is_dir() for p in paths if p != "-")
    threshold = fail_on or configuration.fail_on.value
    write_output(_rendered(reports, output_format, output, several, threshold), output)
    sys.exit(exit_code([report for _, report in reports], threshold))


def _runs(paths: Sequence[str]) -> list[str]:
    """Return every run behind the paths; a missing one is an error before any work."""
    found: list[str] = []
    for path in paths:
        if path == "-":
            found.append(path)
            continue
        with usage_failures(path):
            Path(path).stat()
            runs = find_runs(path) if Path(path).is_dir() else [path]
        if not runs:
            raise UsageFailure(f"{path}: no run data in this folder")
        found.extend(str(run) for run in runs)
    return found


def _report(debugger: MLSystemsDebugger, run: str, selection: Selection) -> DebugReport:
    try:
        with usage_failures(run):
            report = _judged(debugger, run, selection)
    except IngestionError as error:
        # Unreadable content is a result of its own: it is listed beside the other runs.
        click.echo(f"mlsd: {error}", err=True)
        return DebugReport(
            time.time(),
            summary=f"Nothing was judged: {error}",
            status=Status.INCOMPLETE,
            unread=[str(error)],
            metadata={"source": run},
        )
    if report.status not in _JUDGED:
        click.echo(f"mlsd: {run}: {report.summary}", err=True)
    return report


def _judged(debugger: MLSystemsDebugger, run: str, selection: Selection) -> DebugReport:
    """Judge a run whole, or piece by piece where it may not fit into memory."""
    if run != "-" and Path(run).is_file() and Path(run).stat().st_size >= LARGE:
        mapping = dict(selection.mapping) or None
        with contextlib.suppress(UnsupportedFormatError):  # of a kind that is read whole
            return diagnose_pieces(run, mapping=mapping, debugger=debugger, narrow=selection.narrow)
    return debugger.debug(selection.read(run))


def _rendered(
    reports: Sequence[tuple[str, DebugReport]],
    output_format: str,
    output: str | None,
    several: bool,
    fail_on: str,
) -> str:
    if writes_verdicts(output_format):
        verdicts = [_with_lines(report.to_verdict(path)) for path, report in reports]
        return verdicts_text(verdicts, output_format, fail_on)
    terminal = output is None and sys.stdout.isatty()
    color = terminal and output_format == ReportFormat.TEXT.value
    if several:
        return render_many(reports, output_format, color=color)
    reporter = Reporter(output_format)
    return reporter.render(reports[0][1], color=True) if color else reporter.render(reports[0][1])


def _with_lines(verdict: Verdict) -> Verdict:
    """Return the verdict with the lines of its file where the onsets stand, as far as known."""
    steps = {s for n in verdict.notices if type(s := n.evidence.get("onset_step")) is int}
    lines = {} if verdict.path == "-" else lines_of_steps(verdict.path, steps)
    notices = [
        replace(n, line=n.line or lines.get(n.evidence.get("onset_step", -1)))
        for n in verdict.notices
    ]
    return replace(verdict, notices=notices)


def exit_code(reports: Sequence[DebugReport], fail_on: str) -> int:
    """Return what the command ends with: a finding at or above `fail_on` counts first."""
    worst = [r.worst_severity for r in reports if r.worst_severity is not None]
    if fail_on != NEVER and any(severity >= fail_on for severity in worst):
        return EXIT_FINDINGS
    if any(r.status not in _JUDGED or r.unread or r.failed_checks for r in reports):
        return EXIT_INCOMPLETE
    return EXIT_CLEAN


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr, only on a terminal and only for several runs."""
    console = Console(stderr=True)
    if total < 2 or not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("diagnosing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("diagnosing", total=total)
        yield lambda: progress.advance(task)
