"""The fold that detectors on single series share: trails, findings, events."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

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
    SeriesKey,
    Severity,
    SignalSet,
    to_jsonable,
)
from ..kernels.trail import TRAIL_SIZE, Field, Reason, trail_fold
from ._trail import Trail, Verdict

__all__ = ["Followed", "TrailDetector"]

Floats = npt.NDArray[np.float64]
Followed = tuple[SeriesKey, Trail]


class TrailDetector(BaseDetector):
    """Folds every series that `settings_for` wants into a trail and judges trails.

    Live, `judge` is asked about one series where its kernel sees a reason (a
    check of a geometric grid, an excursion that lasts): that gives the events.
    At the end `conclude` asks again, with all series at hand.
    """

    layout = 1
    min_points: int

    @abstractmethod
    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Return the kernel's settings for a series, or None where it is not followed."""

    @abstractmethod
    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Return what one series says by itself."""

    def weigh(
        self,
        key: SeriesKey,  # noqa: ARG002 - for subclasses
        verdict: Verdict,
        followed: Sequence[Followed],  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> Verdict | None:
        """Return `verdict` in the light of the other series; None where it falls."""
        return verdict

    def across(
        self,
        followed: Sequence[Followed],  # noqa: ARG002 - for subclasses
        context: Context,  # noqa: ARG002
    ) -> Iterable[tuple[SeriesKey, Verdict]]:
        """Return what only several series together say."""
        return ()

    def init(self, context: Context | None = None) -> FoldState:
        """Return a fresh state."""
        state = FoldState(self.name, self.layout, {"trail": Column(np.float64, (TRAIL_SIZE,))})
        state.memory.update(context=to_jsonable(dict(context or {})), open={}, number={})
        return state

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps into `state`, in place; return what changed."""
        for one in chunk.series:
            settings = self.settings_for(one.key)
            size = len(one)
            if settings is None or not size:
                continue
            at_row = state.row(one.key)
            row = state["trail"][at_row]
            values, steps = np.ascontiguousarray(one.values), np.ascontiguousarray(one.steps)
            at = 0
            while at < size:
                at = trail_fold(values, steps, at, row, settings)
                if row[Field.REASON] != Reason.NOTHING:
                    self._look(state, one.key, str(at_row), row)
        return state.take_events()

    def _look(self, state: FoldState, key: SeriesKey, place: str, row: Floats) -> None:
        trail = Trail(row)
        known = state.memory["open"].get(place)
        verdict = self.judge(key, trail) if trail.count >= self.min_points else None
        step = int(row[Field.LAST_STEP])
        if row[Field.REASON] == Reason.BROKE:
            step = int(row[Field.FIRST_BAD_STEP])
        if known is None:
            if verdict is None or verdict.severity < Severity.MEDIUM:
                return
            number = state.memory["number"].get(place, 0)
            state.memory["number"][place] = number + 1
            finding = self.finding(key, verdict, f"{self.name}:{key}:{number}")
            if state.open(step, finding):
                state.memory["open"][place] = finding.finding_id
                row[Field.WATCH] = 1
            return
        before = state.findings[known]
        if verdict is None:
            del state.memory["open"][place]
            row[Field.WATCH] = 0
            self._settle(state, before, step)
        elif verdict.severity > before.severity:
            state.replace(self._same_place(before, self.finding(key, verdict, known)), step)

    def _settle(self, state: FoldState, before: Finding, step: int) -> None:
        """What a finding becomes whose series is well again: it is over, and no more than medium."""
        state.close(
            step,
            replace(
                before,
                severity=min(before.severity, Severity.MEDIUM),
                end_step=step,
                message=f"{before.message}; recovered by step {step}",
                evidence={**before.evidence, "recovered": True},
            ),
        )

    def _same_place(self, before: Finding, now: Finding) -> Finding:
        """An occurrence keeps the onset that it was opened with: nothing later knows better."""
        kept = {k: before.evidence[k] for k in ("onset_low", "onset_high") if k in before.evidence}
        return replace(now, onset_step=before.onset_step, evidence={**now.evidence, **kept})

    def finding(self, key: SeriesKey, verdict: Verdict, finding_id: str) -> Finding:
        """Return `verdict` as a finding of the series `key`."""
        return Finding(
            self.failure_mode,
            verdict.severity,
            verdict.confidence,
            verdict.onset,
            verdict.end,
            key.layer,
            key.replica_id,
            verdict.message,
            {"series": str(key), **verdict.evidence},
            finding_id,
        )

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return what `state` says of the run so far; changes nothing."""
        context = state.memory["context"]
        trails = state["trail"]
        followed = [(key, Trail(trails[at])) for at, key in enumerate(state.keys)]
        if not followed:
            wanted = ", ".join(self.get_required_signals())
            return self._silent(Outcome.NOT_APPLICABLE, f"no series of {wanted} is in the input")
        long_enough = [one for one in followed if one[1].count >= self.min_points]
        findings = self._findings(state, long_enough, context)
        judged = tuple(dict.fromkeys(key.name for key, _ in long_enough))
        measured = sum(trail.count for _, trail in followed)
        if not judged and not findings:
            most = max(trail.count for _, trail in followed)
            return self._silent(
                Outcome.INSUFFICIENT,
                f"the longest series holds {most} finite values, {self.min_points} are needed",
            )
        return DetectionResult.of_findings(
            self.failure_mode, self.name, findings, judged=judged, contributing_count=measured
        )

    def _findings(
        self, state: FoldState, followed: Sequence[Followed], context: Context
    ) -> list[Finding]:
        open_ids = state.memory["open"]
        places = {key: str(at) for at, key in enumerate(state.keys)}
        found = {i: f for i, f in state.findings.items() if i not in set(open_ids.values())}
        for key, trail in followed:
            known = open_ids.get(places[key])
            verdict = self.judge(key, trail)
            if verdict is not None:
                verdict = self.weigh(key, verdict, followed, context)
            if verdict is None:
                continue
            number = state.memory["number"].get(places[key], 0)
            finding = self.finding(key, verdict, known or f"{self.name}:{key}:{number}")
            if known is not None:
                finding = self._same_place(state.findings[known], finding)
            found[finding.finding_id] = finding
        for key, verdict in self.across(followed, context):
            finding = self.finding(key, verdict, f"{self.name}:{key}:across")
            found[finding.finding_id] = finding
        return list(found.values())

    def _silent(self, outcome: Outcome, reason: str) -> DetectionResult:
        return DetectionResult(
            self.failure_mode, False, 0.0, detector_name=self.name, outcome=outcome, reason=reason
        )


def evidence(**items: Any) -> dict[str, Any]:
    """Return the items that are there, floats to six digits: what people and rules read."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, (float, np.floating)) else value
        for name, value in items.items()
        if value is not None
    }
