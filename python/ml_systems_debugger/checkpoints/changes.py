"""`CheckpointDiff` and `TensorChange`: what changed between two checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import Severity, to_jsonable
from ..core.shown import shown
from ..core.verdict import Verdict
from .finding import CheckpointFinding
from .report import SCHEMA_VERSION

__all__ = ["CheckpointDiff", "TensorChange"]


@dataclass(frozen=True, slots=True)
class TensorChange:
    """How one tensor changed.

    Parameters
    ----------
    name : str
    equal : bool
        The same bytes (types alike), or the same values.
    max_delta : float
        Largest |b - a| where both are finite.
    relative : float
        ``||b - a|| / ||a||`` over positions where both are finite; inf from zeros.
    cosine : float
        Of a and b over the same positions; NaN where one of them is zero.
    digest_a, digest_b : str
        16 hexadecimal digits.
    nonfinite_a, nonfinite_b : int
    """

    name: str
    equal: bool
    max_delta: float
    relative: float
    cosine: float
    digest_a: str
    digest_b: str
    nonfinite_a: int
    nonfinite_b: int

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        fields = {n: to_jsonable(getattr(self, n)) for n in self.__slots__}
        return {**fields, "name": shown(self.name, 4096)}


@dataclass(frozen=True, slots=True)
class CheckpointDiff:
    """What changed from A to B.

    Parameters
    ----------
    path_a, path_b : str
    changes : tuple of TensorChange
        Of tensors of one shape in both, the most changed (relatively) first.
    missing, added : tuple of str
        Names that only A, or only B, has.
    reshaped : tuple of (name, shape in A, shape in B)
    retyped : tuple of (name, type in A, type in B)
    findings : tuple of CheckpointFinding
    unread : tuple of str
    """

    path_a: str
    path_b: str
    changes: tuple[TensorChange, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[CheckpointFinding, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """``equal``, ``different`` or ``incomplete``."""
        if self.unread:
            return "incomplete"
        same = all(c.equal for c in self.changes)
        names = not (self.missing or self.added or self.reshaped or self.retyped)
        return "equal" if same and names else "different"

    @property
    def worst_severity(self) -> Severity | None:
        """Severity of the worst finding, or None."""
        return max((f.severity for f in self.findings), default=None)

    def to_verdict(self) -> Verdict:
        """Return what SARIF, JUnit and CI annotations need."""
        from ._verdict import diff_verdict

        return diff_verdict(self)

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "a": shown(self.path_a, 4096),
            "b": shown(self.path_b, 4096),
            "changes": [c.to_dict() for c in self.changes],
            "missing": [shown(n, 4096) for n in self.missing],
            "added": [shown(n, 4096) for n in self.added],
            "reshaped": [
                {"name": shown(n, 4096), "a": list(a), "b": list(b)} for n, a, b in self.reshaped
            ],
            "retyped": [{"name": shown(n, 4096), "a": a, "b": b} for n, a, b in self.retyped],
            "findings": [f.to_dict() for f in self.findings],
            "unread": list(self.unread),
        }
