"""What slow replicas say of causes: rules as data."""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["STRAGGLER"]

_M = FailureMode.STRAGGLER_EFFECT
_REPLICA = Condition("rule", "==", "replica", "it was as fast as usual before step {onset_step}")
_START = Condition("rule", "==", "from_the_start", "it was slower from the start")
_JOB = Condition("rule", "==", "job", "no replica stands out: the whole job slowed")
_STARVED = Condition(
    "mode.input_starvation", "present", says="waiting for data was found too, from step "
    "{mode.input_starvation}",
)  # fmt: skip
_FED = Condition("quiet.input_starvation", "==", True, "the share of time spent on data is normal")
_RECOVERED = Condition("recovered", "==", True, "it recovered by step {end_step}")
_FRAGMENTED = Condition("mode.memory_fragmentation", "present", says="memory is fragmented")

STRAGGLER: tuple[AttributionRule, ...] = (
    AttributionRule(
        "STR001", _M, RootCause.SLOW_WORKER, 0.6,
        "Replica {replica_id} has taken {slowdown} times its usual {quantity} since step "
        "{onset_step}, while the other replicas kept their pace.",
        when=(_REPLICA,),
        raises=((_FED, 0.3),),
        lowers=((_STARVED, 0.3),),
        remediation=(
            ("On the host of replica {replica_id}, compare clock, temperature, power cap and "
             "memory errors around step {peak_step} with those of another host (nvidia-smi -q)."),
            ("If it is slow again after a restart, take that host out of the job: it has cost "
             "{excess_time} (in the unit of {quantity}) so far."),
        ),
        source="nvidia-resiliency-ext: relative score; ByteRobust, SOSP 2025: rounds of outliers",
    ),
    AttributionRule(
        "STR002", _M, RootCause.SLOW_WORKER, 0.45,
        "Replica {replica_id} runs at {score} of the pace of the others from the start: other "
        "hardware, a lower power cap or a worse link.",
        when=(_START,),
        remediation=(
            ("Compare device model, clock limits and link speed of replica {replica_id} with the "
             "others (nvidia-smi topo -m); give it less work per step if it is meant to differ."),
        ),
    ),
    AttributionRule(
        "STR003", _M, RootCause.DATA_LOADER_BOTTLENECK, 0.2,
        "Replica {replica_id} waits for its data from step {onset_step} on.",
        when=(Condition("rule", "in", ("replica", "from_the_start"), "one replica stands out"),),
        raises=((_STARVED, 0.6),),
        lowers=((_FED, 0.1),),
        remediation=(
            ("Log data_time per replica; look at the disk, cache and loader processes of the host "
             "of replica {replica_id} around step {onset_step}."),
        ),
    ),
    AttributionRule(
        "STR004", _M, RootCause.DATA_LOADER_BOTTLENECK, 0.3,
        "Every step takes {slowdown} times as long since step {onset_step}: what all share, such "
        "as storage, network or the work per step, slowed.",
        when=(_JOB,),
        raises=((_STARVED, 0.5),),
        lowers=((_FED, 0.3), (_RECOVERED, 0.8)),
        remediation=(
            ("Compare data_time, comm_time and the shape of the batches before and after step "
             "{onset_step}; look at shared storage and network at that time."),
        ),
    ),
    AttributionRule(
        "STR005", _M, RootCause.MEMORY_FRAGMENTATION, 0.1,
        "Allocations take longer since step {onset_step}: the allocator frees and retries.",
        when=(_JOB,),
        raises=((_FRAGMENTED, 0.5),),
        lowers=((Condition("quiet.memory_fragmentation", "==", True,
                           "reserved memory is well used"), 0.1),),
        remediation=("Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.",),
    ),
)  # fmt: skip
