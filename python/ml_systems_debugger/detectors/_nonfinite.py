"""The fold that the NaN and the Inf detector share: runs of bad values, in any series."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

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
)
from ..kernels import count_nonfinite, first_nonfinite, has_nonfinite
from ._finite_runs import GAP, RING, growth, last_finite, runs_of
from ._nonfinite_severity import (
    PERSISTENT,
    SCALING,
    TELLING,
    first_marked,
    numeric,
    place,
    severity_of,
)

__all__ = ["NonFiniteDetector", "infinite_elements", "nan_elements"]

ENOUGH = 10  # finite scalars after which a series counts as checked
SEPARATE = 8  # findings per series; further short occurrences are only counted


class NonFiniteDetector(BaseDetector):
    """Follows every scalar and array series; a subclass says which values are bad."""

    layout = 1
    kind: ClassVar[str]
    """``nan`` or ``inf``."""

    @abstractmethod
    def bad(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which values [n] are bad."""

    @abstractmethod
    def bad_count(self, array: Any) -> int:
        """Return how many elements of an array or tensor are bad."""

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state."""
        columns = {
            "finite": Column(np.int64),
            "checked": Column(np.int64),
            "total": Column(np.int64),
            "open": Column(np.bool_),
            "opened": Column(np.int64),
            "good": Column(np.int64),
            "count": Column(np.int64),
            "onset": Column(np.int64),
            "last_bad": Column(np.int64),
            "last_step": Column(np.int64),
            "ring": Column(np.float64, (RING,), np.nan),
        }
        state = FoldState(self.name, self.layout, columns)
        state.memory["scaling_since"] = None
        state.memory["row_of"] = {}  # finding to row
        state.memory["open"] = {}  # row to the finding that is open there
        return state

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        for one in chunk.select(*SCALING):
            since = state.memory["scaling_since"]
            first = int(one.steps[0])
            state.memory["scaling_since"] = first if since is None else min(since, first)
        for table in chunk.tables:
            self._table(state, table)
        for one in chunk.singles:
            if one.kind is SeriesKind.SCALAR:
                self._scalars(state, one)
            elif one.kind is SeriesKind.ARRAY:
                self._arrays(state, one)
        return tuple(state.take_events())

    def _table(self, state: FoldState, table: SeriesTable) -> None:
        """Fold many series at once: what is finite, of series where nothing is open, is counted."""
        rows, values = state.rows(table.keys), table.values
        if not table.finite or state["open"].any():
            busy = ~np.isfinite(values).all(axis=0) | state["open"][rows]
            for at in np.flatnonzero(busy).tolist():
                self._scalars(state, table.series(at))
            rows, values = np.arange(len(state.keys))[rows][~busy], values[:, ~busy]
        count = len(values)
        state["finite"][rows] += count
        state["checked"][rows] += count
        ring = state["ring"]
        if count < RING:
            ring[rows, : RING - count] = ring[rows, count:]
        ring[rows, max(RING - count, 0) :] = values[-RING:].T

    def _scalars(self, state: FoldState, series: Series) -> None:
        row = state.row(series.key)
        values: npt.NDArray[np.float64] = series.values
        clean = not has_nonfinite(values)
        good = None if clean else np.isfinite(values)
        where = np.empty(0, np.int64) if clean else np.flatnonzero(self.bad(values))
        start = 0
        for begin, end, held in runs_of(where, good):
            self._good(state, row, series, start, begin, good)
            self._bad_run(state, row, series, begin, end, held)
            start = end + 1
        self._good(state, row, series, start, len(series), good)
        state["finite"][row] += len(values) if good is None else int(good.sum())
        state["checked"][row] += len(values)
        state["ring"][row] = last_finite(state["ring"][row], values, len(values))

    def _arrays(self, state: FoldState, series: Series) -> None:
        row = state.row(series.key)
        for at in range(len(series)):
            array = series.values[at]
            if not numeric(array):
                continue
            state["checked"][row] += 1
            if not has_nonfinite(array) or not self.bad_count(array):
                state["finite"][row] += 1
                self._good(state, row, series, at, at + 1)
            else:
                self._bad_run(state, row, series, at, at, 1, self._inside(array))

    def _inside(self, array: Any) -> dict[str, Any]:
        """Return how many elements of an array are bad, and where the first non-finite one is."""
        first = first_nonfinite(array)
        shape = tuple(int(n) for n in array.shape)
        assert first is not None  # there is a bad one  # noqa: S101
        return {
            "elements": math.prod(shape),
            "bad_elements": min(self.bad_count(array), math.prod(shape)),  # complex: by parts
            "first_flat_index": first,
            "first_index": tuple(int(i) for i in np.unravel_index(first, shape)),
            "shape": shape,
        }

    def _good(
        self,
        state: FoldState,
        row: int,
        series: Series,
        start: int,
        stop: int,
        good: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Count finite values in [start, stop); enough of them close what is open.

        An infinity that becomes NaN has not recovered: only finite values count.
        """
        if stop <= start or not state["open"][row]:
            return
        found = np.arange(stop - start) if good is None else np.flatnonzero(good[start:stop])
        needed = GAP + 1 - int(state["good"][row])
        if len(found) < needed:
            state["good"][row] += len(found)
            return
        state["open"][row] = False
        finding = state.findings.get(state.memory["open"].pop(str(row), ""))
        if finding is not None:
            count = int(finding.evidence["count"])
            severity = severity_of(series.key, count, False, _scaled(state, finding))
            last = int(state["last_bad"][row])
            ended = replace(finding, end_step=last, severity=severity)
            state.close(int(series.steps[start + int(found[needed - 1])]), ended)

    def _bad_run(
        self,
        state: FoldState,
        row: int,
        series: Series,
        begin: int,
        end: int,
        held: int,
        inside: dict[str, Any] | None = None,
    ) -> None:
        """Take bad values from index `begin` to `end`, `held` of them."""
        key = series.key
        first, last = int(series.steps[begin]), int(series.steps[end])
        state["total"][row] += held
        state["good"][row] = 0
        new = not state["open"][row]
        before = 0 if new else int(state["count"][row])
        after = before + held
        if new:
            state["open"][row] = True
            state["onset"][row] = first
            if state["opened"][row] < SEPARATE:
                self._open(state, row, series, begin, inside, 1, first)
            else:
                state.dropped_findings += 1
        state["count"][row] = after
        state["last_bad"][row] = last
        lasts = before < PERSISTENT <= after
        decided = last
        if lasts:
            # What the event says is known at the third bad value, however the history is cut.
            third = begin
            if inside is None:
                found = np.flatnonzero(self.bad(series.values[begin : end + 1]))
                third += int(found[PERSISTENT - before - 1])
            decided = int(series.steps[third])
            if str(row) not in state.memory["open"]:
                state.dropped_findings -= 1  # no short one after all
                self._open(state, row, series, begin, inside, PERSISTENT, decided)
                lasts = False
        finding = state.findings.get(state.memory["open"].get(str(row), ""))
        if finding is None:
            return
        if lasts:
            state.replace(_counted(state, key, finding, PERSISTENT, decided), decided)
        state.replace(_counted(state, key, finding, after, last))

    def _open(
        self, state: FoldState, row: int, series: Series, begin: int,
        inside: dict[str, Any] | None, count: int, decided: int,
    ) -> None:  # fmt: skip
        """Open the finding of an occurrence of which `count` values are known."""
        onset = int(state["onset"][row])
        ring = state["ring"][row]
        if count > 1:  # its beginning was let pass, and with it what came before
            ring = np.full(RING, np.nan)
        elif series.kind is SeriesKind.SCALAR:
            ring = last_finite(ring, series.values, begin)
        finding_id = f"{self.name}:{place(series.key)}:{onset}"
        while finding_id in state.findings:  # several occurrences within one step
            finding_id += "+"
        finding = self._opened(series.key, onset, ring, inside or {}, finding_id)
        if count > 1:
            finding = replace(finding, evidence={**finding.evidence, "from_the_start": False})
        finding = _counted(state, series.key, finding, count, decided)
        state["opened"][row] += 1
        # What is remembered must not depend on whether there is room to keep the finding.
        state.open(decided, finding)
        state.memory["row_of"][finding_id] = row
        state.memory["open"][str(row)] = finding_id

    def _opened(
        self, key: SeriesKey, step: int, ring: npt.NDArray[np.float64], inside: dict[str, Any],
        finding_id: str,
    ) -> Finding:  # fmt: skip
        known = ring[np.isfinite(ring)]
        evidence: dict[str, Any] = {"series": str(key), "quantity": key.name, "count": 0, **inside}
        if len(known):
            evidence["last_finite"] = float(known[-1])
            evidence["growth_before"] = growth(np.abs(known))
        evidence["from_the_start"] = not len(known) and not inside
        return Finding(
            self.failure_mode, Severity.MEDIUM, 0.99, step, None, key.layer, key.replica_id,
            "", evidence, finding_id,
        )  # fmt: skip

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        keys = state.keys
        rows = {found: int(row) for found, row in state.memory["row_of"].items()}
        findings = [
            self._judged(state, finding, keys[rows[finding.finding_id]], rows[finding.finding_id])
            for finding in state.findings.values()
        ]
        last = list(self._unopened(state))
        findings += last
        findings = first_marked(findings)
        judged = sorted({k.name for r, k in enumerate(state.keys) if self._checked(state, r, k)})
        count = int(sum(int(state["checked"][row]) for row in range(len(state.keys))))
        more: dict[str, Any] = {"judged": tuple(judged), "contributing_count": count}
        if not findings and not judged:
            more["outcome"] = Outcome.INSUFFICIENT
            more["reason"] = f"no quantity has {ENOUGH} finite values"
        counted = state.dropped_findings - len(last)  # those were counted, and are told after all
        if counted > 0:
            more["reason"] = f"{counted} further occurrences are only counted"
        return DetectionResult.of_findings(self.failure_mode, self.name, findings, **more)

    def _unopened(self, state: FoldState) -> Iterator[Finding]:
        """Yield what ends a series that had too many short occurrences to keep each."""
        for row, key in enumerate(state.keys):
            if state["open"][row] and not state["good"][row]:
                if state.memory["open"].get(str(row)) in state.findings:
                    continue
                onset, last = int(state["onset"][row]), int(state["last_bad"][row])
                name = f"{self.name}:{place(key)}:{onset}:last"
                finding = self._opened(key, onset, state["ring"][row], {}, name)
                finding = _counted(state, key, finding, int(state["count"][row]), last)
                yield self._judged(state, finding, key, row)

    def _checked(self, state: FoldState, row: int, key: SeriesKey) -> bool:
        if key.kind is SeriesKind.ARRAY:
            return bool(state["checked"][row])
        return key.name in TELLING and bool(state["finite"][row] >= ENOUGH)

    def _judged(self, state: FoldState, finding: Finding, key: SeriesKey, row: int) -> Finding:
        """Return the finding with the severity that its whole course deserves."""
        assert finding.onset_step is not None  # every occurrence has one  # noqa: S101
        at = state.memory["open"].get(str(row))
        if at not in state.findings:  # only counted: this is what ends the series
            at = finding.finding_id
        goes_on = bool(
            state["open"][row]
            and not state["good"][row]
            and int(state["onset"][row]) == finding.onset_step
            and at == finding.finding_id
        )
        count = int(finding.evidence["count"])
        scaled = _scaled(state, finding)
        evidence = {
            **finding.evidence,
            "goes_on": goes_on,
            "recovered": not goes_on,
            "occurrences": int(state["opened"][row]),
            "loss_scaling": scaled,
            "checked": int(state["checked"][row]),
        }
        severity = severity_of(key, count, goes_on, scaled)
        if key.name == "loss" and key.held_out and goes_on and count > 1:
            trained = any(k.name == "loss" and not k.held_out for k in state.keys)
            severity = severity if trained else Severity.HIGH  # all that is known of the run
        return replace(
            finding,
            severity=severity,
            evidence=evidence,
            message=self._message(key, finding, count, goes_on),
            end_step=None if goes_on else int(finding.evidence["last_bad_step"]),
        )

    def _message(self, key: SeriesKey, finding: Finding, count: int, goes_on: bool) -> str:
        word = {"nan": "NaN", "inf": "infinite"}[self.kind]
        text = f"{key} is {word} at step {finding.onset_step}"
        if "bad_elements" in finding.evidence:
            held, of = finding.evidence["bad_elements"], finding.evidence["elements"]
            index = list(finding.evidence["first_index"])
            text = (
                f"{held} of {of} elements of {key} are {word} at step {finding.onset_step}, "
                f"the first non-finite one at {index}"
            )
        if goes_on:
            text += f" and nothing finite comes after ({count} such values)"
        else:
            text += f"; it recovers after {count} such value{'s' if count > 1 else ''}"
        if "last_finite" in finding.evidence:
            text += f"; the last finite value before was {finding.evidence['last_finite']:.4g}"
        return text + "."


def _counted(state: FoldState, key: SeriesKey, finding: Finding, count: int, last: int) -> Finding:
    """Return the finding as it stands after `count` bad values, the last at step `last`."""
    evidence = {**finding.evidence, "count": count, "last_bad_step": last}
    severity = severity_of(key, count, True, _scaled(state, finding))
    return replace(finding, evidence=evidence, severity=severity)


def _scaled(state: FoldState, finding: Finding) -> bool:
    """Return whether a dynamic loss scale was at work when it began."""
    since = state.memory["scaling_since"]
    return since is not None and since <= (finding.onset_step or 0)


def nan_elements(array: Any) -> int:
    """Return how many elements of an array are NaN."""
    return count_nonfinite(array).nan


def infinite_elements(array: Any) -> int:
    """Return how many elements of an array are infinite."""
    counts = count_nonfinite(array)
    return counts.posinf + counts.neginf
