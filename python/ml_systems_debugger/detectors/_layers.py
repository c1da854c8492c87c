"""The fold of detectors that follow one quantity of every layer for a condition that lasts."""

# ruff: noqa: ARG002 - the hooks of `LayerDetector` have the same arguments everywhere
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core import (
    BaseDetector,
    Column,
    Context,
    DetectionResult,
    Event,
    Finding,
    FoldState,
    Outcome,
    Series,
    SeriesKey,
    SeriesKind,
    SeriesTable,
    Severity,
    SignalSet,
    TableKeys,
)
from ._streaks import STREAK, Turn, streaks
from ._trail import Floats, evidence

__all__ = ["SEPARATE", "LayerDetector", "Rows", "early_columns", "learn_early"]

Rows = slice | npt.NDArray[np.int64]

SEPARATE = 4  # findings per series


class _Part(NamedTuple):
    """The columns of a table that are one quantity, and their rows."""

    witness: bool
    keys: list[SeriesKey]
    columns: Rows
    rows: Rows


def _slice_of(places: list[int]) -> Rows:
    if places == list(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return np.array(places, np.int64)


class LayerDetector(BaseDetector):
    """Follows series of `followed` names; a subclass says what is bad and for how long.

    Every series is judged by itself while the run goes on; what the other
    layers say is weighed at the end, by `weigh`.
    """

    followed: ClassVar[tuple[str, ...]]
    """Names of the quantities that are judged, per layer."""
    witnesses: ClassVar[tuple[str, ...]] = ()
    """Names of quantities of which only the last values are remembered."""
    columns: ClassVar[dict[str, Column]] = {}
    """Further columns that `bad` keeps."""
    persistence: int
    """Values in a row that make an occurrence: a parameter of every subclass."""
    whole: ClassVar[bool] = False
    """Whether series that name no layer are judged too."""
    calm: ClassVar[int] = 3
    """Values in a row that end an occurrence."""

    @property
    def lasting(self) -> int:
        """Values in a row that make an occurrence: `persistence`, where a subclass has it."""
        return self.persistence

    @abstractmethod
    def bad(
        self, state: FoldState, row: int, key: SeriesKey, values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which values [n] are bad; may keep what it needs in its own columns."""

    @abstractmethod
    def opened(self, state: FoldState, row: int, key: SeriesKey, turn: Turn) -> Finding:
        """Return the finding of an occurrence."""

    def occurrence(
        self,
        key: SeriesKey,
        turn: Turn,
        confidence: float,
        message: str,
        about: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Finding:
        """Return a medium finding that begins with `turn`; `weigh` knows later how bad it became.

        Its evidence names the series, what it is `about`, the onset, and `more`.
        """
        return Finding(
            self.failure_mode,
            Severity.MEDIUM,
            confidence,
            turn.first,
            None,
            key.layer,
            key.replica_id,
            message,
            evidence(
                series=str(key),
                **(about or {}),
                onset_step=turn.first,
                onset_low=turn.before,
                onset_high=turn.first,
                **more,
            ),
            f"{self.name}:{key}:{turn.first}",
        )

    def judges(self, key: SeriesKey) -> bool:
        """Return whether a series is one of those that are judged."""
        return key.name in self.followed and (self.whole or key.layer is not None)

    def weigh(self, state: FoldState, findings: list[Finding]) -> list[Finding]:
        """Return findings in the light of all series."""
        return findings

    def init(self, context: Context | None = None) -> FoldState:
        """Return a fresh state."""
        columns = {
            **STREAK, "value": Column(np.float64, (), np.nan), "count": Column(np.int64),
            "opened": Column(np.int64), "started": Column(np.int64),
            "positive": Column(np.int64), **self.columns,
        }  # fmt: skip
        state = FoldState(self.name, 1, columns)
        facts = {k: v for k, v in (context or {}).items() if isinstance(v, (str, int, float))}
        state.memory.update(open={}, context=facts)
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether a series is judged, or a witness."""
        return key.name in self.followed or key.name in self.witnesses

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        for table in chunk.tables:
            self._table(state, table)
        for one in chunk.singles:
            if one.kind is not SeriesKind.SCALAR or not len(one):
                continue
            if self.judges(one.key):
                self._follow(state, one)
            elif one.key.name in self.witnesses:
                row = state.row(one.key)
                state["positive"][row] += int((one.values > 0).sum())
                state["value"][row] = one.values[-1]
                state["latest"][row] = one.steps[-1]
                state["count"][row] += len(one)
        return tuple(state.take_events())

    def bad_many(
        self, state: FoldState, rows: Rows, keys: Sequence[SeriesKey], values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which values [n, series] of one quantity are bad; as `bad` of each."""
        every = np.arange(len(state.keys))[rows].tolist()
        return np.stack(
            [
                self.bad(state, row, key, np.ascontiguousarray(values[:, at]))
                for at, (row, key) in enumerate(zip(every, keys, strict=True))
            ],
            axis=1,
        )

    def _table(self, state: FoldState, table: SeriesTable) -> None:
        parts = state.plan(table.keys, "layers", lambda: self._parts(state, table.keys))
        steps, last = table.steps, table.steps[-1]
        for part in parts:
            values, rows = table.values[:, part.columns], part.rows
            if part.witness:
                state["positive"][rows] += (values > 0).sum(axis=0)
                state["latest"][rows] = last
            else:
                count = state["count"][rows]
                if not count.all():
                    started = state["started"][rows]
                    state["started"][rows] = np.where(count == 0, steps[0], started)
                holds = self.bad_many(state, rows, part.keys, values)
                if holds.any() or state["open"].any():
                    busy = holds.any(axis=0) | state["open"][rows]
                    every = np.arange(len(state.keys))[rows]
                    for at in np.flatnonzero(busy).tolist():
                        self._turns(state, int(every[at]), part.keys[at], holds[:, at], steps)
                    rows = every[~busy]
                # Nothing is bad and nothing is open: what `streaks` would leave.
                state["run"][rows] = 0
                state["seen"][rows] += len(steps)
                state["latest"][rows] = last
            state["count"][part.rows] += len(steps)
            state["value"][part.rows] = values[-1]

    def _parts(self, state: FoldState, keys: TableKeys) -> list[_Part]:
        parts = []
        for name, places in keys.by_name.items():
            witness = name in self.witnesses
            if name in self.followed:
                layered = [at for at in places.tolist() if self.judges(keys.keys[at])]
                parts.append((False, layered))
                if witness:
                    parts.append((True, [at for at in places.tolist() if at not in layered]))
            elif witness:
                parts.append((True, places.tolist()))
        made = []
        for witness, columns in parts:
            own = [keys.keys[at] for at in columns]
            if own:
                rows = _slice_of([state.row(key) for key in own])
                made.append(_Part(witness, own, _slice_of(columns), rows))
        return made

    def _follow(self, state: FoldState, one: Series) -> None:
        row = state.row(one.key)
        values = np.ascontiguousarray(one.values)
        if not state["count"][row]:
            state["started"][row] = one.steps[0]
        self._turns(state, row, one.key, self.bad(state, row, one.key, values), one.steps)
        state["count"][row] += len(values)
        state["value"][row] = values[-1]

    def _turns(
        self, state: FoldState, row: int, key: SeriesKey, holds: npt.NDArray[np.bool_],
        steps: npt.NDArray[np.int64],
    ) -> None:  # fmt: skip
        for turn in streaks(state, row, holds, steps, self.lasting, self.calm):
            place = str(row)
            if turn.kind == "open":
                if state["opened"][row] >= SEPARATE:
                    state.dropped_findings += 1
                    continue
                finding = self.opened(state, row, key, turn)
                state["opened"][row] += 1
                if state.open(int(steps[turn.at]), finding):
                    state.memory["open"][place] = finding.finding_id
            else:
                finding_id = state.memory["open"].pop(place, None)
                before = state.findings.get(finding_id or "")
                if before is not None:
                    told = {**before.evidence, "recovered": True}
                    ended = replace(before, end_step=turn.last, evidence=told)
                    state.close(int(steps[turn.at]), ended)

    def rows(self, state: FoldState, *names: str) -> list[tuple[int, SeriesKey]]:
        """Return rows and keys of quantities."""
        return [(row, key) for row, key in enumerate(state.keys) if key.name in names]

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        rows = [(r, k) for r, k in self.rows(state, *self.followed) if self.judges(k)]
        ready = [key.name for row, key in rows if state["count"][row] >= self.lasting]
        more: dict[str, Any] = {"judged": tuple(dict.fromkeys(ready))}
        if not ready:
            per = "" if self.whole else " per layer"
            what = " or ".join(f"{name}{per}" for name in self.followed)
            if rows:
                most = max(int(state["count"][row]) for row, _ in rows)
                more["outcome"] = Outcome.INSUFFICIENT
                more["reason"] = f"{most} values of {what}, {self.lasting} are needed"
            else:
                more["outcome"] = Outcome.NOT_APPLICABLE
                more["reason"] = f"no {what} is in the input"
        elif state.dropped_findings:
            more["reason"] = f"{state.dropped_findings} further occurrences are only counted"
        found = self.weigh(state, list(state.findings.values()))
        return DetectionResult.of_findings(self.failure_mode, self.name, found, **more)


def early_columns(count: int) -> dict[str, Column]:
    """Return the columns of `learn_early` for a sample of the first `count` values."""
    return {"early": Column(np.float64, (count,), np.nan), "usual": Column(np.float64, (), np.nan)}


def learn_early(state: FoldState, row: int, values: Floats) -> tuple[int, float]:
    """Put the first values [n] of a series into its early sample, however they are cut.

    Return how many went there, and what is usual: the median of the sample once
    it is full; NaN before, and where nothing in it is finite.
    """
    count = int(state["count"][row])
    sample = state["early"][row]
    take = min(max(len(sample) - count, 0), len(values))
    sample[count : count + take] = values[:take]
    if take and count + take == len(sample) and np.isfinite(sample).any():
        state["usual"][row] = float(np.nanmedian(sample))
    return take, float(state["usual"][row])
