"""What NaN and Inf say of causes: rules as data.

Facts are the evidence keys that the two detectors document; see
`AttributionRule`. Strengths are first estimates, to be calibrated on labelled
runs.
"""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["INF", "NAN"]

_GREW = Condition("growth_before", ">=", 4.0, "values had grown {growth_before}-fold just before")
_SUDDEN = Condition("growth_before", "<", 2.0, "nothing announced it: the values before were usual")
_EXPLODED = Condition(
    "lead.exploding_gradients",
    ">=",
    0,
    "gradients exploded {lead.exploding_gradients} steps before",
)
_DIVERGED = Condition(
    "lead.divergent_training", ">=", 0, "the loss diverged {lead.divergent_training} steps before"
)
_AFTER_INF = Condition(
    "lead.inf_detected", ">", 0, "infinities were there {lead.inf_detected} steps before"
)
_SCALED = Condition("loss_scaling", "==", True, "the loss is scaled, as in float16 training")
_RECOVERED = Condition("recovered", "==", True, "it recovered by itself")
_STAYS = Condition("goes_on", "==", True, "it stays to the end of the log")
_START = Condition("from_the_start", "==", True, "no finite value came before")
_LATER = Condition("from_the_start", "==", False, "it began after finite values")

_OPERATION = ("invalid_operation", "fully_masked", "constant", "uninitialised_memory")
_DAMAGED = ("non_finite_parameter", "non_finite_optimizer_state")


def _but(*kinds: str) -> tuple[Condition, float]:
    """Return what speaks against a cause: a trace found a producer of one of `kinds`."""
    says = "the step was replayed: it begins {story.producer_where}"
    return Condition("story.producer_kind", "in", kinds, says), 0.02


_ANOMALY = (
    "Load the last checkpoint before step {onset_step}, run that step once under "
    "torch.autograd.set_detect_anomaly(True), and look at the operation that it names."
)
_EPSILON = (
    "Look for log, sqrt, division and norm without an epsilon in the loss and in {series}: "
    "log(x + 1e-8), x / (y + 1e-8)."
)
_BATCH = "Check the batch of step {onset_step} with has_nonfinite before the forward pass."
_LOWER = (
    "Restart from before step {began_at} with a third of the learning rate, and clip the global "
    "gradient norm."
)
_WIDER = "Compute the loss and the normalisation layers in float32; prefer bfloat16 to float16."


def _rules(
    mode: FailureMode, prefix: str, word: str, invalid: float, overflow: float
) -> tuple[AttributionRule, ...]:
    return (
        AttributionRule(
            f"{prefix}001", mode, RootCause.INVALID_OPERATION, invalid,
            "An operation without a result (log of 0, 0/0, root of a negative) gave the "
            + word
            + " that shows in {began_in} at step {began_at}.",
            raises=((_SUDDEN, 0.3), (_START, 0.2)),
            lowers=((_EXPLODED, 0.3), (_DIVERGED, 0.4), (_AFTER_INF, 0.5), (_GREW, 0.6),
                    (_RECOVERED, 0.35), _but("overflow", "non_finite_input", *_DAMAGED)),
            remediation=(_ANOMALY, _EPSILON),
            source="TensorFlow Debugger V2 and pytorch#182156: the producer has finite inputs",
        ),
        AttributionRule(
            f"{prefix}002", mode, RootCause.NUMERICAL_OVERFLOW, overflow,
            "Values left the range of the number format: {began_in} is the first that shows it, at "
            "step {began_at}.",
            raises=((_GREW, 0.3), (_AFTER_INF, 0.4), (_SCALED, 0.3)),
            lowers=((_SUDDEN, 0.7), _but(*_OPERATION, "non_finite_input", *_DAMAGED)),
            remediation=(_WIDER, _ANOMALY),
            source="Micikevicius et al., Mixed Precision Training, ICLR 2018",
        ),
        AttributionRule(
            f"{prefix}003", mode, RootCause.LEARNING_RATE_TOO_HIGH, 0.15,
            "The learning rate is too high: training ran away until {began_in} was "
            + word + " at step {began_at}.",
            raises=((_EXPLODED, 0.5), (_DIVERGED, 0.5), (_GREW, 0.25)),
            lowers=((_SUDDEN, 0.5), (_RECOVERED, 0.4),
                    _but("non_finite_input", *_OPERATION[1:])),
            remediation=(_LOWER,),
            source="Goodfellow, Bengio, Courville, Deep Learning, 2016, section 8.2.4",
        ),
        AttributionRule(
            f"{prefix}004", mode, RootCause.NON_FINITE_INPUT, 0.2,
            "The batch of step {onset_step} holds values that are not finite.",
            when=(_LATER,),
            raises=((_SUDDEN, 0.15), (_RECOVERED, 0.2)),
            lowers=((_EXPLODED, 0.2), (_GREW, 0.4), (_SCALED, 0.3),
                    _but("overflow", *_OPERATION, *_DAMAGED)),
            remediation=(_BATCH,),
            source="Chowdhery et al., PaLM, 2022, section 5.1: a batch may do it",
        ),
        AttributionRule(
            f"{prefix}005", mode, RootCause.CORRUPTED_BATCH, 0.1,
            "A single batch around step {onset_step} was out of range; training went on after it.",
            when=(_RECOVERED, _LATER),
            raises=((Condition("count", "==", 1, "it is one value alone"), 0.25),),
            lowers=((_SCALED, 0.3), _but("overflow", *_OPERATION, *_DAMAGED)),
            remediation=(_BATCH,),
        ),
    )  # fmt: skip


NAN: tuple[AttributionRule, ...] = _rules(FailureMode.NAN_DETECTED, "NAN", "NaN", 0.4, 0.25)
INF: tuple[AttributionRule, ...] = _rules(FailureMode.INF_DETECTED, "INF", "infinity", 0.1, 0.45)
