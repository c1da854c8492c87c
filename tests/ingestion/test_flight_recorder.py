"""Flight-recorder dumps: of a real job that hangs, and of every kind of fault by hand."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_systems_debugger.core import IngestionError, SchemaError, SignalSet, UnsupportedFormatError
from ml_systems_debugger.ingestion import FlightRecorderIngestor, find_runs, open_source

JOB = Path(__file__).with_name("hang_collectives.py")


def call(seq: int, op: str = "nccl:all_reduce", **other: Any) -> dict[str, Any]:
    entry = {
        "frames": [
            {"name": "all_reduce", "filename": "/env/torch/distributed/c10d.py", "line": 9},
            {"name": "step", "filename": "/home/me/train.py", "line": 40 + seq},
        ],
        "record_id": seq, "pg_id": 0, "process_group": ("0", "default_pg"),
        "collective_seq_id": seq, "p2p_seq_id": 0, "op_id": seq, "profiling_name": op,
        "time_created_ns": 1_700_000_000_000_000_000 + seq * 10**9,
        "input_sizes": [[4]], "input_dtypes": ["Float"], "output_sizes": [[4]],
        "state": "completed", "time_discovered_started_ns": None,
        "time_discovered_completed_ns": None, "retired": True, "timeout_ms": 600_000,
        "is_p2p": False,
    }  # fmt: skip
    return {**entry, **other}


WAITING = {"state": "scheduled", "retired": False}


def dump(entries: list[dict[str, Any]], ranks: str = "[0, 1, 2]") -> dict[str, Any]:
    config = {"0": {"name": "0", "desc": "default_pg", "ranks": ranks}}
    return {"version": "2.10", "pg_config": config, "pg_status": {}, "entries": entries}


def written(folder: Path, dumps: list[dict[str, Any]]) -> Path:
    for rank, one in enumerate(dumps):
        (folder / f"rank_{rank}").write_bytes(pickle.dumps(one, 2))
    return folder


def faults(signals: SignalSet) -> list[tuple[str, int, tuple[int, ...], tuple[int, ...]]]:
    return [
        (one["kind"], one["collective"], one["ranks"], one["waiting"])
        for one in signals.metadata["collective_faults"]
    ]


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch.distributed", reason="the dumps are written by torch")
    folder = tmp_path_factory.mktemp("hung")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, str(JOB), str(folder)], env=environment, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("form", ["pickled", "json"])
def test_the_dumps_of_a_real_job_that_hangs(hung: Path, form: str) -> None:
    folder = hung / form
    assert find_runs(folder) == [folder]
    signals = open_source(folder)
    assert signals.unread == ()
    assert faults(signals) == [("not_joined", 7, (2,), (0, 1))]
    for rank, last in ((0, 7), (1, 7), (2, 6)):
        (seq,) = signals.select("collective_seq", replica_id=rank)
        assert seq.steps.tolist() == seq.values.tolist() == list(range(1, last + 1))
        assert seq.timestamps is not None
        assert (seq.timestamps > 1.6e9).all()
        (done,) = signals.select("collective_completed", replica_id=rank)
        assert done.values.tolist() == [1.0] * 6 + [0.0] * (last - 6)
        (lag,) = signals.select("collective_lag", replica_id=rank)
        assert (lag.values >= 0).all()
    (event,) = signals.select("log_event", kind=None)
    assert (event.key.replica_id, event.steps.tolist()) == (2, [7])
    assert "collective 7 (gloo:all_reduce)" in event.values[0]
    assert "rank 2 did not join" in event.values[0]
    assert (JOB.name in event.values[0]) == (form == "pickled")


def test_both_forms_say_the_same(hung: Path) -> None:
    two = [open_source(hung / form) for form in ("pickled", "json")]
    numbers = [s for s in two[0].series if s.name.startswith("collective")]
    assert len(numbers) == 9
    for one in numbers:
        other = two[1].get(one.key)
        assert other is not None
        assert other.steps.tolist() == one.steps.tolist()
        assert other.values.tolist() == one.values.tolist()


def test_one_dump_alone(hung: Path) -> None:
    signals = open_source(hung / "pickled" / "nccl_trace_rank_1")
    assert faults(signals) == [("not_completed", 7, (), (1,))]
    assert [one.key.replica_id for one in signals.select("collective_seq")] == [1]


def test_a_sound_job_has_no_faults(tmp_path: Path) -> None:
    sound = dump([call(1), call(2)])
    signals = open_source(written(tmp_path, [sound] * 3))
    assert faults(signals) == []
    assert signals.select("log_event", kind=None) == ()


def test_ranks_that_call_something_else(tmp_path: Path) -> None:
    odd = dump([call(1), call(2, "nccl:barrier", **WAITING)])
    rest = dump([call(1), call(2, **WAITING)])
    found = faults(open_source(written(tmp_path, [rest, odd, rest])))
    assert found[0] == ("mismatch", 2, (1,), (0, 2))


def test_sizes_count_where_they_must_be_the_same(tmp_path: Path) -> None:
    for op, expected in (("nccl:all_reduce", ["mismatch"]), ("nccl:gather", [])):
        small, large = (dump([call(1, op, input_sizes=[[n]])], "[0, 1]") for n in (4, 5))
        signals = open_source(written(tmp_path, [small, large]))
        assert [kind for kind, *_ in faults(signals)] == expected
        if expected:  # one against one
            assert faults(signals)[0][2] == ()


def test_a_rank_whose_device_did_not_start(tmp_path: Path) -> None:
    running = dump([call(1, state="started", retired=False, time_discovered_started_ns=10**18)])
    idle = dump([call(1, **WAITING)])
    found = faults(open_source(written(tmp_path, [running, idle, running])))
    assert found == [("not_started", 1, (1,), (0, 2))]


def test_a_dump_that_lacks(tmp_path: Path) -> None:
    folder = written(tmp_path, [dump([call(1)])] * 2)
    assert faults(open_source(folder)) == [("no_dump", 0, (2,), ())]


def test_old_records_that_were_overwritten_are_not_missed(tmp_path: Path) -> None:
    full = dump([call(5), call(6, **WAITING)], "[0, 1]")
    short = {**dump([], "[0, 1]"), "pg_status": {"0": {"last_enqueued_collective": 6}}}
    found = faults(open_source(written(tmp_path, [full, short])))
    assert found == [("not_completed", 6, (), (0,))]


def test_groups_are_apart_and_times_are_seconds(tmp_path: Path) -> None:
    other = {"process_group": ("3", "mesh_tp")}
    timed = {"time_discovered_started_ns": 10**18, "time_discovered_completed_ns": 10**18 + 10**9}
    one = dump([call(1), call(1, **other, **timed), call(2, **other, **WAITING)])
    (tmp_path / "dump_4").write_bytes(pickle.dumps(one))
    signals = open_source(tmp_path / "dump_4")
    (spent,) = signals.select("collective_time")
    assert (spent.key.layer, spent.key.replica_id, spent.values.tolist()) == ("3", 4, [1.0])
    assert {one.key.layer for one in signals.select("collective_seq")} == {"0", "3"}
    (event,) = signals.select("log_event", kind=None)
    assert "3 (mesh_tp)" in event.values[0]
    assert "step at /home/me/train.py:42" in event.values[0]


def test_calls_between_two_ranks(tmp_path: Path) -> None:
    lost = call(0, "nccl:recv 0<-1", is_p2p=True, p2p_seq_id=4, **WAITING)
    found = faults(open_source(written(tmp_path, [dump([lost], "[0]")]) / "rank_0"))
    assert found == [("not_completed", 4, (), (0,))]


def test_code_in_a_dump_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    data = pickle.dumps({**dump([call(1)]), "more": Harmful()}, 2)
    assert len(FlightRecorderIngestor().ingest(data).series) == 2
    assert not (tmp_path / "made").exists()


def test_two_dumps_of_one_rank_and_strange_files(tmp_path: Path) -> None:
    written(tmp_path, [dump([call(1)], "[0]")])
    (tmp_path / "again_0").write_bytes(pickle.dumps(dump([call(1)], "[0]")))
    (tmp_path / "model_1.pkl").write_bytes(pickle.dumps({"weights": [1, 2]}))
    signals = FlightRecorderIngestor().ingest(tmp_path)
    assert "a second dump of rank 0" in signals.unread[0]
    with pytest.raises(UnsupportedFormatError):
        FlightRecorderIngestor().ingest(tmp_path / "model_1.pkl")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        3,
        call(1, collective_seq_id="x"),
        call(2**63),
        call(-1),
        call(1, process_group=4),
        call(1, time_created_ns=[1]),
    ],
)
def test_a_malformed_entry_is_named(entry: Any) -> None:
    data = json.dumps({**dump([call(1)]), "entries": [call(1), entry]}).encode()
    with pytest.raises(SchemaError, match="entry 1 is malformed"):
        FlightRecorderIngestor().ingest(data)


def test_mutated_dumps_raise_nothing_but_our_errors() -> None:
    rng = random.Random(0)
    for whole in (pickle.dumps(dump([call(n) for n in range(4)]), 2),
                  json.dumps(dump([call(n) for n in range(4)])).encode()):  # fmt: skip
        read = 0
        for _ in range(1000):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                read += isinstance(FlightRecorderIngestor().ingest(bytes(data)), SignalSet)
            except IngestionError:
                continue
        assert read > 0
