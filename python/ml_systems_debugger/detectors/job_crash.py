"""A job that ended by a fault, as its log says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
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
    SeriesKey,
    SeriesKind,
    Severity,
    SignalSet,
    TableKeys,
    detectors,
)
from ..kernels import has_nonfinite
from ._crash_rules import CRASH
from ._latency import SLOW

__all__ = ["JobCrashDetector"]

_SEVERITY = {
    "device_error": Severity.HIGH,
    "collective_timeout": Severity.HIGH,
    "killed": Severity.HIGH,
    "out_of_memory": Severity.HIGH,
    "non_finite": Severity.HIGH,
    "nccl_error": Severity.MEDIUM,
    "exception": Severity.MEDIUM,
}
"""The kinds of messages that end a job, in the order in which one brings about the next."""

_WORDS = {
    "device_error": "an error of a device",
    "collective_timeout": "the timeout of a collective call",
    "killed": "a process that was killed",
    "out_of_memory": "memory that ran out",
    "non_finite": "a stop for a value that is not finite",
    "nccl_error": "broken communication",
    "exception": "an exception",
}
_SCHEDULER = "ended_by_scheduler"
_STOPS = re.compile(r"error|exception|stop|abort|terminat|exit", re.IGNORECASE)
_HARMLESS = re.compile(r"\bwarn(?:ing)?\b", re.IGNORECASE)
_BY_HAND = re.compile(r"KeyboardInterrupt|SystemExit")
_ASSERTION = re.compile(r"device-side assert", re.IGNORECASE)
_TELLING = ("loss", "grad_norm")
_FAILED = "allocation_failed"
_MAX_RANKS = 32
_MAX_TEXT = 300


@detectors.register("job_crash")
@dataclass(frozen=True)
class JobCrashDetector(BaseDetector):
    """A job whose log ends with a fault.

    What it detects
    ---------------
    Messages of faults (of devices, collectives, memory, signals, exceptions)
    behind which nothing is measured any more, with the ranks that wrote them.

    Why it matters
    --------------
    Metrics that look well to the last step say nothing of why there is no
    next one.

    How it decides
    --------------
    A message counts where it stands at the last measured step of the last
    restart, or behind it: a job that trains on has not crashed. Faults of
    devices, timeouts of collectives, signals, memory that ran out and a job
    that stops itself for NaN are high, broken communication and other
    exceptions medium. Where a scheduler ended the job (time limit, preemption)
    or a user did, that explains the rest: low. Several kinds are several
    findings. An allocation that failed with its size is left to
    `oom_precursor`, a stop for NaN to the detectors of what is not finite where
    a loss or a gradient norm shows it.

    Parameters
    ----------
    None; there is nothing to set.

    Evidence
    --------
    ``rule`` (the kind of message), ``text``, ``count``, ``ranks``,
    ``last_step``, ``assertion``, ``by_scheduler``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> log = [Signal("loss", 2.0, step=i) for i in range(9)]
    >>> log += [Signal("log_event", "CUDA error: ECC", step=8),
    ...         Signal("log_event_kind", "device_error", step=8)]
    >>> found = JobCrashDetector().detect(log)
    >>> found.severity.value, found.onset_step
    ('high', 8)
    """

    failure_mode = FailureMode.JOB_CRASH
    required_signals = ("log_event_kind",)
    attribution_rules = CRASH
    latency = SLOW

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - needs none
        """Return a fresh state."""
        return FoldState(self.name, 1, {})

    def update(self, state: FoldState, chunk: SignalSet) -> tuple[Event, ...]:
        """Remember the last step and the last messages of each kind; judged only at the end."""
        runs: dict[str, dict[str, Any]] = state.memory
        for table in chunk.tables:
            for key, columns in state.plan(table.keys, "runs", partial(_by_run, table.keys)):
                bad = not table.finite and has_nonfinite(table.values[:, columns])
                _measured(runs, key, int(table.steps[-1]), bad)
        for one in chunk.singles:
            if len(one) and one.kind is not SeriesKind.TEXT:
                bad = one.kind is SeriesKind.SCALAR and one.name in _TELLING
                _measured(runs, one.key, int(one.steps[-1]), bad and has_nonfinite(one.values))
        for one in chunk.select("log_event_kind", kind=SeriesKind.TEXT):
            run = runs.setdefault(_name(one.key.run), _fresh(one.key.segment))
            if one.key.segment > run["segment"]:
                run.update(_fresh(one.key.segment))
            told = chunk.get(one.key._replace(name="log_event"))
            if one.key.segment < run["segment"] or told is None or len(told) != len(one):
                continue
            rank = one.key.replica_id
            for step, kind, text in zip(one.steps.tolist(), one.values, told.values, strict=True):
                if _counts(kind, text):
                    _remember(run["messages"], step, kind, text, rank)
        return ()

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return the faults behind which nothing is measured."""
        runs: Mapping[str, Any] = state.memory
        if not any(run["messages"] for run in runs.values()):
            return self._silent(Outcome.NOT_APPLICABLE, "no messages of a log are in the input")
        found = [one for name, run in sorted(runs.items()) for one in _findings(name, run)]
        return DetectionResult.of_findings(
            self.failure_mode, self.name, found, judged=("log_event",)
        )


def _by_run(keys: TableKeys) -> list[tuple[SeriesKey, npt.NDArray[np.int64]]]:
    """Return a key for every run and segment, and the columns of its losses and gradient norms.

    Where an allocation failed that is the key: it is remembered apart.
    """
    found: dict[tuple[str | None, int], list[int]] = {}
    firsts: dict[tuple[str | None, int], SeriesKey] = {}
    for at, key in enumerate(keys.keys):
        place = key.run, key.segment
        columns = found.setdefault(place, [])
        if key.name in _TELLING:
            columns.append(at)
        if place not in firsts or key.name == _FAILED:
            firsts[place] = key
    return [(firsts[place], np.array(columns, np.int64)) for place, columns in found.items()]


def _measured(runs: dict[str, dict[str, Any]], key: SeriesKey, last: int, bad: bool) -> None:
    """Remember up to where a series was measured, and whether its values were not finite."""
    run = runs.setdefault(_name(key.run), _fresh(key.segment))
    if key.segment > run["segment"]:
        run.update(_fresh(key.segment))
    if key.segment == run["segment"]:
        run["non_finite"] |= bool(bad)
        run["last"] = last if run["last"] is None else max(last, run["last"])
        if key.name == _FAILED:
            run["measured"] = last


def _name(run: str | None) -> str:
    return "" if run is None else run


def _fresh(segment: int) -> dict[str, Any]:
    return {"segment": segment, "last": None, "measured": None, "non_finite": False,
            "messages": {}}  # fmt: skip


def _counts(kind: str, text: str) -> bool:
    """Return whether a message can end a job."""
    if kind == "non_finite":
        return _STOPS.search(text) is not None  # others skip a step and go on
    if kind == "nccl_error":
        return _HARMLESS.search(text) is None
    return kind in _SEVERITY or kind == _SCHEDULER


def _remember(
    messages: dict[str, Any], step: int, kind: str, text: str, rank: int | str | None
) -> None:
    """Keep the messages of the last step that has any of this kind."""
    known = messages.get(kind)
    if known is None or step > known["step"]:
        messages[kind] = {"step": step, "text": text[:_MAX_TEXT], "count": 1, "ranks": [rank]}
    elif step == known["step"]:
        known["count"] += 1
        if rank not in known["ranks"] and len(known["ranks"]) < _MAX_RANKS:
            known["ranks"].append(rank)


def _findings(name: str, run: Mapping[str, Any]) -> Iterator[Finding]:
    messages = run["messages"]
    end = run["last"]
    if end is None:
        end = max((one["step"] for one in messages.values()), default=0)
    last = {kind: one for kind, one in messages.items() if one["step"] >= end}
    scheduled = _SCHEDULER in last
    for kind, severity in _SEVERITY.items():
        one = last.get(kind)
        if one is None:
            continue
        measured = run["measured"]
        if kind == "out_of_memory" and measured is not None and measured >= one["step"]:
            continue  # the detector of failed allocations tells it, with sizes
        if kind == "non_finite" and run["non_finite"]:
            continue  # the values themselves are there to be judged
        explained = scheduled or _BY_HAND.search(one["text"]) is not None
        ranks = [rank for rank in one["ranks"] if rank is not None]
        listed = f" of replica{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
        yield Finding(
            FailureMode.JOB_CRASH,
            Severity.LOW if explained else severity,
            0.5 if explained else 0.85,
            max(0, one["step"]),
            replica_id=ranks[0] if len(ranks) == 1 else None,
            message=(
                f"the log{listed if ranks else ''} ends with {_WORDS[kind]} at step "
                f"{one['step']}: {one['text']}"
            ),
            evidence={
                "rule": kind,
                "text": one["text"],
                "count": one["count"],
                "ranks": ranks,
                "last_step": run["last"],
                "assertion": _ASSERTION.search(one["text"]) is not None,
                "by_scheduler": scheduled,
            },
            finding_id=f"{name}|{run['segment']}|{kind}",
        )
