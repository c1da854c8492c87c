"""A loss that jumps and comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core import (
    AttributionRule,
    BaseDetector,
    Column,
    Condition,
    Context,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Outcome,
    RootCause,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
    check_count,
    check_positive,
    check_range,
    detectors,
)
from ..core.sensitivity import DISTANCE, RATIO, RISK, scales
from ..kernels import RobustBaseline
from ._latency import SLOW
from ._learning import is_learning_rate, is_training_loss
from ._noise_tail import BLOCK, TAIL, admit, grow, reach
from ._trail import Floats, evidence, sureness

__all__ = ["LossSpikeDetector"]

_SOURCE = "Chowdhery et al., PaLM, 2022, section 5.1; Molybog et al., 2023"
_RULES = (
    AttributionRule(
        "SPK001", FailureMode.LOSS_SPIKE, RootCause.CORRUPTED_BATCH, 0.55,
        "One or a few batches around step {onset_step} hold values out of range: the loss jumped "
        "to {ratio} times its level and came back.",
        raises=((Condition("sudden", "==", True,
                           "it rose within one step while the learning rate did not"), 0.2),),
        remediation=(("Look at the batches of steps {onset_step} to {last_step}; skip them, or "
                     "restart some steps before with the data shuffled anew (as PaLM did)."),),
        source=_SOURCE,
    ),
    AttributionRule(
        "SPK002", FailureMode.LOSS_SPIKE, RootCause.LEARNING_RATE_TOO_HIGH, 0.3,
        "The learning rate is high enough for single steps to throw the weights.",
        raises=((Condition("spikes", ">=", 3, "it is one of {spikes} spikes"), 0.3),),
        remediation=("Lower the learning rate, or clip gradients nearer to their usual norm.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "SPK003", FailureMode.LOSS_SPIKE, RootCause.LEARNING_RATE_SCHEDULE_FAULT, 0.7,
        "The learning rate rose {lr_jump} times right before the loss jumped at step {onset_step}.",
        when=(Condition("lr_jump", ">=", 3.0, "the learning rate rose {lr_jump} times"),),
        remediation=("Check the schedule around step {onset_step}.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "SPK004", FailureMode.LOSS_SPIKE, RootCause.OPTIMIZER_STATE_LOST, 0.6,
        "The optimizer's state was lost when the run was resumed before step {onset_step}.",
        when=(Condition("after_restart", "==", True, "it began right after a restart"),),
        remediation=(("Save and load the optimizer's state with the weights, or warm the learning "
                     "rate up after a resume."),),
        source=_SOURCE,
    ),
)  # fmt: skip

_KEPT = 16  # spikes of a series that are told one by one
_AFTER_RESTART = 50  # values
_BEFORE = 16  # values that say what the level was
_WARMUP = 64
_BLOCK = 1 << 16

Steps = npt.NDArray[np.int64]


@detectors.register("loss_spike")
@dataclass(frozen=True)
class LossSpikeDetector(BaseDetector):
    """A training loss that jumps far above its level and comes back.

    What it detects
    ---------------
    Runs of at most `longest` values of a training loss that stand far above the
    running level and end. A rise that stays is divergence, another detector's.

    Why it matters
    --------------
    A spike tells of a bad batch, of a learning rate at the edge, of an
    optimizer that lost its memory; large ones undo thousands of steps, and
    often announce divergence.

    How it decides
    --------------
    The distance of log(loss) from the running median of the last 128 values,
    in robust standard deviations (median absolute deviation; Hampel 1974;
    OLMo-core's filter uses 6 on the loss itself). On the logarithm, since
    losses near zero are heavy-tailed: there, tenfold jumps are daily fare and
    their spread says so. A spike has a distance of `sigmas` and a height of
    `ratio` times the level, and undoes at least `undone` of what the loss had
    gained since the start. How far noise reaches, the run itself shows: the
    sixteen largest distances so far from the median of their neighbours, above it
    (a spike counts once) and below (noise falls as far as it rises), give the index of its tail
    (Pickands 1975, as the ratio of the fourth to the sixteenth, so that three
    spikes do not hide a fourth), and the line that it passes in one run of
    1 / `chance` is drawn on from there; what stays below is none. A spike is
    medium; high where it also reaches `high_ratio` times the level at twice
    either distance and stands above the start. Where more
    than one value in 250 belongs to a spike, at four spikes or more, that is how
    this loss is, and they are low. Losses of 0 or below are passed over.

    Parameters
    ----------
    sigmas : float
        Robust standard deviations.
    ratio, high_ratio : float
        Peak over level.
    undone : float
        Part of the way from the start to the level.
    longest : int
        Values.
    chance : float
        That noise alone gives a spike in a run.

    Evidence
    --------
    ``series``, ``peak``, ``peak_step``, ``level``, ``ratio``, ``sigmas``, ``undone``,
    ``values`` (in the spike), ``last_step``, ``sudden``, ``lr_jump``,
    ``after_restart``, ``spikes`` (in all of this series), ``goes_on``.

    Examples
    --------
    >>> import numpy as np
    >>> from ml_systems_debugger.core import Signal
    >>> losses = 2 + np.random.default_rng(0).normal(0, 0.05, 400)
    >>> losses[300:303] = 14, 9, 5
    >>> found = LossSpikeDetector().detect(
    ...     [Signal("loss", float(x), step=i) for i, x in enumerate(losses)])
    >>> found.severity.value, found.onset_step, found.findings[0].end_step
    ('high', 300, 302)
    """

    failure_mode = FailureMode.LOSS_SPIKE
    required_signals = ("loss",)
    attribution_rules = _RULES
    latency = SLOW
    sensitivity_scales = scales(
        sigmas=DISTANCE, ratio=RATIO, high_ratio=RATIO, undone=DISTANCE, chance=RISK
    )

    sigmas: float = 8.0
    ratio: float = 1.5
    high_ratio: float = 5.0
    undone: float = 0.15
    longest: int = 48
    chance: float = 1e-2

    def __post_init__(self) -> None:
        check_positive(sigmas=self.sigmas, ratio=self.ratio, high_ratio=self.high_ratio)
        check_count(1, longest=self.longest)
        check_range("chance", self.chance, 0.0, 1.0, open_low=True)

    @cached_property
    def _baseline(self) -> RobustBaseline:
        # A level that changes for good is learnt within 64 values, and is none of ours then.
        return RobustBaseline(
            window=128, batch=16, warmup=_WARMUP, logarithm=True, clip=6.0, relearn=64, floor=0.01,
            threshold=self.sigmas, side="above", patience=3,
        )  # fmt: skip

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state."""
        columns = {
            "baseline": Column(np.float64, (self._baseline.state_size,)),
            "seen": Column(np.int64),
            "spikes": Column(np.int64),
            "start": Column(np.float64, (8,), np.nan),
            # The largest distances below and above the level, rising.
            "tails": Column(np.float64, (2, TAIL)),
            "block": Column(np.float64, (BLOCK,), np.nan),
            "values": Column(np.float64, (self._memory,), np.nan),
            "steps": Column(np.int64, (self._memory,)),
        }
        return FoldState(self.name, 2, columns)

    @property
    def _memory(self) -> int:
        """Values that a spike may reach back over, with those before it."""
        return self.longest + _BEFORE + 8

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is a loss or a learning rate."""
        return key.name in ("loss", "lr")

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        rates: dict[tuple[object, ...], Series] = {}
        folded = []
        for one in chunk.named("lr"):
            if is_learning_rate(one.key) and len(one):
                place = (one.key.run, one.key.segment, one.key.replica_id)
                rates[place] = one
        for one in chunk.named("loss"):
            if not len(one) or not is_training_loss(one.key):
                continue
            key = one.key
            own = (key.run, key.segment, key.replica_id)
            rate = rates.get(own, rates.get((key.run, key.segment, None)))
            row = state.row(key)
            if (seen := int(state["seen"][row])) < 8:
                first = one.values[: 8 - seen]
                state["start"][row, seen : seen + len(first)] = first
            for start in range(0, len(one), _BLOCK):  # what is held does not grow with the run
                part = slice(start, start + _BLOCK)
                self._fold(state, one, one.values[part], one.steps[part], rate)
            folded.append(one)
        for one in (*rates.values(), *folded):
            self._remember(state, one)
        return tuple(state.take_events())

    def _fold(
        self, state: FoldState, one: Series, values: Floats, steps: Steps, rate: Series | None
    ) -> None:
        row = state.row(one.key)
        # The kernel changes the state in place: the column itself, not a copy.
        z, runs = self._baseline.update(state["baseline"][row : row + 1], values, steps)
        assert z is not None  # asked for  # noqa: S101
        at = 0
        tails: Floats = state["tails"][row]
        block: Floats = state["block"][row]
        for run in runs:
            decided = min(int(np.searchsorted(steps, run["step"])), len(steps) - 1) + 1
            if decided > at:
                grow(tails, block, z[at:decided], self.sigmas)
                at = decided
            line = reach(tails, self.chance)
            if float(run["statistic"]) >= line:
                past = self._past(state, one)
                rate_past = None if rate is None else self._past(state, rate)
                self._spike(state, row, one.key, run, past, rate_past, line)
            admit(tails[1], np.array([run["statistic"]]))
        grow(tails, block, z[at:], self.sigmas)

    def _past(self, state: FoldState, one: Series) -> Past:
        """Return a chunk with the last values before it."""
        row = state.row(one.key)
        seen = int(state["seen"][row])
        start = self._memory - min(seen, self._memory)
        held, steps = state["values"][row, start:].copy(), state["steps"][row, start:].copy()
        return Past(held, steps, one, seen)

    def _remember(self, state: FoldState, one: Series) -> None:
        """Keep the last values."""
        row, size, memory = state.row(one.key), len(one), self._memory
        new = min(size, memory)
        for name, given in (("values", one.values), ("steps", one.steps)):
            kept = state[name][row]
            kept[: memory - new] = kept[new:]
            kept[memory - new :] = given[-new:]
        state["seen"][row] += size

    def _spike(
        self,
        state: FoldState,
        row: int,
        key: SeriesKey,
        run: Any,
        past: Past,
        rate: Past | None,
        line: float,
    ) -> None:
        start = state["start"][row]
        known = start[np.isfinite(start)]
        began = float(np.median(known)) if len(known) else math.nan
        finding = self._finding(key, run, past, rate, began, line)
        if finding is None:
            return
        state["spikes"][row] += 1
        if state["spikes"][row] > _KEPT or finding.finding_id in state.findings:
            state.dropped_findings += 1
            return
        state.open(int(run["step"]), finding)

    def _finding(
        self,
        key: SeriesKey,
        run: Any,
        past: Past,
        rate: Past | None,
        began: float,
        line: float,
    ) -> Finding | None:
        peak, sigmas = float(run["value"]), float(run["statistic"])
        count, first, last = int(run["count"]), int(run["first"]), int(run["last"])
        before, own, place = past.before(first)
        before = before[np.isfinite(before)]
        if not math.isfinite(peak) or count > self.longest or not len(before):
            return None
        level = float(np.median(before))
        ratio = peak / level if level > 0 else math.inf
        if ratio < self.ratio or not math.isfinite(ratio):
            return None
        # What is learnt is the distance from the start to the level: a spike undoes some of it.
        undone = (peak - level) / (began - level) if began > level else math.inf
        if undone < self.undone:
            return None
        least = 2 * max(self.sigmas, line)
        high = ratio >= self.high_ratio and sigmas >= least and undone >= 1.0
        sudden = own >= level * ratio**0.5
        return Finding(
            self.failure_mode,
            Severity.HIGH if high else Severity.MEDIUM,
            sureness(min(sigmas / self.sigmas, ratio / self.ratio)),
            first,
            last,
            key.layer,
            key.replica_id,
            f"the loss jumped from {level:.4g} to {peak:.4g} ({ratio:.3g} times) at step "
            f"{int(run['peak_step'])} and came back after step {last}",
            evidence(
                series=str(key), peak=peak, peak_step=int(run["peak_step"]), level=level,
                ratio=ratio, sigmas=min(sigmas, 1e6), undone=min(undone, 1e6),
                values=count, last_step=last,
                onset_step=first, sudden=sudden,
                after_restart=bool(key.segment and place < _AFTER_RESTART),
                lr_jump=None if rate is None else _jump(rate, first), recovered=True,
            ),
            f"{self.name}:{key}:{first}",
        )  # fmt: skip

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        rows = [row for row, key in enumerate(state.keys) if is_training_loss(key)]
        counts = [int(state["seen"][row]) for row in rows]
        if not counts:
            return self._silent(Outcome.NOT_APPLICABLE, "no training loss is in the input")
        if max(counts) <= _WARMUP:
            return self._silent(
                Outcome.INSUFFICIENT, f"{max(counts)} losses, {_WARMUP + 1} are needed"
            )
        number = {str(state.keys[row]): int(state["spikes"][row]) for row in rows}
        seen = {str(state.keys[row]): int(state["seen"][row]) for row in rows}
        findings = []
        for finding in state.findings.values():
            series = str(finding.evidence["series"])
            spikes = number[series]
            usual = spikes >= 4 and spikes * 250 > seen[series]
            severity = Severity.LOW if usual else finding.severity
            told = {**finding.evidence, "spikes": spikes}
            findings.append(replace(finding, severity=severity, evidence=told))
        more = state.dropped_findings
        return DetectionResult.of_findings(
            self.failure_mode, self.name, findings, judged=("loss",),
            reason=f"{more} further spikes are only counted" if more else "",
        )  # fmt: skip


class Past(NamedTuple):
    """A chunk of a series with the last values before it; `seen` of it came before the chunk."""

    values: Floats
    steps: Steps
    chunk: Series
    seen: int

    def before(self, step: int) -> tuple[Floats, float, int]:
        """Return the 16 values before `step`, the value there, and its place in the series."""
        at = int(np.searchsorted(self.chunk.steps, step))
        if at == 0 and len(self.steps) and self.steps[-1] >= step:  # it began before the chunk
            back = int(np.searchsorted(self.steps, step))
            found = self.values[max(0, back - _BEFORE) : back]
            return found, float(self.values[back]), self.seen - len(self.values) + back
        found = np.asarray(self.chunk.values[max(0, at - _BEFORE) : at])
        if len(found) < _BEFORE:
            found = np.concatenate([self.values, found])[-_BEFORE:]
        return found, float(self.chunk.values[at]), self.seen + at

    def until(self, step: int, count: int) -> Floats:
        """Return the last `count` values up to `step`, the one there too."""
        at = int(np.searchsorted(self.chunk.steps, step, "right"))
        found = np.asarray(self.chunk.values[max(0, at - count) : at])
        if len(found) < count:
            back = int(np.searchsorted(self.steps, step, "right"))
            found = np.concatenate([self.values[:back], found])[-count:]
        return found


def _jump(rate: Past, step: int) -> float | None:
    """Return the greatest factor by which the learning rate rose in the ten values up to `step`."""
    window = rate.until(step, 10)
    window = window[window > 0]
    return float((window[1:] / window[:-1]).max()) if len(window) > 1 else None
