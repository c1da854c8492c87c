"""Faults of collective calls as flight recorders tell them, told apart and at their ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ml_systems_debugger import diagnose
from ml_systems_debugger.core import Outcome, SignalSet
from ml_systems_debugger.detectors import CollectiveFaultDetector
from ml_systems_debugger.ingestion import open_source

RUNNING = {"state": "started", "retired": False, "time_discovered_started_ns": 10**18}
QUEUED = {"state": "scheduled", "retired": False}
BARRIER = {"profiling_name": "nccl:barrier", **QUEUED}


def dumped(folder: Path, *ranks: list[dict[str, Any]], world: int | None = None) -> SignalSet:
    members = json.dumps(list(range(world or len(ranks))))
    for rank, calls in enumerate(ranks):
        entries = [
            {"process_group": ["0", "default_pg"], "collective_seq_id": n, "state": "completed",
             "retired": True, "profiling_name": "nccl:all_reduce", "time_created_ns": 10**18 + n,
             **call}
            for n, call in enumerate(calls, 1)
        ]  # fmt: skip
        document = {"version": "2.10", "pg_config": {"0": {"ranks": members}}, "pg_status": {},
                    "entries": entries}  # fmt: skip
        (folder / f"rank_{rank}.json").write_text(json.dumps(document))
    return open_source(folder)


def found(signals: SignalSet) -> list[tuple[str, str, int | None, Any]]:
    result = CollectiveFaultDetector().detect(signals)
    return [
        (str(f.evidence["rule"]), f.severity.value, f.onset_step, f.evidence["ranks"])
        for f in result.findings
    ]


def test_a_rank_that_calls_something_else(tmp_path: Path) -> None:
    odd = [{}, {"profiling_name": "nccl:barrier", **QUEUED}]
    signals = dumped(tmp_path, [{}, QUEUED], odd, [{}, QUEUED])
    assert found(signals)[0] == ("collective_mismatch", "high", 2, (1,))
    report = diagnose(signals)
    assert report.status is not None
    assert report.status.value == "failures"
    causes = [str(a.cause) for a in report.attributions]
    assert causes[0] == "non_deterministic_execution"


def test_a_device_that_does_not_start(tmp_path: Path) -> None:
    signals = dumped(tmp_path, [{}, RUNNING], [{}, RUNNING], [{}, QUEUED])
    assert found(signals) == [("collective_not_started", "high", 2, (2,))]


def test_a_call_that_nobody_completes(tmp_path: Path) -> None:
    signals = dumped(tmp_path, [{}, QUEUED], [{}, QUEUED])
    assert found(signals) == [("collective_not_completed", "medium", 2, ())]


def test_a_dump_that_lacks(tmp_path: Path) -> None:
    signals = dumped(tmp_path, [{}], [{}], world=3)
    assert found(signals) == [("collective_no_dump", "medium", 0, (2,))]


def test_a_rank_that_does_not_join_is_found_once(tmp_path: Path) -> None:
    signals = dumped(tmp_path, [{}, QUEUED], [{}, QUEUED], [{}])
    assert found(signals) == []
    told = [f.message for f in diagnose(signals).failures]
    assert len(told) == 1
    assert "replica 2" in told[0]


@pytest.mark.parametrize("behind", [0, 2])
def test_a_hang_behind_calls_that_differ_is_told_once(tmp_path: Path, behind: int) -> None:
    # Rank 1 left out a call, so its barrier stands where the others have their next one.
    others = [{}, {}, *[{}] * behind, QUEUED]
    signals = dumped(tmp_path, others, [{}, {}, BARRIER], others)
    report = diagnose(signals)
    told = [(d.detector_name, f.evidence["rule"], f.replica_id)
            for d in report.detections for f in d.findings]  # fmt: skip
    assert told == [("collective_fault", "collective_mismatch", 1)]
    assert str(report.attributions[0].cause) == "non_deterministic_execution"


def test_of_two_whose_calls_differ_none_is_lost(tmp_path: Path) -> None:
    signals = dumped(tmp_path, [{}, {}, QUEUED], [{}, BARRIER])
    told = [f for d in diagnose(signals).detections for f in d.findings]
    assert [f.evidence["rule"] for f in told] == ["collective_mismatch"]


def test_a_worker_lost_before_calls_differ_is_still_named(tmp_path: Path) -> None:
    # Ranks 1 and 2 do different things in call 3; rank 3 had gone after call 1.
    signals = dumped(tmp_path, [{}, {}, QUEUED], [{}, {}, QUEUED], [{}, {}, BARRIER], [{}])
    told = {(f.evidence["rule"], f.replica_id) for d in diagnose(signals).detections
            for f in d.findings}  # fmt: skip
    assert told == {("collective_mismatch", 2), ("did_not_join", 3)}


@pytest.mark.parametrize("calls", [[{}], [{}, {}]])
def test_a_sound_job(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    signals = dumped(tmp_path, calls, calls)
    result = CollectiveFaultDetector().detect(signals)
    assert (result.outcome, result.findings) == (Outcome.CONCLUDED, ())


def test_no_calls_no_verdict() -> None:
    signals = open_source(b"step 1: loss 2.5\nRuntimeError: CUDA error: ECC\n")
    assert CollectiveFaultDetector().detect(signals).outcome is Outcome.NOT_APPLICABLE
