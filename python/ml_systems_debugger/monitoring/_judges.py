"""The detectors of a live run: their states, their findings, and what went wrong with them."""

from __future__ import annotations

import base64
import traceback
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..core import (
    BaseDetector,
    DetectionResult,
    Finding,
    Outcome,
    SignalSet,
    SkippedDetector,
    canonical,
    failure_mode,
)

__all__ = ["Judges", "MonitorWarning", "failed_results"]


class MonitorWarning(UserWarning):
    """Something in the monitor itself did not work; training goes on."""


class Judges:
    """Folds every detector over the run, chunk by chunk, and says what is new.

    A detector that raises is put aside and named in `failed`: its check did not
    run, and nothing else suffers.
    """

    def __init__(
        self, detectors: Iterable[BaseDetector], context: Mapping[str, Any], strict: bool
    ) -> None:
        self._folds: list[tuple[BaseDetector, Any]] = []
        self._needed: dict[int, dict[str, None]] = {}
        self._told: dict[str, Any] = {}
        self._strict = strict
        self.failed: dict[str, str] = {}
        for one in detectors:
            try:
                required = one.get_required_signals()
                self._needed[id(one)] = dict.fromkeys(canonical(name).name for name in required)
                self._folds.append((one, one.init(context)))
            except Exception as error:  # noqa: BLE001, PERF203 - a third party's may raise anything
                self._put_aside(one, error)

    def update(self, chunk: SignalSet) -> list[Finding]:
        """Take closed steps; return findings that are new, or worse than they were."""
        new: list[Finding] = []
        for detector, state in self._folds:
            # Every chunk, also one without what it needs: a detector reads witnesses beside it.
            if detector.name in self.failed:
                continue
            try:
                if detector.update(state, chunk):
                    # What the other series say is known to the conclusion alone.
                    new += self._fresh(detector.conclude(state))
            except Exception as error:  # noqa: BLE001 - a third party's check may raise anything
                self._put_aside(detector, error)
        return sorted(new, key=lambda f: (f.onset_step or 0, -f.severity.rank))

    def _fresh(self, result: DetectionResult) -> list[Finding]:
        found = []
        for finding in result.findings:
            before = self._told.get(finding.finding_id)
            if before is None or finding.severity > before:
                self._told[finding.finding_id] = finding.severity
                found.append(finding)
        return found

    def skipped(self, names: Collection[str]) -> list[SkippedDetector]:
        """Return the detectors that read none of the quantities `names`."""
        return [
            SkippedDetector(one.name, f"none of {', '.join(needed)} is in the input")
            for one, _ in self._folds
            if (needed := self._needed[id(one)]) and needed.keys().isdisjoint(names)
        ]

    def conclude(self, names: Collection[str] | None = None) -> list[DetectionResult]:
        """Return what every detector says of the run so far; only those that read `names`."""
        results = []
        for detector, state in self._folds:
            needed = self._needed[id(detector)]
            idle = names is not None and needed and needed.keys().isdisjoint(names)
            if idle or detector.name in self.failed:
                continue
            try:
                results.append(detector.conclude(state))
            except Exception as error:  # noqa: BLE001 - a third party's check may raise anything
                self._put_aside(detector, error)
        return results

    def _put_aside(self, detector: BaseDetector, error: Exception) -> None:
        if self._strict:
            raise error
        self.failed[detector.name] = "".join(traceback.format_exception(error))[-2000:]
        warnings.warn(
            f"the check {detector.name} failed and is left out: {type(error).__name__}: {error}",
            MonitorWarning,
            stacklevel=4,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return JSON terms of all folds, to be saved with the training checkpoint."""
        saved = {}
        for detector, state in self._folds:
            try:
                saved[detector.name] = base64.b85encode(state.to_bytes()).decode("ascii")
            except TypeError as error:  # noqa: PERF203 - arrays or text in a history: said
                self.failed.setdefault(detector.name, f"its state cannot be saved: {error}")
            except Exception as error:  # noqa: BLE001 - a third party's state may raise anything
                self._put_aside(detector, error)
        told = {identity: str(severity) for identity, severity in self._told.items()}
        return {"folds": saved, "told": told, "failed": dict(self.failed)}

    def load_state_dict(self, saved: Mapping[str, Any], context: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave; raises ValueError where a state is damaged."""
        folds = []
        for detector, state in self._folds:
            text = saved["folds"].get(detector.name)
            if text is not None:
                state = detector.restore(base64.b85decode(text), context)
            folds.append((detector, state))
        self._folds = folds
        self._told = dict(saved["told"])
        self.failed = dict(saved["failed"])


def failed_results(failed: Mapping[str, str]) -> list[DetectionResult]:
    """Return one failed check for each name with what it raised."""
    return [
        DetectionResult(
            failure_mode("mlsd:unspecified"), False, 0.0, {"traceback": trace},
            detector_name=name, outcome=Outcome.FAILED,
            reason=(trace.strip().splitlines() or [""])[-1],
        )
        for name, trace in failed.items()
    ]  # fmt: skip
