"""What collective calls that went wrong say of causes: rules as data."""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["COLLECTIVES"]


def _rule(
    code: str, cause: RootCause, strength: float, sentence: str, rule: str, says: str, *do: str
) -> AttributionRule:
    when = (Condition("rule", "==", rule, says),)
    mode = FailureMode.PARTIAL_WORKER_FAILURE
    return AttributionRule(
        code, mode, cause, strength, sentence, when, remediation=do,
        source="PyTorch flight recorder: calls per rank",
    )  # fmt: skip


_DIFFERS = "ranks do not call the same collective"
_IDLE = "the call was queued and not started"

COLLECTIVES: tuple[AttributionRule, ...] = (
    _rule(
        "CLF001", RootCause.NON_DETERMINISTIC_EXECUTION, 0.55,
        "The ranks take different branches: their calls part at collective {onset_step}.",
        "collective_mismatch", _DIFFERS,
        "Compare the code that the ranks run before collective {onset_step}: conditions on the "
        "rank, on the loss or on the length of the data.",
    ),
    _rule(
        "CLF002", RootCause.MISSED_GRADIENT_SYNCHRONIZATION, 0.35,
        "A rank left out a collective before number {onset_step}, so that the calls are shifted.",
        "collective_mismatch", _DIFFERS,
        "Look for parameters without gradients on one rank (find_unused_parameters), and for "
        "batches that one rank skips.",
    ),
    _rule(
        "CLF003", RootCause.SLOW_WORKER, 0.45,
        "A rank called collective {onset_step} and its device did not come to it: work before it "
        "is slow or stuck.", "collective_not_started", _IDLE,
        "Take a stack and a profile of that rank; look at its device with nvidia-smi.",
    ),
    _rule(
        "CLF004", RootCause.LOST_WORKER, 0.3,
        "The device of a rank hangs before collective {onset_step}.", "collective_not_started",
        _IDLE, "Look for an Xid in the kernel log of that rank's host.",
    ),
    _rule(
        "CLF005", RootCause.LOST_WORKER, 0.35,
        "Collective {onset_step} did not complete although it was called: its network or a peer "
        "fails.", "collective_not_completed", "it was called and is not complete",
        "Diagnose the folder with the dumps of all ranks; set NCCL_DEBUG=INFO and check the links.",
    ),
    _rule(
        "CLF006", RootCause.LOST_WORKER, 0.5,
        "A rank wrote no dump: its process was gone.", "collective_no_dump", "its dump lacks",
        "Read the log of that rank and its host's kernel log.",
    ),
)  # fmt: skip
