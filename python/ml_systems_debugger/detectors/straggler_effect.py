"""Replicas that hold the others up, and jobs that slow down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
    SeriesKey,
    SignalSet,
    check_count,
    check_positive,
    check_range,
    detectors,
)
from ..core.sensitivity import COUNT, DISTANCE, RATIO, scales
from ._lasting import TAIL, Lasting, Tail, keep_all, keep_quiet
from ._latency import SLOW
from ._pace import BUSY, TIMES, Floats, aligned, distances, places, reference
from ._straggler_findings import begun, extend, finding_of, ident, is_pace, pace_of, told_once
from ._straggler_rules import STRAGGLER
from ._taught import ROUGH, TAUGHT, by_falls, goals, learn, mad, teach

__all__ = ["StragglerEffectDetector"]

_BLOCK = 64  # values of the job's pace per median
_ROW_SIGMAS = 3.0
_MANY = 4
_LEVEL_SIGMAS = 5.0  # robust deviations among replicas from which a level is an outlier
_JOB = Lasting(window=64, needed=48, calm=16)
_CALM = 8


@detectors.register("straggler_effect")
@dataclass(frozen=True)
class StragglerEffectDetector(BaseDetector):
    """A replica slower than the others, or than it was; a job slower than it was.

    What it detects
    ---------------
    A replica whose time per step rises above its usual distance from the
    others' by at least a factor of 1 / `score` and stays there, or that is that
    much slower than the others from the start. Where every replica slows, or
    there is only one, the job against its own past.

    Why it matters
    --------------
    A synchronous job runs at the pace of its slowest replica: one that takes
    twice as long halves the throughput of all. A hot or faulty device, a noisy
    neighbour or a slow disk shows here first, often before the worker fails.

    How it decides
    --------------
    Per step, the log-ratio of each replica's time to the (lower) median over
    replicas, less the replica's usual one: the median of its past, sampled
    evenly, without what stands out. Replicas that always differ are healthy.
    Over the limit is what exceeds 1 / `score` (nvidia-resiliency-ext calls a
    relative score below 0.75 a straggler) and `sigmas` robust deviations of the
    replica's own noise (as it was, and as the falls among its last 64 values show
    it, since noise falls as far as it rises), and with five or more replicas 3
    times the robust deviation over replicas at that step. `rounds` of the last 8 values over it
    make a finding (ByteRobust: 5 rounds), so that pauses for checkpoints or
    evaluation, and single slow steps, are none; 8 in a row below the square
    root of the factor end it. It is high where it goes on and takes half as
    long again as usual, or more; else medium. A replica whose first 8 values
    already take half as long again (among fewer than four replicas twice as
    long) and lie 5 robust deviations above the levels of the others is slow from
    the start: medium, since it may be other hardware.
    The median over replicas, against what its past in blocks of 64 teaches,
    finds what slows all: 48 of 64 values by `job_ratio`. That is low where
    there are several replicas, since none is to blame, and medium where one
    replica is all there is and it goes on. Where `comm_time` is logged, step times are also
    compared without it: who waits is not who is waited for.

    Parameters
    ----------
    score : float
        Usual time over time now, below which a replica is a straggler.
    sigmas : float
        Times the replica's own noise.
    rounds : int
        Values over the limit among 8.
    job_ratio : float
        Slow-down of the whole job that counts.

    Evidence
    --------
    ``rule`` (replica, from_the_start, job), ``series``, ``quantity``,
    ``replicas``, ``slowdown`` (mean factor over the occurrence),
    ``peak_slowdown``, ``peak_step``, ``score``, ``usual_ratio`` (to the median
    of the replicas), ``noise``, ``limit``, ``persistence_steps`` (values over
    the limit to leave by), ``excess_time`` (sum of what the values lie above
    the expected, in their unit), ``onset_step``, ``onset_low``, ``onset_high``,
    ``goes_on``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> signals = [Signal("step_time", 0.9 if r == 2 and i >= 80 else 0.4, step=i, replica_id=r)
    ...            for i in range(120) for r in range(4)]
    >>> found = StragglerEffectDetector().detect(signals)
    >>> found.severity.value, found.replica_id, found.onset_step
    ('high', 2, 80)
    """

    failure_mode = FailureMode.STRAGGLER_EFFECT
    required_signals = TIMES
    attribution_rules = STRAGGLER
    latency = SLOW
    sensitivity_scales = scales(
        score=RATIO.within(0.01, 0.99),
        sigmas=DISTANCE,
        rounds=COUNT.within(2, _CALM),
        job_ratio=RATIO.within(1.01),
    )

    score: float = 0.75
    sigmas: float = 6.0
    rounds: int = 5
    job_ratio: float = 1.5

    def __post_init__(self) -> None:
        check_range("score", self.score, 0.01, 0.99)
        check_positive(sigmas=self.sigmas)
        check_count(2, rounds=self.rounds)
        check_range("rounds", self.rounds, 2, _CALM)
        check_range("job_ratio", self.job_ratio, 1.01, 1e6)

    @property
    def _least(self) -> float:
        return -math.log(self.score)

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state: a row for every replica and for the pace of every place."""
        nan = math.nan
        state = FoldState(
            self.name,
            1,
            {
                **TAUGHT,
                "kept": Column(np.float64, (3, TAIL), nan),  # excess, log-ratio, time
                "kept_steps": Column(np.int64, (TAIL,)),
            },
        )
        state.memory.update(open={}, number={}, places={})
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is a time that a step took."""
        return key.name in TIMES or key.name == "comm_time"

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps into `state`, in place; return what changed."""
        for place, pairs in places(chunk):
            steps, times = aligned([one for _, one in pairs], place.name == "tokens_per_second")
            logs = np.log(times)
            middle = reference(logs)
            keys = [key for key, _ in pairs]
            known = state.memory["places"].setdefault(ident(place), {"replicas": [], "judged": 0})
            new = {str(key.replica_id) for key in keys} - set(known["replicas"])
            known["replicas"] = sorted([*known["replicas"], *new])
            if place.name != BUSY:
                self._pace(state, place, steps, middle)
            if len(keys) > 1:
                shared = np.isfinite(logs).sum(axis=1) >= 2
                rows = [state.row(key) for key in keys]
                away = distances(logs, middle)[shared]
                self._replicas(state, keys, rows, steps[shared], away, times[shared])
        return state.take_events()

    # The replicas against one another.

    def _replicas(
        self, state: FoldState, keys: list[SeriesKey], rows: list[int],
        steps: npt.NDArray[np.int64], away: Floats, times: Floats,
    ) -> None:  # fmt: skip
        """Judge `away` [n, replicas] in parts, so that no replica is taught within one."""
        at = 0
        there = np.isfinite(away)
        while at < len(steps):
            stop = len(steps)
            due = goals(state["count"][rows], state["stride"][rows])
            if (due <= stop - at).any():
                for column in np.flatnonzero(due <= stop - at):
                    where = np.flatnonzero(there[at:, column])
                    if len(where) >= due[column]:
                        stop = min(stop, at + int(where[due[column] - 1]) + 1)
            part = slice(at, stop)
            self._part(state, keys, rows, steps[part], away[part], times[part], there[part])
            self._first_levels(state, keys, rows)
            learn(state, rows, 0.5 * self._least)
            at = stop

    def _part(
        self, state: FoldState, keys: list[SeriesKey], rows: list[int],
        steps: npt.NDArray[np.int64], away: Floats, times: Floats, there: npt.NDArray[np.bool_],
    ) -> None:  # fmt: skip
        counts = state["count"][rows]
        known = counts >= ROUGH
        limit = np.maximum(self._least, self.sigmas * state["noise"][rows])
        over = np.where(known, away - state["base"][rows], away)
        excess = np.where(known, over / limit, np.where(there, 0.0, np.nan))
        with np.errstate(invalid="ignore"):
            bold = (excess > 1.0).any(axis=1)
        if bold.any() and len(keys) >= 5:
            excess[bold] = self._against_row(over[bold], excess[bold])
        opened = state.memory["open"]
        if (
            there.all()
            and not bold.any()
            and not (opened and any(ident(k) in opened for k in keys))
        ):
            facts = np.stack([excess, over, times]).transpose(2, 0, 1)  # [replicas, 3, n]
            keep_all(state["kept"], state["kept_steps"], rows, facts, steps)
            teach(state, rows, np.where(excess > 1.0, np.nan, away))
            return
        for column, key in enumerate(keys):
            here = there[:, column]
            if not here.any():
                continue
            row, values = rows[column], excess[here, column]
            teach(state, [row], np.where(values > 1.0, np.nan, away[here, column])[:, None])
            facts = np.stack([over[here, column], times[here, column]])
            self._judge(state, key, row, values, facts, steps[here])

    def _against_row(self, over: Floats, excess: Floats) -> Floats:
        """Take back what the spread over replicas at that step explains."""
        from ..kernels import replica_spread

        spread = replica_spread(over)
        with np.errstate(invalid="ignore"):
            above = over - spread["median"][:, None] > _ROW_SIGMAS * spread["mad"][:, None]
            return np.where((excess > 1.0) & ~above, 1.0, excess)

    def _first_levels(self, state: FoldState, keys: list[SeriesKey], rows: list[int]) -> None:
        """Settle a first level for replicas that have just enough values, or that they are slow."""
        due = (state["count"][rows] == ROUGH) & np.isnan(state["base"][rows])
        if not due.any():
            return
        sample, bases = state["sample"][rows][:, :ROUGH], state["base"][rows]
        ready = state["count"][rows] >= ROUGH
        levels = np.where(ready & np.isnan(bases), np.median(sample, axis=1), bases)
        middle = float(np.median(levels[ready]))
        many = int(ready.sum()) >= _MANY
        # Two or three have no spread worth the name; among them only a plain difference counts.
        least = math.log(1.5 if many else 2.0)
        least = max(self._least, least, _LEVEL_SIGMAS * mad(levels[ready]) if many else 0.0)
        for column in np.flatnonzero(due):
            row, level = rows[column], float(levels[column])
            slow = level - middle > least
            state["slow"][row], state["base"][row] = slow, 0.0 if slow else level
            state["anchor"][row] = state["base"][row]
            state["noise"][row] = 1.5 * mad(sample[column])  # of eight values only
            if slow:
                limit = max(self._least, self.sigmas * float(state["noise"][row]))
                over, times = state["kept"][row, 1:, TAIL - ROUGH :].copy()
                steps = state["kept_steps"][row, TAIL - ROUGH :].copy()
                state["kept"][row] = math.nan
                facts = np.stack([over, times])
                self._judge(state, keys[column], row, over / limit, facts, steps)

    # The job against its past.

    def _pace(
        self, state: FoldState, place: SeriesKey, steps: npt.NDArray[np.int64], middle: Floats
    ) -> None:
        key = pace_of(place)
        row = state.row(key)
        here = np.isfinite(middle)
        middle, steps = middle[here], steps[here]
        limit = math.log(self.job_ratio)
        at = 0
        while at < len(middle):
            count = int(state["count"][row])
            filled = count % _BLOCK
            if count < ROUGH:
                stop = min(len(middle), at + ROUGH - count)
            elif filled:
                stop = min(len(middle), at + _BLOCK - filled)
            else:
                stop = len(middle)
            part = middle[at:stop]
            if filled or len(part) < _BLOCK:
                used = part[: _BLOCK - filled] if filled else part
                bases = np.full(len(used), state["base"][row])
                state["sample"][row, filled : filled + len(used)] = used
                count += len(used)
                state["count"][row] = count
                if count == ROUGH:
                    state["base"][row] = np.median(state["sample"][row, :ROUGH])
                if count % _BLOCK == 0:
                    level = float(np.median(state["sample"][row, :_BLOCK]))
                    state["base"][row] = self._moved(float(state["base"][row]), level, count)
            else:
                blocks = part[: len(part) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
                base, held = float(state["base"][row]), []
                for level in np.median(blocks, axis=1).tolist():
                    held.append(base)
                    count += _BLOCK
                    base = self._moved(base, level, count)
                bases = np.repeat(held, _BLOCK)
                state["base"][row], state["count"][row] = base, count
            part, span = part[: len(bases)], steps[at : at + len(bases)]
            over = part - bases
            over[np.isnan(over)] = 0.0  # nothing is known yet
            at += len(bases)
            if ident(key) not in state.memory["open"] and not (over > limit).any():
                part, over, span = part[-TAIL:], over[-TAIL:], span[-TAIL:]  # the rest is forgotten
            self._judge(state, key, row, over / limit, np.stack([over, np.exp(part)]), span)

    def _moved(self, base: float, level: float, count: int) -> float:
        """Return the base after a block; what lies far above it is not learnt from."""
        limit = math.log(self.job_ratio)
        if count == _BLOCK:
            return level if level - base <= limit else base
        return base + 0.25 * (level - base) if level - base <= 0.5 * limit else base

    # Occurrences.

    def _judge(
        self, state: FoldState, key: SeriesKey, row: int, excess: Floats, facts: Floats,
        steps: npt.NDArray[np.int64],
    ) -> None:  # fmt: skip
        kept, kept_steps = state["kept"][row], state["kept_steps"][row]
        if ident(key) not in state.memory["open"] and keep_quiet(
            kept, kept_steps, excess, facts, steps
        ):
            return
        if not is_pace(key):
            excess = by_falls(state["kept"][row, 1], facts[0], excess, self.sigmas)
        tail = Tail.of(state["kept"][row], state["kept_steps"][row], excess, facts, steps)
        rule = _JOB if is_pace(key) else Lasting(8, self.rounds, _CALM)
        opened: dict[str, Any] = state.memory["open"]
        name = ident(key)
        numbers: dict[str, int] = state.memory["number"]
        for turn in rule.turns(tail, name in opened):
            step = int(tail.steps[turn.stop - 1])
            if turn.kind == "open":
                number = numbers.get(name, 0)
                opened[name] = begun(state, key, row, rule, tail, turn, number)
                numbers[name] = number + 1
                extend(opened[name], rule, tail, turn)
                state.open(step, self._finding(state, key, opened[name]))
            elif turn.kind == "more":
                extend(opened[name], rule, tail, turn)
            else:
                run = opened.pop(name)
                run["end"] = int(tail.steps[turn.start])
                state.close(step, self._finding(state, key, run))
        tail.keep(state["kept"][row], state["kept_steps"][row])

    def _finding(self, state: FoldState, key: SeriesKey, run: dict[str, Any]) -> Finding:
        place = key._replace(name=key.name.removeprefix("pace of "), replica_id=None)
        replicas = len(state.memory["places"][ident(place)]["replicas"])
        noise = self.sigmas * (run["noise"] or 0.0)
        limit = math.log(self.job_ratio) if is_pace(key) else max(self._least, noise)
        return finding_of(key, run, replicas, limit, self.name)

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return what `state` says of the run so far; changes nothing."""
        known: dict[str, Any] = state.memory["places"]
        if not known:
            return self._silent(Outcome.NOT_APPLICABLE, "no time per step is in the input")
        counts = state["count"]
        judged = {
            key.name.removeprefix("pace of ")
            for key in state.keys
            if counts[state.row(key)] >= ROUGH
        } - {BUSY}
        if not judged:
            return self._silent(
                Outcome.INSUFFICIENT, f"fewer than {ROUGH} times per step are in the input"
            )
        found = dict(state.findings)
        for run in state.memory["open"].values():
            finding = self._finding(state, SeriesKey.from_list(run["key"]), run)
            if finding.finding_id in found:  # beyond the limit of a state it is only counted
                found[finding.finding_id] = finding
        return DetectionResult.of_findings(
            self.failure_mode, self.name, told_once(found.values()), judged=tuple(sorted(judged))
        )
