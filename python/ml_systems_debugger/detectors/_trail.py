"""What the detectors of this package read off the trail of a series."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import Severity
from ..kernels.robust_scale import MAD_TO_SIGMA
from ..kernels.trail import Field, early, ring, table

__all__ = [
    "Floats",
    "Groups",
    "Onset",
    "Trail",
    "Verdict",
    "evidence",
    "spread",
    "sureness",
    "wander",
]

Floats = npt.NDArray[np.float64]

_GROUPS = 24  # the history in this many medians: few enough to average over slow noise
_GROUP_POINTS = 5  # fewer values than this have no median worth the name
_CALM = 3  # kTrailPatience of the kernel: values in a row that end an excursion


@dataclass(frozen=True, slots=True)
class Onset:
    """The step where a change began, and between which steps it lies."""

    step: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the history of one series says of one fault."""

    severity: Severity
    confidence: float
    onset: Onset
    message: str
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Groups:
    """A history as medians of about equally many values each.

    `levels` [k] are the medians, `steps` [k] the first step of each, `points`
    the number of values behind each. `noise` is the robust spread of table
    entries within a group.
    """

    levels: Floats
    steps: Floats
    points: int
    noise: float

    def trailing(self, line: float) -> int:
        """Return the index from which on every level is above `line`; k where the last is not."""
        calm = np.flatnonzero(self.levels <= line)
        return int(calm[-1]) + 1 if len(calm) else 0


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
    def now(self) -> float:
        """The median of the last 16 values."""
        return float(np.median(self.recent[-16:]))

    @cached_property
    def first_level(self) -> float:
        """The median of the first 8 values."""
        return float(np.median(early(self.row)))

    @cached_property
    def entries(self) -> tuple[Floats, Floats, int]:
        """Medians that cover the history evenly, the first step of each, values in each."""
        return table(self.row)

    @cached_property
    def groups(self) -> Groups:
        """The history in at most 24 medians, aligned to its end."""
        values, steps, width = self.entries
        each = max(-(-len(values) // _GROUPS), -(-_GROUP_POINTS // width))
        if len(values) < each:
            return Groups(np.empty(0), np.empty(0), each * width, 0.0)
        first = len(values) % each
        blocks = values[first:].reshape(-1, each)
        levels = np.median(blocks, axis=1)
        noise = MAD_TO_SIGMA * float(np.median(np.abs(blocks - levels[:, None])))
        return Groups(levels, steps[first::each], each * width, noise)

    @property
    def excursion(self) -> int:
        """Values since an excursion began that has not returned; 0 for none."""
        if self.row[Field.CALM] >= _CALM or self.row[Field.LENGTH] == 0:
            return 0
        return int(self.row[Field.COUNT] - self.row[Field.START_INDEX])

    @property
    def broke(self) -> bool:
        """Whether a value was not finite and nothing finite has come since."""
        return bool(self.row[Field.NON_FINITE]) and bool(
            self.row[Field.FIRST_BAD_STEP] > self.row[Field.LAST_STEP]
        )

    def at_once(self, step: int) -> bool | None:
        """Return whether half of the rise that begins at `step` came with its first value.

        None where that is no longer, or not yet, among the last values.
        """
        values, steps = ring(self.row)
        at = int(np.searchsorted(steps, step))
        before, after = values[max(0, at - 8) : at], values[at + 1 :]
        if len(before) < 3 or len(after) < 3 or steps[at] != step:
            return None
        base, top = float(np.median(before)), float(np.median(after))
        return bool(top > base and values[at] - base >= 0.5 * (top - base))

    def excursion_onset(self) -> Onset:
        """Return where the excursion began; exact to one measurement."""
        start = self.step(Field.START_STEP)
        return Onset(start, self.step(Field.BEFORE), start)

    def rise_onset(self, level: float, band: float) -> Onset:
        """Return where the rise began that the excursion is the top of.

        That is the excursion's own start, unless the running level had left
        `level` by more than `band` before: then it crept up.
        """
        if self.row[Field.BASE_LEVEL] <= level + band:
            return self.excursion_onset()
        crept = self.departure(self.row[Field.START_STEP], level, band, exact=False)
        return min(crept, self.excursion_onset(), key=lambda onset: onset.step)

    def departure(self, since: float, level: float, band: float, exact: bool = True) -> Onset:
        """Return where a rise that is plain from step `since` on left `level`.

        Goes back from there while the history (three entries smoothed) stays
        above ``level + band``. An excursion that the kernel saw begin there
        knows the step itself (unless `exact` is False); otherwise the
        resolution is an entry.
        """
        values, steps, _ = self.entries
        smooth = values.copy()
        if len(values) > 2:
            smooth[1:-1] = np.median([values[:-2], values[1:-1], values[2:]], axis=0)
        at = int(np.searchsorted(steps, since, "left"))
        calm = np.flatnonzero(smooth[:at] <= level + band)
        at = int(calm[-1]) + 1 if len(calm) else 0
        onset = int(steps[min(at, len(steps) - 1)])
        low = int(steps[at - 1]) if at else onset
        high = int(steps[min(at + 1, len(steps) - 1)])
        reach = steps[min(at + 3, len(steps) - 1)]
        if exact and self.excursion and low <= self.row[Field.START_STEP] <= max(reach, since):
            return self.excursion_onset()
        return Onset(onset, low, high)


def spread(values: Floats) -> float:
    """Return the median absolute deviation, as the sigma of a normal law."""
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def jitter(levels: Floats) -> float:
    """Return the robust spread of a level between neighbours, as that of one of them."""
    return spread(np.diff(levels)) / math.sqrt(2.0) if len(levels) > 2 else 0.0


def wander(levels: Floats) -> float:
    """Return how far levels stray from the best way down: the upper quartile of the distances.

    The way down is the isotonic least-squares fit by pooling adjacent
    violators (Barlow et al., Statistical Inference under Order Restrictions,
    1972). A learning run strays little from it, whatever its pace; slow noise
    such as AR(0.9) strays by its own spread, which differences between
    neighbours do not show.
    """
    if len(levels) < 3:
        return 0.0
    means: list[float] = []
    sizes: list[int] = []
    for level in levels.tolist():
        means.append(level)
        sizes.append(1)
        while len(means) > 1 and means[-2] < means[-1]:
            size = sizes[-2] + sizes[-1]
            mean = (means[-2] * sizes[-2] + means[-1] * sizes[-1]) / size
            means[-2:], sizes[-2:] = [mean], [size]
    fitted = np.repeat(means, sizes)
    return float(np.quantile(np.abs(levels - fitted), 0.75))


def sureness(excess: float) -> float:
    """Return a confidence for an effect `excess` (at least 1) times what was asked for.

    A monotone score, to be calibrated on labelled runs: 0.65 at the line, 0.87
    at twice and 0.97 at four times of it.
    """
    return round(0.99 - 0.34 * math.exp(-(max(excess, 1.0) - 1.0)), 4)


def evidence(**items: Any) -> dict[str, Any]:
    """Return the items that are there, floats to six digits: what people and rules read."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, (float, np.floating)) else value
        for name, value in items.items()
        if value is not None
    }
