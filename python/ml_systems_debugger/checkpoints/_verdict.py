"""The verdict on a checkpoint, out of its report: what SARIF, JUnit and annotations need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import to_jsonable
from ..core.shown import shown
from ..core.verdict import Check, Notice, Place, Rule, Verdict
from ._families import template
from .explanations import EXPLANATIONS
from .finding import CODES, CheckpointFinding

if TYPE_CHECKING:
    from .changes import CheckpointDiff
    from .report import CheckpointReport

__all__ = ["checkpoint_verdict", "diff_verdict"]

_LONG = 4096
_MAX_CHECKS = 10_000
_STRUCTURE = "structure"


def checkpoint_verdict(report: CheckpointReport) -> Verdict:
    """Return the verdict on a checkpoint: one check for each family of tensors."""
    wanted = {f.tensor for f in report.findings if f.tensor is not None}
    files: dict[str, str] = {}
    counts: Counter[str] = Counter()
    # A table has names and places without making a record of every tensor.
    for info in getattr(report.tensors, "tensors", report.tensors):
        counts[template(info.name)] += 1
        if info.name in wanted:
            files[info.name] = info.file
    notices = [_notice(f, report.path, files) for f in report.findings]
    checks = _checks(counts, {n.check for n in notices}) if report.tensors else []
    size = sum(f.bytes for f in report.files)
    summary = (
        f"{len(report.tensors)} tensors in {len(report.files)} files of {size} bytes, "
        f"{len(report.findings)} findings"
    )
    return Verdict(
        report.path, report.status.value, summary, _rules(report.findings), notices,
        [Check(_STRUCTURE), *checks], list(report.unread),
    )  # fmt: skip


def diff_verdict(result: CheckpointDiff) -> Verdict:
    """Return the verdict on a comparison; places are those of B."""
    findings = sorted(result.findings, key=lambda f: -f.severity.rank)
    notices = [_notice(f, result.path_b, {}) for f in findings]
    counts = Counter(template(c.name) for c in result.changes)
    summary = (
        f"{len(result.changes)} tensors compared with {shown(result.path_a, _LONG)}, "
        f"{sum(not c.equal for c in result.changes)} changed, {len(findings)} findings"
    )
    return Verdict(
        result.path_b, result.status, summary, _rules(findings), notices,
        [Check(_STRUCTURE), *_checks(counts, {n.check for n in notices})], list(result.unread),
    )  # fmt: skip


def _notice(finding: CheckpointFinding, path: str, files: dict[str, str]) -> Notice:
    name = finding.tensor
    evidence: dict[str, Any] = to_jsonable(finding.evidence)
    given = evidence.get("file")
    file = files.get(name or "", given if isinstance(given, str) else "")
    places = () if name is None else (Place("tensor", shown(name, _LONG)),)
    check = _STRUCTURE if name is None else shown(template(name), _LONG)
    identity = finding.finding_id if name is not None else f"{finding.code}:{finding.message}"
    return Notice(
        finding.code, finding.severity, finding.message, check, identity, _inside(path, file),
        None, places, evidence,
    )  # fmt: skip


def _inside(path: str, file: str) -> str:
    """Return a file of the checkpoint at `path` as the system names it."""
    if not file:
        return path
    if "://" in path:
        return path if path.endswith(f"/{file}") else f"{path.rstrip('/')}/{file}"
    root = Path(path)
    return str(root / file if root.is_dir() else root.with_name(Path(file).name))


def _checks(counts: Counter[str], troubled: set[str]) -> list[Check]:
    names = [shown(name, _LONG) for name in counts]
    if len(names) <= _MAX_CHECKS:
        return [Check(name) for name in names]
    kept = [n for n in names if n in troubled]
    kept += [n for n in names if n not in troubled][: max(0, _MAX_CHECKS - len(kept))]
    return [*map(Check, kept), Check(f"{len(names) - len(kept)} further families, sound")]


def _rules(findings: Iterable[CheckpointFinding]) -> Sequence[Rule]:
    codes = dict.fromkeys(f.code for f in findings)
    return [Rule(c, CODES[c][1] if c in CODES else c, EXPLANATIONS.get(c, "")) for c in codes]
