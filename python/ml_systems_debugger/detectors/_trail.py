"""What the detectors of this package read off the trail of a series."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import Severity
from ..kernels.trail import Field, ring, table

__all__ = ["Groups", "Trail", "Verdict", "spread"]

Floats = npt.NDArray[np.float64]

_GROUPS = 24  # the history in this many medians: short enough to average over slow noise
_GROUP_POINTS = 5  # fewer values than this have no median worth the name
_CONSISTENT = 1.4826  # sigma of a normal law over its median absolute deviation


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the history of one series says of one fault."""

    severity: Severity
    confidence: float
    onset: int
    message: str
    evidence: dict[str, Any]
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Groups:
    """A history as medians of about equally many values each.

    `levels` [k] are the medians, `steps` [k] the first step of each, `points`
    the number of values behind each (the last may hold fewer), `noise` the
    robust spread within groups, `wander` that between neighbours.
    """

    levels: Floats
    steps: Floats
    points: int
    noise: float
    wander: float


def spread(values: Floats) -> float:
    """Return the median absolute deviation, scaled to the sigma of a normal law."""
    if not len(values):
        return 0.0
    return float(_CONSISTENT * np.median(np.abs(values - np.median(values))))


class Trail:
    """A read-only look at one row; values are as they were folded (logged, negated)."""

    def __init__(self, row: Floats) -> None:
        self.row = row

    def __getitem__(self, field: Field) -> float:
        return float(self.row[field])

    def step(self, field: Field) -> int:
        """Return a field that holds a step."""
        return int(self.row[field])

    @property
    def count(self) -> int:
        """Finite values so far."""
        return int(self.row[Field.COUNT])

    @cached_property
    def recent(self) -> Floats:
        """The last values as they were, at most 64, oldest first."""
        return ring(self.row)[0]

    @cached_property
    def entries(self) -> tuple[Floats, Floats, int]:
        """Medians that cover the history evenly, the first step of each, values in each."""
        return table(self.row)

    @cached_property
    def groups(self) -> Groups:
        """The history in at most 24 medians, aligned to its end."""
        values, steps, width = self.entries
        each = max(-(-len(values) // _GROUPS), -(-_GROUP_POINTS // width))
        first = len(values) % each
        if len(values) < each:
            return Groups(np.empty(0), np.empty(0), each * width, 0.0, 0.0)
        blocks = values[first:].reshape(-1, each)
        levels = np.median(blocks, axis=1)
        noise = _CONSISTENT * float(np.median(np.abs(blocks - levels[:, None])))
        wander = spread(np.diff(levels)) / np.sqrt(2.0)
        return Groups(levels, steps[first::each], each * width, noise, float(wander))

    @property
    def excursion(self) -> int:
        """Values since an excursion began that has not returned; 0 for none."""
        if self.row[Field.CALM] >= 3 or self.row[Field.LENGTH] == 0:
            return 0
        return int(self.row[Field.COUNT] - self.row[Field.START_INDEX])

    def last(self, count: int) -> Floats:
        """Return the last `count` values (at most 64)."""
        return self.recent[-count:]
