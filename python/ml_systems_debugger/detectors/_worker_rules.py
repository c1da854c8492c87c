"""What failing workers say of causes: rules as data."""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["WORKER"]

_M = FailureMode.PARTIAL_WORKER_FAILURE
_STOPPED = Condition("rule", "==", "stopped", "it logs nothing from step {onset_step} on")
_JOIN = Condition("rule", "==", "did_not_join", "the others wait for it in a collective call")
_DEAD = Condition("rule", "in", ("zero", "constant", "non_finite"), "its values are dead")
_BACK = Condition("recovered", "==", True, "it came back after step {end_step}")
_MEMORY = Condition(
    "mode.oom_precursor", "present", says="memory was running out before (step "
    "{mode.oom_precursor})",
)  # fmt: skip

_OWN_LOG = (
    "Read the log of replica {replica_id} and its host's kernel log (dmesg: Xid, OOM killer) "
    "just after step {onset_low}."
)
_STACKS = (
    "Take a stack of replica {replica_id} (py-spy dump) where it still runs; resume the others "
    "from a checkpoint before step {onset_step} without its host."
)

WORKER: tuple[AttributionRule, ...] = (
    AttributionRule(
        "WRK001", _M, RootCause.LOST_WORKER, 0.75,
        "Replica {replica_id} stopped after step {onset_low}, while the others went on.",
        when=(_STOPPED,),
        lowers=((_BACK, 0.5),),
        remediation=(_OWN_LOG, _STACKS),
    ),
    AttributionRule(
        "WRK002", _M, RootCause.LOST_WORKER, 0.7,
        "Replica {replica_id} did not join collective {waits_in}: it hangs or is gone since "
        "{last_call}.",
        when=(_JOIN,),
        remediation=(_STACKS, _OWN_LOG),
        source="PyTorch flight recorder: sequence numbers per rank",
    ),
    AttributionRule(
        "WRK003", _M, RootCause.MEMORY_LEAK, 0.1,
        "Replica {replica_id} ran out of memory at about step {onset_step}.",
        when=(Condition("rule", "in", ("stopped", "did_not_join"), "it stopped"),),
        raises=((_MEMORY, 0.6),),
        lowers=((Condition("quiet.oom_precursor", "==", True,
                           "its memory was not running out"), 0.1),),
        remediation=(
            ("Look for a memory error in the log of replica {replica_id}, and at its memory over "
             "the steps before {onset_step}."),
        ),
    ),
    AttributionRule(
        "WRK004", _M, RootCause.REPLICA_DATA_CORRUPTION, 0.45,
        "Replica {replica_id} computes {rule} values of {quantity} from step {onset_step} on: its "
        "memory, device or input is broken.",
        when=(_DEAD,),
        remediation=(
            ("Run the memory and compute diagnostics of the device of replica {replica_id} "
             "(dcgmi diag -r 3), and replay step {onset_step} on another one."),
        ),
        source="ByteRobust, SOSP 2025: machines that compute wrongly are drained and replayed",
    ),
    AttributionRule(
        "WRK005", _M, RootCause.LOST_WORKER, 0.5,
        "Replica {replica_id} works no more from step {onset_step} on: it repeats or logs nothing "
        "that means anything.",
        when=(Condition("rule", "in", ("zero", "constant"), "its values stand still"),),
        remediation=(
            ("Check that replica {replica_id} still gets batches: the length of its shard, its "
             "sampler, its loader processes at step {onset_step}."),
        ),
    ),
)  # fmt: skip
