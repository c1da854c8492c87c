"""Rules for failure modes whose detector carries none, and what one mode makes of another.

A detector of one's own that finds a known mode gets these; a detector's own
rules come first and are more specific.
"""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["DEFAULT_RULES", "LEADS_TO"]

_M = FailureMode
_C = RootCause

LEADS_TO: dict[str, frozenset[str]] = {
    _M.LR_INSTABILITY.value: frozenset({
        _M.EXPLODING_GRADIENTS.value, _M.DIVERGENT_TRAINING.value, _M.LOSS_SPIKE.value,
        _M.LOSS_PLATEAU.value, _M.NAN_DETECTED.value, _M.INF_DETECTED.value,
    }),
    _M.EXPLODING_GRADIENTS.value: frozenset({
        _M.DIVERGENT_TRAINING.value, _M.LOSS_SPIKE.value, _M.NAN_DETECTED.value,
        _M.INF_DETECTED.value, _M.DEAD_UNITS.value, _M.MIXED_PRECISION_INSTABILITY.value,
        _M.LOSS_PLATEAU.value,
    }),
    _M.LOSS_SPIKE.value: frozenset({_M.DIVERGENT_TRAINING.value, _M.NAN_DETECTED.value,
                                    _M.INF_DETECTED.value, _M.DEAD_UNITS.value}),
    _M.DIVERGENT_TRAINING.value: frozenset({_M.NAN_DETECTED.value, _M.INF_DETECTED.value,
                                            _M.DEAD_UNITS.value, _M.LOSS_PLATEAU.value}),
    _M.INF_DETECTED.value: frozenset({_M.NAN_DETECTED.value}),
    _M.NAN_DETECTED.value: frozenset({_M.INF_DETECTED.value, _M.LOSS_PLATEAU.value}),
    _M.MIXED_PRECISION_INSTABILITY.value: frozenset({_M.NAN_DETECTED.value, _M.INF_DETECTED.value,
                                                     _M.LOSS_PLATEAU.value}),
    _M.VANISHING_GRADIENTS.value: frozenset({_M.LOSS_PLATEAU.value, _M.FROZEN_PARAMETERS.value}),
    _M.DEAD_UNITS.value: frozenset({_M.VANISHING_GRADIENTS.value, _M.LOSS_PLATEAU.value,
                                    _M.FEATURE_COLLAPSE.value}),
    _M.FROZEN_PARAMETERS.value: frozenset({_M.LOSS_PLATEAU.value}),
    _M.PRECISION_LOSS.value: frozenset({_M.LOSS_PLATEAU.value}),
    _M.GRADIENT_DESYNC.value: frozenset({_M.PARAMETER_DESYNC.value, _M.DIVERGENT_TRAINING.value,
                                         _M.LOSS_SPIKE.value, _M.NAN_DETECTED.value}),
    _M.PARAMETER_DESYNC.value: frozenset({_M.GRADIENT_DESYNC.value, _M.DIVERGENT_TRAINING.value}),
    _M.MEMORY_FRAGMENTATION.value: frozenset({_M.OOM_PRECURSOR.value}),
    _M.OOM_PRECURSOR.value: frozenset({_M.PARTIAL_WORKER_FAILURE.value}),
    _M.INPUT_STARVATION.value: frozenset({_M.STRAGGLER_EFFECT.value}),
    _M.DISTRIBUTION_DRIFT.value: frozenset({_M.LOSS_SPIKE.value, _M.DIVERGENT_TRAINING.value,
                                            _M.TRAINING_SERVING_SKEW.value}),
    _M.CORRUPT_CHECKPOINT.value: frozenset({_M.NAN_DETECTED.value, _M.DIVERGENT_TRAINING.value}),
}  # fmt: skip
"""mode -> the modes that it can bring about: a finding of those is not a story of its own."""

_HELD_OUT_ONLY = Condition("held_out", "==", True, "it is seen on held-out data alone")
_AT_START = Condition("onset_step", "<=", 10, "it began within the first ten steps")
_LATER = Condition("onset_step", ">", 10, "training went well at first")
_AFTER_EXPLOSION = Condition(
    "mode.exploding_gradients", "present", says="the gradients exploded at step "
    "{mode.exploding_gradients}",
)  # fmt: skip
_LOSS_SCALED = Condition("context.loss_scale", "present", says="the loss is scaled (float16)")


def _rule(
    code: str,
    mode: FailureMode,
    cause: RootCause,
    strength: float,
    hypothesis: str,
    *remediation: str,
    when: tuple[Condition, ...] = (),
    raises: tuple[tuple[Condition, float], ...] = (),
    lowers: tuple[tuple[Condition, float], ...] = (),
    source: str = "",
) -> AttributionRule:
    return AttributionRule(
        code, mode, cause, strength, hypothesis, when, raises, lowers, remediation, source
    )


DEFAULT_RULES: tuple[AttributionRule, ...] = (
    _rule("DEF101", _M.EXPLODING_GRADIENTS, _C.LEARNING_RATE_TOO_HIGH, 0.4,
          "The learning rate is too high: gradients exploded at step {onset_step}."),
    _rule("DEF102", _M.EXPLODING_GRADIENTS, _C.MISSING_GRADIENT_CLIPPING, 0.3,
          "Nothing bounded the gradients at step {onset_step}.",
          lowers=((Condition("context.gradient_clipping", "present",
                             says="gradients are clipped"), 0.1),)),
    _rule("DEF103", _M.EXPLODING_GRADIENTS, _C.GRADIENTS_NOT_ZEROED, 0.35,
          "Gradients are added up over steps: they grow evenly from step {onset_step} on.",
          when=(Condition("growth", "==", "linear", "they grow by the same amount every step"),)),
    _rule("DEF104", _M.EXPLODING_GRADIENTS, _C.UNSCALED_INPUT, 0.2,
          "The inputs are not scaled: gradients were out of range from the start.",
          when=(_AT_START,)),
    _rule("DEF111", _M.VANISHING_GRADIENTS, _C.SATURATING_ACTIVATIONS, 0.35,
          "Activations saturate: gradients faded from step {onset_step} on."),
    _rule("DEF112", _M.VANISHING_GRADIENTS, _C.POOR_INITIALIZATION, 0.25,
          "The weights began too small for gradients to reach the first layers.",
          when=(_AT_START,)),
    _rule("DEF121", _M.LOSS_PLATEAU, _C.LEARNING_RATE_TOO_LOW, 0.25,
          "The learning rate is too low: the loss has been flat since step {onset_step}."),
    _rule("DEF122", _M.LOSS_PLATEAU, _C.CORRUPTED_LABELS, 0.15,
          "The labels tell nothing of the inputs: the loss stays at that of guessing.",
          when=(Condition("stuck", "==", True, "it never left its start"),)),
    _rule("DEF123", _M.LOSS_PLATEAU, _C.PARAMETERS_NOT_UPDATED, 0.3,
          "The parameters do not change any more since step {onset_step}.",
          raises=((Condition("mode.frozen_parameters", "present",
                             says="frozen parameters were found"), 0.5),)),
    _rule("DEF131", _M.DIVERGENT_TRAINING, _C.LEARNING_RATE_TOO_HIGH, 0.45,
          "The learning rate is too high: the loss climbs from step {onset_step} on.",
          raises=((_AFTER_EXPLOSION, 0.2),)),
    _rule("DEF132", _M.DIVERGENT_TRAINING, _C.DATA_DISTRIBUTION_CHANGE, 0.15,
          "The data changed at about step {onset_step}.", when=(_LATER,)),
    _rule("DEF133", _M.DIVERGENT_TRAINING, _C.OPTIMIZER_STATE_LOST, 0.35,
          "The optimizer's state was lost when the run was resumed before step {onset_step}.",
          when=(Condition("after_restart", "==", True, "it began right after a restart"),)),
    _rule("DEF141", _M.LR_INSTABILITY, _C.LEARNING_RATE_SCHEDULE_FAULT, 0.5,
          "The schedule changes the learning rate abruptly at step {onset_step}."),
    _rule("DEF142", _M.LR_INSTABILITY, _C.LEARNING_RATE_TOO_HIGH, 0.35,
          "The learning rate is at the edge of what the loss surface allows."),
    _rule("DEF151", _M.NAN_DETECTED, _C.INVALID_OPERATION, 0.4,
          "An operation without a result (log of 0, 0/0, root of a negative) made the NaN at step "
          "{onset_step}.", lowers=((_AFTER_EXPLOSION, 0.5),)),
    _rule("DEF152", _M.NAN_DETECTED, _C.NUMERICAL_OVERFLOW, 0.3,
          "Values overflowed shortly before step {onset_step} and became NaN.",
          raises=((_AFTER_EXPLOSION, 0.3), (_LOSS_SCALED, 0.2),
                  (Condition("mode.inf_detected", "present", says="infinities were found"), 0.3))),
    _rule("DEF153", _M.NAN_DETECTED, _C.NON_FINITE_INPUT, 0.2,
          "The batch of step {onset_step} holds NaN or infinite values.", when=(_LATER,)),
    _rule("DEF161", _M.INF_DETECTED, _C.NUMERICAL_OVERFLOW, 0.5,
          "Values overflowed at step {onset_step}.", raises=((_AFTER_EXPLOSION, 0.3),)),
    _rule("DEF162", _M.INF_DETECTED, _C.NON_FINITE_INPUT, 0.15,
          "The batch of step {onset_step} holds infinite values."),
    _rule("DEF171", _M.MIXED_PRECISION_INSTABILITY, _C.LOSS_SCALE_EXHAUSTED, 0.55,
          "The loss scale fell until gradients vanished in float16 (from step {onset_step})."),
    _rule("DEF172", _M.MIXED_PRECISION_INSTABILITY, _C.NUMERICAL_OVERFLOW, 0.35,
          "An operation overflows in float16 from step {onset_step} on."),
    _rule("DEF181", _M.PRECISION_LOSS, _C.LOW_PRECISION_UPDATE_LOSS, 0.7,
          "Updates are smaller than the resolution of the parameters since step {onset_step}."),
    _rule("DEF191", _M.LOSS_SPIKE, _C.CORRUPTED_BATCH, 0.45,
          "The batch of step {onset_step} holds values out of range."),
    _rule("DEF192", _M.LOSS_SPIKE, _C.LEARNING_RATE_TOO_HIGH, 0.25,
          "The learning rate is high enough for single steps to throw the weights."),
    _rule("DEF201", _M.OVERFITTING, _C.INSUFFICIENT_REGULARIZATION, 0.7,
          "The model has learnt its training data by heart since step {onset_step}."),
    _rule("DEF211", _M.DEAD_UNITS, _C.DEAD_ACTIVATIONS, 0.6,
          "Units give zero for every input since step {onset_step}."),
    _rule("DEF212", _M.DEAD_UNITS, _C.LEARNING_RATE_TOO_HIGH, 0.25,
          "A step that was too large drove units into the dead zone at step {onset_step}."),
    _rule("DEF221", _M.FROZEN_PARAMETERS, _C.PARAMETERS_NOT_UPDATED, 0.75,
          "Parameters have not changed since step {onset_step}."),
    _rule("DEF231", _M.FEATURE_COLLAPSE, _C.SATURATING_ACTIVATIONS, 0.3,
          "Activations saturate, so that different inputs look the same."),
    _rule("DEF232", _M.FEATURE_COLLAPSE, _C.INSUFFICIENT_REGULARIZATION, 0.25,
          "Nothing keeps the features apart."),
    _rule("DEF241", _M.LABEL_LEAKAGE, _C.TARGET_LEAK, 0.75,
          "A feature tells the label."),
    _rule("DEF251", _M.TRAINING_SERVING_SKEW, _C.PREPROCESSING_MISMATCH, 0.5,
          "Training and serving preprocess the data differently."),
    _rule("DEF252", _M.TRAINING_SERVING_SKEW, _C.DATA_DISTRIBUTION_CHANGE, 0.35,
          "The world changed since the training data was taken."),
    _rule("DEF261", _M.DISTRIBUTION_DRIFT, _C.DATA_DISTRIBUTION_CHANGE, 0.7,
          "The data changed at about step {onset_step}."),
    _rule("DEF271", _M.MEMORY_FRAGMENTATION, _C.MEMORY_FRAGMENTATION, 0.75,
          "Reserved memory is not usable: allocations of many sizes cut it up."),
    _rule("DEF281", _M.OOM_PRECURSOR, _C.MEMORY_LEAK, 0.6,
          "Memory in use has grown since step {onset_step}."),
    _rule("DEF282", _M.OOM_PRECURSOR, _C.MEMORY_FRAGMENTATION, 0.2,
          "Reserved memory grows while what is used does not."),
    _rule("DEF291", _M.INPUT_STARVATION, _C.DATA_LOADER_BOTTLENECK, 0.75,
          "The model has waited for its data since step {onset_step}."),
    _rule("DEF301", _M.STRAGGLER_EFFECT, _C.SLOW_WORKER, 0.65,
          "Replica {replica_id} has been slower than the others since step {onset_step}."),
    _rule("DEF302", _M.STRAGGLER_EFFECT, _C.DATA_LOADER_BOTTLENECK, 0.2,
          "Replica {replica_id} waits for its data."),
    _rule("DEF311", _M.PARTIAL_WORKER_FAILURE, _C.LOST_WORKER, 0.7,
          "Replica {replica_id} stopped at step {onset_step}."),
    _rule("DEF321", _M.GRADIENT_DESYNC, _C.MISSED_GRADIENT_SYNCHRONIZATION, 0.6,
          "Replica {replica_id} did not take part in the averaging of gradients from step "
          "{onset_step} on."),
    _rule("DEF322", _M.GRADIENT_DESYNC, _C.REPLICA_DATA_CORRUPTION, 0.2,
          "Memory or a link of replica {replica_id} corrupts data."),
    _rule("DEF331", _M.PARAMETER_DESYNC, _C.REPLICA_INITIALIZATION_MISMATCH, 0.6,
          "The replicas began with different weights.", when=(_AT_START,)),
    _rule("DEF332", _M.PARAMETER_DESYNC, _C.MISSED_GRADIENT_SYNCHRONIZATION, 0.4,
          "Replica {replica_id} missed an update at step {onset_step}.", when=(_LATER,)),
    _rule("DEF333", _M.PARAMETER_DESYNC, _C.REPLICA_DATA_CORRUPTION, 0.35,
          "Memory of replica {replica_id} corrupted a parameter at step {onset_step}.",
          when=(_LATER,)),
    _rule("DEF341", _M.NON_DETERMINISM, _C.NON_DETERMINISTIC_EXECUTION, 0.75,
          "Two runs of one seed part at step {onset_step}."),
    _rule("DEF351", _M.CORRUPT_CHECKPOINT, _C.NUMERICAL_OVERFLOW, 0.3,
          "The run that saved it had overflowed before."),
)  # fmt: skip
