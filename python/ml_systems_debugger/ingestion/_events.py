"""Messages in a log that say that something went wrong: what kind, and what they tell."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ._dialects import unit_factor

__all__ = ["TRACEBACK", "Frames", "is_code", "is_event", "kind_of", "measures_of", "without_prefix"]

_NON_FINITE = r"(?<![\w'\"(.\-])(?:[+-]?inf|infinity|infinite|nans?|non-?finite)(?![\w'\")])"
_SUBJECT = (
    r"(?:loss(?:es)?|grad\w*|norm\w*|weights?|activations?|outputs?|values?|tensors?|logits?"
    r"|parameters?|detected|found|encountered|became|contains?|skipp\w+|iteration|step)"
)
_KINDS: dict[str, str] = {
    "out_of_memory": (
        r"out of memory|outofmemory|\boom-?kill|cannot allocate memory|alloc_failed"
        r"|resource_exhausted"
    ),
    "collective_timeout": (
        r"watchdog caught collective operation timeout|collective operation timeout"
        r"|detected by watchdog at work|timed out waiting \d+ms for \w+ operation"
    ),
    "nccl_error": (
        r"nccl (?:error|warn)|ncclsystemerror|ncclinternalerror|ncclremoteerror"
        r"|ncclunhandledcudaerror|distbackenderror|connection closed by peer"
        r"|processgroup\w{0,20} .{0,200}(?:abort|timeout)"
    ),
    "device_error": (
        r"cuda error|hip error|cublas_status_\w+|cudnn_status_\w+|device-side assert"
        r"|\bxid\b.{0,80}\d|uncorrectable ecc|fallen off the bus"
    ),
    "non_finite": rf"\b{_SUBJECT}\b.{{0,40}}{_NON_FINITE}|{_NON_FINITE}.{{0,40}}\b{_SUBJECT}\b",
    "skipped_step": (
        r"grad(?:ient)? overflow|overflow!? (?:detected|rank)|skipping (?:step|update|batch)"
    ),
    "ended_by_scheduler": r"due to time limit|slurmstepd: error|\bpreempted\b|node failure",
    "killed": (
        r"segmentation fault|bus error|core dumped|\bsig(?:kill|segv|abrt|term|bus)\b"
        r"|worker .{1,80} (?:died|exited|was lost|is killed)"
    ),
    "exception": r"traceback \(most recent call last\)|\b\w*(?:Error|Exception|Interrupt): ",
}
"""What a message speaks of, and how it is known; the first kind that fits counts."""

_BY_KIND = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _KINDS.items()}
_EVENT = re.compile("|".join(_KINDS.values()), re.IGNORECASE)
TRACEBACK = "Traceback (most recent call last):"
_HINTS = re.compile(
    r"nan|inf|error|exception|interrupt|memory|oom|alloc|finite|overflow|skipp|nccl|timeout"
    r"|cu(?:da|blas|dnn)|hip|ecc|fallen|closed|killed|exhausted|watchdog|timed|assert|xid|fault|dumped|sig|slurm|preempt|fail|abort|died|exited|lost|traceback",
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
    if _HINTS.search(line) is None or _EVENT.search(line) is None:
        return False
    return TRACEBACK in line or not is_code(line)  # it ends like a line of code


def kind_of(line: str) -> str:
    """Return what a message speaks of: a key of the table above.

    Examples
    --------
    >>> kind_of("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    'out_of_memory'
    """
    return next((kind for kind, known in _BY_KIND.items() if known.search(line)), "exception")


# Bounded, so that no line of digits is tried at every one of them to its end.
_SIZE = r"(?P<{}>(?<![\d.])\d{{1,15}}(?:\.\d{{1,6}})?) (?P<{}_unit>bytes|[KMGT]i?B)"
_MEASURES = (
    re.compile("tried to allocate " + _SIZE.format("allocation_failed", "allocation_failed"), re.I),
    re.compile("total capacity of " + _SIZE.format("memory_total", "memory_total"), re.I),
    re.compile(_SIZE.format("memory_allocated", "memory_allocated") + " is allocated by PyTorch"),
    re.compile(_SIZE.format("spare", "spare") + " is reserved by PyTorch but unallocated"),
    re.compile(r"Work\w{1,20}\(SeqNum=(?P<collective_timeout>\d{1,15}),"),
    re.compile(r"last enqueued (?:NCCL )?work: (?P<collective_seq>\d{1,15})\b"),
)


def measures_of(line: str) -> Iterator[tuple[str, float]]:
    """Yield the quantities that a message states, with sizes in bytes.

    What PyTorch's allocator says when it fails (``allocation_failed``,
    ``memory_total``, ``memory_allocated``, ``memory_reserved``), and the number
    of a collective that timed out (``collective_timeout``) or was called last
    (``collective_seq``).

    Examples
    --------
    >>> dict(measures_of("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 ..."))
    {'allocation_failed': 2147483648.0}
    """
    found: dict[str, float] = {}
    for pattern in _MEASURES:
        if (match := pattern.search(line)) is not None:
            parts = match.groupdict()
            name = next(iter(parts))
            unit = parts.get(f"{name}_unit")
            found[name] = float(parts[name]) * (unit_factor("memory_", unit) if unit else 1.0)
    spare = found.pop("spare", None)
    if spare is not None and "memory_allocated" in found:
        found["memory_reserved"] = found["memory_allocated"] + spare
    yield from found.items()


_PREFIX = re.compile(r"\s*(?:\[(?:rank|default)\s?(?P<rank>\d+)\]:|(?P<task>\d{1,6}):(?= ))\s?")
"""What torchrun and srun put before the lines of each process."""


def without_prefix(line: str) -> tuple[str, str]:
    """Return what a launcher put before a line, with the line behind it.

    Examples
    --------
    >>> without_prefix("[rank3]: ValueError: loss is nan")
    ('3', 'ValueError: loss is nan')
    """
    found = _PREFIX.match(line)
    if found is None:
        return "", line
    return found["rank"] or found["task"], line[found.end() :]


_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')
_LIBRARY = re.compile(r"[/\\](?:site-packages|dist-packages|lib/python[\d.]+)[/\\]|^<")


class Frames:
    """The frames of a traceback that is being read; the innermost of one's own code counts."""

    __slots__ = ("_any", "_own", "lines")

    def __init__(self) -> None:
        self._own = self._any = ""
        self.lines = 0

    def add(self, line: str) -> None:
        """Take a line of the traceback."""
        self.lines += 1
        found = _FRAME.match(line)
        if found is not None:
            place = f"{found['name']} at {found['file']}:{found['line']}"
            self._any = place
            if not _LIBRARY.search(found["file"]):
                self._own = place

    @property
    def place(self) -> str:
        """Where it was raised, in words; "" where no frame was seen."""
        return self._own or self._any
