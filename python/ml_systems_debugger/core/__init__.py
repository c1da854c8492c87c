"""Types, contracts, errors and the registry; imports nothing else of this package."""

from .base import BaseDetector, BaseIngestor, BaseReporter, BaseSignalExtractor, BaseStream, Context
from .errors import (
    ConfigurationError,
    IngestionError,
    MissingDependencyError,
    MLSystemsDebuggerError,
    RegistryError,
    SchemaError,
    UnsupportedFormatError,
)
from .finding import Event, EventKind, Finding
from .fold_state import Column, DetectorState, FoldState, HistoryState
from .frozen import FrozenDict, freeze, to_jsonable
from .names import canonical, qualified, resolve
from .parameters import check_count, check_fraction, check_positive, check_range
from .registry import Registry, detectors, extractors, ingestors, reporters
from .report import SCHEMA_VERSION, DebugReport, SkippedDetector, Status
from .results import AttributionHypothesis, DetectionResult, Outcome
from .rules import AttributionRule, Condition
from .series import Series, SeriesKey, SeriesKind
from .series_table import SeriesTable, TableKeys
from .signal import ReplicaId, Signal, is_array, scalar_value
from .signal_set import SignalSet, split_at_restarts
from .vocabulary import (
    FailureMode,
    FailureModeLike,
    RootCause,
    RootCauseLike,
    Severity,
    failure_mode,
    register_failure_mode,
    register_root_cause,
    root_cause,
    word,
)

__all__ = [
    "SCHEMA_VERSION",
    "AttributionHypothesis",
    "AttributionRule",
    "BaseDetector",
    "BaseIngestor",
    "BaseReporter",
    "BaseSignalExtractor",
    "BaseStream",
    "Column",
    "Condition",
    "ConfigurationError",
    "Context",
    "DebugReport",
    "DetectionResult",
    "DetectorState",
    "Event",
    "EventKind",
    "FailureMode",
    "FailureModeLike",
    "Finding",
    "FoldState",
    "FrozenDict",
    "HistoryState",
    "IngestionError",
    "MLSystemsDebuggerError",
    "MissingDependencyError",
    "Outcome",
    "Registry",
    "RegistryError",
    "ReplicaId",
    "RootCause",
    "RootCauseLike",
    "SchemaError",
    "Series",
    "SeriesKey",
    "SeriesKind",
    "SeriesTable",
    "Severity",
    "Signal",
    "SignalSet",
    "SkippedDetector",
    "Status",
    "TableKeys",
    "UnsupportedFormatError",
    "canonical",
    "check_count",
    "check_fraction",
    "check_positive",
    "check_range",
    "detectors",
    "extractors",
    "failure_mode",
    "freeze",
    "ingestors",
    "is_array",
    "qualified",
    "register_failure_mode",
    "register_root_cause",
    "reporters",
    "resolve",
    "root_cause",
    "scalar_value",
    "split_at_restarts",
    "to_jsonable",
    "word",
]
