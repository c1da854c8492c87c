"""What the last words of a job say of causes: rules as data."""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["CRASH"]

_M = FailureMode.JOB_CRASH


def _rule(
    code: str, cause: RootCause, strength: float, sentence: str, kinds: tuple[str, ...], *do: str
) -> AttributionRule:
    when = Condition("rule", "in", kinds, "the log ends with it")
    return AttributionRule(code, _M, cause, strength, sentence, (when,), remediation=do)


CRASH: tuple[AttributionRule, ...] = (
    _rule(
        "CRH001", RootCause.LOST_WORKER, 0.6,
        "A collective call timed out at step {onset_step}: a rank that is not among those that say "
        "so did not join it.", ("collective_timeout",),
        "Set TORCH_FR_BUFFER_SIZE=20000 and TORCH_NCCL_DUMP_ON_TIMEOUT=1, and diagnose the folder "
        "of the dumps: it names the rank and the call.",
        "Look for ranks that take another branch, another number of batches, or save a checkpoint "
        "for longer than the timeout.",
    ),
    _rule(
        "CRH002", RootCause.LOST_WORKER, 0.5,
        "The communication of the job broke at step {onset_step}: a peer or its network is gone.",
        ("nccl_error",),
        "Find the rank whose log ends first, and read its host's kernel log; set NCCL_DEBUG=INFO.",
    ),
    _rule(
        "CRH003", RootCause.LOST_WORKER, 0.5,
        "A device failed at step {onset_step}: {text}", ("device_error",),
        "Look the Xid up in NVIDIA's list, run the diagnostics of that device (dcgmi diag -r 3), "
        "and resume without its host.",
        "Run once with CUDA_LAUNCH_BLOCKING=1: errors are reported later than they happen.",
    ),
    AttributionRule(
        "CRH004", _M, RootCause.CORRUPTED_LABELS, 0.6,
        "An index is out of range on the device at step {onset_step}: most often a label or token "
        "that is no class.",
        when=(Condition("assertion", "==", True, "a device-side assertion failed"),),
        remediation=(
            ("Check that labels and token ids of the batch at step {onset_step} lie between 0 and "
             "the number of classes; run it once on the CPU for the exact line."),
        ),
    ),
    _rule(
        "CRH005", RootCause.MEMORY_LEAK, 0.45,
        "Memory ran out at step {onset_step}: {text}", ("out_of_memory",),
        "Lower the batch size or the sequence length; for the host, fewer loader workers; resume "
        "from a checkpoint before step {onset_step}.",
    ),
    _rule(
        "CRH006", RootCause.MEMORY_LEAK, 0.3,
        "The process was killed at step {onset_step}, as the kernel does when the host's memory is "
        "full.", ("killed",),
        "Read the host's kernel log (dmesg: oom-kill), the size of /dev/shm, and the memory of the "
        "loader processes.",
    ),
    _rule(
        "CRH007", RootCause.LOST_WORKER, 0.3,
        "A process of the job was killed at step {onset_step}.", ("killed",),
        "Find who sent the signal: scheduler, launcher, or a fault in native code (core dump).",
    ),
    _rule(
        "CRH008", RootCause.INVALID_OPERATION, 0.4,
        "The job stopped itself at step {onset_step}, as a value was not finite: {text}",
        ("non_finite",),
        "Load the last checkpoint before step {onset_step} and run that step under "
        "torch.autograd.set_detect_anomaly(True).",
        "Log the loss before the check that stops the job: what is hidden cannot be judged.",
    ),
    _rule(
        "CRH009", RootCause.UNKNOWN, 0.5,
        "An exception ended the job at step {onset_step}: {text}", ("exception",),
        "Read the traceback above it in the log; resume from a checkpoint before step "
        "{onset_step}.",
    ),
)  # fmt: skip
