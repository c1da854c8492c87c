"""Replicas that no longer agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import (
    BaseDetector,
    Context,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Outcome,
    ReplicaId,
    SeriesKey,
    SeriesKind,
    Severity,
    SignalSet,
    check_count,
    check_positive,
    detectors,
)
from ..core.sensitivity import COUNT, DISTANCE, scales
from ._desync_findings import beside, earliest_layers, mode_of, place_of
from ._desync_rules import DESYNC
from ._latency import SLOW
from ._replicas import Group, deviations, groups_of, odd_digests, row_median
from ._sides import NOBODY, Sides, camps_of, sides_of, told

__all__ = ["DistributedDesyncDetector"]

_NORMS = ("grad_norm", "param_norm", "loss")
_DIGESTS = ("param_digest", "grad_digest")
_BLOCK = 64  # steps whose spread sets the scale for the next ones
_CALM = 3  # agreeing steps that end an occurrence

_LASTING = 64  # steps after which a replica's own loss is worth a medium finding


@detectors.register("distributed_desync")
@dataclass(frozen=True)
class DistributedDesyncDetector(BaseDetector):
    """Replicas whose gradients or parameters part from the others'.

    What it detects
    ---------------
    A replica whose gradient norm, parameter norm or loss lies apart from the
    median of the replicas for several steps on end, and a replica whose
    parameter or gradient digest differs from the majority's; per layer where
    layers are logged.

    Why it matters
    --------------
    Data-parallel replicas must hold the same parameters after every step. One
    that misses a reduction or has a corrupt memory trains another model and
    pulls the average with it; the loss shows nothing of it for a long time.

    How it decides
    --------------
    Per step, the log-ratio of each replica to the median over replicas. Its
    usual size is learnt online: the median over replicas, then over 64 steps,
    sets the scale for the next 64; what lies beyond the limit is not learnt
    from. Norms that agree to `tolerance` (after an
    all-reduce they do) are held to ten times that; norms of local gradients
    differ by nature and are held to `sigmas` times their usual spread and to a
    factor of 1 + `effect`. `persistence` steps in a row make a finding: high
    where norms used to agree or the factor is large, else medium. A differing
    digest is certain: high at once. Three replicas or more name the culprit by
    majority (Megatron-LM compares SHA-1 sums likewise); of two, neither can, and
    of two against two none is named but both sides.

    Parameters
    ----------
    tolerance : float
        Relative difference up to which norms count as equal.
    sigmas : float
        Times the usual spread.
    effect : float
        Least relative deviation where norms differ by nature.
    persistence : int
        Steps in a row.

    Evidence
    --------
    ``series``, ``quantity``, ``replicas``, ``deviation`` (log-ratio at its
    peak), ``peak_step``, ``usual_spread``, ``steps``, ``agreed_before``,
    ``culprit_known``, ``goes_on``; ``sides`` where no majority names the
    culprit; of digests ``digest``, ``majority``, ``layers``
    and ``alone`` (no other parameter parted with it).

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> signals = [Signal("grad_norm", 5.0 if r == 2 and i >= 40 else 1.0, step=i, replica_id=r)
    ...            for i in range(60) for r in range(4)]
    >>> found = DistributedDesyncDetector().detect(signals)
    >>> found.replica_id, found.onset_step
    (2, 40)
    """

    failure_mode = FailureMode.GRADIENT_DESYNC
    required_signals = (*_NORMS, *_DIGESTS)
    attribution_rules = DESYNC
    latency = SLOW
    sensitivity_scales = scales(
        tolerance=DISTANCE, sigmas=DISTANCE, effect=DISTANCE, persistence=COUNT
    )

    tolerance: float = 1e-3
    sigmas: float = 8.0
    effect: float = 0.5
    persistence: int = 5

    def __post_init__(self) -> None:
        check_positive(tolerance=self.tolerance, sigmas=self.sigmas, effect=self.effect)
        check_count(1, persistence=self.persistence)

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state: per group of replicas a few numbers in `memory`."""
        state = FoldState(self.name, 1, {})
        state.memory["groups"] = {}
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is a quantity that replicas should agree on."""
        return key.name in self.required_signals

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        if len(chunk.replicas) < 2:
            return ()  # nobody to part from
        for key, series in groups_of(chunk.select(*_NORMS)):
            self._norms(state, key, Group.of(series))
        for key, series in groups_of(chunk.select(*_DIGESTS, kind=SeriesKind.DIGEST)):
            self._digests(state, key, Group.of(series))
        return tuple(state.take_events())

    def _memory(self, state: FoldState, key: SeriesKey) -> dict[str, Any]:
        groups: dict[str, Any] = state.memory["groups"]
        fresh: dict[str, Any] = {"seen": 0, "spread": None, "block": [], "runs": {}, "judged": 0}
        found: dict[str, Any] = groups.setdefault(f"{key.name}|{place_of(key)}", fresh)
        if isinstance(found["block"], tuple):  # restored from bytes
            found["block"] = list(found["block"])
        return found

    def _norms(self, state: FoldState, key: SeriesKey, group: Group) -> None:
        memory = self._memory(state, key)
        signed = deviations(group.values)
        size = np.abs(signed)
        usual = row_median(size)
        start = 0
        while start < len(group.steps):
            room = _BLOCK - len(memory["block"])
            stop = min(len(group.steps), start + room)
            part = usual[start:stop]
            limit = self._block(state, key, memory, group, signed, slice(start, stop))
            # Of two replicas that part both are off their middle: that must not become usual.
            part = np.where(part > limit, np.nan, part)
            memory["block"] += _known(part, memory)
            memory["seen"] += stop - start
            if len(memory["block"]) == _BLOCK:
                held = float(np.median(memory["block"]))
                before = memory["spread"]
                memory["spread"] = held if before is None else 0.75 * before + 0.25 * held
                memory["block"] = []
            start = stop

    def _limit(self, memory: dict[str, Any]) -> tuple[float, bool] | None:
        """Return the deviation that counts, and whether replicas used to agree."""
        spread = memory["spread"]
        if spread is None:
            if memory["seen"] < 8:
                return None
            spread = float(np.median(memory["block"][:8]))
        if spread <= self.tolerance:
            return 10.0 * self.tolerance, True
        return max(self.sigmas * spread, float(np.log1p(self.effect))), False

    def _block(
        self, state: FoldState, key: SeriesKey, memory: dict[str, Any], group: Group,
        signed: npt.NDArray[np.float64], part: slice,
    ) -> float:  # fmt: skip
        """Judge some steps; return the deviation above which none is usual."""
        begin = part.start
        if memory["spread"] is None and memory["seen"] < 8:  # the first steps only teach
            taught = min(8 - memory["seen"], part.stop - part.start)
            begin += taught
            if begin >= part.stop:
                return np.inf
            known = memory["block"] + _known(row_median(np.abs(signed[part.start : begin])), memory)
            limits = self._limit({**memory, "seen": 8, "block": known})
        else:
            limits = self._limit(memory)
        assert limits is not None  # eight steps have taught it  # noqa: S101
        limit, agreed = limits
        size = np.abs(signed[begin : part.stop])
        there = np.isfinite(group.values[begin : part.stop]) | group.bad[begin : part.stop]
        flags = (size > limit) | group.bad[begin : part.stop]
        memory["judged"] += part.stop - begin
        if not flags.any() and not memory["runs"]:
            return limit
        active = [
            (column, name)
            for column, name in enumerate(group.names)
            if flags[:, column].any() or str(name) in memory["runs"]
        ]
        for at in range(part.stop - begin):  # step by step: two replicas share a finding
            present = [n for n, h in zip(group.names, there[at], strict=True) if h]
            sides = sides_of(group, begin + at, flags[at], signed[begin + at])
            for column, name in active:
                if there[at, column]:
                    self._one(
                        state, key, memory, present, name, int(group.steps[begin + at]),
                        bool(flags[at, column]), float(signed[begin + at, column]), limit, agreed,
                        () if group.bad[begin + at, column] else sides,
                    )  # fmt: skip
        return limit

    def _one(
        self, state: FoldState, key: SeriesKey, memory: dict[str, Any], present: list[ReplicaId],
        name: int | str, step: int, flagged: bool, deviation: float, limit: float, agreed: bool,
        sides: Sides,
    ) -> None:  # fmt: skip
        runs = memory["runs"]
        run = runs.get(str(name))
        if not flagged:
            if run is not None:
                run["calm"] += 1
                if run["calm"] >= _CALM:
                    self._close(state, runs.pop(str(name)), step)
            return
        if run is None:
            run = runs[str(name)] = {
                "onset": step, "last": step, "length": 0, "calm": 0, "peak": 0.0,
                "peak_step": step, "id": "",
            }  # fmt: skip
        run.update(last=step, length=run["length"] + 1, calm=0)
        size = abs(deviation) if np.isfinite(deviation) else 1e3
        if size > abs(run["peak"]):
            run.update(peak=deviation if np.isfinite(deviation) else 1e3, peak_step=step)
        if run["length"] == self.persistence:
            finding = self._finding(key, memory, present, name, run, limit, agreed, sides)
            run["id"] = finding.finding_id
            if (
                finding.finding_id not in state.findings
            ):  # of two replicas both deviate: one finding
                state.open(step, finding)
        elif run["id"] in state.findings:
            held = state.findings[run["id"]]
            more = {"steps": run["length"], "deviation": run["peak"], "peak_step": run["peak_step"]}
            lasting = held.severity is Severity.LOW and run["length"] == _LASTING
            severity = Severity.MEDIUM if lasting else held.severity
            newer = replace(held, severity=severity, evidence={**held.evidence, **more})
            state.replace(newer, step if lasting else None)

    def _finding(
        self, key: SeriesKey, memory: dict[str, Any], present: list[ReplicaId], name: int | str,
        run: dict[str, Any], limit: float, agreed: bool, sides: Sides,
    ) -> Finding:  # fmt: skip
        known = len(present) >= 3 and not sides
        factor = float(np.exp(min(abs(run["peak"]), 50.0)))
        natural = key.name == "loss"  # each replica has its own data
        high = (agreed or factor >= 2.0) and not natural
        who = f"replica {name}" if known else f"one of the replicas {present}"
        spread = memory["spread"]
        evidence = {
            "series": str(key), "quantity": key.name, "replicas": len(present),
            "deviation": run["peak"], "peak_step": run["peak_step"], "limit": limit,
            "usual_spread": 0.0 if spread is None else spread, "steps": run["length"],
            "agreed_before": agreed, "culprit_known": known, "goes_on": True,
        }  # fmt: skip
        message = (
            f"{key} of {who} is {factor:.3g} times off the median of {len(present)} replicas "
            f"since step {run['onset']}"
        )
        if sides:
            evidence["sides"] = sides
            message = f"{key} parts {told(sides)} since step {run['onset']}"
        message += ", where they agreed before" if agreed else ", far beyond their usual spread"
        message += f"; {NOBODY}." if sides else "."
        return Finding(
            mode_of(key),
            Severity.HIGH if high else Severity.LOW if natural else Severity.MEDIUM,
            0.9 if high else 0.3 if natural else 0.6,
            run["onset"],
            None,
            key.layer,
            name if known else None,
            message,
            evidence,
            f"{self.name}:{place_of(key)}:{name if known else '?'}:{run['onset']}",
        )

    def _close(self, state: FoldState, run: dict[str, Any], step: int) -> None:
        finding = state.findings.get(run["id"])
        if finding is not None and finding.end_step is None:
            evidence = {**finding.evidence, "goes_on": False, "steps": run["length"]}
            state.close(step, replace(finding, end_step=run["last"], evidence=evidence))

    def _digests(self, state: FoldState, key: SeriesKey, group: Group) -> None:
        memory = self._memory(state, key)
        memory["judged"] += len(group.steps)
        odd: dict[int, list[tuple[ReplicaId | None, int, int]]] = {}
        for at, name, digest, majority in odd_digests(group):
            odd.setdefault(at, []).append((name, digest, majority))
        runs: dict[str, Any] = memory["runs"]
        for at in range(0 if runs else min(odd, default=len(group.steps)), len(group.steps)):
            here = odd.get(at, [])
            if not here and not runs:
                continue
            step = int(group.steps[at])
            present = [n for n, h in zip(group.names, group.held[at], strict=True) if h]
            for name, digest, majority in here:
                run = runs.get(str(name))
                if run is None:
                    before = at > 0 or memory["seen"] > 0
                    sides = camps_of(group, at) if name is None else ()
                    finding = self._odd(key, step, present, name, digest, majority, before, sides)
                    runs[str(name)] = {
                        "id": finding.finding_id, "last": step, "length": 1, "calm": 0,
                    }  # fmt: skip
                    state.open(step, finding)
                    continue
                run.update(last=step, length=run["length"] + 1, calm=0)
                held = state.findings.get(run["id"])
                if held is not None:
                    more = {**held.evidence, "steps": run["length"]}
                    state.replace(replace(held, evidence=more))
            there = {str(name) for name in present} | ({"None"} if not here else set())
            for calm in sorted(there.intersection(runs) - {str(name) for name, _, _ in here}):
                runs[calm]["calm"] += 1
                if runs[calm]["calm"] >= _CALM:
                    self._close(state, runs.pop(calm), step)
        memory["seen"] += len(group.steps)

    def _odd(
        self, key: SeriesKey, step: int, present: list[ReplicaId], name: ReplicaId | None,
        digest: int, majority: int, before: bool, sides: Sides,
    ) -> Finding:  # fmt: skip
        known = name is not None
        evidence = {
            "series": str(key), "quantity": key.name, "replicas": len(present),
            "digest": f"{digest:016x}", "majority": f"{majority:016x}", "steps": 1,
            "culprit_known": known, "agreed_before": before, "goes_on": True,
        }  # fmt: skip
        message = f"{key} of replica {name} differs from the others' from step {step} on."
        if not known:
            evidence["sides"] = sides
            message = f"{key} parts {told(sides)} from step {step} on; {NOBODY}."
        return Finding(
            mode_of(key), Severity.HIGH, 0.99, step, None, key.layer, name, message,
            evidence, f"{self.name}:{place_of(key)}:{name if known else '?'}:{step}",
        )  # fmt: skip

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        groups: dict[str, Any] = state.memory["groups"]
        judged = sorted({key for key, memory in groups.items() if memory["judged"] > 0})
        more: dict[str, Any] = {"judged": tuple(dict.fromkeys(k.partition("|")[0] for k in judged))}
        if not groups:
            more = {"outcome": Outcome.NOT_APPLICABLE, "reason": "there are no two replicas"}
        elif not judged:
            more = {"outcome": Outcome.INSUFFICIENT, "reason": "replicas share too few steps"}
        layers = sum(key.startswith("param_digest|") for key in groups)
        found = beside(state.findings.values(), layers)
        result = DetectionResult.of_findings(
            self.failure_mode, self.name, earliest_layers(found), **more
        )
        # Of parameters that part nobody is to read that gradients did.
        modes = [one.failure_mode for one in result.findings[:1]]
        return replace(result, failure_mode=modes[0]) if modes else result


def _known(usual: npt.NDArray[np.float64], memory: dict[str, Any]) -> list[float]:
    """Return the usual deviations of steps; one where there is none teaches nothing new."""
    found: list[float] = []
    first = [float(x) for x in memory["block"][:8]]
    for x in usual.tolist():
        value = float(x)
        if not np.isfinite(value):
            spread = memory["spread"]
            value = float(np.median(first) if first else 0.0) if spread is None else float(spread)
        if len(first) < 8:
            first.append(value)
        found.append(value)
    return found
