"""What waiting for data says of causes: rules as data."""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["STARVED"]

_M = FailureMode.INPUT_STARVATION
_RISE = Condition("rule", "==", "rise", "it was {usual_share} before step {onset_step}")
_START = Condition("rule", "==", "from_the_start", "it was so from the start")
_ONE = Condition("replica_id", "present", says="replica {replica_id} shows it")
_STRAGGLER = Condition(
    "mode.straggler_effect", "present", says="a straggler was found too, at step "
    "{mode.straggler_effect}",
)  # fmt: skip

STARVED: tuple[AttributionRule, ...] = (
    AttributionRule(
        "INP001", _M, RootCause.DATA_LOADER_BOTTLENECK, 0.75,
        "Loading keeps up no more: since step {onset_step} a step waits for data {share} of its "
        "time.",
        when=(_RISE,),
        remediation=(
            ("Look at what changed at step {onset_step}: an epoch or shard boundary, a cache that "
             "ran full, a loader process that died, the throughput of the storage."),
            "Raise prefetch_factor and num_workers; keep the data on a local disk or in memory.",
        ),
        source="XProf, input-pipeline analyser: share of input in the step time",
    ),
    AttributionRule(
        "INP002", _M, RootCause.DATA_LOADER_BOTTLENECK, 0.8,
        "The loader is slower than the model from the start: a step waits {share} of its time.",
        when=(_START,),
        remediation=(
            ("Raise num_workers until data_time falls, pin memory, and decode and resize once, "
             "ahead of training."),
            "Time the loader alone: iterate it without the model and compare with step_time.",
        ),
        source="XProf, input-pipeline analyser: share of input in the step time",
    ),
    AttributionRule(
        "INP003", _M, RootCause.SLOW_WORKER, 0.15,
        "The host of replica {replica_id} is slow, and its loader with it.",
        when=(_ONE,),
        raises=((_STRAGGLER, 0.2),),
        remediation=(
            ("Compare disk, memory and processor load of the host of replica {replica_id} with "
             "those of another one around step {onset_step}."),
        ),
    ),
)  # fmt: skip
