"""What one failure mode makes of another, and which causes are special cases of others."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..core import FailureMode, RootCause

__all__ = ["LEADS_TO", "SPECIAL_CASES"]

_M = FailureMode


def _edges(table: Mapping[FailureMode, tuple[FailureMode, ...]]) -> Mapping[str, frozenset[str]]:
    return MappingProxyType(
        {mode.value: frozenset(other.value for other in ways) for mode, ways in table.items()}
    )


LEADS_TO: Mapping[str, frozenset[str]] = _edges({
    _M.LR_INSTABILITY: (
        _M.EXPLODING_GRADIENTS, _M.DIVERGENT_TRAINING, _M.LOSS_SPIKE, _M.LOSS_PLATEAU,
        _M.NAN_DETECTED, _M.INF_DETECTED, _M.DEAD_UNITS, _M.FEATURE_COLLAPSE,
        _M.VANISHING_GRADIENTS, _M.FROZEN_PARAMETERS, _M.PRECISION_LOSS, _M.OVERFITTING,
    ),
    _M.EXPLODING_GRADIENTS: (
        _M.DIVERGENT_TRAINING, _M.LOSS_SPIKE, _M.NAN_DETECTED, _M.INF_DETECTED, _M.DEAD_UNITS,
        _M.MIXED_PRECISION_INSTABILITY, _M.LOSS_PLATEAU, _M.OVERFITTING, _M.FEATURE_COLLAPSE,
        _M.VANISHING_GRADIENTS,
    ),
    _M.LOSS_SPIKE: (
        _M.DIVERGENT_TRAINING, _M.EXPLODING_GRADIENTS, _M.NAN_DETECTED, _M.INF_DETECTED,
        _M.DEAD_UNITS, _M.LOSS_PLATEAU, _M.OVERFITTING, _M.FEATURE_COLLAPSE,
    ),
    _M.DIVERGENT_TRAINING: (
        _M.NAN_DETECTED, _M.INF_DETECTED, _M.EXPLODING_GRADIENTS, _M.DEAD_UNITS, _M.LOSS_PLATEAU,
        _M.VANISHING_GRADIENTS, _M.MIXED_PRECISION_INSTABILITY, _M.LOSS_SPIKE, _M.OVERFITTING,
        _M.FEATURE_COLLAPSE, _M.FROZEN_PARAMETERS, _M.PRECISION_LOSS,
    ),
    _M.INF_DETECTED: (
        _M.NAN_DETECTED, _M.MIXED_PRECISION_INSTABILITY, _M.LOSS_PLATEAU,
    ),
    _M.NAN_DETECTED: (_M.INF_DETECTED, _M.LOSS_PLATEAU, _M.FROZEN_PARAMETERS, _M.JOB_CRASH),
    _M.MIXED_PRECISION_INSTABILITY: (
        _M.NAN_DETECTED, _M.INF_DETECTED, _M.LOSS_PLATEAU, _M.FROZEN_PARAMETERS,
        _M.VANISHING_GRADIENTS,
    ),
    _M.VANISHING_GRADIENTS: (_M.LOSS_PLATEAU, _M.FROZEN_PARAMETERS, _M.PRECISION_LOSS),
    _M.DEAD_UNITS: (
        _M.VANISHING_GRADIENTS, _M.LOSS_PLATEAU, _M.FEATURE_COLLAPSE, _M.FROZEN_PARAMETERS,
        _M.PRECISION_LOSS,
    ),
    _M.FEATURE_COLLAPSE: (_M.LOSS_PLATEAU, _M.VANISHING_GRADIENTS),
    _M.FROZEN_PARAMETERS: (_M.LOSS_PLATEAU,),
    _M.STALE_GRADIENTS: (
        _M.EXPLODING_GRADIENTS, _M.DIVERGENT_TRAINING, _M.LOSS_SPIKE, _M.LOSS_PLATEAU,
        _M.NAN_DETECTED, _M.INF_DETECTED, _M.DEAD_UNITS, _M.LR_INSTABILITY,
    ),
    _M.PRECISION_LOSS: (_M.LOSS_PLATEAU, _M.FROZEN_PARAMETERS),
    _M.GRADIENT_DESYNC: (
        _M.PARAMETER_DESYNC, _M.DIVERGENT_TRAINING, _M.LOSS_SPIKE, _M.LOSS_PLATEAU,
        _M.NAN_DETECTED,
    ),
    _M.PARAMETER_DESYNC: (
        _M.GRADIENT_DESYNC, _M.DIVERGENT_TRAINING, _M.LOSS_SPIKE, _M.LOSS_PLATEAU,
    ),
    _M.NON_DETERMINISM: (_M.PARAMETER_DESYNC, _M.GRADIENT_DESYNC),
    _M.PARTIAL_WORKER_FAILURE: (
        _M.GRADIENT_DESYNC, _M.PARAMETER_DESYNC, _M.DIVERGENT_TRAINING, _M.JOB_CRASH,
        _M.LOSS_SPIKE, _M.LOSS_PLATEAU, _M.NAN_DETECTED,
    ),
    _M.MEMORY_FRAGMENTATION: (_M.OOM_PRECURSOR, _M.STRAGGLER_EFFECT, _M.JOB_CRASH),
    _M.OOM_PRECURSOR: (_M.PARTIAL_WORKER_FAILURE, _M.JOB_CRASH),
    _M.INPUT_STARVATION: (_M.STRAGGLER_EFFECT,),
    _M.STRAGGLER_EFFECT: (_M.PARTIAL_WORKER_FAILURE,),
    _M.JOB_CRASH: (_M.PARTIAL_WORKER_FAILURE,),
    _M.DISTRIBUTION_DRIFT: (
        _M.LOSS_SPIKE, _M.DIVERGENT_TRAINING, _M.TRAINING_SERVING_SKEW, _M.OVERFITTING,
    ),
    _M.LABEL_LEAKAGE: (_M.OVERFITTING, _M.TRAINING_SERVING_SKEW),
    _M.CORRUPT_CHECKPOINT: (
        _M.NAN_DETECTED, _M.INF_DETECTED, _M.DIVERGENT_TRAINING, _M.LOSS_SPIKE,
    ),
})  # fmt: skip
"""mode -> the modes that it can bring about: a finding of those is not a story of its own."""

SPECIAL_CASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # A rate that a schedule threw up, or that met an empty optimizer, is too high as well.
        RootCause.LEARNING_RATE_TOO_HIGH.value: (
            RootCause.LEARNING_RATE_SCHEDULE_FAULT.value,
            RootCause.OPTIMIZER_STATE_LOST.value,
        ),
        # What runs away overflows in the end, in any number format.
        RootCause.NUMERICAL_OVERFLOW.value: (RootCause.LEARNING_RATE_TOO_HIGH.value,),
    }
)
"""general cause -> special ones: where one of these holds, the general one is explained away."""
