"""``python -m ml_systems_debugger.evaluation RUNS --labels FILE``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..core import MLSystemsDebuggerError, Severity
from ..debugger import MLSystemsDebugger
from .labelled_runs import Evaluation, evaluate, read_labels

_HEAD = ("outcome", "runs", "right", "share", "95 % interval", "onset error (median, max)")


@click.command()
@click.argument("runs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--labels", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--at-least", default="high", type=click.Choice([s.value for s in Severity]))
@click.option("--format", "form", default="text", type=click.Choice(["text", "json"]))
def main(runs: Path, labels: Path | None, config: Path | None, at_least: str, form: str) -> None:
    """Diagnose the labelled runs in the folder RUNS and print how many are judged right.

    LABELS is a JSON object of run names with their outcomes; by default
    ``labels.json`` in RUNS.
    """
    try:
        known = read_labels(runs / "labels.json" if labels is None else labels)
        debugger = MLSystemsDebugger(config=config)
    except (OSError, MLSystemsDebuggerError) as error:
        raise click.UsageError(str(error)) from error
    found = evaluate(runs, known, debugger.debug, Severity(at_least))
    if form == "json":
        click.echo(json.dumps(found.to_dict(), indent=1, allow_nan=False))
        return
    click.echo(_table(found))
    for title, wrong in (("missed", found.missed), ("false alarm", found.false_alarms)):
        for one in wrong:
            modes = ", ".join(f"{mode} {severity}" for mode, severity in one.found.items())
            click.echo(f"{title}: {one.label.name} ({one.label.outcome}): {modes or 'nothing'}")
    for name in found.missing:
        click.echo(f"no file: {name}")


def _table(found: Evaluation) -> str:
    rows = [_HEAD]
    for outcome in found.outcomes:
        counts = found.summary(outcome)
        low, high = counts["interval"]
        error = "-"
        if counts["onsets"]:
            error = f"{counts['onset_error_median']:g}, {counts['onset_error_max']}"
        share = f"{counts['share']:.3f}"
        rows.append(
            (outcome, str(counts["runs"]), str(counts["right"]), share, f"{low:.3f}-{high:.3f}",
             error)
        )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in rows]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
