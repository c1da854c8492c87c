"""A skew report as text or Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from .report import FeatureComparison, SkewReport

__all__ = ["render"]

_MOST = 40
_ADVICE = {
    "unit_change": "Check that both pipelines use one unit, and that the scaler is applied.",
    "scale": "Check normalisation: the spread differs while the centre may not.",
    "shift": "Look when it began to move; if it is the world that changed, retrain.",
    "shape": "Compare the raw values on both sides.",
    "range": "Values outside the range of training: check units, limits and new sources.",
    "constant": "One value for every row: a default is filled in, or a join finds nothing.",
    "nulls": "Check the source of this column and how missing values are filled in training.",
    "nonfinite": "A division by zero or an overflow in the serving pipeline.",
    "clipped": "A limit cuts values off: apply it in training too, or take it away.",
    "default_value": "One value stands in for others: find where it is filled in.",
    "rounding": "Values lose digits on the way: check types and serialisation.",
    "swapped_columns": "Columns are read in another order: bind them by name.",
    "new_category": "Categories that training never saw: check spelling and encoding first.",
    "missing_column": "The model was trained on it: serving must supply it.",
    "retyped": "Another type of value: check the schema of the serving pipeline.",
}


def render(report: SkewReport, output_format: str) -> str:
    """Return the report as ``text`` or ``markdown``."""
    mark = output_format == "markdown"
    meta = report.metadata
    rows = (
        f"{meta.get('reference_rows', 0):,} rows of reference, "
        f"{meta.get('serving_rows', 0):,} of serving"
    )
    lines = [
        f"{'# ' if mark else ''}Skew: {report.status.replace('_', ' ')}",
        "",
        f"{len(report.skewed)} of {len(report.features)} features differ ({rows}).",
    ]
    skewed = report.skewed
    if skewed:
        lines.append("")
    for one in skewed[:_MOST]:
        lines += _entry(one, mark)
    if len(skewed) > _MOST:
        lines.append(f"... and {len(skewed) - _MOST} more.")
    lines += _rest(report)
    rule = (
        f"Judged with a false-discovery rate of {meta.get('q')} over the features, and an effect "
        f"of at least {meta.get('effect')} robust deviations (0.02 of the rows for shares)."
    )
    return "\n".join([*lines, "", rule])


def _entry(one: FeatureComparison, mark: bool) -> Iterator[str]:
    severity = "" if one.severity is None else one.severity.value
    yield f"- **{severity}** {one}" if mark else f"[{severity}] {one}"
    advice = _ADVICE.get(one.kind)
    if advice:
        yield f"  {'  ' if not mark else ''}{advice}"


def _rest(report: SkewReport) -> Iterator[str]:
    for kind, what in (
        ("insufficient_data", "Too few rows to judge"),
        ("added_column", "Only in serving"),
    ):
        names = [one.name for one in report.features if one.kind == kind]
        if names:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            yield ""
            yield f"{what}: {', '.join(names[:10])}{more}"
