"""Logs that end with a fault, and logs that go on behind one."""

from __future__ import annotations

import pytest

from ml_systems_debugger import diagnose
from ml_systems_debugger.core import Finding, Outcome, SignalSet
from ml_systems_debugger.detectors import JobCrashDetector
from ml_systems_debugger.ingestion import open_source


def log(*last: str, steps: int = 50) -> SignalSet:
    lines = [f"step {i}: loss {2.0 - i / 100} lr 0.001" for i in range(steps)]
    return open_source("\n".join([*lines, *last, ""]).encode())


def found(*last: str) -> list[tuple[str, str, int | None]]:
    result = JobCrashDetector().detect(log(*last))
    return [(str(f.evidence["rule"]), f.severity.value, f.onset_step) for f in result.findings]


@pytest.mark.parametrize(
    ("line", "rule", "severity"),
    [
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", "device_error", "high"),
        ("RuntimeError: CUDA error: device-side assert triggered", "device_error", "high"),
        ("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=BROADCAST)",
         "collective_timeout", "high"),
        ("Segmentation fault (core dumped)", "killed", "high"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in step 1.0", "out_of_memory", "high"),
        ("FloatingPointError: Loss is nan, stopping training", "non_finite", "high"),
        ("torch.distributed.DistBackendError: NCCL error in: x.cpp:1", "nccl_error", "medium"),
        ("KeyError: 'input_ids'", "exception", "medium"),
        ("x.KeyboardInterrupt: by hand", "exception", "low"),
    ],
)  # fmt: skip
def test_a_fault_at_the_end(line: str, rule: str, severity: str) -> None:
    assert found(line) == [(rule, severity, 49)]


@pytest.mark.parametrize(
    "line",
    [
        "Gradient overflow.  Skipping step, loss scaler 0 reducing",
        "found inf in grad of layer 3",
        "NCCL WARN Call to connect failed",
        "slurmstepd: error: *** JOB 1 CANCELLED DUE TO TIME LIMIT ***",
    ],
)
def test_what_ends_no_job(line: str) -> None:
    assert found(line) == []
    assert JobCrashDetector().detect(log(line)).outcome in (
        Outcome.CONCLUDED,
        Outcome.NOT_APPLICABLE,
    )


def test_a_job_that_goes_on_has_not_crashed() -> None:
    assert found("RuntimeError: CUDA error: ECC", "step 50: loss 1.4 lr 0.001") == []


def test_a_job_that_was_resumed_has_not_crashed() -> None:
    rest = [f"step {i}: loss 1.5 lr 0.001" for i in range(40, 60)]
    assert found("RuntimeError: CUDA error: ECC", *rest) == []


def test_a_scheduler_explains_the_rest() -> None:
    lines = ("slurmstepd: error: *** JOB 1 CANCELLED DUE TO TIME LIMIT ***",
             "Main process received SIGTERM, exiting")  # fmt: skip
    assert found(*lines) == [("killed", "low", 49)]


def test_ranks_are_named() -> None:
    told = "[rank{0}]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)"
    (one,) = JobCrashDetector().detect(log(*(told.format(r) for r in (3, 1)))).findings
    assert (one.evidence["ranks"], one.evidence["count"]) == ((1, 3), 2)
    assert "the log of replicas 1, 3 ends with the timeout of a collective call" in one.message
    (alone,) = JobCrashDetector().detect(log(told.format(2))).findings
    assert alone.replica_id == 2


def test_what_others_judge_is_left_to_them() -> None:
    assert found("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB") == []
    assert found("step 50: loss nan lr 0.001", "loss is nan, stopping") == []


def test_a_crash_and_its_cause_in_one_report() -> None:
    report = diagnose(log("RuntimeError: CUDA error: device-side assert triggered"))
    crash = next(f for f in report.failures if str(f.failure_mode) == "job_crash")
    assert isinstance(crash, Finding) or crash.findings
    assert "corrupted_labels" in [str(a.cause) for a in report.attributions]


def test_no_log_no_verdict() -> None:
    result = JobCrashDetector().detect(SignalSet())
    assert result.outcome is Outcome.NOT_APPLICABLE
