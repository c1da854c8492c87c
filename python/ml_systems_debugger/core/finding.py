"""`Finding`: one occurrence of a failure at one place; `Event`: what became of it when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from .frozen import FrozenDict, freeze_evidence, numbers_back, to_jsonable
from .signal import ReplicaId, plain_replica, whole_number
from .vocabulary import FailureModeLike, Severity, failure_mode, word

__all__ = ["Event", "EventKind", "Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One occurrence of a failure mode at one place.

    Parameters
    ----------
    failure_mode : FailureMode or registered ``vendor:name``
    severity : Severity or its string
    confidence : float
        From 0 to 1: how sure the detector is that this is what it says.
    onset_step : int or None
        The step where it began, not where it was noticed; None where steps
        mean nothing (a reference profile, a checkpoint).
    end_step : int or None
        Last step of the occurrence; None while it goes on.
    layer, replica_id : optional
        Where; None where it concerns the whole.
    message : str
        One sentence for people, with numbers.
    evidence : mapping
        Numbers and words that rules and readers judge by; read-only.
    finding_id : str
        Stable for one occurrence: the same however the history is cut.
    """

    failure_mode: FailureModeLike
    severity: Severity
    confidence: float
    onset_step: int | None = None
    end_step: int | None = None
    layer: str | None = None
    replica_id: ReplicaId | None = None
    message: str = ""
    evidence: Mapping[str, Any] = field(default_factory=FrozenDict)
    finding_id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "failure_mode", failure_mode(self.failure_mode))
        object.__setattr__(self, "severity", Severity(self.severity))
        object.__setattr__(self, "evidence", freeze_evidence(self.evidence))
        object.__setattr__(self, "confidence", checked_confidence(self.confidence))
        settle_place(self)

    def __hash__(self) -> int:
        return hash((word(self.failure_mode), self.finding_id, self.onset_step, self.layer))

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {f.name: to_jsonable(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """Build from what `to_dict` returned."""
        return cls(**{**data, "evidence": numbers_back(data.get("evidence", {}))})


def checked_confidence(value: float) -> float:
    """Return `value` as a float; raises ValueError outside 0 to 1 (NaN too)."""
    number = float(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"confidence lies between 0 and 1, got {value!r}")
    return number


def settle_place(what: Any) -> None:
    """Make steps and replica of a finding or a result plain: NumPy ints become int."""
    for name in ("onset_step", "end_step"):
        step = getattr(what, name)
        if step is not None and type(step) is not int:
            object.__setattr__(what, name, whole_number(name, step))
    if what.replica_id is not None:
        object.__setattr__(what, "replica_id", plain_replica(what.replica_id))


class EventKind(str, Enum):
    """What happened to a finding."""

    OPEN = "open"  # it is there now
    EXTEND = "extend"  # severity, place or extent changed for good reason
    CLOSE = "close"  # it is over; the finding stays
    RETRACT = "retract"  # it was none; the finding goes


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one finding, at the step that decided it.

    Events depend on the history alone, never on how it was cut into chunks;
    so an occurrence that only lasts on gives no event.
    """

    kind: EventKind
    step: int
    finding: Finding

    def sort_key(self) -> tuple[Any, ...]:
        """Order by step, then finding, then kind: the same for every cut of a history."""
        order = (EventKind.OPEN, EventKind.EXTEND, EventKind.CLOSE, EventKind.RETRACT)
        return (self.step, self.finding.finding_id, order.index(self.kind))
