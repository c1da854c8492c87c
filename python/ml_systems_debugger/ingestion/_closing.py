"""Holds back the steps that may still grow, so that detectors see closed ones."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import Series, SeriesKey, SignalSet
from ._joint import Joint

__all__ = ["Closing"]

Steps = npt.NDArray[np.int64]

_LAG = 64
"""A replica that is so many logged steps behind the foremost holds nothing back any more."""


class Closing:
    """Takes the series of each piece, gives those steps that are closed.

    A step is closed when every replica that keeps up has gone on to a later
    one. Values that come later still (an evaluation that is written behind
    later steps, a replica that lags) follow in the piece in which they come.
    """

    def __init__(self, joint: Joint) -> None:
        self._joint = joint
        self._pending = SignalSet()
        self._recent: dict[tuple[Any, int], Steps] = {}
        """The last steps of each run and segment, those that are closed among them."""
        self.behind: dict[Hashable, int] = {}
        """Values of each replica that came when others were `_LAG` steps further."""

    def add(self, signals: SignalSet) -> SignalSet:
        """Return the closed steps of what was held back and what is new."""
        self._look_back(signals)
        pending = SignalSet.concatenate([self._pending, signals]) if self._pending else signals
        bounds = self._bounds(pending)
        closed: list[Series] = []
        held: list[Series] = []
        for one in pending.series:
            newest, bound = bounds[one.key.run]
            if one.key.segment < newest:
                closed.append(one)
                continue
            for part, into in (
                (one.between(None, bound), closed),
                (one.between(bound, None), held),
            ):
                if len(part):
                    into.append(part)
        self._pending = SignalSet(held)
        return SignalSet(closed)

    def rest(self) -> SignalSet:
        """Return what was held back: nothing follows."""
        rest, self._pending = self._pending, SignalSet()
        return rest

    def _bounds(self, pending: SignalSet) -> dict[Any, tuple[int, int]]:
        """Return for each run its newest segment and the first step in it that is still open."""
        joint = self._joint
        found: dict[Any, tuple[int, int]] = {}
        for run in {one.key.run for one in pending.series}:
            owners = [o for o in joint.segments if o[1] == run]  # type: ignore[index]
            newest = max(joint.segments[o] for o in owners)
            fronts = [joint.front[o] for o in owners if joint.segments[o] == newest]
            logged = self._logged(pending, run, newest)
            oldest = int(logged[0]) if len(logged) == _LAG else min(fronts)
            found[run] = newest, min(front for front in fronts if front >= oldest)
        return found

    def _logged(self, pending: SignalSet, run: Any, segment: int) -> Steps:
        """Return the last distinct steps of the series of a run that was logged most often."""
        held = [s.steps for s in pending.series if (s.key.run, s.key.segment) == (run, segment)]
        before = self._recent.get((run, segment), np.empty(0, np.int64))
        steps = np.concatenate([before, *(steps[-_LAG:] for steps in held)])
        self._recent[run, segment] = found = np.unique(steps)[-_LAG:]
        return found

    def _look_back(self, signals: SignalSet) -> None:
        """Count what comes so late that other replicas' steps were judged without it."""
        for one in signals.series:
            key: SeriesKey = one.key
            recent = self._recent.get((key.run, key.segment))
            if recent is None or len(recent) < _LAG or key.replica_id is None or key.held_out:
                continue
            late = int(np.searchsorted(one.steps, recent[0], "left"))
            if late:
                self.behind[key.replica_id] = self.behind.get(key.replica_id, 0) + late
