"""Series of memory: how they are followed, and what there is of it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..core import Context, SeriesKey
from ..kernels.trail import Field, settings
from ._learning import Followed

__all__ = ["GROWING", "LEVEL", "same_place", "total_of"]

GROWING = settings(floor=math.inf, always=True)
"""Memory that is judged for growth."""

LEVEL = settings(floor=math.inf, rise=math.inf)
"""Memory that is looked at, but never a reason to stop."""


def same_place(one: SeriesKey, other: SeriesKey) -> bool:
    """Return whether two series differ in nothing but quantity and split."""
    return one._replace(name="", split=None) == other._replace(name="", split=None)


def total_of(
    key: SeriesKey, followed: Iterable[Followed], name: str, context: Context
) -> float | None:
    """Return the memory that there is: of the replica, of the run, or as the context says."""
    found: dict[bool, float] = {}
    for other, trail in followed:
        if other.name == name and other.run == key.run and other.segment == key.segment:
            mine = same_place(key, other)
            if trail.count and (mine or other.replica_id is None):
                found[mine] = trail[Field.MAX]
    told = context.get(name)
    if not found and isinstance(told, (int, float)) and not isinstance(told, bool):
        found[False] = float(told)
    total = found.get(True, found.get(False))
    return total if total is not None and total > 0 and math.isfinite(total) else None
