"""What memory says of causes: rules as data."""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["FRAGMENTED", "OUT_OF_MEMORY"]

_OOM = FailureMode.OOM_PRECURSOR
_FRAG = FailureMode.MEMORY_FRAGMENTATION
_GROWS = Condition("rule", "==", "growth", "it grows by {slope} a step")
_FAILED = Condition("rule", "==", "failed_allocation", "an allocation failed")
_ALLOCATED = Condition(
    "quantity", "in", ("memory_allocated", "max_memory_allocated", "host_memory"),
    "what is in use grows, not only what is reserved",
)  # fmt: skip
_RESERVED = Condition(
    "quantity", "in", ("memory_reserved", "max_memory_reserved"), "only reserved memory is logged"
)
_FRAGMENTED = Condition(
    "mode.memory_fragmentation", "present", says="the gap between reserved and allocated grows "
    "from step {mode.memory_fragmentation}",
)  # fmt: skip
_WHOLE = Condition("quiet.memory_fragmentation", "==", True, "reserved memory is well used")
_HOST = Condition("quantity", "==", "host_memory", "it is memory of the host")

_SNAPSHOT = (
    "Record torch.cuda.memory._record_memory_history() over a few steps after {onset_step} and "
    "look for what is allocated and never freed."
)

OUT_OF_MEMORY: tuple[AttributionRule, ...] = (
    AttributionRule(
        "OOM001", _OOM, RootCause.MEMORY_LEAK, 0.65,
        "{quantity} has grown by {slope} a step since step {onset_step}: something is kept from "
        "every step.",
        when=(_GROWS,),
        raises=((_ALLOCATED, 0.3),),
        lowers=((_FRAGMENTED, 0.5), (_RESERVED, 0.6)),
        remediation=(
            ("Save a checkpoint before step {full_at_step}: that is where memory runs out (in "
             "{steps_left_low} to {steps_left_high} steps)."),
            "Look for tensors kept with their graph: append loss.item(), not loss, to any list.",
            _SNAPSHOT,
        ),
        source="Sen, JASA 63, 1968: slope with its interval",
    ),
    AttributionRule(
        "OOM002", _OOM, RootCause.MEMORY_FRAGMENTATION, 0.15,
        "Reserved memory grows from step {onset_step} on, and less and less of it is usable.",
        when=(_GROWS,),
        raises=((_FRAGMENTED, 0.6), (_RESERVED, 0.2)),
        lowers=((_WHOLE, 0.1),),
        remediation=("Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True and restart.",),
    ),
    AttributionRule(
        "OOM003", _OOM, RootCause.DATA_LOADER_BOTTLENECK, 0.1,
        "The loader processes keep what they have read: host memory grows from step {onset_step}.",
        when=(_GROWS, _HOST),
        remediation=(
            ("Keep the sample list in a NumPy array or a shared store: Python objects are copied "
             "page by page into every forked loader process."),
        ),
    ),
    AttributionRule(
        "OOM004", _OOM, RootCause.MEMORY_LEAK, 0.3,
        "An allocation failed at step {onset_step}: the memory is full.",
        when=(_FAILED,),
        remediation=(
            ("Lower the batch size or the sequence length, or accumulate gradients; restart from "
             "a checkpoint before step {onset_step}."),
            _SNAPSHOT,
        ),
    ),
    AttributionRule(
        "OOM005", _OOM, RootCause.MEMORY_FRAGMENTATION, 0.3,
        "An allocation failed at step {onset_step} though memory was free: it is cut up.",
        when=(_FAILED,),
        raises=((_FRAGMENTED, 0.6),),
        lowers=((_WHOLE, 0.2),),
        remediation=("Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True and restart.",),
    ),
)  # fmt: skip

FRAGMENTED: tuple[AttributionRule, ...] = (
    AttributionRule(
        "FRG001", _FRAG, RootCause.MEMORY_FRAGMENTATION, 0.75,
        "The allocator holds {last} that is reserved and not in use, {rise} more than before step "
        "{onset_step}: allocations of many sizes cut the memory up.",
        remediation=(
            "Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.",
            "Pad batches to a few distinct shapes, and keep evaluation at those shapes too.",
            ("If a single phase before step {onset_high} left it behind, call "
             "torch.cuda.empty_cache() after that phase."),
        ),
        source="PyTorch, notes on CUDA memory management: expandable segments",
    ),
    AttributionRule(
        "FRG002", _FRAG, RootCause.MEMORY_LEAK, 0.1,
        "Small allocations that are never freed pin whole segments from step {onset_step} on.",
        raises=((Condition("mode.oom_precursor", "present",
                           says="memory in use grows too"), 0.4),),
        lowers=((Condition("quiet.oom_precursor", "==", True,
                           "memory in use does not grow"), 0.3),),
        remediation=(_SNAPSHOT,),
    ),
)  # fmt: skip
