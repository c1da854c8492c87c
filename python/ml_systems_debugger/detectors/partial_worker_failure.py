"""Workers that fail while the others go on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import (
    BaseDetector,
    Column,
    Context,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Outcome,
    ReplicaId,
    SeriesKey,
    Severity,
    SignalSet,
    check_count,
    detectors,
)
from ..core.sensitivity import COUNT, scales
from ._collective_calls import follow_calls, follow_parted, not_joined
from ._lasting import TAIL, Lasting, Tail, keep_all
from ._latency import SLOW
from ._straggler_findings import ident
from ._trail import evidence
from ._worker_rows import KINDS, Place, places
from ._worker_rules import WORKER

__all__ = ["PartialWorkerFailureDetector"]

_VALUES = (
    "loss", "grad_norm", "param_norm", "update_ratio", "activation_std", "step_time",
    "compute_time", "tokens_per_second",
)  # fmt: skip
_CALLS = ("collective_seq", "collective_completed")
_KNOWN = 8  # values after which a replica counts as one that logs
_GAPS = 4  # times the longest gap so far
_LONG = 4  # times what makes a finding makes it high
_CALM = 3
_SAID = {"non_finite": "not finite", "zero": "exactly zero", "constant": "stuck at one value"}


@detectors.register("partial_worker_failure")
@dataclass(frozen=True)
class PartialWorkerFailureDetector(BaseDetector):
    """A worker that stops, or whose values die, while the others go on.

    What it detects
    ---------------
    A replica that logs nothing more (or nothing for a while) while others do; a
    replica whose loss, norms or times turn zero, constant or non-finite while
    those of at least half of the others do not; and a replica that did not join
    a collective call in which the others wait.

    Why it matters
    --------------
    A worker may die, or lose its data, without the job ending: elastic and
    asynchronous jobs go on with less data, a synchronous one hangs, and the
    averaged loss shows little of either.

    How it decides
    --------------
    By looking, per quantity, at the steps where any replica logged it. A replica
    that has logged 8 times is missing once `missing` of these steps in a row are
    without it, and four times as many as its longest gap before: ranks that log
    less often than rank 0 are healthy. Of values, `persistence` in a row must be
    non-finite or zero, twice as many the very same number; where layers are
    logged, in at least half of them; a value counts as stuck only where it has
    changed 16 times before and half of the others still change. It is high
    where it goes on and has lasted four times as long, else medium; low where
    more than half of three or more replicas stop at once, which is how logging is
    configured more often than a failure. Of collective calls (flight-recorder
    dumps, PyTorch), a replica is named that has not called what another has called
    and waits in; not one whose own calls differ, of which `collective_fault` tells.

    Parameters
    ----------
    missing : int
        Steps in a row that others log and it does not.
    persistence : int
        Dead values in a row.

    Evidence
    --------
    ``rule`` (stopped, non_finite, zero, constant, did_not_join), ``series``,
    ``quantity``, ``quantities`` (all that show it), ``replicas``,
    ``persistence_steps``, ``last_seen_step``, ``longest_gap_before``, ``goes_on``,
    ``recovered``, ``onset_step``, ``onset_low``, ``onset_high``; of calls
    ``last_call``, ``waiting`` (replicas), ``waits_in``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> signals = [Signal("loss", 2.0 - i / 100, step=i, replica_id=r)
    ...            for i in range(160) for r in range(4) if r != 1 or i < 80]
    >>> found = PartialWorkerFailureDetector().detect(signals)
    >>> found.severity.value, found.replica_id, found.onset_step
    ('high', 1, 80)
    """

    failure_mode = FailureMode.PARTIAL_WORKER_FAILURE
    required_signals = (*_VALUES, *_CALLS)
    attribution_rules = WORKER
    latency = SLOW
    sensitivity_scales = scales(missing=COUNT.within(2), persistence=COUNT.within(2))

    missing: int = 16
    persistence: int = 8

    def __post_init__(self) -> None:
        check_count(2, missing=self.missing, persistence=self.persistence)

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state: a row for every series, and for every quantity of a replica."""
        state = FoldState(
            self.name,
            1,
            {
                "last": Column(np.float64, (), np.nan),
                "changes": Column(np.int64),
                "kept": Column(np.float64, (len(KINDS), TAIL), np.nan),
                "kept_steps": Column(np.int64, (TAIL,)),
            },
        )
        state.memory.update(places={}, open={}, number={}, calls={}, parted={})
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is what shows that a worker is there."""
        return key.name in self.required_signals or key.name == "log_event_kind"

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps into `state`, in place; return what changed."""
        # Most runs have no replicas: that is told without a look at every series.
        for place in places(state, chunk, _VALUES) if chunk.replicas else ():
            known = state.memory["places"].setdefault(
                ident(place.key), {"key": place.key.to_list(), "rows": 0, "replicas": {}}
            )
            self._presence(state, place, known)
            self._values(state, place)
            known["rows"] += len(place.steps)
            known["step"] = int(place.steps[-1])
        follow_calls(state.memory["calls"], chunk)
        follow_parted(state.memory["parted"], chunk)
        return state.take_events()

    # Who is there.

    def _presence(self, state: FoldState, place: Place, known: dict[str, Any]) -> None:
        replicas: dict[str, Any] = known["replicas"]
        columns = {repr(name): at for at, name in enumerate(place.names)}
        for name in place.names:
            fresh = {"name": name, "seen": 0, "gap": 0, "longest": 0, "last": None, "since": None}
            replicas.setdefault(repr(name), fresh)
        whole = bool(place.there.all())
        for text, one in replicas.items():
            at = columns.get(text)
            if at is None:
                self._gone(state, place, one, np.empty(0, np.intp))
            elif whole and not one["gap"]:
                one["seen"] += len(place.steps)
                one["last"] = int(place.steps[-1])
            else:
                self._gone(state, place, one, np.flatnonzero(place.there[:, at]))

    def _gone(
        self, state: FoldState, place: Place, one: dict[str, Any], at: npt.NDArray[np.intp]
    ) -> None:
        """Follow one replica that is there in the rows `at` of a chunk alone."""
        steps = place.steps
        bounds = np.concatenate([[-1], at, [len(steps)]])
        gaps = np.diff(bounds) - 1
        if len(at) and gaps[0] == 0 and one["gap"]:
            last = state.memory["places"][ident(place.key)]["step"]
            limit = max(self.missing, _GAPS * one["longest"])
            self._back(state, place, one, int(steps[0]), last, limit)
        for number in np.flatnonzero(gaps).tolist():
            begin, stop = int(bounds[number]) + 1, int(bounds[number + 1])
            if begin:  # the gap begins in this chunk
                one["last"] = int(steps[begin - 1])
            seen = one["seen"] + number
            if not seen:
                continue  # it has not begun yet
            if one["gap"] == 0:
                one["since"] = int(steps[begin])
            limit = max(self.missing, _GAPS * one["longest"])
            before = one["gap"]
            one["gap"] += stop - begin
            if seen >= _KNOWN and before < limit <= one["gap"]:
                self._missing(state, place, one, limit, int(steps[begin + limit - before - 1]))
            if stop < len(steps):
                self._back(state, place, one, int(steps[stop]), int(steps[stop - 1]), limit)
        one["seen"] += len(at)
        if len(at):
            one["last"] = int(steps[at[-1]])

    def _missing(
        self, state: FoldState, place: Place, one: dict[str, Any], length: int, step: int
    ) -> None:
        run = {
            "rule": "stopped", "onset": one["since"], "low": one["last"], "end": None,
            "length": length, "longest": one["longest"],
        }  # fmt: skip
        self._open(state, place.key, one["name"], run, step)

    def _back(
        self, state: FoldState, place: Place, one: dict[str, Any], step: int, last: int, limit: int
    ) -> None:
        name = f"{ident(place.key)}|{one['name']!r}|stopped"
        if name in state.memory["open"]:
            self._close(state, name, step, last, one["gap"])
        one["longest"] = max(one["longest"], min(one["gap"], limit))
        one["gap"], one["since"] = 0, None

    # What is dead.

    def _values(self, state: FoldState, place: Place) -> None:
        rows = [state.row(_own(place.key, name)) for name in place.names]
        opened = state.memory["open"]
        quiet = not any(f"{ident(place.key)}|" in name for name in opened) if opened else True
        if not place.dead and quiet and place.there.all():
            calm = np.zeros((len(rows), len(KINDS), min(TAIL, len(place.steps))))
            keep_all(state["kept"], state["kept_steps"], rows, calm, place.steps)
            return
        for column, (name, row) in enumerate(zip(place.names, rows, strict=True)):
            here = place.there[:, column]
            steps = place.steps[here]
            if not len(steps):
                continue
            excess = np.zeros((len(KINDS), len(steps)))
            for at, kind in enumerate(KINDS):
                if kind in place.dead:
                    excess[at] = 2.0 * place.dead[kind][here, column]
                self._follow(state, place.key, name, row, at, excess[at], steps)
            keep_all(state["kept"], state["kept_steps"], [row], excess[None], steps)

    def _follow(
        self, state: FoldState, key: SeriesKey, replica: ReplicaId, row: int, at: int,
        excess: npt.NDArray[np.float64], steps: npt.NDArray[np.int64],
    ) -> None:  # fmt: skip
        kind = KINDS[at]
        name = f"{ident(key)}|{replica!r}|{kind}"
        opened = state.memory["open"]
        if name not in opened and not excess.any():
            return
        kept = state["kept"][row, at : at + 1]
        none = np.empty((0, len(steps)))
        tail = Tail.of(kept, state["kept_steps"][row], excess, none, steps)
        asked = self.persistence * (2 if kind == "constant" else 1)
        rule = Lasting(min(asked, TAIL), min(asked, TAIL), _CALM)
        for turn in rule.turns(tail, name in opened):
            step = int(tail.steps[turn.stop - 1])
            size = int((tail.excess[turn.start : turn.stop] > rule.leave).sum())
            if turn.kind == "open":
                onset = rule.before(tail, turn.start)
                # What was dead before the window that decided it began there.
                size += turn.start - onset
                run = {
                    "rule": kind, "onset": int(tail.steps[onset]), "end": None, "length": size,
                    "low": int(tail.steps[max(0, onset - 1)]), "longest": None,
                }  # fmt: skip
                self._open(state, key, replica, run, step)
            elif turn.kind == "more":
                opened[name]["length"] += size
            else:
                self._close(state, name, step, int(tail.steps[turn.start]))

    # Occurrences.

    def _open(
        self, state: FoldState, key: SeriesKey, replica: ReplicaId, run: dict[str, Any], step: int
    ) -> None:
        name = f"{ident(key)}|{replica!r}|{run['rule']}"
        number = state.memory["number"].get(name, 0)
        run.update(id=f"{self.name}:{name}:{number}", key=key.to_list(), replica=replica)
        state.memory["number"][name] = number + 1
        state.memory["open"][name] = run
        state.open(step, self._finding(state, run))

    def _close(
        self, state: FoldState, name: str, step: int, last: int, length: int | None = None
    ) -> None:
        run = state.memory["open"].pop(name)
        run["end"] = last
        run["length"] = run["length"] if length is None else length
        state.close(step, self._finding(state, run))

    def _finding(self, state: FoldState, run: dict[str, Any]) -> Finding:
        key, rule = SeriesKey.from_list(run["key"]), run["rule"]
        replica, over = run["replica"], run["end"] is not None
        replicas = len(state.memory["places"][ident(key)]["replicas"])
        asked = self.missing if rule == "stopped" else self.persistence
        high = not over and run["length"] >= _LONG * asked
        span = f"from step {run['onset']} to {run['end']}" if over else f"since step {run['onset']}"
        if rule == "stopped":
            told = f"replica {replica} logs no {key.name} {span}, while others do"
        else:
            told = f"{key.name} of replica {replica} is {_SAID[rule]} {span}, that of others is not"
        facts = evidence(
            rule=rule, series=str(key._replace(replica_id=replica)), quantity=key.name,
            quantities=(key.name,), replicas=replicas, persistence_steps=run["length"],
            last_seen_step=run["low"] if rule == "stopped" else None,
            longest_gap_before=run["longest"], onset_step=run["onset"], onset_low=run["low"],
            onset_high=run["onset"], goes_on=not over, recovered=True if over else None,
        )  # fmt: skip
        return Finding(
            self.failure_mode,
            Severity.HIGH if high else Severity.MEDIUM,
            0.95 if high else 0.75,
            run["onset"],
            run["end"],
            None,
            replica,
            f"{told} ({run['length']} steps)",
            facts,
            run["id"],
        )

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return what `state` says of the run so far; changes nothing."""
        known: dict[str, Any] = state.memory["places"]
        several = {t: one for t, one in known.items() if len(one["replicas"]) > 1}
        calls = state.memory["calls"]
        if not several and not any(len(group["replicas"]) > 1 for group in calls.values()):
            return self._silent(Outcome.NOT_APPLICABLE, "there are no two replicas")
        judged = {
            SeriesKey.from_list(one["key"]).name
            for one in several.values()
            if one["rows"] >= _KNOWN + self.persistence
        }
        judged |= {"collective_seq"} if calls else set()
        if not judged:
            return self._silent(Outcome.INSUFFICIENT, "the replicas have logged too few steps")
        found = dict(state.findings)
        for run in state.memory["open"].values():
            if run["id"] in found:
                length = self._length(state, run)
                found[run["id"]] = self._finding(state, {**run, "length": length})
        findings = _together(_as_configured(found.values()))
        findings += not_joined(calls, self.name, state.memory["parted"])
        return DetectionResult.of_findings(
            self.failure_mode, self.name, findings, judged=tuple(sorted(judged))
        )

    def _length(self, state: FoldState, run: dict[str, Any]) -> int:
        if run["rule"] != "stopped":
            return int(run["length"])
        place = state.memory["places"][ident(SeriesKey.from_list(run["key"]))]
        return int(place["replicas"][repr(run["replica"])]["gap"])


def _own(key: SeriesKey, replica: ReplicaId) -> SeriesKey:
    """Return the key of a replica's row for a quantity over its layers."""
    return key._replace(name=f"all of {key.name}", replica_id=replica)


def _as_configured(findings: Iterable[Finding]) -> list[Finding]:
    """Make low what more than half of three or more replicas do at one step: they log less."""
    found = list(findings)
    at: dict[tuple[str, int | None], int] = {}
    for one in found:
        if one.evidence["rule"] == "stopped":
            place = (one.evidence["quantity"], one.onset_step)
            at[place] = at.get(place, 0) + 1
    return [
        replace(one, severity=Severity.LOW, confidence=0.3)
        if one.evidence["rule"] == "stopped"
        and one.evidence["replicas"] >= 3
        and 2 * at[one.evidence["quantity"], one.onset_step] > one.evidence["replicas"]
        else one
        for one in found
    ]


def _together(findings: list[Finding]) -> list[Finding]:
    """Tell once what several quantities of a replica show at the same time: the first to show."""
    kept: list[Finding] = []
    for one in sorted(findings, key=lambda f: (f.onset_step or 0, f.finding_id)):
        for at, first in enumerate(kept):
            same = (first.replica_id, first.evidence["rule"]) == (
                one.replica_id, one.evidence["rule"],
            )  # fmt: skip
            if same and (first.end_step is None or (one.onset_step or 0) <= first.end_step):
                names = dict.fromkeys((*first.evidence["quantities"], one.evidence["quantity"]))
                more = {**first.evidence, "quantities": tuple(names)}
                worst = max(first, one, key=lambda f: f.severity)
                kept[at] = replace(
                    first, evidence=more, severity=worst.severity, confidence=worst.confidence
                )
                break
        else:
            kept.append(one)
    return kept
