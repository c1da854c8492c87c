"""Reports as strict JSON: no NaN token, one schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from ..core import SCHEMA_VERSION, BaseReporter, DebugReport, Status, reporters
from ..core.report import strict_json

__all__ = ["JsonReporter", "json_schema", "many_as_json", "overall_status"]


@reporters.register("json")
class JsonReporter(BaseReporter):
    """Writes one report as JSON, as `json_schema` says."""

    def render(self, report: DebugReport, *, color: bool = False) -> str:  # noqa: ARG002 - no colours in JSON
        """Return the report as JSON text."""
        return report.to_json()


def many_as_json(reports: Sequence[tuple[str, DebugReport]]) -> str:
    """Return several runs as one JSON document."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "status": overall_status([report for _, report in reports]).value,
        "runs": [{"path": path, "report": report.to_dict()} for path, report in reports],
    }
    return strict_json(document)


def overall_status(reports: Sequence[DebugReport]) -> Status:
    """Return failures where a run failed, else the least sure of the others."""
    found = {report.status for report in reports}
    for status in (Status.FAILURES, Status.INCOMPLETE, Status.INSUFFICIENT):
        if status in found:
            return status
    return Status.HEALTHY if found else Status.INSUFFICIENT


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a report, or of several runs."""
    text = files(__package__).joinpath("report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
