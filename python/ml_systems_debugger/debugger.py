"""`MLSystemsDebugger` and `diagnose`: from a source to a report."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from .attribution import AttributionEngine
from .attribution.calibration import default_calibration
from .configuration import Configuration
from .core import (
    AttributionHypothesis,
    AttributionRule,
    BaseDetector,
    BaseIngestor,
    BaseSignalExtractor,
    DebugReport,
    DetectionResult,
    FrozenDict,
    Outcome,
    SignalSet,
    SkippedDetector,
    canonical,
    extractors,
    freeze,
    register_failure_mode,
)
from .core.curve import curves_of
from .ingestion import open_source
from .reporting import Reporter, ReportFormat, summary_text

__all__ = ["MLSystemsDebugger", "diagnose"]

_TRACEBACK_CHARACTERS = 4000
_UNSPECIFIED = register_failure_mode("mlsd:unspecified")

# A detector with the quantities that it reads, or with what it raised when it was asked.
_Route = tuple[BaseDetector, tuple[str, ...] | Exception]


class MLSystemsDebugger:
    """Runs ingestion, extraction, detection and attribution over one run at a time.

    Without arguments it has every registered detector and extractor, built in
    and third party, with their default parameters.

    Parameters
    ----------
    detectors : iterable of BaseDetector, optional
        These instead of the registered ones; ``[]`` for none.
    extractors : iterable of BaseSignalExtractor, optional
        Likewise.
    config : Configuration, mapping or path of a TOML file, optional
        Parameters of the registered detectors, context and more; see
        `Configuration`.
    engine : AttributionEngine, optional
        Default: one with the rules that the detectors carry.
    sensitivity : float, optional
        One knob for every threshold that was not set otherwise, also those of
        `detectors`: 1.0 keeps the stated rates of false alarms, 2.0 finds more
        and is wrong more often. Default: what `config` says.

    Examples
    --------
    >>> debugger = MLSystemsDebugger()
    >>> report = debugger.debug({"loss": [1.0] * 30 + [float("nan")] * 5})
    >>> report.status.value, report.failures[0].onset_step
    ('failures', 30)
    """

    def __init__(
        self,
        detectors: Iterable[BaseDetector] | None = None,
        extractors: Iterable[BaseSignalExtractor] | None = None,
        config: Configuration | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        engine: AttributionEngine | None = None,
        sensitivity: float | None = None,
    ) -> None:
        self.config = Configuration.of(config).with_sensitivity(sensitivity)
        self._detectors = self._chosen(detectors)
        self._ingestors: list[BaseIngestor] = []
        self._extractors = list(_default_extractors() if extractors is None else extractors)
        self._engine = engine
        self._routes: list[_Route] | None = None
        for one in self._detectors:
            _check("detector", one, "detect", "get_required_signals")

    def _chosen(self, given: Iterable[BaseDetector] | None) -> list[BaseDetector]:
        """Return the detectors at the configured sensitivity, where they know one."""
        if given is None:
            return self.config.detectors()
        at = self.config.sensitivity
        return [one.at_sensitivity(at) if isinstance(one, BaseDetector) else one for one in given]

    def add_detector(self, detector: BaseDetector) -> MLSystemsDebugger:
        """Add a detector; it runs beside the others. Returns the debugger."""
        _check("detector", detector, "detect", "get_required_signals")
        self._detectors.append(detector)
        self._routes = None
        return self

    def add_ingestor(self, ingestor: BaseIngestor) -> MLSystemsDebugger:
        """Add an ingestor; it is asked before the built-in ones. Returns the debugger."""
        _check("ingestor", ingestor, "ingest", "validate_schema")
        self._ingestors.append(ingestor)
        return self

    def add_signal_extractor(self, extractor: BaseSignalExtractor) -> MLSystemsDebugger:
        """Add an extractor; it runs behind the others. Returns the debugger."""
        _check("signal extractor", extractor, "extract")
        self._extractors.append(extractor)
        return self

    @property
    def detectors(self) -> tuple[BaseDetector, ...]:
        """The detectors, in order of registration."""
        return tuple(self._detectors)

    def debug(self, data: Any, context: Mapping[str, Any] | None = None) -> DebugReport:
        """Diagnose one run.

        Parameters
        ----------
        data : object
            A path, an open file, rows, columns, arrays, a frame, a list of
            `Signal` or a `SignalSet`.
        context : mapping, optional
            What is known of the run beside its signals: configuration,
            ``num_classes``, ... Read-only for the detectors.

        Raises
        ------
        IngestionError
            Where `data` cannot be read at all, with file, place and value. A
            part that cannot be read does not raise: it is named in the report,
            which then is not "healthy".
        """
        facts = freeze({**self.config.context, **(context or {})})
        signals = self._ingest(data)
        signals = self.extract(signals)
        detections, skipped = self._detect(signals, facts)
        return self._reported(signals, detections, skipped, facts)

    def conclude(
        self,
        detections: Sequence[DetectionResult],
        context: Mapping[str, Any] | None = None,
        *,
        signals: SignalSet | None = None,
        skipped: Sequence[SkippedDetector] = (),
        strict: bool = False,
    ) -> DebugReport:
        """Return the report on detections that were made elsewhere, as by the live monitor.

        Parameters
        ----------
        detections : sequence of DetectionResult
        context : mapping, optional
            As for `debug`.
        signals : SignalSet, optional
            Whose metadata and unread parts the report carries; of its series
            nothing is judged.
        skipped : sequence of SkippedDetector, optional
            The detectors that had nothing to read.
        strict : bool
            Raise what the attribution raises, instead of a report without causes
            that says so.
        """
        kept, left_out = list(detections), list(skipped)
        for result in [r for r in kept if r.outcome is Outcome.NOT_APPLICABLE]:
            kept.remove(result)
            left_out.append(SkippedDetector(result.detector_name, result.reason))
        given = SignalSet() if signals is None else signals
        return self._reported(given, kept, left_out, freeze(dict(context or {})), strict)

    def _reported(
        self,
        signals: SignalSet,
        detections: Sequence[DetectionResult],
        skipped: Sequence[SkippedDetector],
        facts: FrozenDict,
        strict: bool = False,
    ) -> DebugReport:
        attributions: Sequence[AttributionHypothesis] = ()
        history: dict[str, Any] = {}
        unread = list(signals.unread)
        try:
            engine = self._attributing()
            attributions = engine.attribute(detections, facts)
            history = {"timeline": engine.timeline(detections)}
        except Exception as error:
            if strict:
                raise
            # A report without causes beats none, and says so.
            unread.append(f"attribution failed: {_named(error)}")
        return DebugReport(
            timestamp=time.time(),
            detections=detections,
            attributions=attributions,
            summary=summary_text(detections, attributions, skipped, unread),
            metadata={
                **_described(signals), **signals.metadata, **history,
                "curves": [one.to_dict() for one in curves_of(signals, detections)],
            },
            skipped=skipped,
            unread=unread,
        )  # fmt: skip

    def generate_report(
        self,
        report: DebugReport,
        format: ReportFormat | str | None = None,  # noqa: A002 - known name
    ) -> str:
        """Return `report` as text; TEXT unless `format` says JSON or MARKDOWN."""
        rendered: str = Reporter(ReportFormat.TEXT if format is None else format).render(report)
        return rendered

    def _ingest(self, data: Any) -> SignalSet:
        if isinstance(data, SignalSet):
            return data
        for ingestor in self._ingestors:
            if ingestor.validate_schema(data):
                return SignalSet.of(ingestor.ingest(data))
        return open_source(data)

    def extract(self, signals: SignalSet) -> SignalSet:
        """Return `signals` with derived series beside the raw ones, none of which is replaced."""
        for extractor in self._extractors:
            try:
                derived = SignalSet.of(extractor.extract(signals))
            except Exception as error:  # noqa: BLE001 - said in the report, which is not healthy then
                failed = f"extractor {_name(extractor)} failed: {_traced(error)}"
                signals = signals.with_notes(unread=[failed])
                continue
            new = [one for one in derived.series if signals.get(one.key) is None]
            if new or derived.unread:
                signals = signals.with_series(new).with_notes(unread=derived.unread)
        return signals

    def _detect(
        self, signals: SignalSet, context: FrozenDict
    ) -> tuple[list[DetectionResult], list[SkippedDetector]]:
        there = set(signals.names)
        jobs: list[BaseDetector] = []
        failed: list[DetectionResult] = []
        skipped: list[SkippedDetector] = []
        for detector, needed in self._routing():
            if isinstance(needed, Exception):
                failed.append(_failure(_mode(detector), _name(detector), needed))
            elif not needed or there.intersection(needed):
                jobs.append(detector)
            else:
                reason = f"none of {', '.join(needed)} is in the input"
                skipped.append(SkippedDetector(_name(detector), reason))
        results = _in_threads(lambda one: _judged(one, signals, context), jobs)
        for result in [r for r in results if r.outcome is Outcome.NOT_APPLICABLE]:
            results.remove(result)
            skipped.append(SkippedDetector(result.detector_name, result.reason))
        return [*results, *failed], skipped

    def _routing(self) -> list[_Route]:
        """Which quantities each detector reads: asked once, since a run has many."""
        if self._routes is None:
            routes: list[_Route] = []
            for one in self._detectors:
                # Equal detectors say the same: one is asked. A class of one's own may be
                # equal without being hashable, as a plain dataclass is.
                if all(one != other for other, _ in routes):
                    routes.append((one, _needed(one)))
            self._routes = routes
        return self._routes

    def _attributing(self) -> AttributionEngine:
        if self._engine is None:
            rules: dict[str, AttributionRule] = {}
            for one in self._detectors:
                rules.update({rule.code: rule for rule in getattr(one, "attribution_rules", ())})
            self._engine = AttributionEngine(
                extra_rules=rules.values(),
                calibrate=self.config.calibration or default_calibration(),
            )
        return self._engine


def diagnose(
    source: Any,
    *,
    context: Mapping[str, Any] | None = None,
    config: Configuration | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    detectors: Iterable[BaseDetector] | None = None,
    sensitivity: float | None = None,
) -> DebugReport:
    """Diagnose one run: what failed, where it began, why, and what to do.

    Parameters
    ----------
    source : object
        As for `MLSystemsDebugger.debug`: most often the path of a metrics file.
    context, config, detectors, sensitivity : optional
        As for `MLSystemsDebugger`.

    Examples
    --------
    >>> report = diagnose({"loss": [2.0, 1.0, float("inf")]})
    >>> report.failures[0].failure_mode.value
    'inf_detected'
    """
    debugger = MLSystemsDebugger(detectors, config=config, sensitivity=sensitivity)
    return debugger.debug(source, context)


def _needed(detector: BaseDetector) -> tuple[str, ...] | Exception:
    """Return the quantities that a detector reads, or what it raised when it was asked."""
    try:
        given = detector.get_required_signals()
        names = (given,) if isinstance(given, str) else given
        return tuple(canonical(raw).name for raw in names)
    except Exception as error:  # noqa: BLE001 - reported as a check that did not run
        return error


def _mode(detector: BaseDetector) -> Any:
    return getattr(detector, "failure_mode", _UNSPECIFIED)


def _judged(detector: BaseDetector, signals: SignalSet, context: FrozenDict) -> DetectionResult:
    """Ask one detector; what it raises becomes a failed check with its traceback."""
    name = _name(detector)
    try:
        result = detector.detect(signals, context)
        if not isinstance(result, DetectionResult):
            raise TypeError(f"detect returned {type(result).__name__}, not DetectionResult")
    except Exception as error:  # noqa: BLE001 - reported as a check that did not run
        return _failure(_mode(detector), name, error)
    if result.outcome is not Outcome.CONCLUDED or result.judged:
        return result
    # A detector written against the three contracts alone does not say what it judged.
    needed = [canonical(raw).name for raw in detector.get_required_signals()]
    return replace(result, judged=tuple(n for n in needed if n in signals.names))


def _failure(mode: Any, name: str, error: Exception) -> DetectionResult:
    return DetectionResult(
        mode,
        False,
        0.0,
        {"traceback": _traced(error)},
        detector_name=name,
        outcome=Outcome.FAILED,
        reason=_named(error),
    )


def _traced(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _in_threads(
    work: Callable[[BaseDetector], DetectionResult], jobs: Sequence[BaseDetector]
) -> list[DetectionResult]:
    workers = min(len(jobs), os.cpu_count() or 1)
    if workers < 2:
        return [work(job) for job in jobs]
    with ThreadPoolExecutor(workers, thread_name_prefix="mlsd") as pool:
        return list(pool.map(work, jobs))


def _described(signals: SignalSet) -> dict[str, Any]:
    span = signals.step_range
    return {
        "series": len(signals.series),
        "measurements": len(signals),
        "first_step": None if span is None else span[0],
        "last_step": None if span is None else span[1],
    }


def _default_extractors() -> list[BaseSignalExtractor]:
    return [cls() for cls in extractors.items().values()]


def _name(part: Any) -> str:
    return getattr(part, "name", "") or type(part).__name__


def _check(what: str, part: Any, *methods: str) -> None:
    missing = [name for name in methods if not callable(getattr(part, name, None))]
    if missing or isinstance(part, type):
        problem = (
            "is a class, pass an instance"
            if isinstance(part, type)
            else (f"has no method {' and no '.join(missing)}")
        )
        raise TypeError(f"{part!r} is no {what}: it {problem}")
