"""The slow twin of `trail_fold`: the same fold in plain Python, for tests and for reading."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from .trail import EARLY, RING, TABLE, Field, Reason

__all__ = ["trail_fold"]

Row = npt.NDArray[np.float64]

_LARGEST = 1e300
_SHORT, _MEMORY, _FAST = 8, 32, 8  # values: before a scale is believed; of level; of fast mean
_FIRST_CHECK, _FIRST_TRIGGER, _LONGEST = 24, 16, 256
_DEVIATION, _CLIP, _PATIENCE, _DEPTH = 1.2533, 3.0, 3, 20
_LEFT, _BACK_MOST = 2.0, 16

_EARLY_AT = len(Field)
_RING_AT = _EARLY_AT + EARLY
_TABLE_AT = _RING_AT + 2 * RING
_COUNTS_AT = _TABLE_AT + 2 * TABLE
_BUFFERS_AT = _COUNTS_AT + _DEPTH


def trail_fold(values: Row, steps: Sequence[int], at: int, row: Row, settings: Row) -> int:
    """Fold ``values[at:]`` into `row` until there is a reason to look; as the native one."""
    row[Field.REASON] = Reason.NOTHING
    while at < len(values):
        reason = _fold(row, float(values[at]), float(steps[at]), settings)
        at += 1
        if reason is not Reason.NOTHING:
            row[Field.REASON] = reason
            break
    return at


def _fold(row: Row, x: float, step: float, settings: Row) -> Reason:
    if not math.isfinite(x):
        row[Field.NON_FINITE] += 1
        if row[Field.NON_FINITE] > 1:
            return Reason.NOTHING
        row[Field.FIRST_BAD_STEP] = step
        return Reason.BROKE
    if x == 0:
        if row[Field.ZEROS] == 0:
            row[Field.ZERO_STEP] = step
        row[Field.ZEROS] += 1
    else:
        row[Field.ZEROS] = 0
    logarithm, sign, sigmas, floor, relative, early = settings[:6]
    clamped = max(-_LARGEST, min(x, _LARGEST))
    folded = math.log(max(abs(clamped), 1 / _LARGEST)) if logarithm else clamped
    y = float(sign * folded)
    before = int(row[Field.COUNT])
    row[Field.COUNT] = count = before + 1
    row[_RING_AT + before % RING] = y
    row[_RING_AT + RING + before % RING] = step
    if before < EARLY:
        row[_EARLY_AT + before] = y
    if before == 0:
        row[[Field.FIRST, Field.MIN, Field.MAX]] = y
        row[[Field.FIRST_STEP, Field.MIN_STEP, Field.MAX_STEP, Field.LAST_STEP]] = step
        row[Field.NEXT_CHECK] = _FIRST_CHECK
    if y < row[Field.MIN]:
        row[Field.MIN], row[Field.MIN_STEP] = y, step
    if y > row[Field.MAX]:
        row[Field.MAX], row[Field.MAX_STEP] = y, step
    row[Field.FAST] += (y - row[Field.FAST]) * (1 / min(count, _FAST))
    minimum = floor + relative * abs(row[Field.LEVEL])
    reason = Reason.NOTHING
    if row[Field.ACTIVE]:
        reason = _follow(row, y, step)
    else:
        least = early * minimum if count <= _SHORT else minimum
        bound = row[Field.LEVEL] + max(sigmas * _DEVIATION * row[Field.SCALE], least)
        if before and y > bound:
            _begin(row, y, step, bound)
        else:
            _learn(row, y, step, minimum)
    _push(row, y, step)
    row[Field.LAST], row[Field.LAST_STEP] = y, step
    due = _is_due(row, settings)
    return Reason.CHECK if due and reason is Reason.NOTHING else reason


def _first_trigger(row: Row) -> float:
    return float(_FIRST_TRIGGER + 4 * row[Field.RETURNS])


def _begin(row: Row, y: float, step: float, bound: float) -> None:
    line = row[Field.LEVEL] + _LEFT * _DEVIATION * row[Field.SCALE]
    known = int(row[Field.COUNT]) - 1
    back = 0
    while back < _BACK_MOST and back + 1 < known:
        if row[_RING_AT + (known - 1 - back) % RING] <= line:
            break
        back += 1
    start = known - back
    row[Field.ACTIVE] = 1
    row[Field.START_STEP] = row[_RING_AT + RING + start % RING] if back else step
    row[Field.START_INDEX] = start
    row[Field.BEFORE] = row[_RING_AT + RING + (start - 1) % RING]
    row[Field.BASE_LEVEL], row[Field.BASE_SCALE] = row[Field.LEVEL], row[Field.SCALE]
    row[Field.BOUND], row[Field.LENGTH], row[Field.CALM] = bound, 1 + back, 0
    row[Field.PEAK], row[Field.PEAK_STEP] = y, step
    row[Field.NEXT_TRIGGER] = _first_trigger(row)


def _follow(row: Row, y: float, step: float) -> Reason:
    row[Field.LENGTH] += 1
    if y > row[Field.PEAK]:
        row[Field.PEAK], row[Field.PEAK_STEP] = y, step
    below = y < 0.5 * (row[Field.BASE_LEVEL] + row[Field.BOUND])
    row[Field.CALM] = row[Field.CALM] + 1 if below else 0
    if row[Field.CALM] >= _PATIENCE:
        row[Field.ACTIVE] = 0
        if row[Field.NEXT_TRIGGER] <= _first_trigger(row):
            return Reason.NOTHING
        row[Field.RETURNS] += 1
        return Reason.RETURNED
    reason = Reason.NOTHING
    if row[Field.LENGTH] >= row[Field.NEXT_TRIGGER]:
        row[Field.NEXT_TRIGGER] *= 2
        reason = Reason.TRIGGER
    if row[Field.LENGTH] > max(_LONGEST, row[Field.START_INDEX]):
        row[Field.ACTIVE] = 0
        row[Field.LEVEL] = row[Field.FAST]
        row[Field.SCALE] = max(row[Field.SCALE], abs(y - row[Field.FAST]))
    return reason


def _learn(row: Row, y: float, step: float, minimum: float) -> None:
    count = row[Field.COUNT]
    if count == 1:
        row[[Field.LEVEL, Field.FAST, Field.BEST, Field.WORST]] = y
        row[Field.BEST_STEP] = step
        return
    alpha = 1 / min(count, _MEMORY)
    bound = _LARGEST if count <= _SHORT else max(_CLIP * row[Field.SCALE], minimum)
    moved = min(max(y - row[Field.LEVEL], -bound), bound)
    row[Field.LEVEL] += alpha * moved
    row[Field.SCALE] += alpha * (abs(moved) - row[Field.SCALE])
    if row[Field.LEVEL] < row[Field.BEST]:
        row[Field.BEST], row[Field.BEST_STEP] = row[Field.LEVEL], step
    row[Field.WORST] = max(row[Field.WORST], row[Field.LEVEL])


def _push(row: Row, y: float, step: float) -> None:
    if row[Field.PENDING] == 0:
        row[Field.PENDING_STEP] = step
    row[Field.PENDING] += 1
    exponent = int(row[Field.EXPONENT])
    for depth in range(exponent):
        buffer = row[_BUFFERS_AT + 3 * depth : _BUFFERS_AT + 3 * depth + 3]
        held = int(row[_COUNTS_AT + depth])
        if held < 2:
            buffer[held] = y
            row[_COUNTS_AT + depth] += 1
            return
        y = median([buffer[0], buffer[1], y])
        row[_COUNTS_AT + depth] = 0
    at = int(row[Field.ENTRIES])
    table = row[_TABLE_AT : _TABLE_AT + TABLE]
    starts = row[_TABLE_AT + TABLE : _TABLE_AT + 2 * TABLE]
    table[at], starts[at] = y, row[Field.PENDING_STEP]
    row[Field.PENDING] = 0
    row[Field.ENTRIES] = at + 1
    if at + 1 == TABLE and exponent < _DEPTH - 1:
        third = TABLE // 3
        table[:third] = np.median(table.reshape(third, 3), axis=1)
        starts[:third] = starts[::3].copy()
        row[Field.ENTRIES] = third
        row[Field.EXPONENT] += 1


def _is_due(row: Row, settings: Row) -> bool:
    always, rise, rise_of_gain, rise_of_best = settings[6:]
    if row[Field.COUNT] < row[Field.NEXT_CHECK]:
        return False
    row[Field.NEXT_CHECK] = math.floor(row[Field.COUNT] * 1.125) + 1
    if always or row[Field.WATCH]:
        return True
    gain = row[Field.FIRST] - row[Field.BEST]
    asked = max(rise, rise_of_gain * gain, rise_of_best * abs(row[Field.BEST]))
    return bool(row[Field.FAST] - row[Field.BEST] >= asked)
