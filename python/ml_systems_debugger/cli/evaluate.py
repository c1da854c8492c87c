"""``mlsd evaluate``, ``calibrate``, ``feedback``: how good the diagnoses are on one's own runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from ..attribution.calibration import default_calibration
from ..configuration import Configuration
from ..core import ConfigurationError, DebugReport, Severity
from ..debugger import MLSystemsDebugger
from ..evaluation import (
    Baselines,
    Evaluation,
    evaluate,
    learn,
    learn_baselines,
    read_labels,
    record,
    reliability,
)
from ._errors import (
    EXIT_CLEAN,
    EXIT_FINDINGS,
    EXIT_INCOMPLETE,
    UsageFailure,
    reading,
    usage_failures,
)
from ._output import output_options, write_output

__all__ = ["calibrate", "evaluate_runs", "feedback"]

_RUNS = click.argument("runs", type=click.Path(path_type=Path), metavar="RUNS")
_LABELS = click.option("--labels", metavar="FILE",
                       help="JSON object of run names (default: labels.json in RUNS).")  # fmt: skip
_AT_LEAST = click.option("--at-least", default="medium", show_default=True,
                         type=click.Choice([s.value for s in Severity]),
                         help="What counts as an alarm.")  # fmt: skip


@click.command(name="evaluate")
@_RUNS
@_LABELS
@click.option("--config", "configs", multiple=True, metavar="FILE.toml",
              help="Configuration to judge; several are laid side by side.")  # fmt: skip
@_AT_LEAST
@output_options("text", "json")
def evaluate_runs(
    runs: Path,
    labels: str | None,
    configs: tuple[str, ...],
    at_least: str,
    form: str,
    output: str | None,
) -> None:
    """Judge the diagnoses of labelled runs: recall, false alarms, onsets, causes, confidence.

    \b
    Exit codes:
      0  every faulty run was found and no healthy one alarmed
      1  something was missed or a false alarm
      2  wrong usage, a missing file, an I/O error
      3  a labelled run has no file or could not be read
    """  # noqa: D301 - click's \b keeps the list as it is
    found = [(config, _evaluated(runs, labels, config, at_least)) for config in configs or (None,)]
    if form == "json":
        terms = [{"config": config, **_terms(one)} for config, one in found]
        text = json.dumps(terms[0] if len(terms) == 1 else terms, indent=1, allow_nan=False)
    else:
        text = "\n\n".join(_text(config, one) for config, one in found)
    write_output(text, output)
    if any(one.missing for _, one in found):
        sys.exit(EXIT_INCOMPLETE)
    wrong = any(one.missed or one.false_alarms for _, one in found)
    sys.exit(EXIT_FINDINGS if wrong else EXIT_CLEAN)


@click.command()
@_RUNS
@_LABELS
@click.option("--config", metavar="FILE.toml", help="Parameters of the detectors.")
@_AT_LEAST
@click.option("--output", metavar="FILE", required=True, help="Where to write the calibration.")
def calibrate(
    runs: Path, labels: str | None, config: str | None, at_least: str, output: str
) -> None:
    """Learn on labelled runs what confidences of causes are worth, and what is usual.

    Runs with known causes teach the calibration of confidences (twenty at least;
    with fewer the shipped one is kept); ten healthy runs or more teach how
    sensitive each detector can be without alarming on more than 2 % of them.
    The file that it writes is used with ``calibration = "FILE"`` in the
    configuration.
    """
    found = _evaluated(runs, labels, config, at_least, raw=True)
    with usage_failures():
        known = read_labels(runs / "labels.json" if labels is None else labels)
        usual = learn_baselines(runs, known, Configuration.of(config), Severity(at_least))
        try:
            learnt = learn(found)
        except ConfigurationError as error:
            if usual is None:
                raise
            click.echo(f"the shipped calibration of confidences is kept: {error}", err=True)
            learnt = default_calibration()
    terms = {**learnt.to_dict(), **({} if usual is None else usual.to_dict())}
    write_output(json.dumps(terms, indent=1), output)
    if usual is not None:
        click.echo(_usual_text(usual), err=True)
    before, after = reliability(found), reliability(found, learnt)
    if before is not None and after is not None:
        click.echo(
            f"{before.predictions} causes: Brier {before.brier:.3f} before, {after.brier:.3f} "
            f"after, on the runs it was learnt from; judge it on others",
            err=True,
        )


@click.command()
@click.argument("report", type=click.Path(path_type=Path), metavar="REPORT.json")
@click.option("--labels", required=True, metavar="FILE", help="Where the labels are kept.")
@click.option("--confirm", "confirmed", multiple=True, metavar="MODE", help="A finding was right.")
@click.option("--dismiss", "dismissed", multiple=True, metavar="MODE", help="It was none.")
@click.option("--cause", metavar="CAUSE", help="The true root cause.")
@click.option("--run", metavar="NAME", help="Name of the run (default: from the report).")
def feedback(
    report: Path,
    labels: str,
    confirmed: tuple[str, ...],
    dismissed: tuple[str, ...],
    cause: str | None,
    run: str | None,
) -> None:
    """Record whether findings of a report were right, for `evaluate` and `calibrate`."""
    if not confirmed and not dismissed:
        raise click.UsageError("give --confirm MODE or --dismiss MODE")
    try:
        told = DebugReport.from_json(report.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageFailure(f"{report}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageFailure(f"{report}: not a report of `mlsd diagnose`: {error}") from error
    onsets = {str(d.failure_mode): d.onset_step for d in told.failures}
    name = run or _run_name(told)
    with usage_failures(labels):
        for mode in (*confirmed, *dismissed):
            if mode not in onsets:
                known = ", ".join(onsets) or "nothing"
                raise UsageFailure(f"{report}: it found no {mode!r}; it found {known}")
            right = mode in confirmed
            record(labels, name, mode, confirmed=right, cause=cause if right else None,
                   onset_step=onsets[mode] if right else None)  # fmt: skip
    click.echo(f"{name}: recorded in {labels}", err=True)


def _usual_text(usual: Baselines) -> str:
    """Return what healthy runs taught, in one line."""
    if not usual.sensitivities:
        return f"{usual.runs} healthy runs: no detector alarms on too many of them"
    told = (
        f"{name} at {value:g} ({usual.alarms[name][0]} alarms before, {usual.alarms[name][1]} then)"
        for name, value in usual.sensitivities.items()
    )
    return f"{usual.runs} healthy runs: less sensitive are {', '.join(told)}"


def _run_name(report: DebugReport) -> str:
    source = report.metadata.get("source")
    if not isinstance(source, str) or not Path(source).name:
        raise UsageFailure("the report does not say of which run it is: give --run NAME")
    return Path(source).name.split(".")[0]


def _evaluated(
    runs: Path, labels: str | None, config: str | None, at_least: str, raw: bool = False
) -> Evaluation:
    if not runs.is_dir():
        raise UsageFailure(f"{runs}: no such folder")
    with reading():
        known = read_labels(runs / "labels.json" if labels is None else labels)
        debugger = MLSystemsDebugger(config=config)
        if raw:
            debugger = MLSystemsDebugger(config=debugger.config.uncalibrated())
        return evaluate(runs, known, debugger.debug, Severity(at_least))


def _terms(found: Evaluation) -> dict[str, Any]:
    held = reliability(found)
    terms = found.to_dict()
    terms["confidence"] = None if held is None else {
        "predictions": held.predictions, "brier": held.brier, "ece": held.ece,
        "bins": [list(one) for one in held.bins],
    }  # fmt: skip
    return terms


def _text(config: str | None, found: Evaluation) -> str:
    table = Table(box=box.SIMPLE, title=config or "default configuration", title_justify="left")
    for head in (
        "outcome",
        "runs",
        "right",
        "share",
        "95 % interval",
        "onset error",
        "cause right",
    ):
        table.add_column(head)
    for outcome in found.outcomes:
        counts = found.summary(outcome)
        low, high = counts["interval"]
        onset = "-"
        if counts["onsets"]:
            onset = f"{counts['onset_error_median']:g} (at most {counts['onset_error_max']})"
        causes = f"{counts['causes_right']} of {counts['causes']}" if counts["causes"] else "-"
        table.add_row(outcome, str(counts["runs"]), str(counts["right"]),
                      f"{counts['share']:.3f}", f"{low:.3f}-{high:.3f}", onset, causes)  # fmt: skip
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    lines = [capture.get().rstrip()]
    held = reliability(found)
    if held is not None:
        lines.append(
            f"confidence of {held.predictions} causes: Brier {held.brier:.3f}, expected "
            f"calibration error {held.ece:.3f}"
        )
    lines += _wrong("missed", found.missed)
    lines += _wrong("false alarm", found.false_alarms)
    lines += [f"no file: {name}" for name in found.missing]
    return "\n".join(lines)


def _wrong(title: str, wrong: Sequence[Any]) -> list[str]:
    lines = []
    for one in wrong[:50]:
        modes = ", ".join(f"{mode} {severity}" for mode, severity in one.found.items())
        lines.append(f"{title}: {one.label.name} ({one.label.outcome}): {modes or 'nothing'}")
    if len(wrong) > 50:
        lines.append(f"{title}: {len(wrong) - 50} more")
    return lines
