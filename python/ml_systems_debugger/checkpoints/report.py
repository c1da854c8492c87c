"""`CheckpointReport`: everything that is said of one checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice
from typing import Any

from ..core import Severity, freeze, to_jsonable
from ..core.frozen import FrozenDict
from ..core.shown import shown
from ..core.verdict import Verdict
from .finding import CheckpointFinding
from .table import TensorRecord, TensorTable

__all__ = ["SCHEMA_VERSION", "CheckpointReport", "CheckpointStatus", "FileRecord"]

SCHEMA_VERSION = "1.0"
_BATCH = 4096


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
            "tensors": self._terms(),
            "findings": [f.to_dict() for f in self.findings],
            "metadata": {
                **to_jsonable(self.metadata), "path": shown(self.path, 4096),
                "unread": list(self.unread),
            },
        }  # fmt: skip

    def _terms(self) -> list[dict[str, Any]]:
        if isinstance(self.tensors, TensorTable):
            from ._table_json import table_terms

            return list(table_terms(self.tensors))
        return [t.to_dict() for t in self.tensors]

    def json_parts(self, indent: int | None = 2) -> Iterator[str]:
        """Yield the text of `to_json` in parts: a large one need never be held whole."""
        if not isinstance(self.tensors, TensorTable) or not len(self.tensors):
            yield _dumped(self.to_dict(), indent)
            return
        from ._table_json import table_texts

        bare = replace(self, tensors=()).to_dict()
        keys = list(bare)
        at = keys.index("tensors")
        end, pad, deep = ("}", "", "") if indent is None else (
            "\n}", "\n" + " " * indent, "\n" + " " * (2 * indent)
        )  # fmt: skip
        comma = ", " if indent is None else ","
        yield _dumped({k: bare[k] for k in keys[:at]}, indent).removesuffix(end)
        yield f'{comma}{pad}"tensors": ['
        texts = table_texts(self.tensors, indent, 2)
        first = True
        while batch := list(islice(texts, _BATCH)):
            yield ("" if first else comma) + deep + f"{comma}{deep}".join(batch)
            first = False
        yield f"{pad}]{comma}"
        yield _dumped({k: bare[k] for k in keys[at + 1 :]}, indent).removeprefix("{")

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as strict JSON (no NaN token)."""
        return "".join(self.json_parts(indent))

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


def _dumped(terms: Any, indent: int | None) -> str:
    return json.dumps(terms, indent=indent, allow_nan=False, ensure_ascii=False)
