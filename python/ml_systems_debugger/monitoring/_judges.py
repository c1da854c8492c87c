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
    SeriesKey,
    SignalSet,
    SkippedDetector,
    TableKeys,
    canonical,
    failure_mode,
)
from ._held import Held, urgent

__all__ = ["Judges", "MonitorWarning", "failed_results"]

_LAYOUTS = 64
_Layout = tuple[int, tuple[TableKeys, ...], tuple[SeriesKey, ...]]


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
        self._by_latency: dict[int, list[tuple[BaseDetector, Any]]] = {}
        self._held: dict[int, Held] = {}
        self._readers: dict[_Layout, list[tuple[BaseDetector, Any]]] = {}
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
        self._group()

    def _group(self) -> None:
        """Sort the folds by their latency; nothing is held."""
        self._by_latency = {}
        for detector, state in self._folds:
            self._by_latency.setdefault(detector.latency, []).append((detector, state))
        self._held = {latency: Held(latency) for latency in self._by_latency if latency}
        self._readers.clear()

    def update(self, chunk: SignalSet, *, steps: int | None = None) -> list[Finding]:
        """Take closed steps; return findings that are new, or worse than they were.

        Parameters
        ----------
        chunk : SignalSet
        steps : int, optional
            How many there are: what `BaseDetector.latency` allows may then be held
            back, until `flush` or what is not finite. By default nothing is.
        """
        at_once = steps is None or urgent(chunk)
        new: list[Finding] = []
        for latency in self._by_latency:
            if not latency:
                self._look(latency, chunk, new)
            elif self._held[latency].add(chunk, steps or 0) or at_once:
                for part in self._held[latency].take():
                    self._look(latency, part, new)
        return _in_order(new)

    def flush(self) -> list[Finding]:
        """Judge what was held back; return as `update` does."""
        new: list[Finding] = []
        for latency, held in self._held.items():
            for part in held.take():
                self._look(latency, part, new)
        return _in_order(new)

    def _look(self, latency: int, chunk: SignalSet, new: list[Finding]) -> None:
        """Let the detectors of a latency fold a chunk; add findings that are new."""
        for detector, state in self._reading(latency, chunk):
            if detector.name in self.failed:
                continue
            try:
                if detector.update(state, chunk):
                    # What the other series say is known to the conclusion alone.
                    new += self._fresh(detector.conclude(state))
            except Exception as error:  # noqa: BLE001 - a third party's check may raise anything
                self._put_aside(detector, error)

    def _reading(self, latency: int, chunk: SignalSet) -> list[tuple[BaseDetector, Any]]:
        """Return the folds that read anything of a chunk: told once for each of its layouts."""
        tables = tuple([table.keys for table in chunk.tables])
        layout = latency, tables, tuple([one.key for one in chunk.singles])
        found = self._readers.get(layout)
        if found is None:
            if len(self._readers) >= _LAYOUTS:
                self._readers.clear()
            keys = [key for one in tables for key in one.keys] + list(layout[2])
            found = [fold for fold in self._by_latency[latency] if self._reads(fold[0], keys)]
            self._readers[layout] = found
        return found

    def _reads(self, detector: BaseDetector, keys: Iterable[SeriesKey]) -> bool:
        try:
            return any(detector.reads(key) for key in keys)
        except Exception as error:  # noqa: BLE001 - a third party's may raise anything
            self._put_aside(detector, error)
            return False

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
        if detector.name in self.failed:
            return  # it was told
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
        self._group()
        self._told = dict(saved["told"])
        self.failed = dict(saved["failed"])


def _in_order(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda f: (f.onset_step or 0, -f.severity.rank))


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
