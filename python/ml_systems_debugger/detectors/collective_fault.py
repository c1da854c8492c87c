"""Collective calls that differ between ranks, or hang though every rank called them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core import (
    BaseDetector,
    Context,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Outcome,
    SeriesKey,
    SeriesKind,
    Severity,
    SignalSet,
    detectors,
)
from ._collective_rules import COLLECTIVES
from ._latency import SLOW

__all__ = ["CollectiveFaultDetector"]

_KINDS = {
    "collective_mismatch": (Severity.HIGH, 0.95),
    "collective_not_started": (Severity.HIGH, 0.7),
    "collective_not_completed": (Severity.MEDIUM, 0.6),
    "collective_no_dump": (Severity.MEDIUM, 0.6),
}
_MAX_TEXT = 400


@detectors.register("collective_fault")
@dataclass(frozen=True)
class CollectiveFaultDetector(BaseDetector):
    """Collective calls that ranks do not agree on, or that never complete.

    What it detects
    ---------------
    What flight recorders tell beside ranks that did not join (which
    `partial_worker_failure` finds): ranks that call another collective or give
    other sizes under one number, calls that a device did not start while others
    run them, calls that everybody made and that did not complete, ranks
    without a dump.

    Why it matters
    --------------
    Such a job hangs until the watchdog ends it, and no metric tells why.

    How it decides
    --------------
    The calls of all ranks are laid side by side by process group and number; in
    each group the first that is not done counts, since later ones wait for it.
    A call that differs is high: it can only be wrong. So is one that some
    devices run and others do not start. One that all made and that did not
    complete is medium, as the dump shows a moment; so is a dump that lacks.

    Parameters
    ----------
    None; there is nothing to set.

    Evidence
    --------
    ``rule`` (the kind of fault), ``ranks``. Steps are numbers of collectives.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> told = "collective 7 differs: rank 0 calls barrier; ranks 1, 2 call all_reduce"
    >>> found = CollectiveFaultDetector().detect([
    ...     Signal("log_event", told, replica_id=0, step=7),
    ...     Signal("log_event_kind", "collective_mismatch", replica_id=0, step=7)])
    >>> found.severity.value, found.replica_id, found.onset_step
    ('high', 0, 7)
    """

    failure_mode = FailureMode.PARTIAL_WORKER_FAILURE
    required_signals = ("collective_seq", "log_event_kind")
    attribution_rules = COLLECTIVES
    latency = SLOW

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - needs none
        """Return a fresh state."""
        state = FoldState(self.name, 1, {})
        state.memory["calls"] = False
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is a call, or a message of a log."""
        return key.name in ("collective_seq", "log_event_kind", "log_event")

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Open a finding for each fault in a run of closed steps."""
        state.memory["calls"] |= bool(chunk.select("collective_seq"))
        faults: dict[tuple[int, str, str], list[Any]] = {}
        for one in chunk.select("log_event_kind", kind=SeriesKind.TEXT):
            told = chunk.get(one.key._replace(name="log_event"))
            if told is None or len(told) != len(one):
                continue
            for step, kind, text in zip(one.steps.tolist(), one.values, told.values, strict=True):
                if kind in _KINDS:
                    faults.setdefault((step, kind, text[:_MAX_TEXT]), []).append(one.key.replica_id)
        for (step, kind, text), replicas in sorted(faults.items()):
            ident = f"{kind}|{step}|{text}"
            if ident not in state.findings:
                state.open(step, _finding(step, kind, text, replicas, ident))
        return state.take_events()

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return the faults found so far."""
        if not state.memory["calls"] and not state.findings:
            return self._silent(Outcome.NOT_APPLICABLE, "no collective calls are in the input")
        found = state.findings.values()
        return DetectionResult.of_findings(
            self.failure_mode, self.name, found, judged=("collective_seq",)
        )


def _finding(step: int, kind: str, text: str, replicas: Sequence[Any], ident: str) -> Finding:
    severity, confidence = _KINDS[kind]
    ranks = [rank for rank in replicas if rank is not None]
    return Finding(
        FailureMode.PARTIAL_WORKER_FAILURE,
        severity,
        confidence,
        max(0, step),
        replica_id=ranks[0] if len(ranks) == 1 else None,
        message=text,
        evidence={"rule": kind, "ranks": ranks},
        finding_id=ident,
    )
