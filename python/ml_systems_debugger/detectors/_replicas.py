"""Series of several replicas side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import ReplicaId, Series, SeriesKey

__all__ = ["Group", "deviations", "groups_of", "odd_digests", "row_median", "same_steps"]


def groups_of(found: Iterable[Series]) -> Iterator[tuple[SeriesKey, list[Series]]]:
    """Yield the series that differ in their replica alone, two or more of them."""
    groups: dict[SeriesKey, list[Series]] = {}
    for one in found:
        if one.key.replica_id is not None:
            groups.setdefault(one.key._replace(replica_id=None), []).append(one)
    for key in sorted(groups, key=lambda key: key.sort_key()):
        if len(groups[key]) >= 2:
            yield key, groups[key]


@dataclass(frozen=True, slots=True)
class Group:
    """Values of replicas on the steps where at least two have one.

    Parameters
    ----------
    steps : int64 [n]
    values : [n, replicas]
        NaN (numbers) or masked (digests) where a replica has none, or none
        that is finite.
    bad : bool [n, replicas]
        Where a value was logged and is not finite while others are.
    held : bool [n, replicas]
        Where a value was logged.
    names : list
        The replicas, in order of the columns.
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[Any]
    bad: npt.NDArray[np.bool_]
    held: npt.NDArray[np.bool_]
    names: list[ReplicaId]

    @classmethod
    def of(cls, series: Sequence[Series]) -> Group:
        """Lay series side by side; of several values at one step the last counts."""
        ordered = sorted(series, key=lambda one: one.key.sort_key())
        steps = ordered[0].steps
        if same_steps(ordered) and (np.diff(steps) > 0).all():
            values = np.stack([one.values for one in ordered], axis=1)
            held = np.ones(values.shape, np.bool_)
        else:
            steps = np.unique(np.concatenate([one.steps for one in ordered]))
            dtype = ordered[0].values.dtype
            values = np.zeros((len(steps), len(ordered)), dtype)
            held = np.zeros(values.shape, np.bool_)
            for column, one in enumerate(ordered):
                at = np.searchsorted(steps, one.steps)
                values[at, column] = one.values
                held[at, column] = True
            kept = held.sum(axis=1) >= 2
            steps, values, held = steps[kept], values[kept], held[kept]
        bad = np.zeros(values.shape, np.bool_)
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            bad = held & ~finite & (finite & held).any(axis=1, keepdims=True)
            values = np.where(held & finite, values, np.nan)
        names: list[ReplicaId] = [
            one.key.replica_id for one in ordered if one.key.replica_id is not None
        ]
        return cls(steps, values, bad, held, names)


def same_steps(series: Sequence[Series]) -> bool:
    """Return whether all are of the same steps; those of one table share them."""
    steps = series[0].steps
    return all(one.steps is steps or np.array_equal(one.steps, steps) for one in series)


def deviations(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the log-ratio [n, replicas] of each value to the median over replicas.

    Magnitudes are compared; a value of another sign counts by its distance.
    """
    with np.errstate(all="ignore"):
        middle = row_median(values)[:, None]
        scale = np.maximum(np.abs(middle), 1e-300)
        ratio = np.abs(values - middle) / scale
        return np.asarray(np.sign(values - middle) * np.log1p(ratio))


def row_median(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the median [n] over replicas of what is not NaN; NaN where all are."""
    missing = np.isnan(values)
    if not missing.any():
        return np.asarray(np.median(values, axis=1))
    # NumPy warns of rows that are all NaN; there the median is NaN as it should.
    filled = np.where(missing.all(axis=1, keepdims=True), 0.0, values)
    middle = np.nanmedian(filled, axis=1)
    return np.where(missing.all(axis=1), np.nan, middle)


def odd_digests(group: Group) -> Iterator[tuple[int, ReplicaId | None, int, int]]:
    """Yield (row, replica, its digest, the majority's) where digests differ.

    The replica is None where no majority of three or more names it.
    """
    values, held = group.values, group.held
    first = values[np.arange(len(values)), np.argmax(held, axis=1)] if len(values) else values
    differs = ((values != first[:, None]) & held).any(axis=1) if len(values) else []
    for row in np.flatnonzero(differs):
        logged = [
            (n, int(v)) for n, v, h in zip(group.names, values[row], held[row], strict=True) if h
        ]
        ((majority, votes),) = Counter(v for _, v in logged).most_common(1)
        if 2 * votes <= len(logged):
            other = next(v for _, v in logged if v != majority)
            yield int(row), None, other, majority
            continue
        for name, value in logged:
            if value != majority:
                yield int(row), name, value, majority
