"""What the commands over checkpoints share: errors, exit codes, rendering, the progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .. import checkpoints
from ..checkpoints import CheckpointReport, CheckpointStatus, Options
from ..checkpoints._place import is_remote, place_of, without_secrets
from ..checkpoints.render import render
from ..core import ConfigurationError, MissingDependencyError, MLSystemsDebuggerError
from ._errors import EXIT_CLEAN, EXIT_FINDINGS, EXIT_INCOMPLETE, UsageFailure
from ._output import NEVER, verdicts_text, writes_verdicts

__all__ = [
    "NEVER",
    "check_paths",
    "exit_code",
    "os_reason",
    "progress",
    "rendered",
    "report_of",
]


def check_paths(paths: Sequence[str], options: Options | None = None) -> None:
    """Exit 2 where a path is missing or may not be looked at, before any work."""
    for path in paths:
        try:
            if is_remote(path):
                place_of(path, options.storage_options if options else None)
            else:
                Path(path).stat()
        except (MissingDependencyError, ConfigurationError) as error:  # noqa: PERF203 - as below
            raise UsageFailure(str(error)) from error
        except (OSError, ValueError) as error:
            raise UsageFailure(os_reason(path, error)) from error


def os_reason(path: str, error: Exception) -> str:
    """Return an error of the system with the path that it concerns."""
    if isinstance(error, OSError):
        return f"{error.filename or without_secrets(path)}: {error.strerror or error}"
    return f"{without_secrets(path)}: {error}"


def report_of(
    path: str, run: Callable[[str, Any], CheckpointReport], tell: Any
) -> CheckpointReport:
    """Return the report, or one that says why there is none."""
    try:
        return run(path, tell)
    except KeyboardInterrupt:  # before or after the reading itself
        return CheckpointReport(
            without_secrets(path),
            unread=["interrupted before anything was judged"],
            metadata={"interrupted": True},
        )
    except MissingDependencyError as error:
        raise UsageFailure(str(error)) from error
    except MLSystemsDebuggerError as error:
        # Content that cannot be read is a result of its own: it is listed beside the others.
        click.echo(f"mlsd: {error}", err=True)
        return CheckpointReport(without_secrets(path), unread=[str(error)])
    except OSError as error:
        raise UsageFailure(os_reason(path, error)) from error


def rendered(
    reports: Sequence[CheckpointReport], output_format: str, fail_on: str = NEVER
) -> str | Iterable[str]:
    """Return one report, or several, as one text; a large one in parts."""
    if writes_verdicts(output_format):
        return verdicts_text([r.to_verdict() for r in reports], output_format, fail_on)
    if output_format != "json":
        return "\n\n".join(render(r, output_format) for r in reports)
    if len(reports) == 1:
        return reports[0].json_parts()
    worst = max((r.status for r in reports), key=list(CheckpointStatus).index)
    terms = {
        "schema_version": checkpoints.report.SCHEMA_VERSION,
        "status": worst.value,
        "checkpoints": [{"path": r.path, "report": r.to_dict()} for r in reports],
    }
    return json.dumps(terms, indent=2, allow_nan=False, ensure_ascii=False)


def exit_code(reports: Sequence[CheckpointReport], fail_on: str) -> int:
    """Return what the process ends with."""
    # What was found in a file that changed meanwhile is of no file that is there.
    if any(r.metadata.get("changed") for r in reports):
        return EXIT_INCOMPLETE
    worst = [r.worst_severity for r in reports if r.worst_severity is not None]
    if fail_on != NEVER and any(severity >= fail_on for severity in worst):
        return EXIT_FINDINGS
    if any(r.status is CheckpointStatus.INCOMPLETE for r in reports):
        return EXIT_INCOMPLETE
    return EXIT_CLEAN


@contextmanager
def progress(path: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar with speed and time left on stderr, only on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
               TransferSpeedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(
            checkpoints.shown(Path(without_secrets(path)).name, 40), total=None
        )

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell
