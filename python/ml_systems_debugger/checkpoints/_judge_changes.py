"""What stands out among the changes between two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..core import Severity
from ..core.shown import shown
from ._families import is_optimizer_state
from ._plan import dtype_of
from .changes import CheckpointDiff, TensorChange
from .contract import TensorInfo
from .finding import CheckpointFinding

__all__ = ["judge_changes"]

MIN_CHANGED = 4
"""Fewer changed tensors than this say nothing of what is usual."""


def judge_changes(
    result: CheckpointDiff, of_a: Mapping[str, TensorInfo]
) -> list[CheckpointFinding]:
    """Return the findings of a comparison; `of_a` are the tensors of A by name."""
    of = CheckpointFinding.of
    found = []
    for code, names, word in (
        ("missing", result.missing, "of A are not in B"),
        ("added", result.added, "of B are not in A"),
        ("reshaped", [n for n, _, _ in result.reshaped], "have another shape"),
        ("retyped", [n for n, _, _ in result.retyped], "have another type"),
    ):
        if names:
            severity = Severity.LOW if code in ("added", "retyped") else Severity.MEDIUM
            first = ", ".join(shown(n) for n in names[:4])
            found.append(
                of(code, severity, f"{len(names)} tensors {word}: {first}"
                   f"{', ...' if len(names) > 4 else ''}",
                   names=[shown(n) for n in names[:100]], count=len(names))
            )  # fmt: skip
    found.extend(
        of("newly_not_finite", Severity.CRITICAL,
           f"{c.nonfinite_b} values are not finite, {c.nonfinite_a} before", c.name,
           before=c.nonfinite_a, now=c.nonfinite_b)
        for c in result.changes if c.nonfinite_b > c.nonfinite_a
    )  # fmt: skip
    return found + _unusual(result.changes, of_a)


def _unusual(
    changes: Sequence[TensorChange], of_a: Mapping[str, TensorInfo]
) -> list[CheckpointFinding]:
    """Frozen and exploded tensors, measured against what the others did.

    Relative changes of trained tensors spread over one or two orders of
    magnitude; an exploded one changed 30 times the median and by more than its
    own size, 1000 times for high.
    """
    of = CheckpointFinding.of
    judged = [c for c in changes if not is_optimizer_state(c.name)]
    moved = [c for c in judged if not c.equal and np.isfinite(c.relative)]
    if len(moved) < MIN_CHANGED:
        return []
    median = float(np.median([c.relative for c in moved]))
    found = [
        of("exploded", Severity.HIGH if c.relative > 1000 * median else Severity.MEDIUM,
           f"changed by {c.relative:.3g} of its own size; the median of {len(moved)} is "
           f"{median:.3g}", c.name, relative=c.relative, median=median)
        for c in moved if c.relative > 30 * median and c.relative > 1.0
    ]  # fmt: skip
    # Vectors may be buffers that never change (rotary frequencies), integers are counters.
    frozen = [c for c in judged if c.equal and dtype_of(of_a[c.name]).floating]
    if frozen and len(frozen) < len(moved):
        found.extend(
            of("frozen", _frozen_severity(c, of_a[c.name]),
               f"the same in both, while {len(moved)} tensors changed", c.name,
               changed=len(moved))
            for c in frozen
        )  # fmt: skip
    return found


def _frozen_severity(change: TensorChange, info: TensorInfo) -> Severity:
    zeros = change.cosine != change.cosine
    return Severity.LOW if zeros or len(info.shape) < 2 else Severity.MEDIUM
