"""What replicas usually are, learnt from samples that cover their past evenly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core import Column, FoldState
from ._trail import spread

__all__ = ["ROUGH", "TAUGHT", "Floats", "goals", "learn", "mad", "teach"]

ROUGH = 8  # values that give a rough idea of what is usual
_TEACH = 64  # values that give a good one
_SAMPLE = 256  # values kept to teach it anew whenever twice as many have come
_GROUP = 16  # values of a sample about whose median noise is measured: drift is none

Floats = npt.NDArray[np.float64]

TAUGHT = {
    "sample": Column(np.float64, (_SAMPLE,), math.nan),
    "stride": Column(np.int64, (), 1),  # every how many-th value is in the sample
    "count": Column(np.int64),
    "slow": Column(np.int64),  # 1 where it stood out from the start: 0 is its base for good
    "base": Column(np.float64, (), math.nan),
    "anchor": Column(np.float64, (), math.nan),  # the first good idea of `base`
    "noise": Column(np.float64, (), math.nan),
}
"""The columns of a `FoldState` that these functions work on."""


def goals(counts: npt.NDArray[np.int64], strides: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return after how many further values each series is taught anew."""
    later = np.where(counts < _TEACH, _TEACH, _SAMPLE * strides)
    return np.where(counts < ROUGH, ROUGH, later) - counts


def teach(state: FoldState, rows: Sequence[int], values: Floats) -> None:
    """Put every `stride`-th of `values` [n, series] into the samples."""
    counts, strides = state["count"][rows], state["stride"][rows]
    for stride in np.unique(strides).tolist():
        for count in np.unique(counts[strides == stride]).tolist():
            same = np.flatnonzero((strides == stride) & (counts == count))
            first = -count % stride
            if first >= len(values):
                continue
            taken = values[first::stride][:, same]
            slot = (count + first) // stride
            at = np.asarray(rows)[same]
            state["sample"][at, slot : slot + len(taken)] = taken.T
    state["count"][rows] = counts + len(values)


def learn(state: FoldState, rows: Sequence[int], reach: float) -> None:
    """Learn base and noise anew where a sample is full; slow drift beyond `reach` is not learnt."""
    counts, strides = state["count"][rows], state["stride"][rows]
    full = counts == _SAMPLE * strides
    for at in np.flatnonzero(full | (counts == _TEACH)).tolist():
        row = rows[at]
        sample = state["sample"][row]
        calm = sample[np.isfinite(sample)]
        if len(calm) >= ROUGH:
            _settle(state, row, float(np.median(calm)), reach, bool(counts[at] == _TEACH))
            drifts = counts[at] > _SAMPLE
            state["noise"][row] = mad(_flattened(sample) if drifts else calm)
        if full[at]:
            sample[: _SAMPLE // 2] = sample[::2].copy()
            sample[_SAMPLE // 2 :] = math.nan
            state["stride"][row] *= 2


def _settle(state: FoldState, row: int, level: float, reach: float, first: bool) -> None:
    if state["slow"][row]:
        return
    if first:
        state["anchor"][row] = level
    anchor = float(state["anchor"][row])
    state["base"][row] = min(max(level, anchor - reach), anchor + reach)


def _flattened(sample: Floats) -> Floats:
    """Return the sample without its slow drift: distances from the medians of its sixteenths."""
    groups = sample.reshape(-1, _GROUP)
    groups = groups[np.isfinite(groups).sum(axis=1) >= _GROUP // 2]
    flat: Floats = (groups - np.nanmedian(groups, axis=1)[:, None]).ravel()
    return flat[np.isfinite(flat)]


def mad(values: Floats) -> float:
    """Return the median absolute deviation of what is finite, as the sigma of a normal law."""
    known = values[np.isfinite(values)]
    return spread(known) if len(known) else 0.0
