"""The facts of one finding: what conditions ask and templates print."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import Finding, word

__all__ = ["earliest_onsets", "facts_of", "fill"]


def earliest_onsets(findings: Sequence[Finding]) -> dict[str, int]:
    """Return each mode's first onset; -1 where it has no step (it was there from the start)."""
    onsets: dict[str, int] = {}
    for finding in findings:
        mode = word(finding.failure_mode)
        onset = -1 if finding.onset_step is None else finding.onset_step
        onsets[mode] = min(onset, onsets.get(mode, onset))
    return onsets


def facts_of(
    finding: Finding, onsets: Mapping[str, int], context: Mapping[str, Any]
) -> dict[str, Any]:
    """Return every fact that a rule on `finding` may name.

    The finding's evidence by its keys; its own fields bare and as
    ``finding.<field>``; ``context.<key>``; ``mode.<mode>`` (first onset) for the
    other modes found; ``lead.<mode>``, by how many steps that mode began
    before this finding (negative: after).
    """
    own = {
        "severity": finding.severity.value,
        "confidence": finding.confidence,
        "onset_step": finding.onset_step,
        "end_step": finding.end_step,
        "layer": finding.layer,
        "replica_id": finding.replica_id,
        "message": finding.message,
    }
    facts: dict[str, Any] = {**own, **finding.evidence}
    facts.update({f"finding.{name}": value for name, value in own.items()})
    facts.update({f"context.{name}": value for name, value in context.items()})
    mine = word(finding.failure_mode)
    for mode, onset in onsets.items():
        if mode == mine:
            continue
        facts[f"mode.{mode}"] = onset
        if finding.onset_step is not None:
            facts[f"lead.{mode}"] = finding.onset_step - onset
    return facts


class _Template(string.Formatter):
    """``str.format`` whose names may hold dots, with numbers shortened."""

    def get_field(
        self,
        field_name: str,
        args: Sequence[Any],  # noqa: ARG002 - the base class's signature
        kwargs: Mapping[str, Any],
    ) -> Any:
        value = kwargs.get(field_name)
        if value is None:
            raise KeyError(field_name)
        return value, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        return str(super().format_field(value, format_spec)) if format_spec else shown(value)


def shown(value: Any) -> str:
    """Return a fact as people read it: four digits are plenty."""
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        return str(value)
    if isinstance(value, int) or (value == int(value) if math.isfinite(value) else False):
        return f"{int(value)}" if abs(value) < 1e6 else f"{value:.4g}"
    return f"{value:.4g}"


_TEMPLATE = _Template()


def fill(template: str, facts: Mapping[str, Any]) -> str | None:
    """Return `template` with its facts put in; None where one is not known."""
    try:
        return _TEMPLATE.vformat(template, (), facts)
    except KeyError:
        return None
