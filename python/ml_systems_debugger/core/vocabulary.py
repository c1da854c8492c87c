"""The closed words: severities, failure modes and root causes.

Failure modes and causes are enums, so a misspelt one is an error. Third
parties add theirs as ``vendor:name`` strings through `register_failure_mode`
and `register_root_cause`.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TypeVar

from .errors import ConfigurationError

__all__ = [
    "FailureMode",
    "FailureModeLike",
    "RootCause",
    "RootCauseLike",
    "Severity",
    "failure_mode",
    "register_failure_mode",
    "register_root_cause",
    "root_cause",
    "word",
]


class Severity(str, Enum):
    """How bad a finding is. Ordered, and comparable with its strings.

    Examples
    --------
    >>> Severity.HIGH > "medium"
    True
    >>> max(Severity.LOW, Severity.CRITICAL)
    <Severity.CRITICAL: 'critical'>
    """

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 (low) to 3 (critical)."""
        return _SEVERITY_ORDER.index(self.value)

    def __str__(self) -> str:
        return self.value

    def __lt__(self, other: object) -> bool:
        rank = _severity_rank(other)
        return NotImplemented if rank is None else self.rank < rank

    def __le__(self, other: object) -> bool:
        rank = _severity_rank(other)
        return NotImplemented if rank is None else self.rank <= rank

    def __gt__(self, other: object) -> bool:
        rank = _severity_rank(other)
        return NotImplemented if rank is None else self.rank > rank

    def __ge__(self, other: object) -> bool:
        rank = _severity_rank(other)
        return NotImplemented if rank is None else self.rank >= rank


_SEVERITY_ORDER = ("low", "medium", "high", "critical")


def _severity_rank(other: object) -> int | None:
    text = other.value if isinstance(other, Severity) else other
    if not isinstance(text, str):
        return None
    if text not in _SEVERITY_ORDER:
        # NotImplemented would hand over to `str`, which compares letters ("high" < "low").
        known = ", ".join(_SEVERITY_ORDER)
        raise TypeError(f"a severity compares with {known} only, got {text!r}")
    return _SEVERITY_ORDER.index(text)


class FailureMode(str, Enum):
    """What can go wrong, as it shows in the signals."""

    EXPLODING_GRADIENTS = "exploding_gradients"
    VANISHING_GRADIENTS = "vanishing_gradients"
    LOSS_PLATEAU = "loss_plateau"
    DIVERGENT_TRAINING = "divergent_training"
    LR_INSTABILITY = "learning_rate_instability"
    TRAINING_SERVING_SKEW = "training_serving_skew"
    DISTRIBUTION_DRIFT = "distribution_drift"
    LABEL_LEAKAGE = "label_leakage"
    FEATURE_COLLAPSE = "feature_collapse"
    NAN_DETECTED = "nan_detected"
    INF_DETECTED = "inf_detected"
    MIXED_PRECISION_INSTABILITY = "mixed_precision_instability"
    PRECISION_LOSS = "precision_loss"
    MEMORY_FRAGMENTATION = "memory_fragmentation"
    OOM_PRECURSOR = "oom_precursor"
    NON_DETERMINISM = "non_determinism"
    GRADIENT_DESYNC = "gradient_desynchronization"
    STRAGGLER_EFFECT = "straggler_effect"
    PARTIAL_WORKER_FAILURE = "partial_worker_failure"
    PARAMETER_DESYNC = "parameter_desynchronization"
    LOSS_SPIKE = "loss_spike"
    OVERFITTING = "overfitting"
    DEAD_UNITS = "dead_units"
    FROZEN_PARAMETERS = "frozen_parameters"
    STALE_GRADIENTS = "stale_gradients"
    INPUT_STARVATION = "input_starvation"
    INPUT_OUT_OF_RANGE = "input_out_of_range"
    PARAMETER_RUNAWAY = "parameter_runaway"
    CORRUPT_CHECKPOINT = "corrupt_checkpoint"
    JOB_CRASH = "job_crash"

    def __str__(self) -> str:
        return self.value


class RootCause(str, Enum):
    """Why it went wrong."""

    LEARNING_RATE_TOO_HIGH = "learning_rate_too_high"
    LEARNING_RATE_TOO_LOW = "learning_rate_too_low"
    LEARNING_RATE_SCHEDULE_FAULT = "learning_rate_schedule_fault"
    MISSING_GRADIENT_CLIPPING = "missing_gradient_clipping"
    GRADIENTS_NOT_ZEROED = "gradients_not_zeroed"
    POOR_INITIALIZATION = "poor_initialization"
    SATURATING_ACTIVATIONS = "saturating_activations"
    DEAD_ACTIVATIONS = "dead_activations"
    NUMERICAL_OVERFLOW = "numerical_overflow"
    INVALID_OPERATION = "invalid_operation"
    LOW_PRECISION_UPDATE_LOSS = "low_precision_update_loss"
    LOSS_SCALE_EXHAUSTED = "loss_scale_exhausted"
    CORRUPTED_BATCH = "corrupted_batch"
    CORRUPTED_LABELS = "corrupted_labels"
    NON_FINITE_INPUT = "non_finite_input"
    UNSCALED_INPUT = "unscaled_input"
    DATA_DISTRIBUTION_CHANGE = "data_distribution_change"
    PREPROCESSING_MISMATCH = "preprocessing_mismatch"
    TARGET_LEAK = "target_leak"
    INSUFFICIENT_REGULARIZATION = "insufficient_regularization"
    EXCESSIVE_REGULARIZATION = "excessive_regularization"
    PARAMETERS_NOT_UPDATED = "parameters_not_updated"
    OPTIMIZER_STATE_LOST = "optimizer_state_lost"
    MISSED_GRADIENT_SYNCHRONIZATION = "missed_gradient_synchronization"
    REPLICA_INITIALIZATION_MISMATCH = "replica_initialization_mismatch"
    REPLICA_DATA_CORRUPTION = "replica_data_corruption"
    SLOW_WORKER = "slow_worker"
    LOST_WORKER = "lost_worker"
    MEMORY_LEAK = "memory_leak"
    MEMORY_FRAGMENTATION = "memory_fragmentation"
    DATA_LOADER_BOTTLENECK = "data_loader_bottleneck"
    NON_DETERMINISTIC_EXECUTION = "non_deterministic_execution"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


FailureModeLike = FailureMode | str
RootCauseLike = RootCause | str

_VENDOR_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*:[a-z0-9][a-z0-9_.-]*")
_registered_modes: set[str] = set()
_registered_causes: set[str] = set()
_E = TypeVar("_E", FailureMode, RootCause)


def register_failure_mode(name: str) -> str:
    """Make ``vendor:name`` a failure mode; returns it. Registering it twice is fine.

    Raises
    ------
    ConfigurationError
        If `name` is not of the form ``vendor:name`` in lower case.
    """
    return _register(name, _registered_modes, "failure mode")


def register_root_cause(name: str) -> str:
    """Make ``vendor:name`` a root cause; returns it. Registering it twice is fine.

    Raises
    ------
    ConfigurationError
        If `name` is not of the form ``vendor:name`` in lower case.
    """
    return _register(name, _registered_causes, "root cause")


def failure_mode(value: FailureModeLike) -> FailureModeLike:
    """Return the member for `value`, or the registered ``vendor:name`` itself.

    Raises
    ------
    ConfigurationError
        If `value` is neither.
    """
    return _resolve(value, FailureMode, _registered_modes, "failure mode")


def root_cause(value: RootCauseLike) -> RootCauseLike:
    """Return the member for `value`, or the registered ``vendor:name`` itself.

    Raises
    ------
    ConfigurationError
        If `value` is neither.
    """
    return _resolve(value, RootCause, _registered_causes, "root cause")


def word(value: FailureModeLike | RootCauseLike | Severity) -> str:
    """Return the plain string of a mode, a cause or a severity."""
    return value.value if isinstance(value, Enum) else value


def _register(name: str, registered: set[str], what: str) -> str:
    if not isinstance(name, str) or not _VENDOR_NAME.fullmatch(name):
        raise ConfigurationError(
            f"a {what} of your own is written vendor:name in lower case, got {name!r}"
        )
    registered.add(name)
    return name


def _resolve(value: str, kind: type[_E], registered: set[str], what: str) -> _E | str:
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        if isinstance(value, str) and value in registered:
            return value
    raise ConfigurationError(
        f"unknown {what} {value!r}; use one of {', '.join(m.value for m in kind)}, "
        f"or register a vendor:name first"
    )
