"""Steps that go back: a restart, a step counted anew in each epoch, or rows out of order."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["Order", "Ordered", "ordered", "stride_of"]

_DISORDER = 8
"""A step that goes back more often than once in this many rows is no restart but disorder."""

_FEW = 3
"""So many restarts are believed however short the run is."""

_SHOWN = 5

Steps = npt.NDArray[np.int64]
Part = tuple[Hashable, "Steps | None", Steps]
_Span = tuple[int, int, int, int]
"""The rows before and behind a place where the step goes back, and the steps there."""


@dataclass(slots=True)
class Order:
    """How the measurements of one series follow one another.

    `segments` holds the number of each uninterrupted run with its place in
    `steps`; `permutation`, where given, must be applied to the values first.
    """

    steps: Steps
    permutation: Steps | None = None
    segments: list[tuple[int, slice]] = field(default_factory=lambda: [(0, slice(None))])


@dataclass(slots=True)
class Ordered:
    """The orders of all series, and what is to be said of them."""

    parts: list[Order]
    notes: list[str]


def ordered(
    parts: Sequence[Part],
    epochs: npt.NDArray[np.float64] | None = None,
    stride: int | None = None,
) -> Ordered:
    """Put series in order.

    The series of one owner (replica, run) restart together: as few restarts
    are assumed as explain every step that goes back in any of them. Series
    that are logged in different rows (a loss per step, a metric per
    evaluation) thus share their segments, and an evaluation row that is
    written late is no restart as long as its own series goes on.

    Parameters
    ----------
    parts : sequence of (owner, rows, steps)
        For each series its owner, the rows of the file that it stands in
        (None for all) and its steps, both [m].
    epochs : float64 [rows], optional
        Where steps go back exactly as the epoch goes up, they are counted per
        epoch and are counted on.
    stride : int, optional
        The distance of two steps, where it is known better than from the parts.
    """
    spans: dict[Hashable, set[_Span]] = {}
    longest: dict[Hashable, int] = {}
    seen: dict[int, list[_Span]] = {}
    for owner, rows, steps in parts:
        found = seen.get(id(steps))  # dense columns share one array of steps
        if found is None:
            found = seen[id(steps)] = _decreases(rows, steps)
        spans.setdefault(owner, set()).update(found)
        longest[owner] = max(longest.get(owner, 0), len(steps))
    rules: dict[Hashable, _Rule] = {}
    notes: list[str] = []
    for owner, found_spans in spans.items():
        mine = [(rows, steps) for other, rows, steps in parts if found_spans and other == owner]
        spans_of = sorted(found_spans, key=lambda s: s[1])
        rule = _rule(spans_of, longest[owner], mine, epochs, stride)
        rules[owner] = rule
        if rule.note and rule.note not in notes:
            notes.append(rule.note)
    return Ordered([rules[owner].apply(rows, steps) for owner, rows, steps in parts], notes)


def _decreases(rows: Steps | None, steps: Steps) -> list[_Span]:
    at = np.flatnonzero(steps[1:] < steps[:-1])
    before, behind = (at, at + 1) if rows is None else (rows[at], rows[at + 1])
    columns = (before, behind, steps[at], steps[at + 1])
    return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(slots=True)
class _Rule:
    cuts: Steps
    offsets: Steps | None = None
    sort: bool = False
    note: str = ""

    def apply(self, rows: Steps | None, steps: Steps) -> Order:
        if self.sort:
            permutation = np.argsort(steps, kind="stable")
            return Order(steps[permutation], permutation)
        if not len(self.cuts):
            return Order(steps)
        inside = self.cuts if rows is None else np.searchsorted(rows, self.cuts)
        bounds = [0, *np.minimum(inside, len(steps)).tolist(), len(steps)]
        if self.offsets is not None:
            return Order(steps + np.repeat(self.offsets, np.diff(bounds)))
        segments = [(n, slice(a, b)) for n, (a, b) in enumerate(pairwise(bounds)) if a < b]
        return Order(steps, None, segments)


def _rule(
    spans: list[_Span],
    rows: int,
    series: list[tuple[Steps | None, Steps]],
    epochs: npt.NDArray[np.float64] | None,
    stride: int | None,
) -> _Rule:
    cuts: list[_Span] = []
    for span in spans:  # fewest points that lie in every span: the earliest ends
        if not cuts or cuts[-1][1] <= span[0]:
            cuts.append(span)
    places = np.array([span[1] for span in cuts], np.int64)
    if not cuts:
        return _Rule(places)
    if epochs is not None and all(epochs[b] > epochs[a] for a, b, *_ in cuts):
        offsets = _offsets(places, series, stride or stride_of(steps for _, steps in series))
        return _Rule(places, offsets, note="steps are counted per epoch; they were counted on")
    if len(cuts) > max(_FEW, rows // _DISORDER):
        note = f"rows are out of order ({len(cuts)} times in {rows}); they were sorted by step"
        return _Rule(places, sort=True, note=note)
    shown = ", ".join(f"from {last} to {first}" for *_, last, first in cuts[:_SHOWN])
    more = f" and {len(cuts) - _SHOWN} more" if len(cuts) > _SHOWN else ""
    return _Rule(places, note=f"restarted where the step goes back {shown}{more}")


def stride_of(series: Iterable[Steps]) -> int | None:
    """Return the usual distance of two steps of the series that is logged most often."""
    strides = []
    for steps in series:
        change = np.diff(steps)
        if (change > 0).any():
            strides.append(int(np.median(change[change > 0])))
    return min(strides, default=None)


def _offsets(cuts: Steps, series: list[tuple[Steps | None, Steps]], stride: int | None) -> Steps:
    """Return what to add to the steps of each epoch so that they go on."""
    low = np.full(len(cuts) + 1, np.iinfo(np.int64).max)
    high = np.full(len(cuts) + 1, np.iinfo(np.int64).min)
    for rows, steps in series:
        epoch = np.searchsorted(cuts, np.arange(len(steps)) if rows is None else rows, "right")
        np.minimum.at(low, epoch, steps)
        np.maximum.at(high, epoch, steps)
    lengths = np.zeros(len(cuts) + 1, np.int64)
    for at in range(1, len(lengths)):
        held = low[at] <= high[at] and low[at - 1] <= high[at - 1]
        lengths[at] = high[at - 1] - low[at] + (stride or 1) if held else 0
    return np.cumsum(lengths)
