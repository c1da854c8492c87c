"""``mlsd scan``, ``merge``, ``inspect`` and ``diff``: checkpoints in, verdicts out."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from .. import checkpoints
from ..checkpoints import Options
from ..checkpoints.render import render, render_diff, render_tensors
from ..core import MissingDependencyError, MLSystemsDebuggerError, Severity, UnsupportedFormatError
from ._checkpoints import (
    NEVER,
    check_paths,
    exit_code,
    os_reason,
    progress,
    rendered,
    report_of,
)
from ._errors import EXIT_CLEAN, EXIT_FINDINGS, EXIT_INCOMPLETE, UsageFailure, unreadable
from ._output import VERDICT_FORMATS, FormatName, verdicts_text, write_output, writes_verdicts
from ._runs import Selection, mapping_of, run_options

__all__ = ["diff", "inspect", "merge", "scan"]

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_FORMAT = FormatName(("text", "json", "markdown", *VERDICT_FORMATS), of_verdicts=True)
_EXIT_CODES = """
    \b
    Exit codes:
      0  all was read, nothing at or above --fail-on
      1  a finding at or above --fail-on
      2  wrong usage, a missing file, no permission, an I/O error
      3  content that cannot be read, is not supported, or changed while it was read
"""


def _storage_options(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    parameter: click.Parameter,  # noqa: ARG001
    text: str | None,
) -> dict[str, Any]:
    """Return the JSON object of an option, or of the file that ``@FILE`` names."""
    if text is None:
        return {}
    try:
        found = json.loads(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except OSError as error:
        raise click.BadParameter(f"{text[1:]}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # the text may hold a secret: not shown
        raise click.BadParameter("not a JSON object") from error
    if not isinstance(found, dict):
        raise click.BadParameter("not a JSON object")
    return found


def _options(*more: _Decorator) -> _Decorator:
    """Return a decorator with the options that all commands share, and `more`."""
    shared: list[_Decorator] = [
        click.option(
            "--format", "output_format", type=_FORMAT, default="text",
            show_default=True, help="How to write the report.",
        ),
        click.option("--output", metavar="FILE", help="Write here instead of standard output."),
        click.option(
            "--include", multiple=True, metavar="GLOB", help="Only tensors of these names."
        ),
        click.option(
            "--exclude", multiple=True, metavar="GLOB", help="Leave tensors of these names out."
        ),
        click.option("--inflate", is_flag=True, help="Read compressed archive members too."),
        click.option(
            "--follow-links", is_flag=True,
            help="Let links lead out of the checkpoint's folder, as download caches need.",
        ),
        click.option(
            "--direct", "access", flag_value="direct",
            help="Read past the page cache: for files larger than memory that are read once.",
        ),
        click.option(
            "--mmap", "access", flag_value="mmap",
            help="Read without a copy. Only for files that nobody writes: one that is cut "
            "meanwhile ends the process with SIGBUS, without a report.",
        ),
        click.option(
            "--storage-options", metavar="JSON", callback=_storage_options,
            help="For the filesystem behind a URL, as '{\"endpoint_url\": \"...\"}' or @FILE with "
            "that; credentials come from the environment without it.",
        ),
    ]  # fmt: skip

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(
            inflate: bool, follow_links: bool, access: str | None, storage_options: Any, **rest: Any
        ) -> Any:
            options = Options(
                inflate=inflate, follow_links=follow_links, access=access or "pread",
                storage_options=storage_options,
            )  # fmt: skip
            return function(options=options, **rest)

        decorated: Callable[..., Any] = command
        for decorate in reversed([*shared, *more]):
            decorated = decorate(decorated)
        return decorated

    return apply


_FAIL_ON: _Decorator = click.option(
    "--fail-on", type=click.Choice([*(s.value for s in Severity), NEVER]), default="high",
    show_default=True, help="Exit 1 from this severity on; 'never' to look only.",
)  # fmt: skip
_WORKERS: _Decorator = click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N",
    help="Threads that read and measure (default: two per core).",
)  # fmt: skip


@click.command(epilog=_EXIT_CODES)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--shard", metavar="I/N", help="Do only this share of the work; `mlsd merge` puts it together."
)
@click.option(
    "--engine", type=click.Choice(("local", "ray", "dask")), default="local", show_default=True,
    help="Where the shares of the scan run: the cluster that RAY_ADDRESS or "
    "DASK_SCHEDULER_ADDRESS names, or one on this machine.",
)  # fmt: skip
@click.option(
    "--shares", type=click.IntRange(1, 100_000), metavar="N",
    help="Shares that a cluster's engine cuts the scan into (default: one for each of its CPUs).",
)  # fmt: skip
@click.option(
    "--ranges", is_flag=True,
    help="Count the exponents of every value too, and what float16, bfloat16 and 8-bit floats "
    "would lose: a pass of its own.",
)  # fmt: skip
@_options(_FAIL_ON, _WORKERS)
def scan(
    paths: tuple[str, ...],
    shard: str | None,
    engine: str,
    shares: int | None,
    ranges: bool,
    output_format: str,
    output: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    options: Options,
    fail_on: str,
    workers: int | None,
) -> None:
    """Say whether a checkpoint is sound: look at every value, run none of its code.

    PATH is a file or a folder: safetensors, torch, torch.distributed, DeepSpeed,
    GGUF, npy or npz, found by content; or the URL of one (s3://, gs://, https://).
    """
    options = dataclasses.replace(options, ranges=ranges)
    chosen: dict[str, Any] = {
        "include": include, "exclude": exclude, "workers": workers, "options": options
    }  # fmt: skip
    check_paths(paths, options)
    if shard is not None and engine != "local":
        raise click.UsageError("--shard does one share here; --engine cuts the shares by itself")
    if shares is not None and engine == "local":
        raise click.UsageError("--shares goes with --engine ray or dask")
    if shard is not None:
        _scan_shard(paths, _shard(shard), chosen, output)
        return
    run: Callable[..., Any] = functools.partial(checkpoints.scan, **chosen)
    if engine != "local":
        run = functools.partial(checkpoints.scan_on, engine=engine, shares=shares, **chosen)
    reports = []
    for path in paths:
        with progress(path) as tell:
            reports.append(report_of(path, lambda p, t: run(p, progress=t), tell))
        if reports[-1].metadata.get("interrupted"):
            break
    write_output(rendered(reports, output_format, fail_on), output)
    sys.exit(exit_code(reports, fail_on))


@click.command(epilog=_EXIT_CODES)
@click.argument("results", nargs=-1, required=True, metavar="RESULT...")
@click.option("--format", "output_format", type=_FORMAT, default="text",
              show_default=True, help="How to write the report.")  # fmt: skip
@click.option("--output", metavar="FILE", help="Write here instead of standard output.")
@_FAIL_ON
def merge(results: tuple[str, ...], output_format: str, output: str | None, fail_on: str) -> None:
    """Put the results of `mlsd scan --shard I/N` together: the report of one whole scan."""
    check_paths(results)
    shards = []
    for path in results:
        try:
            shards.append(json.loads(Path(path).read_bytes()))
        except OSError as error:  # noqa: PERF203 - each has an error of its own
            raise UsageFailure(f"{path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            unreadable(f"{path}: not a shard's result: {error}")
    try:
        report = checkpoints.merge(shards)
    except MLSystemsDebuggerError as error:
        unreadable(str(error))
    write_output(rendered([report], output_format, fail_on), output)
    sys.exit(exit_code([report], fail_on))


@click.command(epilog=_EXIT_CODES)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@run_options
@_options()
def inspect(
    paths: tuple[str, ...],
    output_format: str,
    output: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    options: Options,
    mapping: tuple[str, ...],
    since: int | None,
    metrics: tuple[str, ...],
) -> None:
    """List what a checkpoint or a run holds: tensors without reading the data, or series.

    Which of the two PATH is, its content says. --map, --since and --metrics are for runs.
    """
    check_paths(paths, options)
    chosen: dict[str, Any] = {"include": include, "exclude": exclude, "options": options}
    runs = [path for path in paths if _is_run(path)]
    if runs:
        selection = Selection(mapping_of(mapping), since, metrics)
        _inspect_runs(runs, selection, output_format, output)
        paths = tuple(path for path in paths if path not in runs)
        if not paths:
            return
    reports = [
        report_of(path, lambda p, _: checkpoints.inspect(p, **chosen), None) for path in paths
    ]
    if output_format == "text":
        text: str | Iterable[str] = "\n\n".join(
            "\n".join([render(r, "text").partition("\n\nTensors:")[0], "",
                       *render_tensors(list(r.tensors))]) for r in reports
        )  # fmt: skip
    else:
        text = rendered(reports, output_format)
    write_output(text, output)
    sys.exit(exit_code(reports, NEVER))


def _is_run(path: str) -> bool:
    """Return whether a path is no checkpoint, and something that `mlsd diagnose` reads."""
    from ..ingestion import find_runs, is_run_data

    if "://" in path:
        return False
    try:
        checkpoints.find_format(Path(path))
    except UnsupportedFormatError:
        # A folder of runs is one where any is; a single file tells by its content.
        return bool(find_runs(path)) if Path(path).is_dir() else is_run_data(path)
    except (MLSystemsDebuggerError, OSError):
        return False
    return False


def _inspect_runs(
    paths: Sequence[str], selection: Selection, output_format: str, output: str | None
) -> None:
    from ..ingestion import find_runs
    from .runs import describe

    if output_format not in ("text", "json"):
        raise click.UsageError("what a run holds is written as text or json")
    runs = [str(run) for path in paths for run in find_runs(path)]
    told = [describe(run, selection) for run in runs]
    if output_format == "json":
        terms = [one for _, one in told]
        text = json.dumps(terms[0] if len(terms) == 1 else terms, indent=1, allow_nan=False)
    else:
        text = "\n\n".join(one for one, _ in told)
    write_output(text, output)
    if any(one["unread"] for _, one in told):
        sys.exit(EXIT_INCOMPLETE)


@click.command(epilog=_EXIT_CODES)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@_options(_FAIL_ON, _WORKERS)
def diff(
    a: str,
    b: str,
    output_format: str,
    output: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    options: Options,
    fail_on: str,
    workers: int | None,
) -> None:
    """Say what changed from checkpoint A to checkpoint B, the most changed tensors first."""
    check_paths((a, b), options)
    try:
        result = checkpoints.diff(
            a, b, include=include, exclude=exclude, workers=workers or 2,
            options=options,
        )  # fmt: skip
    except MLSystemsDebuggerError as error:
        unreadable(str(error))
    except OSError as error:
        raise UsageFailure(os_reason(a, error)) from error
    if output_format == "json":
        text = json.dumps(result.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
    elif writes_verdicts(output_format):
        text = verdicts_text([result.to_verdict()], output_format, fail_on)
    else:
        text = render_diff(result, output_format)
    write_output(text, output)
    worst = result.worst_severity
    if fail_on != NEVER and worst is not None and worst >= fail_on:
        sys.exit(EXIT_FINDINGS)
    sys.exit(EXIT_INCOMPLETE if result.unread else EXIT_CLEAN)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"I/N with I from 1 to N, got {text!r}", param_hint="--shard")
    return int(match[1]), int(match[2])


def _scan_shard(
    paths: Sequence[str], shard: tuple[int, int], chosen: dict[str, Any], output: str | None
) -> None:
    if len(paths) != 1:
        raise click.UsageError("--shard takes one PATH")
    try:
        with progress(paths[0]) as tell:
            result = checkpoints.scan_shard(paths[0], shard, progress=tell, **chosen)
    except MissingDependencyError as error:
        raise UsageFailure(str(error)) from error
    except MLSystemsDebuggerError as error:
        unreadable(str(error))
    except OSError as error:
        raise UsageFailure(os_reason(paths[0], error)) from error
    write_output(json.dumps(result, allow_nan=False), output)
    sys.exit(EXIT_INCOMPLETE if result["unread"] or result["interrupted"] else EXIT_CLEAN)
