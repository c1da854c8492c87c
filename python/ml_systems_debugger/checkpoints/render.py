"""A checkpoint report as text or Markdown: readable at ten tensors and at ten thousand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod

from ..core.shown import shown
from ._families import template
from ._roles import natural, roles
from .changes import CheckpointDiff
from .finding import CheckpointFinding
from .report import CheckpointReport
from .table import TensorRecord, TensorTable

__all__ = ["human_bytes", "render", "render_diff", "render_tensors"]

MAX_GROUPS = 40
MAX_LISTED = 25
MAX_UNREAD = 20


def human_bytes(count: float) -> str:
    """Return a number of bytes in the unit that fits.

    Examples
    --------
    >>> human_bytes(4_290_000_000)
    '4.29 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def render(report: CheckpointReport, output_format: str) -> str:
    """Return the report as ``text`` or ``markdown``."""
    bold = "**" if output_format == "markdown" else ""
    lines = [f"{'# ' if bold else ''}{shown(report.path, 4096)}: {report.status.value}", ""]
    lines.extend(_summary(report))
    for heading, body in (
        ("Findings", list(_findings(report.findings, bold))),
        ("Not read", _unread(report.unread)),
        ("Tensors", list(_tensors(report.tensors, bool(bold)))),
    ):
        if body:
            lines += [
                "",
                f"## {heading}" if bold else f"{heading}:",
                *([""] if bold else []),
                *body,
            ]
    return "\n".join(lines)


def _summary(report: CheckpointReport) -> Iterator[str]:
    if not report.files and not len(report.tensors) and report.unread:
        yield "Nothing could be read."
        return
    size = sum(f.bytes for f in report.files)
    read = sum(f.scanned_bytes for f in report.files)
    # A table has the names of the types without making a record of every tensor.
    kinds = (
        report.tensors.tensors.kinds()
        if isinstance(report.tensors, TensorTable)
        else Counter(t.dtype for t in report.tensors)
    )
    what = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(6))
    count = len(report.tensors)
    yield (
        f"{report.metadata.get('format', '')}: {count} tensor{'s' if count != 1 else ''} "
        f"({what or 'none'}) "
        f"in {len(report.files)} file{'s' if len(report.files) != 1 else ''}, {human_bytes(size)}"
    )
    seconds = report.metadata.get("seconds")
    if seconds:
        yield f"read {human_bytes(read)} in {seconds:.3g} s ({human_bytes(read / seconds)}/s)"
    if not report.findings and not report.unread:
        yield "Nothing was found."


def _findings(findings: Sequence[CheckpointFinding], bold: str) -> Iterator[str]:
    """One entry for each code and family; the first tensors of a family are named."""

    def key(finding: CheckpointFinding) -> tuple[int, str, str]:
        return (-finding.severity.rank, finding.code, template(finding.tensor or ""))

    groups = [list(members) for _, members in groupby(sorted(findings, key=key), key)]
    for members in groups[:MAX_GROUPS]:
        members.sort(key=lambda f: natural(f.tensor or ""))
        first = members[0]
        where = "" if first.tensor is None else f"{shown(first.tensor)}: "
        head = f"{first.severity.value} {first.code}"
        prefix = "- " if bold else "  "
        yield f"{prefix}{bold}{head}{bold}  {where}{first.message}"
        if len(members) > 1:
            others = ", ".join(shown(m.tensor or m.message) for m in members[1:4])
            more = f", and {len(members) - 4} more" if len(members) > 4 else ""
            yield f"{prefix}  the same in {others}{more}"
    if len(groups) > MAX_GROUPS:
        left = sum(len(g) for g in groups[MAX_GROUPS:])
        yield f"  ... and {left} more findings; --format json lists all"


def _unread(unread: Sequence[str]) -> list[str]:
    lines = [f"  {sentence}" for sentence in unread[:MAX_UNREAD]]
    if len(unread) > MAX_UNREAD:
        lines.append(f"  ... and {len(unread) - MAX_UNREAD} more")
    return lines


def _tensors(tensors: Sequence[TensorRecord], markdown: bool) -> Iterator[str]:
    if 0 < len(tensors) <= MAX_LISTED:
        yield from render_tensors(tensors, markdown)
    elif len(tensors):
        yield from _roles(tensors, markdown)


def _roles(tensors: Sequence[TensorRecord], markdown: bool) -> Iterator[str]:
    """Yield a table of tensors of one role together: a star stands for a number in the name."""
    known = isinstance(tensors, TensorTable) and bool(tensors.columns["scanned"].any())
    heads = ["name", "dtype", "shape", "tensors", "bytes"]
    heads += ["min", "max", "median std"] if known else []
    found = roles(tensors)
    rows = []
    for role in found[:MAX_LISTED]:
        shape = _shape(next(iter(role.shapes))) if len(role.shapes) == 1 else "several"
        row = [shown(role.name, 80), role.dtype, shape, str(len(role.members))]
        row.append(human_bytes(role.nbytes))
        if known:
            row += ["" if v != v else f"{v:.4g}" for v in (role.low, role.high, role.std)]
        rows.append(row)
    yield from _table(heads, rows, markdown)
    if len(found) > MAX_LISTED:
        left = sum(len(r.members) for r in found[MAX_LISTED:])
        yield f"  ... and {left} more tensors; --format json lists all"


def render_tensors(tensors: Sequence[TensorRecord], markdown: bool = False) -> Iterator[str]:
    """Yield a table of tensors: name, type, shape, size, and statistics where known."""
    known = any(t.stats is not None for t in tensors)
    heads = ["name", "dtype", "shape", "bytes"]
    if known:
        heads += ["min", "max", "mean", "std", "zeros"]
    yield from _table(heads, [_row(t, known) for t in tensors], markdown)


def _table(heads: list[str], body: list[list[str]], markdown: bool) -> Iterator[str]:
    rows = [heads, *body]
    if markdown:
        yield "| " + " | ".join(heads) + " |"
        yield "|" + " --- |" * len(heads)
        for row in rows[1:]:
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    for row in rows:
        cells = (c.ljust(w) if i < 3 else c.rjust(w)
                 for i, (c, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        yield f"  {'  '.join(cells)}".rstrip()


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _row(tensor: TensorRecord, known: bool) -> list[str]:
    row = [shown(tensor.name, 80), tensor.dtype, _shape(tensor.shape), human_bytes(tensor.nbytes)]
    if known:
        stats = tensor.stats
        if stats is None:
            return [*row, *[""] * 5]
        zeros = stats["zero"] / stats["size"] if stats["size"] else 0.0
        row += [f"{stats[n]:.4g}" for n in ("min", "max", "mean", "std")]
        row.append(f"{zeros:.1%}" if prod(tensor.shape) else "")
    return row


def render_diff(result: CheckpointDiff, output_format: str) -> str:
    """Return a comparison as ``text`` or ``markdown``: the most changed tensors first."""
    bold = "**" if output_format == "markdown" else ""
    title = f"{shown(result.path_a, 4096)} -> {shown(result.path_b, 4096)}: {result.status}"
    equal = sum(c.equal for c in result.changes)
    counts = (
        f"{len(result.changes)} tensors compared: {equal} equal, {len(result.changes) - equal} "
        f"changed; {len(result.missing)} missing, {len(result.added)} added, "
        f"{len(result.reshaped)} reshaped, {len(result.retyped)} retyped"
    )
    lines = [f"{'# ' if bold else ''}{title}", "", counts]
    changed = [c for c in result.changes if not c.equal]
    table = [
        f"  {c.relative:>10.3g}  {c.max_delta:>10.3g}  {c.cosine:>9.6f}  {shown(c.name, 80)}"
        for c in changed[:MAX_LISTED]
    ]
    if table:
        head = f"  {'relative':>10}  {'max delta':>10}  {'cosine':>9}  tensor"
        table = [*(["```"] if bold else []), head, *table, *(["```"] if bold else [])]
    if len(changed) > MAX_LISTED:
        table.append(f"  ... and {len(changed) - MAX_LISTED} more")
    for heading, body in (
        ("Findings", list(_findings(result.findings, bold))),
        ("Not read", _unread(result.unread)),
        ("Changed most", table),
    ):
        if body:
            lines += [
                "",
                f"## {heading}" if bold else f"{heading}:",
                *([""] if bold else []),
                *body,
            ]
    return "\n".join(lines)
