"""What disagreeing replicas say of causes: rules as data."""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["DESYNC"]

_AGREED = Condition("agreed_before", "==", True, "the replicas agreed before")
_NEVER_AGREED = Condition("agreed_before", "==", False, "they never agreed")
_START = Condition("onset_step", "<=", 1, "it was so from the first step")
_LATER = Condition("onset_step", ">", 1, "it began at step {onset_step}")
_TRANSIENT = Condition("goes_on", "==", False, "it ended by itself")
_ALONE = Condition("alone", "==", True, "of {layers} parameters it parted alone")
_DEAD = Condition("mode.partial_worker_failure", "present", says="the replica itself had failed")

_CHECK_SYNC = (
    "On the rank that parts (replica {replica_id}), look at step {onset_step} for no_sync(), a "
    "skipped all-reduce, or a parameter used outside the wrapped module."
)
_CHECK_SYNC_ALL = (
    "At step {onset_step}, compare digests of all parameters over the ranks and find the first "
    "layer that differs."
)
_DEVICE = (
    "Take replica {replica_id} out of the job and run its memory and link diagnostics; replay step "
    "{onset_step} there and on another device."
)

DESYNC: tuple[AttributionRule, ...] = (
    AttributionRule(
        "DES001", FailureMode.GRADIENT_DESYNC, RootCause.MISSED_GRADIENT_SYNCHRONIZATION, 0.5,
        "{series} parts between replicas at step {onset_step}: one of them did not take part in "
        "the averaging of gradients.",
        raises=((_AGREED, 0.4),),
        lowers=((_TRANSIENT, 0.6), (_NEVER_AGREED, 0.6), (_DEAD, 0.25)),
        remediation=(_CHECK_SYNC, _CHECK_SYNC_ALL),
        source="PyTorch DDP: gradients are equal on all ranks after the all-reduce",
    ),
    AttributionRule(
        "DES002", FailureMode.GRADIENT_DESYNC, RootCause.REPLICA_DATA_CORRUPTION, 0.25,
        "Replica {replica_id} computes something else from step {onset_step} on: its data, memory "
        "or link is corrupt.",
        raises=((_TRANSIENT, 0.2), (_NEVER_AGREED, 0.2)),
        remediation=(_DEVICE,),
        source="Megatron-LM's rerun machine: transient or persistent by replaying the step",
    ),
    AttributionRule(
        "DES003", FailureMode.PARAMETER_DESYNC, RootCause.REPLICA_INITIALIZATION_MISMATCH, 0.75,
        "The replicas began with different parameters.",
        when=(_START,),
        remediation=("Broadcast the parameters of rank 0 before the first step.",),
        source="PyTorch DDP broadcasts rank 0's module at construction",
    ),
    AttributionRule(
        "DES004", FailureMode.PARAMETER_DESYNC, RootCause.MISSED_GRADIENT_SYNCHRONIZATION, 0.4,
        "A replica missed an update at step {onset_step}: its parameters differ from then on.",
        when=(_LATER,),
        raises=((Condition("mode.gradient_desynchronization", "present",
                           says="its gradients had parted"), 0.4),),
        lowers=((_ALONE, 0.6), (_DEAD, 0.25)),
        remediation=(_CHECK_SYNC, _CHECK_SYNC_ALL),
    ),
    AttributionRule(
        "DES005", FailureMode.PARAMETER_DESYNC, RootCause.REPLICA_DATA_CORRUPTION, 0.4,
        "A parameter of replica {replica_id} changed by itself at step {onset_step}, as by a "
        "flipped bit.",
        when=(_LATER,),
        raises=((_ALONE, 0.4),),
        lowers=((Condition("mode.gradient_desynchronization", "present",
                           says="its gradients had parted"), 0.5), (_DEAD, 0.4)),
        remediation=(_DEVICE,),
        source="ByteRobust and Megatron-LM: silent data corruption shows in digests first",
    ),
)  # fmt: skip
