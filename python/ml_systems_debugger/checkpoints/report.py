"""`CheckpointReport`: everything that is said of one checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..core import Severity, freeze, to_jsonable
from ..core.frozen import FrozenDict
from ..core.shown import shown
from ..core.verdict import Verdict
from .finding import CheckpointFinding
from .table import TensorRecord

__all__ = ["SCHEMA_VERSION", "CheckpointReport", "CheckpointStatus", "FileRecord"]

SCHEMA_VERSION = "1.0"


class CheckpointStatus(str, Enum):
    """The verdict on one checkpoint."""

    SOUND = "sound"  # all was read; nothing at medium or above
    FINDINGS = "findings"  # all was read; something at medium or above
    INCOMPLETE = "incomplete"  # not all was read, whatever was found

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file: its name in the checkpoint, format, size, and how much of its data was read."""

    path: str
    format: str
    bytes: int
    scanned_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "path": shown(self.path, 4096),
            "format": self.format,
            "bytes": self.bytes,
            "scanned_bytes": self.scanned_bytes,
        }


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """What was found in one checkpoint.

    Parameters
    ----------
    path : str
        As it was asked for.
    files : tuple of FileRecord
    tensors : sequence of TensorRecord
    findings : tuple of CheckpointFinding
        Worst first.
    unread : tuple of str
        What could not be read, one sentence each: the status is then incomplete.
    metadata : mapping
        Of the checkpoint and of the scan; read-only.
    """

    path: str
    files: tuple[FileRecord, ...] = ()
    tensors: Sequence[TensorRecord] = ()
    findings: Sequence[CheckpointFinding] = ()
    unread: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "files", tuple(self.files))
        put(self, "findings", tuple(sorted(self.findings, key=lambda f: -f.severity.rank)))
        put(self, "unread", tuple(self.unread))
        put(self, "metadata", freeze(self.metadata))

    @property
    def status(self) -> CheckpointStatus:
        """Incomplete where anything was not read, else what the findings say."""
        if self.unread:
            return CheckpointStatus.INCOMPLETE
        worst = self.worst_severity
        if worst is not None and worst >= Severity.MEDIUM:
            return CheckpointStatus.FINDINGS
        return CheckpointStatus.SOUND

    @property
    def worst_severity(self) -> Severity | None:
        """Severity of the worst finding, or None."""
        return self.findings[0].severity if self.findings else None

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status.value,
            "files": [f.to_dict() for f in self.files],
            "tensors": [t.to_dict() for t in self.tensors],
            "findings": [f.to_dict() for f in self.findings],
            "metadata": {
                **to_jsonable(self.metadata), "path": shown(self.path, 4096),
                "unread": list(self.unread),
            },
        }  # fmt: skip

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as strict JSON (no NaN token)."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    def to_verdict(self) -> Verdict:
        """Return what SARIF, JUnit and CI annotations need."""
        from ._verdict import checkpoint_verdict

        return checkpoint_verdict(self)

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        from .render import render

        return render(self, "markdown")

    def __str__(self) -> str:
        from .render import render

        return render(self, "text")
