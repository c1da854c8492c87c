"""Times per step of the replicas of a job side by side, and the pace of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..core import Series, SeriesKey, SignalSet
from ._replicas import row_median, same_steps

__all__ = ["BUSY", "TIMES", "aligned", "distances", "places", "reference"]

TIMES = ("step_time", "compute_time", "tokens_per_second")
BUSY = "step_time without comm_time"

_FEW = 5

Floats = npt.NDArray[np.float64]


def places(chunk: SignalSet) -> Iterator[tuple[SeriesKey, list[tuple[SeriesKey, Series]]]]:
    """Yield (place, its series by replica) for every time per step.

    In a synchronous job everybody waits for the slowest, and step times are
    equal: where the time in communication is logged too, what is left of the
    step time without it tells who was waited for.
    """
    found: dict[SeriesKey, list[tuple[SeriesKey, Series]]] = {}
    for one in chunk.select(*TIMES):
        if not len(one):
            continue
        found.setdefault(one.key._replace(replica_id=None), []).append((one.key, one))
        if one.key.name != "step_time" or one.key.replica_id is None:
            continue
        waiting = chunk.get(one.key._replace(name="comm_time"))
        if waiting is not None and np.array_equal(waiting.steps, one.steps):
            key = one.key._replace(name=BUSY)
            busy = Series(key, one.steps, one.values - waiting.values)
            found.setdefault(key._replace(replica_id=None), []).append((key, busy))
    for place in sorted(found, key=lambda key: key.sort_key()):
        yield place, sorted(found[place], key=lambda pair: pair[0].sort_key())


def aligned(series: Sequence[Series], inverse: bool) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return steps [n] and times [n, series]; NaN where there is none above 0.

    Of several values at one step the last counts. With `inverse` the values are
    rates, and their inverse is the time.
    """
    steps = series[0].steps
    if len(series) == 1 and (steps[1:] > steps[:-1]).all():
        values = series[0].values[:, None]
    elif same_steps(series) and (np.diff(steps) > 0).all():
        values = np.stack([one.values for one in series], axis=1)
    else:
        steps = np.unique(np.concatenate([one.steps for one in series]))
        values = np.full((len(steps), len(series)), np.nan)
        for column, one in enumerate(series):
            values[np.searchsorted(steps, one.steps), column] = one.values
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        usable = (values > 0) & np.isfinite(values)
        values = np.where(usable, values, np.nan)
        return steps, (1.0 / values if inverse else values)


def distances(logs: Floats, middle: Floats) -> Floats:
    """Return how far [n, replicas] each replica lies from the others, in logarithms.

    That is its distance from `middle`, the median over replicas. Of few replicas one is the
    median itself too often to show its noise: each is compared with the median of the others.
    """
    if logs.shape[1] > _FEW:
        return logs - middle[:, None]
    others = [row_median(np.delete(logs, at, axis=1)) for at in range(logs.shape[1])]
    return logs - np.stack(others, axis=1)


def reference(logs: Floats) -> Floats:
    """Return the lower median [n] over replicas of what is there; NaN where none is."""
    if logs.shape[1] == 1:
        return np.ascontiguousarray(logs[:, 0])
    ordered = np.sort(logs, axis=1)  # NaN last
    there = np.isfinite(logs).sum(axis=1)
    return np.asarray(ordered[np.arange(len(logs)), np.maximum(there - 1, 0) // 2])
