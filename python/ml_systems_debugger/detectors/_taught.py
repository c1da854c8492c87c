"""What replicas usually are, learnt from samples that cover their past evenly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core import Column, FoldState
from ._trail import spread

__all__ = ["ROUGH", "TAUGHT", "Floats", "by_falls", "goals", "learn", "mad", "teach"]

ROUGH = 8  # values that give a rough idea of what is usual
_TEACH = 64  # values that give a good one
_SAMPLE = 256  # values kept to teach it anew whenever twice as many have come
_CONSISTENT = 1.4826  # sigma of a normal law over the median of its absolute values
_RECENT = 64  # values whose falls say how large noise is now
_OF_FALLS = 2.0 / 3.0  # of what is asked over learnt noise: falls of a few values are rough
_AT_ONCE = 4096  # windows of those in memory
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
            state["noise"][row] = _noise(sample) if drifts else mad(calm)
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


def _noise(sample: Floats) -> float:
    """Return the noise of a sample without its slow drift.

    That is the noise within its sixteenths and that of their medians from one
    to the next, which drift hardly moves and slow noise such as AR(0.9) does.
    """
    groups = sample.reshape(-1, _GROUP)
    groups = groups[np.isfinite(groups).sum(axis=1) >= _GROUP // 2]
    middles = np.nanmedian(groups, axis=1)
    between = mad(np.diff(middles)) / math.sqrt(2.0) if len(middles) > 2 else 0.0
    return math.hypot(mad((groups - middles[:, None]).ravel()), between)


def by_falls(kept: Floats, over: Floats, excess: Floats, sigmas: float) -> Floats:
    """Return `excess` [n] lowered where the falls just before say that noise has grown.

    What rises by fault does not fall by fault: the falls among the last 64
    values are the noise as it is now, which a sample of the whole past learns
    late. Too few falls say nothing.

    Parameters
    ----------
    kept : float64 [k]
        Distances from what is usual before `over`, k at least 64; NaN where there were none.
    over : float64 [n]
    excess : float64 [n]
    sigmas : float
        Times the learnt noise that a distance must exceed; two thirds of it over falls.
    """
    strong = np.flatnonzero(excess > 1.0)
    if not len(strong):
        return excess
    held = np.concatenate([kept[-_RECENT:], over])
    excess = excess.copy()
    for part in np.array_split(strong, -(-len(strong) // _AT_ONCE)):
        windows = np.lib.stride_tricks.sliding_window_view(held, _RECENT)[part]
        falls = np.where(windows < 0, -windows, np.nan)
        told = np.isfinite(falls).sum(axis=1) >= ROUGH
        line = _OF_FALLS * sigmas * _CONSISTENT * np.nanmedian(falls[told], axis=1)
        with np.errstate(divide="ignore"):
            excess[part[told]] = np.minimum(excess[part[told]], over[part[told]] / line)
    return excess


def mad(values: Floats) -> float:
    """Return the median absolute deviation of what is finite, as the sigma of a normal law."""
    known = values[np.isfinite(values)]
    return spread(known) if len(known) else 0.0
