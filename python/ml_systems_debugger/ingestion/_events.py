"""Messages in a log that say that something went wrong."""

from __future__ import annotations

import re

__all__ = ["is_code", "is_event"]

_NON_FINITE = r"(?<![\w'\"(.\-])(?:[+-]?inf|infinity|infinite|nans?|non-?finite)(?![\w'\")])"
_SUBJECT = (
    r"(?:loss(?:es)?|grad\w*|norm\w*|weights?|activations?|outputs?|values?|tensors?|logits?"
    r"|parameters?|detected|found|encountered|became|contains?|skipp\w+|iteration|step)"
)
_EVENT = re.compile(
    "|".join(
        (
            r"traceback \(most recent call last\)",
            r"\b\w*(?:Error|Exception|Interrupt): ",
            r"out of memory|outofmemory|\boom-?kill|cannot allocate memory|alloc_failed",
            rf"\b{_SUBJECT}\b.{{0,40}}{_NON_FINITE}",
            rf"{_NON_FINITE}.{{0,40}}\b{_SUBJECT}\b",
            r"grad(?:ient)? overflow|overflow!? (?:detected|rank)|skipping (?:step|update|batch)",
            r"nccl (?:error|warn)|ncclsystemerror|ncclinternalerror|ncclremoteerror",
            r"watchdog caught collective operation timeout|collective operation timeout",
            r"cuda error|cublas_status_\w+|cudnn_status_\w+|device-side assert|\bxid\b.*\d",
            r"segmentation fault|bus error|core dumped|\bsig(?:kill|segv|abrt|term)\b",
            r"due to time limit|slurmstepd: error|\bpreempted\b|node failure",
            r"processgroup\w* .*(?:abort|timeout)|worker .* (?:died|exited|was lost)",
        )
    ),
    re.IGNORECASE,
)
_HINTS = re.compile(
    r"nan|inf|error|exception|interrupt|memory|oom|alloc|finite|overflow|skipp|nccl|timeout"
    r"|cu(?:da|blas|dnn)|assert|xid|fault|dumped|sig|slurm|preempt|fail|abort|died|exited|lost|traceback",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"\s*(?:def |class |return\b|import |from \w+ import|if |elif |else:|for |while |assert |with "
    r"|print\(|parser\.|self\.|@|#|//|raise |except |try:|\"\"\"|export |\+ )|.*(?:\):|;)\s*$"
)


def is_code(line: str) -> bool:
    """Return whether a line reads like source code; some logs begin with their script."""
    return _CODE.match(line) is not None


def is_event(line: str) -> bool:
    """Return whether a line reports a fault.

    NaN and Inf count as words of their own beside something that can be
    non-finite: neither INFO nor ``nano`` nor ``float('inf')`` is one.

    Examples
    --------
    >>> is_event("loss is NaN, stopping"), is_event("INFO finance information")
    (True, False)
    """
    # The second pattern is a few times dearer; most lines hold none of the hints.
    return _HINTS.search(line) is not None and _EVENT.search(line) is not None and not is_code(line)
