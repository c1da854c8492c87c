"""``mlsd ingest`` and ``mlsd compare``: runs in one form, runs side by side."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from ..core import (
    Series,
    SeriesKey,
    SeriesKind,
    SignalSet,
    canonical,
    qualified,
)
from ..core.files import written_whole
from ..core.optional import pyarrow_for
from ..core.parting import common_places
from ..ingestion import find_runs
from ._errors import EXIT_CLEAN, EXIT_FINDINGS, EXIT_INCOMPLETE, reading, usage_failures, writing
from ._output import output_options, write_output
from ._runs import Selection, mapping_of, run_options

__all__ = ["compare", "describe", "ingest"]

_NUMBERS = (SeriesKind.SCALAR, SeriesKind.DIGEST)


@click.command()
@click.argument("path", metavar="PATH")
@output_options("jsonl", "csv", "parquet", say="What to write.")
@run_options
def ingest(
    path: str,
    form: str,
    output: str | None,
    mapping: tuple[str, ...],
    since: int | None,
    metrics: tuple[str, ...],
) -> None:
    """Write any run in one form: a row for each step, canonical names, nothing left out.

    Of a folder of several runs, the column `run` holds the path of each within it.
    NaN and the infinities stay what they are; what was not logged is absent.
    Arrays and text are not part of it, and are said.
    """
    signals = _read_all(Selection(mapping_of(mapping), since, metrics), path)
    rows = list(_rows(signals))
    if form == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows)
        write_output(text, output)
    elif form == "csv":
        write_output(_csv(rows), output)
    else:
        _parquet(rows, output)
    left = sorted({one.key.name for one in signals.series if one.kind not in _NUMBERS})
    if left:
        click.echo(f"mlsd: no numbers, not written: {', '.join(left)}", err=True)
    for note in signals.unread:
        click.echo(f"mlsd: not read: {note}", err=True)
    sys.exit(EXIT_INCOMPLETE if signals.unread else EXIT_CLEAN)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--rtol", type=click.FloatRange(0), default=1e-3, show_default=True,
              help="What counts as parted for good, as a part of the value.")  # fmt: skip
@output_options("text", "json")
@run_options
def compare(
    paths: tuple[str, ...],
    rtol: float,
    form: str,
    output: str | None,
    mapping: tuple[str, ...],
    since: int | None,
    metrics: tuple[str, ...],
) -> None:
    """Lay runs side by side and name where they part from the first: step and quantity.

    \b
    Exit codes:
      0  all runs have the same quantities with the same values at the same steps
      1  they part somewhere, or one has values that another has not
      2  wrong usage, a missing file, an I/O error
      3  a run cannot be read, or the runs share nothing
    """  # noqa: D301 - click's \b keeps the list as it is
    if len(paths) < 2:
        raise click.UsageError("at least two runs are needed")
    selection = Selection(mapping_of(mapping), since, metrics)
    runs = [_read(selection, path) for path in paths]
    first = _numbers(runs[0])
    results = [
        (path, _parted(first, _numbers(run), rtol))
        for path, run in zip(paths[1:], runs[1:], strict=True)
    ]
    if form == "json":
        terms = {
            "schema_version": "1.0", "reference": paths[0],
            "runs": [{"path": path, **found} for path, found in results],
        }  # fmt: skip
        text = json.dumps(terms, indent=1, allow_nan=False)
    else:
        text = "\n\n".join(_told(paths[0], path, found) for path, found in results)
    write_output(text, output)
    if any(not found["shared"] for _, found in results):
        sys.exit(EXIT_INCOMPLETE)
    parted = any(_differs(found) for _, found in results)
    sys.exit(EXIT_FINDINGS if parted else EXIT_CLEAN)


def _differs(found: dict[str, Any]) -> bool:
    """Return whether anything differs: values, or what has no counterpart."""
    one_sided = found["only_in_reference"] or found["only_here"]
    return bool(found["first"] is not None or found["unmatched"] or one_sided)


def describe(path: str, selection: Selection) -> tuple[str, dict[str, Any]]:
    """Return what is in a run, as text and as JSON terms: ranges, gaps, how often it is logged."""
    signals = _read(selection, path)
    rows = [_series_terms(one) for one in signals.series]
    terms = {
        "schema_version": "1.0", "path": path, "kind": "run",
        "format": str(signals.metadata.get("format", "")), "series": rows,
        "unread": list(signals.unread),
    }  # fmt: skip
    table = Table(box=box.SIMPLE)
    for head in ("series", "values", "steps", "every", "gaps", "min", "max", "last", "not finite"):
        table.add_column(head, justify="left" if head == "series" else "right")
    for row in rows[:200]:
        table.add_row(*(_cell(row[key]) for key in (
            "series", "count", "steps", "every", "gaps", "min", "max", "last", "nonfinite"
        )))  # fmt: skip
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(table)
    lines = [f"{path}: a run of {len(rows)} series ({terms['format']})", capture.get().rstrip()]
    if len(rows) > 200:
        lines.append(f"... and {len(rows) - 200} more series")
    lines += [f"not read: {note}" for note in signals.unread]
    return "\n".join(lines), terms


def _read(selection: Selection, path: str) -> SignalSet:
    with reading(path):
        return selection.read(path)


def _read_all(selection: Selection, path: str) -> SignalSet:
    """Read a run, or all runs of a folder as one set in which each has its name."""
    runs = [path]
    if path != "-" and Path(path).is_dir():
        with reading(path):
            runs = [str(run) for run in find_runs(path)]
    if len(runs) < 2:
        return _read(selection, path)
    series: list[Series] = []
    unread: list[str] = []
    for run in runs:
        found = _read(selection, run)
        name = Path(run).relative_to(path).as_posix()
        for one in found.series:
            own = name if one.key.run is None else f"{name}/{one.key.run}"
            series.append(replace(one, key=one.key._replace(run=own)))
        unread += found.unread
    return SignalSet(series, {"source": path}, unread)


def _series_terms(one: Series) -> dict[str, Any]:
    steps = one.steps
    gaps = np.diff(steps)
    every = int(np.median(gaps)) if len(gaps) else None
    found: dict[str, Any] = {
        "series": str(one.key), "kind": one.kind.value, "count": len(one),
        "steps": f"{steps[0]}-{steps[-1]}" if len(steps) else "", "every": every,
        "gaps": int((gaps > 2 * max(every or 1, 1)).sum()) if len(gaps) else 0,
        "min": None, "max": None, "last": None, "nonfinite": None,
    }  # fmt: skip
    if one.kind is SeriesKind.SCALAR and len(one):
        finite = one.values[np.isfinite(one.values)]
        found["nonfinite"] = len(one) - len(finite)
        last = float(one.values[-1])
        found["last"] = last if math.isfinite(last) else str(last)
        if len(finite):
            found |= {"min": float(finite.min()), "max": float(finite.max())}
    return found


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _rows(signals: SignalSet) -> Iterator[dict[str, Any]]:
    """Yield one row per step, replica, run and restart, in order."""
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in signals.series:
        if one.kind not in _NUMBERS:
            continue
        key = one.key
        name = _written(one)
        whole = one.kind is SeriesKind.DIGEST
        for at, (step, value) in enumerate(
            zip(one.steps.tolist(), one.values.tolist(), strict=True)
        ):
            place = (key.run or "", key.segment, step, str(key.replica_id or ""))
            row = table.setdefault(place, _place(key, step))
            if name in row:  # several values in one step stay several rows
                row = table.setdefault((*place, at), _place(key, step))
            row[name] = int(value) if whole else value
            if one.timestamps is not None and math.isfinite(one.timestamps[at]):
                row.setdefault("timestamp", float(one.timestamps[at]))
    for place in sorted(table, key=lambda p: (p[0], p[1], p[2], p[3], len(p), p[4:])):
        yield table[place]


def _written(one: Series) -> str:
    """Return the name that reads back as this series' key, the training split written out too."""
    key = one.key
    text = qualified(key.name, None if key.split == "train" else key.split, key.layer)
    text = f"train_{text}" if key.split == "train" else text
    back = canonical(text)
    if (back.name, back.split, back.layer) == (key.name, key.split, key.layer):
        return text
    return one.source_name or text  # a name that no table knows is told as it came


def _place(key: SeriesKey, step: int) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step}
    if key.replica_id is not None:
        row["replica_id"] = key.replica_id
    if key.run is not None:
        row["run"] = key.run
    return row


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def _parquet(rows: list[dict[str, Any]], output: str | None) -> None:
    if output is None:
        raise click.UsageError("--format parquet needs --output FILE")
    with usage_failures():
        pa = pyarrow_for("writing parquet")
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in columns})
    with writing(output), written_whole(output) as aside:
        pq.write_table(table, aside)


def _numbers(run: SignalSet) -> dict[SeriesKey, Series]:
    """Return the series by key; the run's own name counts only where keys would be the same."""
    held = [one for one in run.series if one.kind in _NUMBERS and len(one)]
    plain = [one.key._replace(run=None) for one in held]
    alike = len(set(plain)) < len(plain)
    return {(one.key if alike else key): one for one, key in zip(held, plain, strict=True)}


def _parted(a: dict[SeriesKey, Series], b: dict[SeriesKey, Series], rtol: float) -> dict[str, Any]:
    """Return where two runs part: exactly, by more than `rtol`, or because one ends."""
    quantities = [_quantity(key, a[key], b[key], rtol) for key in a if key in b]
    told = [q for q in quantities if q["steps"]]
    parted = [q for q in told if q["parts_at"] is not None]
    parted.sort(key=lambda q: (q["parts_at"], q["quantity"]))
    return {
        "shared": len(told), "only_in_reference": sorted(str(k) for k in a if k not in b),
        "only_here": sorted(str(k) for k in b if k not in a),
        "no_common_step": [q["quantity"] for q in quantities if not q["steps"]],
        "unmatched": sum(sum(q["unmatched"]) for q in quantities),
        "first": parted[0] if parted else None, "quantities": quantities,
    }  # fmt: skip


def _quantity(key: SeriesKey, one: Series, other: Series, rtol: float) -> dict[str, Any]:
    both = common_places(one, other)
    first, for_good = both.first_parting(), both.first_parting(rtol)
    return {
        "quantity": str(key), "steps": len(both),
        "unmatched": [len(one) - len(both), len(other) - len(both)],
        "ends": [int(one.steps[-1]), int(other.steps[-1])],
        "parts_at": None if first is None else int(both.steps[first]),
        "parts_for_good_at": None if for_good is None else int(both.steps[for_good]),
        "last": [_plain(both.a[-1]), _plain(both.b[-1])] if len(both) else [],
    }  # fmt: skip


def _plain(value: Any) -> Any:
    number = value.item()
    return number if not isinstance(number, float) or math.isfinite(number) else str(number)


def _told(reference: str, path: str, found: dict[str, Any]) -> str:
    first = found["first"]
    if not found["shared"]:
        return f"{path} shares no quantity at any step with {reference}: nothing was compared"
    head = f"{path} has the values of {reference} in all {found['shared']} shared quantities"
    if found["unmatched"]:
        head += f", but {found['unmatched']} values have no counterpart"
    if first is not None:
        head = (
            f"{path} parts from {reference} at step {first['parts_at']}, first in "
            f"{first['quantity']}"
        )
    table = Table(box=box.SIMPLE)
    for name in ("quantity", "shared steps", "parts at", "for good at", "last", "last here"):
        table.add_column(name)
    for row in found["quantities"][:100]:
        last = [_cell(v) for v in row["last"]] or ["-", "-"]
        table.add_row(row["quantity"], str(row["steps"]), _cell(row["parts_at"]),
                      _cell(row["parts_for_good_at"]), *last)  # fmt: skip
    console = Console(width=110, color_system=None)
    with console.capture() as capture:
        console.print(table)
    lines = [head, capture.get().rstrip()]
    for key, what in (
        ("only_in_reference", f"only in {reference}"),
        ("only_here", f"only in {path}"),
    ):
        if found[key]:
            lines.append(f"{what}: {', '.join(found[key][:10])}")
    return "\n".join(lines)
