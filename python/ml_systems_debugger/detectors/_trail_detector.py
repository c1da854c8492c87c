"""The fold that detectors on single series share: trails, findings, events."""

# ruff: noqa: ARG002 - the hooks of `TrailDetector` have the same arguments everywhere
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

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
    to_jsonable,
)
from ..kernels.trail import SETTINGS_SIZE, TRAIL_SIZE, Field, Reason, trail_fold, trail_fold_table
from ._learning import Followed, learning_rate_facts
from ._trail import Floats, Onset, Trail, Verdict, evidence

__all__ = ["TrailDetector"]


class _TrailPlan(NamedTuple):
    """Which columns of a table a detector follows, and how."""

    keys: list[SeriesKey]
    columns: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    which: npt.NDArray[np.int64]
    settings: Floats


class TrailDetector(BaseDetector):
    """Folds every series that `settings_for` wants into a trail and judges trails.

    Live, `judge` is asked about one series where the kernel sees a reason (a
    check of a geometric grid, an excursion that lasts): that gives the events.
    At the end `conclude` asks again, with all series at hand, so that what
    speaks against an alarm on one series (a loss that does not suffer) is
    heard. An event therefore depends on its own series alone, and neither on
    how chunks are cut nor on the order of series in them.
    """

    layout = 1

    @abstractmethod
    def settings_for(self, key: SeriesKey) -> Floats | None:
        """Return the kernel's settings for a series, or None where it is not followed."""

    @abstractmethod
    def enough(self, key: SeriesKey) -> int | None:
        """Return how many values a judgement of `key` takes; None where it is only a witness."""

    @abstractmethod
    def judge(self, key: SeriesKey, trail: Trail) -> Verdict | None:
        """Return what one series says by itself."""

    def weigh(
        self,
        key: SeriesKey,
        verdict: Verdict,
        followed: Sequence[Followed],
        context: Context,
    ) -> Verdict | None:
        """Return `verdict` in the light of the other series; None where it falls."""
        return verdict

    def stands(self, key: SeriesKey, followed: Sequence[Followed], context: Context) -> bool:
        """Return whether a finding on `key` that is over stands in the light of other series."""
        return True

    def across(
        self,
        followed: Sequence[Followed],
        context: Context,
    ) -> Iterable[tuple[SeriesKey, Verdict]]:
        """Return what only several series together say."""
        return ()

    def init(self, context: Context | None = None) -> FoldState:
        """Return a fresh state."""
        state = FoldState(self.name, self.layout, {"trail": Column(np.float64, (TRAIL_SIZE,))})
        state.memory.update(
            context=to_jsonable(dict(context or {})), open={}, number={}, at_once={}
        )
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether a series is folded."""
        return self.settings_for(key) is not None

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps into `state`, in place; return what changed."""
        for table in chunk.tables:
            self._fold_table(state, table)
        for one in chunk.singles:
            settings = self.settings_for(one.key)
            size = len(one)
            if settings is None or not size:
                continue
            at_row = state.row(one.key)
            row = state["trail"][at_row]
            values, steps = self._numbers(one), np.ascontiguousarray(one.steps)
            at = 0
            while at < size:
                at = trail_fold(values, steps, at, row, settings)
                if row[Field.REASON] != Reason.NOTHING:
                    self._look(state, one.key, str(at_row), row)
        return state.take_events()

    def _fold_table(self, state: FoldState, table: SeriesTable) -> None:
        """Fold many series at once, in the order of their columns."""
        plan = state.plan(table.keys, "trails", lambda: self._plan(state, table.keys))
        count, trails = len(plan.columns), state["trail"]
        at = series = 0
        while series < count:
            series, at = trail_fold_table(
                table.values, table.steps, plan.columns, plan.rows, plan.which, trails,
                plan.settings, series, at,
            )  # fmt: skip
            if series < count:
                row = int(plan.rows[series])
                self._look(state, plan.keys[series], str(row), trails[row])

    def _plan(self, state: FoldState, keys: TableKeys) -> _TrailPlan:
        columns, wanted, which = [], [], []
        told: dict[bytes, int] = {}
        for at, key in enumerate(keys.keys):
            settings = self.settings_for(key)
            if settings is not None:
                number = told.setdefault(settings.tobytes(), len(told))
                columns.append(at)
                which.append(number)
                wanted.append(key)
        table = np.frombuffer(b"".join(told)).reshape(len(told), SETTINGS_SIZE)
        rows = [state.row(key) for key in wanted]
        return _TrailPlan(wanted, _indices(columns), _indices(rows), _indices(which), table)

    def _numbers(self, one: Series) -> npt.NDArray[np.float64]:
        """Return the values to fold; of arrays the Euclidean norm."""
        if one.kind is SeriesKind.SCALAR:
            return np.ascontiguousarray(one.values)
        from ..kernels import l2_norm

        return np.array([l2_norm(value) for value in one.values], dtype=np.float64)

    def _look(self, state: FoldState, key: SeriesKey, place: str, row: Floats) -> None:
        needed = self.enough(key)
        if needed is None:
            return
        trail = Trail(row)
        verdict = self.judge(key, trail) if trail.count >= needed else None
        if verdict is not None and verdict.severity < Severity.MEDIUM:
            verdict = None
        broke = row[Field.REASON] == Reason.BROKE
        step = trail.step(Field.FIRST_BAD_STEP if broke else Field.LAST_STEP)
        known = state.memory["open"].get(place)
        if known is None:
            if verdict is None:
                return
            self._open(state, key, place, verdict, trail, step)
            row[Field.WATCH] = 1
            return
        before = state.findings.get(known)  # None where it is only counted
        if before is not None and known not in state.memory["at_once"]:
            self._remember_sudden(state, known, trail, before.evidence["onset_step"])
        if verdict is None:
            del state.memory["open"][place]
            row[Field.WATCH] = 0
            settled = None if before is None else self.settled(before, step)
            if settled is None:
                state.retract(step, known)
            else:
                state.close(step, settled)
        elif before is not None and verdict.severity > before.severity:
            state.replace(self._finding(key, _as_opened(verdict, before), known), step)

    def _open(
        self, state: FoldState, key: SeriesKey, place: str, verdict: Verdict, trail: Trail,
        step: int,
    ) -> None:  # fmt: skip
        """Open a finding, or the last one of the place again where that had not ended yet."""
        number = state.memory["number"].get(place, 0)
        finding_id, verdict = self._continued(state, key, number, verdict)
        finding = self._finding(key, verdict, finding_id)
        if finding_id in state.findings:
            state.replace(finding, step)
        else:  # what is remembered must not depend on whether there is room to keep it
            state.open(step, finding)
            state.memory["number"][place] = number + 1
            self._remember_sudden(state, finding_id, trail, verdict.onset.step)
        state.memory["open"][place] = finding.finding_id

    def _remember_sudden(self, state: FoldState, finding_id: str, trail: Trail, step: int) -> None:
        """Keep whether it came at once, as soon as that is known: later the values are gone."""
        if (known := trail.at_once(step)) is not None:
            state.memory["at_once"][finding_id] = known

    def _continued(
        self, state: FoldState, key: SeriesKey, number: int, verdict: Verdict
    ) -> tuple[str, Verdict]:
        """Return id and verdict: those of the place's last finding where that had not ended yet."""
        last = state.findings.get(f"{self.name}:{key}:{number - 1}")
        if last is not None and verdict.onset.step <= (last.end_step or 0):
            return last.finding_id, _as_opened(verdict, last)
        return f"{self.name}:{key}:{number}", verdict

    def settled(self, before: Finding, step: int) -> Finding | None:
        """Return what remains of a finding whose series is well again; None for nothing."""
        return replace(
            before,
            severity=min(before.severity, Severity.MEDIUM),
            end_step=step,
            message=f"{before.message}; it recovered by step {step}",
            evidence={**before.evidence, "recovered": True},
        )

    def _finding(self, key: SeriesKey, verdict: Verdict, finding_id: str) -> Finding:
        onset = verdict.onset
        return Finding(
            self.failure_mode,
            verdict.severity,
            verdict.confidence,
            onset.step,
            None,
            key.layer,
            key.replica_id,
            f"{verdict.message}, since step {onset.step}",
            {
                "series": str(key),
                "onset_step": onset.step,
                "onset_low": onset.low,
                "onset_high": onset.high,
                **verdict.evidence,
            },
            finding_id,
        )

    def _wanted(self) -> str:
        """Return what a run needs, in the words of a message, for anything to be judged."""
        return ", ".join(self.get_required_signals())

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return what `state` says of the run so far; changes nothing."""
        trails = state["trail"]
        followed = [(key, Trail(trails[at])) for at, key in enumerate(state.keys)]
        subjects = [(key, trail) for key, trail in followed if self.enough(key) is not None]
        if not subjects:
            return self._silent(
                Outcome.NOT_APPLICABLE, f"no series of {self._wanted()} is in the input"
            )
        ready = [(k, t) for k, t in subjects if t.count >= (self.enough(k) or 0)]
        findings = self._findings(state, ready, followed)
        if not ready and not findings:
            key, trail = max(subjects, key=lambda one: one[1].count)
            return self._silent(
                Outcome.INSUFFICIENT,
                f"{key} holds {trail.count} finite values, {self.enough(key)} are needed",
            )
        return DetectionResult.of_findings(
            self.failure_mode,
            self.name,
            findings,
            judged=tuple(dict.fromkeys(key.name for key, _ in ready)),
            contributing_count=sum(trail.count for _, trail in followed),
        )

    def _findings(
        self, state: FoldState, ready: Sequence[Followed], followed: Sequence[Followed]
    ) -> list[Finding]:
        context = state.memory["context"]
        open_ids = state.memory["open"]
        numbers = state.memory["number"]
        places = {key: str(at) for at, key in enumerate(state.keys)}
        still_open = set(open_ids.values())
        found = {i: f for i, f in state.findings.items() if i not in still_open}
        for key, trail in ready:
            known = open_ids.get(places[key])
            if known is not None and known not in state.findings:
                continue  # only counted
            verdict = self.judge(key, trail)
            weighed = None if verdict is None else self.weigh(key, verdict, followed, context)
            if weighed is None:
                if known is not None:
                    last = trail.step(Field.LAST_STEP)
                    settled = self.settled(state.findings[known], last)
                    found.update({} if settled is None else {known: settled})
                continue
            if known is None:
                number = numbers.get(places[key], 0)
                finding_id, weighed = self._continued(state, key, number, weighed)
            else:
                finding_id, weighed = known, _as_opened(weighed, state.findings[known])
            found[finding_id] = self._finding(key, weighed, finding_id)
        for key, verdict in self.across(followed, context):
            finding = self._finding(key, verdict, f"{self.name}:{key}:across")
            found[finding.finding_id] = finding
        by_name = {str(key): key for key in state.keys}
        stands = [
            one
            for one in found.values()
            if "recovered" not in one.evidence
            or self.stands(by_name[one.evidence["series"]], followed, context)
        ]
        return [_told(one, by_name, followed, state.memory["at_once"]) for one in stands]


def _told(
    one: Finding,
    by_name: Mapping[str, SeriesKey],
    followed: Sequence[Followed],
    sudden: Mapping[str, bool],
) -> Finding:
    """Return a finding with what the learning rate did, and whether it came at once."""
    facts = dict(one.evidence)
    if one.finding_id in sudden:
        facts["at_once"] = sudden[one.finding_id]
    key = by_name.get(facts.get("series", ""))
    if key is not None and one.onset_step is not None:
        facts.update(evidence(**learning_rate_facts(key, followed, one.onset_step)))
    return replace(one, evidence=facts)


def _indices(places: list[int]) -> npt.NDArray[np.int64]:
    return np.array(places, np.int64)


def _as_opened(verdict: Verdict, before: Finding) -> Verdict:
    """Keep the onset that the finding was opened with: nothing later knows it better."""
    facts = before.evidence
    onset = Onset(facts["onset_step"], facts["onset_low"], facts["onset_high"])
    return replace(verdict, onset=onset)
