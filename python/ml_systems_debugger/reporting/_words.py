"""Pieces of text that several formats share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core import Finding, to_jsonable

__all__ = ["MOST_FINDINGS", "evidence_pairs", "printable", "span_of"]

MOST_FINDINGS = 8
"""Findings of one detector that are written out; the rest is counted."""

_LONG = 60


def printable(text: object) -> str:
    """Return `text` in one line with control characters escaped: names come from files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def evidence_pairs(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the evidence as short words; tracebacks and long lists are left to JSON."""
    pairs = []
    for name, value in evidence.items():
        if value is None or name == "traceback":
            continue
        text = f"{value:.4g}" if isinstance(value, float) else printable(to_jsonable(value))
        pairs.append((printable(name), text if len(text) <= _LONG else text[: _LONG - 3] + "..."))
    return pairs


def span_of(finding: Finding) -> str:
    """Return where a finding lies, in words."""
    from .summary import place_of

    where = place_of(finding.onset_step, finding.layer, finding.replica_id, finding.end_step)
    return printable(where)
