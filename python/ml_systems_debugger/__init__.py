"""Finds what went wrong in an ML training run or a served model, where, why, and what to do.

>>> import ml_systems_debugger as mlsd
>>> report = mlsd.diagnose({"loss": [1.0, 0.5, float("nan")]})
>>> report.failures[0].onset_step
2
"""

from importlib.metadata import PackageNotFoundError, version

from .attribution import AttributionEngine
from .checkpoints import CheckpointReport, diff, scan
from .configuration import Configuration
from .core import (
    AttributionHypothesis,
    AttributionRule,
    BaseDetector,
    BaseIngestor,
    BaseReporter,
    BaseSignalExtractor,
    Condition,
    ConfigurationError,
    DebugReport,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    IngestionError,
    MissingDependencyError,
    MLSystemsDebuggerError,
    Outcome,
    RegistryError,
    RootCause,
    SchemaError,
    Series,
    SeriesKey,
    SeriesKind,
    Severity,
    Signal,
    SignalSet,
    Status,
    UnsupportedFormatError,
    register_failure_mode,
    register_root_cause,
)
from .debugger import MLSystemsDebugger, diagnose
from .detectors import (
    DeadUnitsDetector,
    DistributedDesyncDetector,
    DistributionDriftDetector,
    DivergentTrainingDetector,
    FeatureCollapseDetector,
    FrozenParametersDetector,
    GradientExplosionDetector,
    GradientVanishingDetector,
    InfDetectionDetector,
    LabelLeakageDetector,
    LearningRateInstabilityDetector,
    LossPlateauDetector,
    LossSpikeDetector,
    MixedPrecisionInstabilityDetector,
    NaNDetectionDetector,
    OverfittingDetector,
    PrecisionLossDetector,
    TrainingServingSkewDetector,
)
from .distributions import SkewReport, compare_distributions
from .ingestion import LogIngestor, MetricIngestor, SchemaValidator
from .monitoring import Monitor, Producer, ReplicaAgreement, TraceResult, trace_step
from .reporting import Reporter, ReportFormat
from .signals import (
    DistributionSignalExtractor,
    GradientSignalExtractor,
    NumericalSignalExtractor,
)

try:
    __version__ = version("ml-systems-debugger")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "AttributionEngine",
    "AttributionHypothesis",
    "AttributionRule",
    "BaseDetector",
    "BaseIngestor",
    "BaseReporter",
    "BaseSignalExtractor",
    "CheckpointReport",
    "Condition",
    "Configuration",
    "ConfigurationError",
    "DeadUnitsDetector",
    "DebugReport",
    "DetectionResult",
    "DistributedDesyncDetector",
    "DistributionDriftDetector",
    "DistributionSignalExtractor",
    "DivergentTrainingDetector",
    "Event",
    "FailureMode",
    "FeatureCollapseDetector",
    "Finding",
    "FoldState",
    "FrozenParametersDetector",
    "GradientExplosionDetector",
    "GradientSignalExtractor",
    "GradientVanishingDetector",
    "InfDetectionDetector",
    "IngestionError",
    "LabelLeakageDetector",
    "LearningRateInstabilityDetector",
    "LogIngestor",
    "LossPlateauDetector",
    "LossSpikeDetector",
    "MLSystemsDebugger",
    "MLSystemsDebuggerError",
    "MetricIngestor",
    "MissingDependencyError",
    "MixedPrecisionInstabilityDetector",
    "Monitor",
    "NaNDetectionDetector",
    "NumericalSignalExtractor",
    "Outcome",
    "OverfittingDetector",
    "PrecisionLossDetector",
    "Producer",
    "RegistryError",
    "ReplicaAgreement",
    "ReportFormat",
    "Reporter",
    "RootCause",
    "SchemaError",
    "SchemaValidator",
    "Series",
    "SeriesKey",
    "SeriesKind",
    "Severity",
    "Signal",
    "SignalSet",
    "SkewReport",
    "Status",
    "TraceResult",
    "TrainingServingSkewDetector",
    "UnsupportedFormatError",
    "compare_distributions",
    "diagnose",
    "diff",
    "register_failure_mode",
    "register_root_cause",
    "scan",
    "trace_step",
]
