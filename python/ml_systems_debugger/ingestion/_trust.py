"""Values that a logger may have put in the place of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import FrozenDict, Series, SeriesKind
from ..kernels import has_nonfinite

__all__ = ["hidden_losses", "with_absences"]

_GAP = 3
"""A gap is longer than so many usual distances between two measurements, and as many steps of
other quantities lie in it."""
_EXPLODED = 10.0
"""A value of another order of magnitude than the median of those before it."""
_FEW = 4
_MOST = 8


def hidden_losses(series: Sequence[Series]) -> str:
    """Say where a loss of exactly zero stands beside a gradient norm that is not finite.

    Hugging Face's Trainer replaces a loss that is not finite unless its
    ``logging_nan_inf_filter`` is turned off; the gradient norm tells. Returns
    "" where nothing of the kind is seen.
    """
    norms = [s for s in series if s.name == "grad_norm" and s.key.layer is None]
    for norm in norms:
        if norm.values.dtype != np.float64 or not has_nonfinite(norm.values):
            continue
        wild = norm.steps[~np.isfinite(norm.values)]
        for loss in series:
            same = loss.key._replace(name="grad_norm", split=norm.key.split) == norm.key
            if loss.name != "loss" or loss.key.held_out or not same:
                continue
            both = np.intersect1d(loss.steps[loss.values == 0.0], wild)
            if len(both):
                return (
                    f"loss 0.0 beside a gradient norm that is not finite at {len(both)} steps, "
                    f"first at step {both[0]}: the logger hides losses that are not finite"
                )
    return ""


def with_absences(series: Sequence[Series]) -> tuple[list[Series], list[str]]:
    """Mark the series that fall silent right behind a value that is not finite or exploded.

    Some loggers leave out what is not finite: the cell is empty, the row lacks
    the key. While other quantities of the same run and replica go on, such an
    absence is evidence of what was not written. The series gets ``absent_after``
    in its metadata: a list of the step and the value before each gap, and the
    step at which it goes on (None where it does not).

    Returns
    -------
    series : list of Series
        The same ones, some with more metadata.
    told : list of str
        One sentence for each gap.
    """
    owners: dict[Any, list[Series]] = {}
    for one in series:
        if one.kind is SeriesKind.SCALAR and len(one):
            key = one.key
            owners.setdefault((key.replica_id, key.run, key.segment), []).append(one)
    marked: dict[Any, Series] = {}
    told: list[str] = []
    for mine in owners.values():
        last = max(int(one.steps[-1]) for one in mine)
        for one in mine if len(mine) > 1 else ():
            gaps = list(_gaps(one, mine, last))
            if gaps:
                facts = FrozenDict({**one.metadata, "absent_after": gaps})
                marked[one.key] = replace(one, metadata=facts)
                told += [_told(one, gap) for gap in gaps]
    return [marked.get(one.key, one) for one in series], told


def _gaps(one: Series, others: Sequence[Series], last: int) -> Iterator[dict[str, Any]]:
    steps, values = one.steps, one.values
    if len(steps) < _FEW:
        return
    least, most = _spacing(steps)
    if most <= _GAP * max(1, least) and last - int(steps[-1]) <= _GAP * most:
        return  # logged evenly to the end, as most are
    distance = np.diff(steps, append=last)
    inner = distance[:-1]
    wide = np.flatnonzero(distance > _GAP * max(1.0, float(np.median(inner))))
    found = 0
    for at in wide.tolist():
        if found < _MOST and _bad(values, at) and _go_on(one, others, at) >= _GAP:
            found += 1
            until = int(steps[at + 1]) if at + 1 < len(steps) else None
            yield {"step": int(steps[at]), "value": float(values[at]), "until": until}


def _spacing(steps: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Return the least and the greatest distance of steps, without a copy of a long series."""
    least, most = np.iinfo(np.int64).max, 0
    for start in range(0, len(steps) - 1, 1 << 16):
        gaps = np.diff(steps[start : start + (1 << 16) + 1])
        least, most = min(least, int(gaps.min())), max(most, int(gaps.max()))
    return least, most


def _bad(values: npt.NDArray[Any], at: int) -> bool:
    value = abs(float(values[at]))
    if not np.isfinite(value):
        return True
    before = np.abs(values[:at])
    before = before[np.isfinite(before)]
    if len(before) < _FEW:
        return False
    # The mean of two middle values of the largest size, and a product with one, overflow.
    middle = float(np.partition(before, len(before) // 2)[len(before) // 2])
    return value / _EXPLODED > middle


def _go_on(one: Series, others: Sequence[Series], at: int) -> int:
    """Return in how many steps the most frequent other series is logged within a gap."""
    start = one.steps[at]
    stop = one.steps[at + 1] if at + 1 < len(one) else np.iinfo(np.int64).max
    return max(
        int(np.searchsorted(s.steps, stop, "left") - np.searchsorted(s.steps, start, "right"))
        for s in others
        if s is not one
    )


def _told(one: Series, gap: dict[str, Any]) -> str:
    end = "to the end" if gap["until"] is None else f"until step {gap['until']}"
    return (
        f"{one.key} is not logged {end} after {gap['value']:.4g} at step {gap['step']}, while "
        "other quantities go on: the logger may leave out what is not finite"
    )
