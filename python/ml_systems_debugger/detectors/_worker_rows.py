"""What the replicas of a job log side by side: who is there, and whose values are dead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core import FoldState, ReplicaId, Series, SeriesKey, SignalSet
from ._replicas import same_steps

__all__ = ["KINDS", "VARIED", "Place", "places"]

KINDS = ("non_finite", "zero", "constant")
VARIED = 16  # changes that a series has shown before it can be called constant

_Bools = npt.NDArray[np.bool_]
_Steps = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Place:
    """One quantity of one run on all its replicas, over the layers.

    Parameters
    ----------
    key : SeriesKey
        Without layer and replica.
    names : list
        The replicas in this chunk, in order of the columns.
    steps : int64 [n]
        Every step at which one of them logged something.
    there : bool [n, replicas]
    dead : dict of kind to bool [n, replicas]
        Where at least half of what a replica logged is of that kind while that
        of the others is not; a kind that does not occur is left out.
    """

    key: SeriesKey
    names: list[ReplicaId]
    steps: _Steps
    there: _Bools
    dead: dict[str, _Bools]


@dataclass(slots=True)
class _Line:
    """One series, read by itself."""

    series: Series
    column: int
    rows: slice | npt.NDArray[np.intp]
    flags: dict[str, _Bools]
    moved: _Bools | None  # where the value is another than the one before; None: everywhere


def places(state: FoldState, chunk: SignalSet, names: Sequence[str]) -> Iterator[Place]:
    """Yield every place with values in `chunk`; last values and changes are kept in `state`."""
    found: dict[SeriesKey, list[Series]] = {}
    there = set(chunk.names)
    for name in names:
        for one in chunk.select(name) if name in there else ():
            if one.key.replica_id is not None and one.key.name == name and len(one):
                found.setdefault(one.key._replace(replica_id=None, layer=None), []).append(one)
    for key, series in found.items():
        yield _place(state, key, series)


def _place(state: FoldState, key: SeriesKey, series: list[Series]) -> Place:
    replicas = {one.key._replace(layer=None).sort_key(): one.key.replica_id for one in series}
    names = [replicas[at] for at in sorted(replicas)]
    column = {name: at for at, name in enumerate(names)}
    steps = series[0].steps
    plain = bool((np.diff(steps) > 0).all()) and same_steps(series)
    if plain and _lively(state, series):
        there = np.ones((len(steps), len(names)), np.bool_)
        return Place(key, [n for n in names if n is not None], steps, there, {})
    if not plain:
        steps = np.unique(np.concatenate([one.steps for one in series]))
    there = np.full((len(steps), len(names)), plain)
    lines: dict[str | None, list[_Line]] = {}
    for one in series:
        at = column[one.key.replica_id]
        rows: slice | npt.NDArray[np.intp] = slice(None)
        if not plain:
            rows = np.searchsorted(steps, one.steps)
            there[rows, at] = True
        lines.setdefault(one.key.layer, []).append(_line(state, one, at, rows))
    dead = _dead(list(lines.values()), there.shape)
    return Place(key, [n for n in names if n is not None], steps, there, dead)


def _lively(state: FoldState, series: Sequence[Series]) -> bool:
    """Return whether nothing in series of the same steps is dead, and keep what they end with.

    What most chunks are, in a few operations for all series together; where it is not so
    `state` is as it was.
    """
    rows = np.array([state.row(one.key) for one in series], np.intp)
    values = np.stack([one.values for one in series])
    if (
        not np.isfinite(values).all()
        or not values.all()
        or (values[:, 0] == state["last"][rows]).any()
        or (values[:, 1:] == values[:, :-1]).any()
        or len(set(rows.tolist())) < len(rows)
    ):
        return False
    state["last"][rows] = values[:, -1]
    state["changes"][rows] += values.shape[1]
    return True


def _line(state: FoldState, one: Series, column: int, rows: slice | npt.NDArray[np.intp]) -> _Line:
    row, values = state.row(one.key), one.values
    flags: dict[str, _Bools] = {}
    zero = values == 0
    if zero.any():
        flags["zero"] = zero
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # a sum may overflow, or meet both infinities
        finite = bool(np.isfinite(values.sum()))
    if not finite:
        bad = ~np.isfinite(values)
        if bad.any():
            flags["non_finite"] = bad
    same = np.empty(len(values), np.bool_)
    same[0] = values[0] == state["last"][row]
    np.equal(values[1:], values[:-1], out=same[1:])
    changes = int(state["changes"][row])
    moved = None
    if same.any():
        moved = ~same
        before = changes + np.cumsum(moved)
        flags["constant"] = same & (before >= VARIED) & ~zero & ~np.isinf(values)
        changes = int(before[-1])
    else:
        changes += len(values)
    state["last"][row], state["changes"][row] = values[-1], changes
    return _Line(one, column, rows, flags, moved)


def _dead(groups: list[list[_Line]], shape: tuple[int, int]) -> dict[str, _Bools]:
    """Return, per kind, where half of the layers of a replica are so and those of others not."""
    found: dict[str, npt.NDArray[np.int64]] = {}
    held = np.zeros(shape, np.int64)
    suspicious = [any(line.flags for line in group) for group in groups]
    if not any(suspicious):
        return {}
    for group, suspect in zip(groups, suspicious, strict=True):
        mine = np.zeros(shape, np.bool_)
        for line in group:
            mine[line.rows, line.column] = True
        held += mine
        if not suspect:
            continue
        others = mine.sum(axis=1, keepdims=True) - mine
        for kind in KINDS:
            if not any(kind in line.flags for line in group):
                continue
            bad, fine = np.zeros(shape, np.bool_), mine.copy()
            for line in group:
                flags = line.flags.get(kind)
                if flags is not None:
                    bad[line.rows, line.column] = flags
                if kind == "constant":
                    if line.moved is not None:
                        fine[line.rows, line.column] = line.moved
                elif flags is not None:
                    fine[line.rows, line.column] = ~flags
            well = fine.sum(axis=1, keepdims=True) - fine
            bad &= (others > 0) & (2 * well >= others)
            if bad.any():
                found.setdefault(kind, np.zeros(shape, np.int64))
                found[kind] += bad
    return {kind: 2 * counts >= np.maximum(held, 1) for kind, counts in found.items()}
