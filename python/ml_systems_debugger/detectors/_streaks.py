"""Conditions that hold for some values in a row: when they begin to count, and when they end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core import Column, FoldState

__all__ = ["STREAK", "Turn", "streaks"]

STREAK = {
    "run": Column(np.int64),  # values in a row that hold, of the streak that goes on
    "calm": Column(np.int64),  # values in a row that do not, since it was open
    "first": Column(np.int64),  # step of its first value
    "before": Column(np.int64),  # step of the value before that
    "last": Column(np.int64),  # step of the last value that held
    "seen": Column(np.int64),  # values so far
    "latest": Column(np.int64),  # step of the last value
    "open": Column(np.bool_),
}
"""Columns of a state that `streaks` keeps itself in."""


class Turn(NamedTuple):
    """A streak opens or closes at the value `at` of the chunk."""

    kind: Literal["open", "close"]
    at: int
    first: int
    before: int
    last: int


def streaks(
    state: FoldState,
    row: int,
    holds: npt.NDArray[np.bool_],
    steps: npt.NDArray[np.int64],
    need: int,
    calm: int,
) -> Iterator[Turn]:
    """Fold `holds` [n] into the row: open at the `need`-th in a row, close after `calm` others.

    The same turns come however a history is cut.
    """
    if not len(holds):
        return
    borders = np.flatnonzero(np.diff(holds)) + 1
    for start, stop in zip([0, *borders.tolist()], [*borders.tolist(), len(holds)], strict=True):
        before = int(steps[start - 1]) if start else int(state["latest"][row])
        if state["seen"][row] + start == 0:
            before = int(steps[0])
        if holds[start]:
            yield from _held(state, row, steps, start, stop, before, need)
        else:
            yield from _calm(state, row, start, stop, calm)
    state["seen"][row] += len(holds)
    state["latest"][row] = steps[-1]


def _held(
    state: FoldState, row: int, steps: npt.NDArray[np.int64], start: int, stop: int, before: int,
    need: int,
) -> Iterator[Turn]:  # fmt: skip
    run = int(state["run"][row])
    if run == 0 and not state["open"][row]:
        state["first"][row], state["before"][row] = steps[start], before
    state["run"][row] = run + stop - start
    state["calm"][row] = 0
    if not state["open"][row] and run < need <= run + stop - start:
        state["open"][row] = True
        at = start + need - run - 1
        state["last"][row] = steps[at]
        yield _turn(state, row, "open", at)
    state["last"][row] = steps[stop - 1]


def _calm(state: FoldState, row: int, start: int, stop: int, calm: int) -> Iterator[Turn]:
    state["run"][row] = 0
    if not state["open"][row]:
        return
    quiet = int(state["calm"][row])
    state["calm"][row] = quiet + stop - start
    if quiet < calm <= quiet + stop - start:
        state["open"][row] = False
        state["calm"][row] = 0
        yield _turn(state, row, "close", start + calm - quiet - 1)


def _turn(state: FoldState, row: int, kind: Literal["open", "close"], at: int) -> Turn:
    place = (int(state[name][row]) for name in ("first", "before", "last"))
    return Turn(kind, at, *place)
