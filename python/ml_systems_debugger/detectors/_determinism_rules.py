"""What runs that part say of causes: rules as data."""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["DETERMINISM"]

_M = FailureMode.NON_DETERMINISM
_START = Condition("rule", "==", "from_the_start", "they differ at their first common step")
_LATER = Condition("rule", "==", "later", "they were equal up to step {last_equal_step}")
_RATE = Condition("quantity", "==", "lr", "the learning rate parts first")
_PARAMETERS = Condition(
    "quantity", "in", ("param_digest", "param_norm"), "the parameters part first"
)
_GRADIENTS = Condition(
    "quantity", "in", ("grad_digest", "grad_norm"), "the gradients part first, the loss not yet"
)

NON = RootCause.NON_DETERMINISTIC_EXECUTION
DETERMINISM: tuple[AttributionRule, ...] = (
    AttributionRule(
        "NDT001", _M, NON, 0.7,
        "The runs begin differently: something is not seeded, or is seeded too late.",
        when=(_START,),
        remediation=(
            ("Seed Python, NumPy, torch and every loader worker before the model is built, and "
             "compare the digests of the parameters before the first step."),
        ),
        source="PyTorch, notes on reproducibility",
    ),
    AttributionRule(
        "NDT002", _M, NON, 0.7,
        "{quantity} parts at step {onset_step}, after step {last_equal_step} was still equal: an "
        "operation or the order of the data there is not determined by the seed.",
        when=(_LATER,),
        raises=((_GRADIENTS, 0.3),),
        lowers=((_RATE, 0.3),),
        remediation=(
            ("Run steps {onset_low} to {onset_high} twice with "
             "torch.use_deterministic_algorithms(True), which names the operation."),
            ("Log a digest of every batch: where the batches part first, seed the sampler and the "
             "loader workers (worker_init_fn, generator)."),
        ),
        source="PyTorch, notes on reproducibility",
    ),
    AttributionRule(
        "NDT003", _M, RootCause.LEARNING_RATE_SCHEDULE_FAULT, 0.6,
        "The learning rates of the two runs differ from step {onset_step} on: they do not run the "
        "same schedule.",
        when=(_RATE,),
        remediation=("Compare the configurations of the runs {runs} before anything else.",),
    ),
    AttributionRule(
        "NDT004", _M, RootCause.REPLICA_DATA_CORRUPTION, 0.1,
        "A device computed something else at step {onset_step}, or lost a bit of a parameter.",
        when=(_LATER,),
        raises=((_PARAMETERS, 0.3),),
        remediation=(
            ("Replay the step at {onset_step} several times on one device and on another: what "
             "is not reproduced on the same device is transient."),
        ),
        source="Megatron-LM's rerun machine: transient or persistent by replaying the step",
    ),
)  # fmt: skip
