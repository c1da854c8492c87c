"""Steps that wait for their data."""

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
    Series,
    SeriesKey,
    Severity,
    SignalSet,
    check_count,
    check_range,
    detectors,
)
from ..core.sensitivity import COUNT, PART, scales
from ._lasting import TAIL, Lasting, Tail, Turn, keep_quiet, summed
from ._latency import SLOW
from ._starvation_rules import STARVED
from ._straggler_findings import ident
from ._taught import ROUGH, TAUGHT, Floats, goals, learn, teach
from ._trail import evidence, sureness

__all__ = ["InputStarvationDetector"]

_FROM_START = 16  # values in which a share that was always high is called so
_CALM = 16
_TRACE = 0.05  # XProf: below this share a step does not wait for its input


@detectors.register("input_starvation")
@dataclass(frozen=True)
class InputStarvationDetector(BaseDetector):
    """Training steps that spend their time waiting for data.

    What it detects
    ---------------
    A share of `data_time` in `step_time` (per replica) that is large and stays
    so, from the start or from a step on.

    Why it matters
    --------------
    A device that waits for its batches costs as much as one that computes. A
    share that rises in the middle of a run tells of a cold cache, a shard on a
    slow disk, a loader process that died.

    How it decides
    --------------
    The share of a step is data_time / step_time (all of it, where the data took
    longer than the step is said to). `persistence` steps of twice as many above
    the limit make a finding, half as many in a row below it end it: the first
    steps of an epoch, where loaders start anew, are none. The limit is `share`:
    XProf calls a step highly input-bound from 0.2 on, moderately from 0.05;
    here it is larger, since an alarm asks for something to be done. A replica
    whose usual share (the median of its past) is well below the limit has a
    change with an onset, which must also be `rise` above that; else it was so
    from the start. High: half of the time or more over the occurrence, and it
    goes on; else medium.

    Parameters
    ----------
    share : float
        Part of the step that is too much.
    rise : float
        Least rise over the usual share, where it is not so from the start.
    persistence : int
        Steps.

    Evidence
    --------
    ``rule`` (rise, from_the_start), ``series``, ``quantity``, ``share`` (mean over
    the occurrence), ``peak_share``, ``peak_step``, ``usual_share``, ``limit``,
    ``persistence_steps`` (values above the limit to leave by), ``waited`` (sum
    of data_time over them, in its unit), ``onset_step``, ``onset_low``,
    ``onset_high``, ``goes_on``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> signals = [Signal("step_time", 0.4, step=i) for i in range(200)]
    >>> signals += [Signal("data_time", 0.02 if i < 90 else 0.25, step=i) for i in range(200)]
    >>> found = InputStarvationDetector().detect(signals)
    >>> found.severity.value, found.onset_step, found.evidence["share"]
    ('high', 90, 0.625)
    """

    failure_mode = FailureMode.INPUT_STARVATION
    required_signals = ("data_time",)
    attribution_rules = STARVED
    latency = SLOW
    sensitivity_scales = scales(
        share=PART.within(_TRACE, 1.0), rise=PART, persistence=COUNT.within(4, 32)
    )

    share: float = 0.3
    rise: float = 0.1
    persistence: int = 16

    def __post_init__(self) -> None:
        check_range("share", self.share, _TRACE, 1.0)
        check_range("rise", self.rise, 0.0, 1.0)
        check_count(4, persistence=self.persistence)
        check_range("persistence", self.persistence, 4, 32)

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state: a row for every series of shares."""
        columns = {
            **TAUGHT,
            "kept": Column(np.float64, (3, TAIL), math.nan),  # excess, share, data_time
            "kept_steps": Column(np.int64, (TAIL,)),
        }
        state = FoldState(self.name, 1, columns)
        state.memory.update(open={}, number={}, alone=[])
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is time for data, or what it is a part of."""
        return key.name in ("data_time", "step_time")

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps into `state`, in place; return what changed."""
        for one in chunk.select("data_time"):
            whole = chunk.get(one.key._replace(name="step_time"))
            if whole is None:
                continue
            steps, waited, share = _shares(one, whole)
            key = one.key._replace(name="share of data_time")
            self._fold(state, key, steps, waited, share)
        return state.take_events()

    def _fold(
        self, state: FoldState, key: SeriesKey, steps: npt.NDArray[np.int64], waited: Floats,
        share: Floats,
    ) -> None:  # fmt: skip
        row = state.row(key)
        at = 0
        while at < len(share):
            due = int(goals(state["count"][[row]], state["stride"][[row]])[0])
            stop = min(len(share), at + due)
            part = slice(at, stop)
            excess = share[part] / self._limit(state, row)
            # A share over the limit must not become usual, unless it always was.
            calm = np.where(share[part] > self.share, np.nan, share[part])
            teach(state, [row], calm[:, None])
            self._judge(state, key, row, excess, np.stack([share[part], waited[part]]), steps[part])
            if state["count"][row] == ROUGH:
                first = state["sample"][row, :ROUGH]
                known = first[np.isfinite(first)]
                usual = float(np.median(known)) if len(known) > ROUGH // 2 else math.nan
                state["base"][row] = state["anchor"][row] = usual
                state["slow"][row] = math.isnan(usual)
            learn(state, [row], 1.0)
            at = stop

    def _limit(self, state: FoldState, row: int) -> float:
        base = float(state["base"][row])
        return self.share if not math.isfinite(base) else max(self.share, base + self.rise)

    def _judge(
        self, state: FoldState, key: SeriesKey, row: int, excess: Floats, facts: Floats,
        steps: npt.NDArray[np.int64],
    ) -> None:  # fmt: skip
        name = ident(key)
        opened: dict[str, Any] = state.memory["open"]
        numbers: dict[str, int] = state.memory["number"]
        kept, kept_steps = state["kept"][row], state["kept_steps"][row]
        if name not in opened and keep_quiet(kept, kept_steps, excess, facts, steps):
            return
        tail = Tail.of(state["kept"][row], state["kept_steps"][row], excess, facts, steps)
        rule = Lasting(2 * self.persistence, self.persistence, self.persistence, 0.7)
        for turn in rule.turns(tail, name in opened):
            step = int(tail.steps[turn.stop - 1])
            if turn.kind == "open":
                number = numbers.get(name, 0)
                numbers[name] = number + 1
                opened[name] = _begun(state, key, row, rule, tail, turn, number)
                _extend(opened[name], rule, tail, turn)
                state.open(step, self._finding(opened[name]))
            elif turn.kind == "more":
                _extend(opened[name], rule, tail, turn)
            else:
                run = opened.pop(name)
                run["end"] = int(tail.steps[turn.start])
                state.close(step, self._finding(run))
        tail.keep(state["kept"][row], state["kept_steps"][row])

    def _finding(self, run: dict[str, Any]) -> Finding:
        key, over = SeriesKey.from_list(run["key"]), run["end"] is not None
        share, usual = run["sum"] / run["values"], run["usual"]
        high = not over and share >= 0.5
        span = f"from step {run['onset']} to {run['end']}" if over else f"since step {run['onset']}"
        who = "steps" if key.replica_id is None else f"steps of replica {key.replica_id}"
        before = f", {usual:.0%} before" if usual is not None else ", from the start"
        limit = max(self.share, (usual or 0.0) + self.rise)
        facts = evidence(
            rule="from_the_start" if usual is None else "rise",
            series=str(key._replace(name="data_time")), quantity="data_time", share=share,
            peak_share=run["peak"], peak_step=run["peak_step"], usual_share=usual, limit=limit,
            persistence_steps=run["values"], waited=run["waited"], onset_step=run["onset"],
            onset_low=run["low"], onset_high=run["onset"], goes_on=not over,
            recovered=True if over else None,
        )  # fmt: skip
        return Finding(
            self.failure_mode,
            Severity.HIGH if high else Severity.MEDIUM,
            sureness(share / limit),
            run["onset"],
            run["end"],
            key.layer,
            key.replica_id,
            f"{who} wait for data {share:.0%} of their time {span}{before}",
            facts,
            f"{self.name}:{ident(key)}:{run['number']}",
        )

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return what `state` says of the run so far; changes nothing."""
        counts = [int(state["count"][state.row(key)]) for key in state.keys]
        if not counts:
            return self._silent(
                Outcome.NOT_APPLICABLE, "no data_time with a step_time beside it is in the input"
            )
        if max(counts) < _FROM_START:
            return self._silent(
                Outcome.INSUFFICIENT,
                f"{max(counts)} steps with data_time, {_FROM_START} are needed",
            )
        found = dict(state.findings)
        for run in state.memory["open"].values():
            finding = self._finding(run)
            if finding.finding_id in found:
                found[finding.finding_id] = finding
        return DetectionResult.of_findings(
            self.failure_mode, self.name, found.values(), judged=("data_time", "step_time")
        )


def _shares(data: Series, whole: Series) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return steps, data_time and its share where both times are logged and make sense."""
    if np.array_equal(data.steps, whole.steps):
        steps, waited, total = data.steps, data.values, whole.values
    else:
        steps, mine, theirs = np.intersect1d(data.steps, whole.steps, return_indices=True)
        waited, total = data.values[mine], whole.values[theirs]
    with np.errstate(invalid="ignore", divide="ignore"):
        good = np.isfinite(waited) & np.isfinite(total) & (waited >= 0) & (total > 0)
        share = np.minimum(waited[good] / total[good], 1.0)
    return steps[good], waited[good], share


def _begun(
    state: FoldState, key: SeriesKey, row: int, rule: Lasting, tail: Tail, turn: Turn, number: int
) -> dict[str, Any]:
    base, onset = float(state["base"][row]), int(tail.steps[turn.start])
    low = max(0, rule.before(tail, turn.start) - 1)
    return {
        "number": number, "key": key.to_list(), "onset": onset, "low": int(tail.steps[low]),
        "end": None, "sum": 0.0, "values": 0, "waited": 0.0, "peak": 0.0, "peak_step": onset,
        "usual": base if math.isfinite(base) else None,
    }  # fmt: skip


def _extend(run: dict[str, Any], rule: Lasting, tail: Tail, turn: Turn) -> None:
    span = slice(turn.start, turn.stop)
    inside = tail.excess[span] > rule.leave
    if not inside.any():
        return
    share, waited = tail.facts[:, span][:, inside]
    run["sum"], run["waited"] = summed(run["sum"], share), summed(run["waited"], waited)
    run["values"] += len(share)
    at = int(np.argmax(share))
    if share[at] > run["peak"]:
        run["peak"], run["peak_step"] = float(share[at]), int(tail.steps[span][inside][at])
