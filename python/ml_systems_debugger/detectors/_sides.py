"""Replicas that part with no majority among them: which stand together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core import ReplicaId
from ._replicas import Group

__all__ = ["NOBODY", "Sides", "camps_of", "sides_of", "told"]

Sides = tuple[tuple[ReplicaId, ...], ...]

NOBODY = "with no majority nobody can say which of them are right"


def sides_of(
    group: Group, row: int, flags: npt.NDArray[np.bool_], signed: npt.NDArray[np.float64]
) -> Sides:
    """Return the replicas below and above their median where no majority lies near it.

    Of two against two, each is off the middle: nobody can say which two are right.
    Replicas without a finite number have no side; one pair has none either.
    """
    finite = np.isfinite(group.values[row])
    count, off = int(finite.sum()), int((flags & finite).sum())
    if count < 3 or 2 * (count - off) > count or not off:
        return ()
    sides: tuple[list[ReplicaId], list[ReplicaId]] = ([], [])
    for column in np.flatnonzero(finite).tolist():
        sides[int(signed[column] > 0)].append(group.names[column])
    return tuple(sides[0]), tuple(sides[1])


def camps_of(group: Group, row: int) -> Sides:
    """Return the replicas that hold the same digest together."""
    camps: dict[int, list[ReplicaId]] = {}
    for name, value, held in zip(group.names, group.values[row], group.held[row], strict=True):
        if held:
            camps.setdefault(int(value), []).append(name)
    return tuple(tuple(camp) for camp in camps.values())


def told(sides: Sequence[Sequence[ReplicaId]]) -> str:
    """Return the sides in words."""
    named = [f"replica{'s' * (len(side) > 1)} {', '.join(map(str, side[:8]))}"
             + (f" and {len(side) - 8} more" if len(side) > 8 else "")
             for side in sides[:4]]  # fmt: skip
    more = f" and {len(sides) - 4} further groups" if len(sides) > 4 else ""
    return " from ".join(named) + more
