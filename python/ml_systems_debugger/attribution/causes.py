"""For each root cause: its sentence, and what to do, when no rule can be more specific."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..core import RootCause, word
from .facts import fill

__all__ = ["generic_hint", "generic_sentence", "specific_hints"]

_C = RootCause
_CAUSES: Mapping[RootCause, tuple[str, str]] = MappingProxyType(
    {
        _C.LEARNING_RATE_TOO_HIGH: (
            "The learning rate is too high for this model and batch size.",
            "Restart from the last good checkpoint with a third of the learning rate.",
        ),
        _C.LEARNING_RATE_TOO_LOW: (
            "The learning rate is too low to make progress.",
            "Raise the learning rate threefold for a few hundred steps and watch the loss.",
        ),
        _C.LEARNING_RATE_SCHEDULE_FAULT: (
            "The learning-rate schedule does something unintended.",
            "Print the schedule around the onset; look for epochs taken for steps and restarts.",
        ),
        _C.MISSING_GRADIENT_CLIPPING: (
            "Gradients are not clipped, so that a single batch can throw the weights.",
            "Clip the global gradient norm at two to three times its normal level.",
        ),
        _C.GRADIENTS_NOT_ZEROED: (
            "Gradients are added up over steps: they are not set to zero.",
            "Call optimizer.zero_grad() once per step, before backward().",
        ),
        _C.POOR_INITIALIZATION: (
            "The weights begin badly scaled.",
            "Compare each layer's initial standard deviation with sqrt(2 / fan_in).",
        ),
        _C.SATURATING_ACTIVATIONS: (
            "Activations are saturated, so that almost no gradient passes.",
            "Add normalisation before the activation, or replace tanh and sigmoid by GELU or ReLU.",
        ),
        _C.DEAD_ACTIVATIONS: (
            "Units give zero for every input and learn nothing any more.",
            "Lower the learning rate, or use a leaky activation; check the biases.",
        ),
        _C.NUMERICAL_OVERFLOW: (
            "Values grew beyond what the number format holds.",
            "Compute the overflowing operation in float32 or bfloat16, and bound its input.",
        ),
        _C.INVALID_OPERATION: (
            "An operation without a result, as log(0), 0/0 or sqrt(-1), made NaN.",
            "Run the step at the onset once under torch.autograd.detect_anomaly.",
        ),
        _C.LOW_PRECISION_UPDATE_LOSS: (
            "Updates are smaller than the resolution of the parameters' number format.",
            "Keep float32 master weights, or use stochastic rounding.",
        ),
        _C.LOSS_SCALE_EXHAUSTED: (
            "The dynamic loss scale fell so far that gradients vanish in float16.",
            "Find what overflows at the first skipped steps; consider bfloat16.",
        ),
        _C.CORRUPTED_BATCH: (
            "One or a few batches hold values out of range.",
            "Replay the batches around the onset and look at the range of inputs and targets.",
        ),
        _C.CORRUPTED_LABELS: (
            "The labels do not belong to the inputs.",
            "Show twenty inputs with their labels; check the order after shuffling and joins.",
        ),
        _C.NON_FINITE_INPUT: (
            "The input data itself holds NaN or infinite values.",
            "Check every batch with has_nonfinite before the forward pass; fix or drop the rows.",
        ),
        _C.UNSCALED_INPUT: (
            "The inputs are not scaled.",
            "Standardise each feature with the training set's mean and deviation.",
        ),
        _C.DATA_DISTRIBUTION_CHANGE: (
            "The data changed.",
            "Compare the data before and after the onset, feature by feature.",
        ),
        _C.PREPROCESSING_MISMATCH: (
            "Training and serving preprocess the data differently.",
            "Run one raw record through both pipelines and compare the results value by value.",
        ),
        _C.TARGET_LEAK: (
            "A feature tells the label.",
            "Drop the features most correlated with the label and train again.",
        ),
        _C.INSUFFICIENT_REGULARIZATION: (
            "The model learns its training data by heart.",
            "Stop at the best validation loss; add weight decay, dropout or data.",
        ),
        _C.EXCESSIVE_REGULARIZATION: (
            "A penalty or a decay drives the weights to nothing.",
            "Lower the weight decay or the penalty, and exempt norms and biases from it.",
        ),
        _C.PARAMETERS_NOT_UPDATED: (
            "Parameters do not change: they are not in the optimizer, frozen, or cut off.",
            "Check that every parameter is in an optimizer group and has a gradient.",
        ),
        _C.OPTIMIZER_STATE_LOST: (
            "The optimizer's state was lost at a restart.",
            "Save and load optimizer.state_dict() and the scheduler with the checkpoint.",
        ),
        _C.MISSED_GRADIENT_SYNCHRONIZATION: (
            "A replica did not take part in the averaging of gradients.",
            "Look for no_sync(), a skipped all-reduce or a parameter outside DDP on that replica.",
        ),
        _C.REPLICA_INITIALIZATION_MISMATCH: (
            "The replicas began with different weights.",
            "Broadcast the parameters of rank 0 before the first step.",
        ),
        _C.REPLICA_DATA_CORRUPTION: (
            "Memory or a link of one replica corrupts data.",
            "Take the replica's device out of the job and run its memory and link diagnostics.",
        ),
        _C.SLOW_WORKER: (
            "One worker is slower than the others and holds all of them up.",
            "Look at that worker's clock, temperature, neighbours and data loader; replace it.",
        ),
        _C.LOST_WORKER: (
            "A worker stopped.",
            "Read that worker's own log and kernel messages around its last step.",
        ),
        _C.MEMORY_LEAK: (
            "Memory in use grows from step to step.",
            "Look for tensors kept with their graph: append loss.item(), not loss.",
        ),
        _C.MEMORY_FRAGMENTATION: (
            "Much memory is reserved and not usable.",
            "Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True; pad to few distinct shapes.",
        ),
        _C.DATA_LOADER_BOTTLENECK: (
            "The model waits for its data.",
            "Raise num_workers and prefetch_factor; cache or pre-decode the data.",
        ),
        _C.NON_DETERMINISTIC_EXECUTION: (
            "The same seed does not give the same numbers.",
            "Set torch.use_deterministic_algorithms(True) and seed every library and worker.",
        ),
        _C.UNKNOWN: (
            "Nothing that was recorded explains it.",
            "Log the learning rate, gradient norms per layer and the loss at every step.",
        ),
    }
)  # fmt: skip

# Said before the rules' own advice, where the evidence gives the value to try.
_SPECIFIC: Mapping[RootCause, tuple[str, ...]] = MappingProxyType(
    {
        _C.LEARNING_RATE_TOO_HIGH: (
            (
                "Try a learning rate of {try.learning_rate} (it was {story.lr_at_onset}), from a "
                "checkpoint before step {try.resume_before}."
            ),
        ),
        _C.LEARNING_RATE_SCHEDULE_FAULT: (
            (
                "Hold the learning rate at {try.learning_rate} from step {try.resume_before} on, "
                "as before the change, and see whether the failure stays away."
            ),
        ),
        _C.MISSING_GRADIENT_CLIPPING: (
            (
                "Clip the global gradient norm at {try.clip_norm}, two and a half times its normal "
                "level."
            ),
        ),
        _C.CORRUPTED_BATCH: (
            (
                "Resume from a checkpoint before step {try.resume_before} and skip the batches "
                "of the steps around it."
            ),
        ),
    }
)


def specific_hints(cause: RootCause | str, facts: Mapping[str, Any]) -> list[str]:
    """Return what to do with the values of this case; nothing where they are not known."""
    templates = _SPECIFIC.get(cause, ()) if isinstance(cause, RootCause) else ()
    return [text for template in templates if (text := fill(template, facts))]


def generic_sentence(cause: RootCause | str) -> str:
    """Return the cause in one sentence."""
    known = _CAUSES.get(cause) if isinstance(cause, RootCause) else None
    return known[0] if known else f"The cause is {word(cause)}."


def generic_hint(cause: RootCause | str) -> tuple[str, ...]:
    """Return what to do, in general; nothing for a cause of somebody else's."""
    known = _CAUSES.get(cause) if isinstance(cause, RootCause) else None
    return (known[1],) if known else ()
