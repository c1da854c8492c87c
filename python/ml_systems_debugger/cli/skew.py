"""``mlsd skew`` and ``mlsd profile``: training data against serving data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..core import Severity
from ..distributions import Profile, SkewReport, compare_distributions
from ..distributions.render import render
from ._errors import EXIT_CLEAN, EXIT_FINDINGS, EXIT_INCOMPLETE, reading, usage_failures, writing
from ._output import OUTPUT, write_output

__all__ = ["profile", "skew"]

_NEVER = "never"
_CATEGORICAL = click.option(
    "--categorical", multiple=True, metavar="NAME",
    help="A feature whose numbers are names of categories; may be repeated.",
)  # fmt: skip


@click.command()
@click.argument("reference", metavar="REFERENCE")
@click.argument("serving", metavar="SERVING")
@click.option("--format", "output_format", type=click.Choice(["text", "json", "markdown"]),
              default="text", show_default=True, help="How to write the report.")  # fmt: skip
@OUTPUT
@click.option("--fail-on", type=click.Choice([*(s.value for s in Severity), _NEVER]),
              default="medium", show_default=True,
              help="Exit 1 from this severity on; 'never' to look only.")  # fmt: skip
@click.option("--q", type=click.FloatRange(0, 1), default=0.01, show_default=True,
              help="False-discovery rate over the features.")  # fmt: skip
@click.option("--effect", type=click.FloatRange(0, min_open=True), default=0.1, show_default=True,
              help="What is large, in robust standard deviations.")  # fmt: skip
@_CATEGORICAL
def skew(
    reference: str,
    serving: str,
    output_format: str,
    output: str | None,
    fail_on: str,
    q: float,
    effect: float,
    categorical: tuple[str, ...],
) -> None:
    """Say which features of SERVING differ from REFERENCE, how much, and how.

    Both are tables: CSV, Parquet, Arrow, npy or npz. REFERENCE may be a profile
    that `mlsd profile` saved.

    \b
    Exit codes:
      0  nothing at or above --fail-on
      1  a feature at or above --fail-on
      2  wrong usage, a missing file, no permission, an I/O error
      3  content that cannot be read, or too few rows to judge
    """  # noqa: D301 - click's \b keeps the list as it is
    report: SkewReport = _read(
        compare_distributions, (reference, serving), q=q, effect=effect, categorical=categorical
    )
    text = report.to_json() if output_format == "json" else render(report, output_format)
    write_output(text, output)
    worst = report.worst_severity
    if fail_on != _NEVER and worst is not None and worst >= fail_on:
        sys.exit(EXIT_FINDINGS)
    unsure = report.status == "insufficient_data" or report.metadata["not_judged"]
    sys.exit(EXIT_INCOMPLETE if unsure else EXIT_CLEAN)


@click.command()
@click.argument("table", metavar="TABLE")
@click.option("--output", metavar="FILE", required=True, help="Where to write the profile (JSON).")
@_CATEGORICAL
def profile(table: str, output: str, categorical: tuple[str, ...]) -> None:
    """Save what TABLE looks like, so that serving data can be compared without it.

    The profile has counts, quantiles and common categories, no rows.
    """
    found: Profile = _read(Profile.of, (table,), categorical=categorical)
    with writing(output):
        found.save(output)
    click.echo(f"{len(found.features)} features of {found.rows:,} rows in {output}", err=True)


def _read(work: Any, paths: tuple[str, ...], **options: Any) -> Any:
    for path in paths:
        with usage_failures(path), Path(path).open("rb"):
            pass
    with reading(unnamed=paths[0]):
        return work(*paths, **options)
