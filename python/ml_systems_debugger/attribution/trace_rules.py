"""Rules that read a traced producer: the operation, tensor or batch where NaN or Inf begins.

A trace replays the step with every operation checked, so it knows what the
series only suggest: these rules outweigh those. What it rules out lowers the rules of the detectors
of NaN and Inf (`story.producer_kind`).
"""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["TRACE_RULES"]

_C = RootCause
_SOURCE = "TensorFlow Debugger V2: the producer is the first op with finite inputs"
_DAMAGED = ("non_finite_parameter", "non_finite_optimizer_state", "non_finite_buffer")
_HALF = ("float16", "float8_e4m3fn", "float8_e5m2")


def _kind(
    *kinds: str, says: str = "the step was replayed: it begins {producer_where}"
) -> Condition:
    return Condition("producer_kind", "in", kinds, says)


_RAN_AWAY = tuple(
    (Condition(f"lead.{mode}", ">=", 1, f"{what} {{lead.{mode}}} steps before"), 0.15)
    for mode, what in (
        ("exploding_gradients", "gradients exploded"), ("divergent_training", "the loss diverged"),
        ("learning_rate_instability", "the learning rate was unstable"),
    )
)  # fmt: skip
_WIDER = "Compute it in float32: an autocast(enabled=False) block around {producer_where}."


def _rules(mode: FailureMode, prefix: str) -> tuple[AttributionRule, ...]:
    def rule(
        code: str, cause: RootCause, strength: float, hypothesis: str, when: tuple[Condition, ...],
        *remediation: str,
        raises: tuple[tuple[Condition, float], ...] = (),
        lowers: tuple[tuple[Condition, float], ...] = (),
        source: str = _SOURCE,
    ) -> AttributionRule:  # fmt: skip
        return AttributionRule(
            prefix + code, mode, cause, strength, hypothesis, when, raises, lowers, remediation,
            source,
        )  # fmt: skip

    return (
        rule("01", _C.INVALID_OPERATION, 0.98,
             "An operation has no result for its finite inputs at step {onset_step}, "
             "{producer_where}.", (_kind("invalid_operation"),),
             "Keep its input inside the domain: an epsilon in the divisor or under the root, "
             "log(x.clamp_min(eps)), or a fused form such as log_softmax.",
             "In a backward pass, bound the input before the operation; torch.where around its "
             "result still lets NaN through.",
             lowers=_RAN_AWAY),
        rule("02", _C.INVALID_OPERATION, 0.95,
             "A row of the batch of step {onset_step} is masked as a whole, {producer_where}.",
             (_kind("fully_masked"),),
             "Leave out sequences of padding alone, or mask with a large finite number."),
        rule("03", _C.INVALID_OPERATION, 0.95,
             "A number in the code is not finite, {producer_where}.", (_kind("constant"),),
             "Look for the constant at the source line named."),
        rule("04", _C.INVALID_OPERATION, 0.95,
             "Memory is read that was never written, {producer_where}.",
             (_kind("uninitialised_memory"),),
             "Use torch.zeros or fill the tensor of torch.empty before it is read."),
        rule("11", _C.NUMERICAL_OVERFLOW, 0.95,
             "Values left the range of {producer_dtype} at step {onset_step}, {producer_where}.",
             (_kind("overflow"),),
             "Bound the input of that operation: clamp it, scale it down, or normalise before it.",
             lowers=_RAN_AWAY),
        rule("12", _C.NUMERICAL_OVERFLOW, 0.9,
             "{producer_dtype} is too narrow for the values at step {onset_step}, "
             "{producer_where}.",
             (_kind("overflow"), Condition("producer_dtype", "in", _HALF,
                                           "its output is {producer_dtype}")),
             _WIDER, "Prefer bfloat16, whose range is that of float32.",
             source="Micikevicius et al., Mixed Precision Training, ICLR 2018"),
        rule("21", _C.NON_FINITE_INPUT, 0.98,
             "The batch of step {onset_step} holds values that are not finite: {producer_name}.",
             (_kind("non_finite_input", says="it is {producer_where}"),),
             "Check batches with has_nonfinite before the forward pass; mend or drop those rows."),
        rule("31", _C.REPLICA_DATA_CORRUPTION, 0.85,
             "{producer_name} held values that are not finite before step {onset_step} began, "
             "although loss and gradients had been finite until then: it was damaged in memory, in "
             "a checkpoint, or by something that writes to it.",
             (_kind(*_DAMAGED, says="it is {producer_where}"),),
             "Compare {producer_name} with the last checkpoint; look for code that writes to it "
             "outside the optimizer.",
             "Run the device's memory diagnostics where nothing in the code does.",
             lowers=_RAN_AWAY, source="Dixit et al., Silent data corruptions at scale, 2021"),
        rule("32", _C.NON_FINITE_INPUT, 0.35,
             "A buffer took values that are not finite from an earlier batch: {producer_name}.",
             (_kind("non_finite_buffer"),),
             "Check the batches before step {onset_step}: running statistics keep what they saw."),
    )  # fmt: skip


TRACE_RULES: tuple[AttributionRule, ...] = (
    *_rules(FailureMode.NAN_DETECTED, "TRN"),
    *_rules(FailureMode.INF_DETECTED, "TRI"),
)
"""For NaN (``TRN``) and infinities (``TRI``)."""
