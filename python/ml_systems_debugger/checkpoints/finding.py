"""`CheckpointFinding`: what is wrong with a tensor, a file or a whole checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..core import FailureMode, Finding, Severity, to_jsonable
from ..core.shown import shown

__all__ = ["CODES", "CheckpointFinding"]

CODES: Mapping[str, tuple[FailureMode, str]] = MappingProxyType(
    {
        "nan": (FailureMode.NAN_DETECTED, "values that are not a number"),
        "inf": (FailureMode.INF_DETECTED, "infinite values"),
        "scale_not_finite": (FailureMode.NAN_DETECTED, "scales of quantised blocks not finite"),
        "all_zero": (FailureMode.FROZEN_PARAMETERS, "nothing but zeros"),
        "constant": (FailureMode.FROZEN_PARAMETERS, "one value only"),
        "never_trained": (FailureMode.FROZEN_PARAMETERS, "never got a gradient"),
        "dead_rows": (FailureMode.DEAD_UNITS, "rows of nothing but zeros"),
        "dead_columns": (FailureMode.DEAD_UNITS, "columns of nothing but zeros"),
        "outlier": (FailureMode.CORRUPT_CHECKPOINT, "far from its siblings in other layers"),
        "range": (FailureMode.PRECISION_LOSS, "values near or beyond what a type can hold"),
        "saturated": (FailureMode.PRECISION_LOSS, "values at the limit of a narrow type"),
        "shared_storage": (FailureMode.CORRUPT_CHECKPOINT, "tensors that share memory"),
        "duplicate": (FailureMode.CORRUPT_CHECKPOINT, "tensors equal byte for byte"),
        "expanded_view": (FailureMode.CORRUPT_CHECKPOINT, "a view that repeats its memory"),
        "missing_shard": (FailureMode.CORRUPT_CHECKPOINT, "a file that should be there"),
        "extra_shard": (FailureMode.CORRUPT_CHECKPOINT, "a file that nothing refers to"),
        "missing_tensor": (FailureMode.CORRUPT_CHECKPOINT, "a tensor that should be there"),
        "extra_tensor": (FailureMode.CORRUPT_CHECKPOINT, "a tensor that the index omits"),
        "incomplete_tensor": (FailureMode.CORRUPT_CHECKPOINT, "pieces that leave gaps"),
        "truncated": (FailureMode.CORRUPT_CHECKPOINT, "a file shorter than its header says"),
        "trailing_bytes": (FailureMode.CORRUPT_CHECKPOINT, "bytes behind the last tensor"),
        "duplicate_name": (FailureMode.CORRUPT_CHECKPOINT, "a name that occurs twice"),
        "strange_name": (FailureMode.CORRUPT_CHECKPOINT, "control characters in a name"),
        "strange_header": (FailureMode.CORRUPT_CHECKPOINT, "a header that some readers refuse"),
        "pickle_global": (FailureMode.CORRUPT_CHECKPOINT, "code that a loader would import or run"),
        "not_weights_only": (FailureMode.CORRUPT_CHECKPOINT, "what torch.load refuses by default"),
        "empty": (FailureMode.CORRUPT_CHECKPOINT, "no tensors"),
        "newly_not_finite": (FailureMode.NAN_DETECTED, "finite before, not finite now"),
        "frozen": (FailureMode.FROZEN_PARAMETERS, "did not change while others did"),
        "exploded": (FailureMode.CORRUPT_CHECKPOINT, "changed far more than others"),
        "missing": (FailureMode.CORRUPT_CHECKPOINT, "tensors of A that B lacks"),
        "added": (FailureMode.CORRUPT_CHECKPOINT, "tensors of B that A lacks"),
        "reshaped": (FailureMode.CORRUPT_CHECKPOINT, "tensors of another shape"),
        "retyped": (FailureMode.CORRUPT_CHECKPOINT, "tensors of another type"),
    }
)
"""Every code: its failure mode, and what it means in a few words."""


@dataclass(frozen=True, slots=True)
class CheckpointFinding(Finding):
    """A `Finding` with the code of the rule behind it and the tensor concerned.

    Parameters
    ----------
    code : str
        A key of `CODES`, or a ``vendor:name`` of a third party's format.
    tensor : str or None
        Name as it is in the checkpoint; None where it concerns a file or all.
    """

    code: str = ""
    tensor: str | None = None

    __hash__ = Finding.__hash__

    @classmethod
    def of(
        cls,
        code: str,
        severity: Severity | str,
        message: str,
        tensor: str | None = None,
        **evidence: Any,
    ) -> CheckpointFinding:
        """Build from a code; confidence is 1, since each states what the bytes are."""
        return cls(
            failure_mode=CODES.get(code, (FailureMode.CORRUPT_CHECKPOINT, ""))[0],
            severity=Severity(severity),
            confidence=1.0,
            layer=tensor,
            message=message,
            evidence=evidence,
            finding_id=code if tensor is None else f"{code}:{tensor}",
            code=code,
            tensor=tensor,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the terms of a checkpoint report."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "tensor": None if self.tensor is None else shown(self.tensor),
            "message": self.message,
            "evidence": to_jsonable(self.evidence),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CheckpointFinding:
        """Build from what `to_dict` returned."""
        return cls.of(
            data["code"], data["severity"], data["message"], data["tensor"], **data["evidence"]
        )
