"""``mlsd watch``: a run diagnosed while its job still writes it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.status import Status as Spinner
from rich.text import Text

from ..configuration import Configuration
from ..core import DebugReport, Finding, IngestionError
from ..monitoring.session import Follower
from ..reporting import Reporter, ReportFormat
from ._errors import EXIT_INCOMPLETE, usage_failures
from ._output import NEVER, OUTPUT, write_output
from ._runs import Selection, judging_options, mapping_of, run_options
from .diagnose import exit_code

__all__ = ["watch"]

_COLORS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}


@click.command()
@click.argument("path", metavar="PATH")
@click.option("--interval", type=click.FloatRange(0.01), default=2.0, show_default=True,
              metavar="SECONDS", help="How often to look.")  # fmt: skip
@click.option("--idle", type=click.FloatRange(0), metavar="SECONDS",
              help="End when nothing was written for so long (default: never).")  # fmt: skip
@click.option("--stop", is_flag=True, help="End at the first finding at or above --fail-on.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="Of the findings as they come, and of the report; json "
              "writes one object a line.")  # fmt: skip
@OUTPUT
@judging_options
@run_options
def watch(
    path: str,
    interval: float,
    idle: float | None,
    stop: bool,
    form: str,
    output: str | None,
    fail_on: str | None,
    config: str | None,
    sensitivity: float | None,
    mapping: tuple[str, ...],
    since: int | None,
    metrics: tuple[str, ...],
) -> None:
    """Follow a run while its job writes it; tell each finding as it comes, then report.

    PATH is a CSV, JSON lines, log, TensorBoard or W&B file, a folder of TensorBoard event
    files, or - for what another program prints: python train.py | mlsd watch -

    Ends with Ctrl-C, with --idle or --stop, or when standard input ends.

    \b
    Exit codes:
      0  nothing at or above --fail-on
      1  a finding at or above --fail-on
      2  wrong usage, no permission, an I/O error
      3  content that cannot be read, or too little of it to judge
    """  # noqa: D301 - click's \b keeps the list as it is
    with usage_failures(config):
        configuration = Configuration.of(config).with_sensitivity(sensitivity)
    selection = Selection(mapping_of(mapping), since, metrics)
    threshold = fail_on or configuration.fail_on.value
    follower = Follower(
        path, mapping=dict(selection.mapping) or None, config=configuration, narrow=selection.narrow
    )
    ending = threshold if stop else NEVER
    failed = ""
    try:
        _follow(follower, interval, idle, ending, form)
    except KeyboardInterrupt:
        click.echo("", err=True)
    except (IngestionError, OSError) as error:
        failed = _reason(path, error)
    report = _report(follower, failed, path)
    write_output(_rendered(report, form, output), output)
    sys.exit(exit_code([report], threshold))


def _follow(
    follower: Follower, interval: float, idle: float | None, ending: str, form: str
) -> None:
    """Look again and again, until an end is reached."""
    last_news = time.monotonic()
    with _status() as spinner:
        while True:
            before = follower.tail.position
            found = follower.poll()
            for finding in found:
                _tell(finding, form)
            if ending != NEVER and any(f.severity >= ending for f in found):
                return
            if follower.tail.position > before:
                last_news = time.monotonic()
                if spinner is not None:
                    spinner.update(_progress(follower))
                continue
            if follower.tail.ended:
                return
            if not follower.tail.caught_up():
                continue
            if idle is not None and time.monotonic() - last_news >= idle:
                return
            if follower.tail.path != "-":
                time.sleep(interval)


def _tell(finding: Finding, form: str) -> None:
    if form == "json":
        click.echo(json.dumps({"event": "finding", **finding.to_dict()}, allow_nan=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    line = Text()
    line.append(f"{finding.severity.value:<8} ", _COLORS.get(finding.severity.value, ""))
    line.append(f"{finding.failure_mode!s}: {finding.message}")
    console.print(line)


def _report(follower: Follower, failed: str, path: str) -> DebugReport:
    """Return the report on everything that could be read; what could not is part of it."""
    if not failed:
        try:
            return follower.finish()
        except (IngestionError, OSError) as error:
            failed = _reason(path, error)
    follower.close()
    click.echo(f"mlsd: {failed}", err=True)
    if follower.last_step is None:
        sys.exit(EXIT_INCOMPLETE)
    return follower.report(unread=[failed])


def _reason(path: str, error: Exception) -> str:
    return f"{path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)


def _rendered(report: DebugReport, form: str, output: str | None) -> str:
    if form == "json":
        return json.dumps({"event": "report", **report.to_dict()}, allow_nan=False)
    color = output is None and sys.stdout.isatty()
    reporter = Reporter(ReportFormat.TEXT)
    return reporter.render(report, color=True) if color else reporter.render(report)


def _progress(follower: Follower) -> str:
    step = "no step yet" if follower.last_step is None else f"step {follower.last_step:,}"
    return f"watching: {step}, {follower.tail.position / 1e6:,.1f} MB"


@contextmanager
def _status() -> Iterator[Spinner | None]:
    """Show where the run is, on stderr and only on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status("watching") as spinner:
        yield spinner
