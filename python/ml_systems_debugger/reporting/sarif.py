"""Reports as SARIF 2.1.0, which code hosts show beside the code."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

from ..core import Severity, reporters
from ..core.report import strict_json
from ..core.verdict import Notice, Rule, Verdict
from ._verdicts import VerdictReporter, uri_of

__all__ = ["MAX_GZIPPED", "MAX_RESULTS", "SarifReporter"]

MAX_RESULTS = 25_000
MAX_GZIPPED = 10_000_000
"""Code hosts refuse larger files."""

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_LEVELS = {
    Severity.LOW: "note", Severity.MEDIUM: "warning", Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}  # fmt: skip
_RANKS = {Severity.LOW: 10.0, Severity.MEDIUM: 40.0, Severity.HIGH: 75.0, Severity.CRITICAL: 100.0}


@reporters.register("sarif")
class SarifReporter(VerdictReporter):
    """Writes SARIF 2.1.0 (OASIS, 2020, errata 01): one run of this tool over all reports.

    At most 25,000 results, worst first, and 10 MB when compressed; a notification says so where
    results were left out.
    """

    def render_all(
        self,
        verdicts: Sequence[Verdict],
        *,
        fail_on: Severity | str | None = Severity.HIGH,  # noqa: ARG002 - levels say it
    ) -> str:
        """Return the reports as one SARIF log."""
        notices = [n for v in verdicts for n in v.notices]
        notices.sort(key=lambda n: -n.severity.rank)
        kept = min(len(notices), MAX_RESULTS)
        while True:
            text = strict_json(_log(verdicts, notices, kept))
            size = len(zlib.compress(text.encode(), 6))
            if size <= MAX_GZIPPED - 64 or not kept:  # a gzip file has a header and a trailer more
                return text
            kept = min(kept - 1, int(kept * 0.95 * MAX_GZIPPED / size))


def _log(verdicts: Sequence[Verdict], notices: Sequence[Notice], kept: int) -> dict[str, Any]:
    rules: dict[str, Rule] = {}
    for verdict in verdicts:
        for rule in verdict.rules:
            rules.setdefault(rule.code, rule)
    for notice in notices[:kept]:
        rules.setdefault(notice.code, Rule(notice.code, notice.code.replace("_", " ")))
    index = {code: at for at, code in enumerate(rules)}
    run: dict[str, Any] = {
        "tool": {"driver": {
            "name": "mlsd", "fullName": "ml_systems_debugger", "version": _version(),
            "rules": [_rule(rule) for rule in rules.values()],
        }},
        "invocations": [_invocation(verdicts, len(notices), kept)],
        "columnKind": "unicodeCodePoints",
        "properties": {"statuses": [{"path": v.path, "status": v.status} for v in verdicts]},
        "results": [_result(n, index[n.code]) for n in notices[:kept]],
    }  # fmt: skip
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ml-systems-debugger")
    except PackageNotFoundError:  # used from a source tree
        return "0"


def _rule(rule: Rule) -> dict[str, Any]:
    text = rule.help or rule.title or rule.code
    return {
        "id": rule.code,
        "name": "".join(part.capitalize() for part in rule.code.replace(":", "_").split("_")),
        "shortDescription": {"text": rule.title or rule.code},
        "fullDescription": {"text": text.partition("\n\n")[0]},
        "help": {"text": text},
    }


def _invocation(verdicts: Sequence[Verdict], found: int, kept: int) -> dict[str, Any]:
    """Return what went wrong in the looking: unread input, checks that failed, results left out."""
    told: list[dict[str, Any]] = []
    for verdict in verdicts:
        where = _locations(verdict.path)
        told += [{"level": "error", "message": {"text": t or "unread"}, **where}
                 for t in verdict.unread]  # fmt: skip
        told += [
            {"level": "error", "message": {"text": f"{c.name}: {c.broken}"}, **where}
            for c in verdict.checks if c.broken
        ]  # fmt: skip
    complete = not told
    if kept < found:
        text = f"{kept} of {found} results are listed, the worst; --format json lists all"
        told.append({"level": "warning", "message": {"text": text}})
    return {"executionSuccessful": complete, "toolExecutionNotifications": told}


def _locations(path: str) -> dict[str, Any]:
    if not path or path == "-":
        return {}
    return {"locations": [{"physicalLocation": {"artifactLocation": {"uri": uri_of(path)}}}]}


def _result(notice: Notice, rule: int) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if notice.file:
        location["physicalLocation"] = {"artifactLocation": {"uri": uri_of(notice.file)}}
        if notice.line is not None:
            location["physicalLocation"]["region"] = {"startLine": notice.line}
    if notice.places:
        location["logicalLocations"] = [
            {"name": p.name, "fullyQualifiedName": p.name, "kind": p.kind} for p in notice.places
        ]
    key = "\0".join((notice.code, notice.file, notice.identity))
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return {
        "ruleId": notice.code,
        "ruleIndex": rule,
        "level": _LEVELS[notice.severity],
        "rank": _RANKS[notice.severity],
        "message": {"text": notice.message or notice.code},
        **({"locations": [location]} if location else {}),
        "partialFingerprints": {"finding/v1": digest[:32]},
        "properties": {"severity": notice.severity.value, "evidence": dict(notice.evidence)},
    }
