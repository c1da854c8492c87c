"""Traces: of a real profiler, of several ranks, with devices, damaged, and larger than a batch."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_systems_debugger.core import IngestionError, SchemaError, SignalSet
from ml_systems_debugger.ingestion import TraceIngestor, find_runs, open_source
from ml_systems_debugger.ingestion import _trace_stream as stream

JOB = Path(__file__).with_name("profile_steps.py")


def span(name: str, start: float, duration: float, **other: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": "cpu_op", "name": name, "pid": 1, "tid": 1, "ts": start,
            "dur": duration, **other}  # fmt: skip


def step(number: int, start: float, duration: float, **other: Any) -> dict[str, Any]:
    return span(f"ProfilerStep#{number}", start, duration, **{"cat": "user_annotation", **other})


def trace(events: list[Any], **members: Any) -> bytes:
    return json.dumps({"schemaVersion": 1, **members, "traceEvents": events}).encode()


def values(signals: SignalSet, name: str, **where: Any) -> dict[int, float]:
    (one,) = signals.select(name, **where)
    return dict(zip(one.steps.tolist(), one.values.tolist(), strict=True))


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch.profiler", reason="the trace is written by torch")
    folder = tmp_path_factory.mktemp("profiled")
    done = subprocess.run(
        [sys.executable, str(JOB), str(folder)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "rank0.pt.trace.json"


def test_a_real_trace(profiled: Path) -> None:
    events = json.loads(profiled.read_text())["traceEvents"]
    signals = open_source(profiled)
    assert signals.unread == ()
    assert signals.metadata["events"] == len(events)
    steps = {int(e["name"][13:]): e["dur"] * 1e-6 for e in events
             if e["name"].startswith("ProfilerStep#")}  # fmt: skip
    assert len(steps) == 4
    assert values(signals, "step_time") == steps
    waits = values(signals, "data_time")
    loads = [e["dur"] * 1e-6 for e in events if e["name"].startswith("enumerate(DataLoader)")]
    assert sorted(waits.values()) == pytest.approx(sorted(loads), abs=1e-12)
    assert all(0.01 <= waits[n] <= steps[n] for n in steps)
    talks = values(signals, "comm_time")
    assert all(0 < talks[n] < steps[n] for n in steps)
    (times,) = signals.select("step_time")
    assert times.key.replica_id == 0
    assert times.timestamps is not None
    assert abs(times.timestamps[0] - profiled.stat().st_mtime) < 3600


def test_gzipped_and_from_bytes(profiled: Path, tmp_path: Path) -> None:
    packed = tmp_path / "rank0.pt.trace.json.gz"
    packed.write_bytes(gzip.compress(profiled.read_bytes()))
    expected = values(open_source(profiled), "step_time")
    assert values(open_source(packed), "step_time") == expected
    assert values(open_source(profiled.read_bytes()), "step_time") == expected


def test_overlaps_count_once_and_what_spans_steps_is_divided() -> None:
    signals = open_source(
        trace(
            [
                step(1, 1e6, 1e6),
                step(2, 2e6, 1e6),
                span("gloo:all_reduce", 1.5e6, 1e6),
                span("c10d::allreduce_", 1.6e6, 0.2e6),
                span("gloo:broadcast", 2.9e6, 0.5e6),
                span("aten::add", 1e6, 1e6),
            ]
        )
    )
    assert values(signals, "comm_time") == pytest.approx({1: 0.5, 2: 0.6})


def test_kernels_count_where_there_are_any() -> None:
    signals = open_source(
        trace(
            [
                step(7, 0, 1e6),
                step(7, 0.5e6, 1e6, cat="gpu_user_annotation"),
                span("nccl:all_reduce", 0, 0.9e6, cat="user_annotation"),
                span("ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", 1e6, 0.1e6, cat="kernel"),
                span("gemm_kernel", 1e6, 0.4e6, cat="kernel"),
            ]
        )
    )
    assert values(signals, "comm_time") == pytest.approx({7: 0.1})
    assert values(signals, "step_time") == pytest.approx({7: 1.0})


def test_memory_of_the_device_by_its_peak() -> None:
    def memory(time: float, allocated: int, device: int) -> dict[str, Any]:
        arguments = {"Total Allocated": allocated, "Total Reserved": 2 * allocated,
                     "Device Type": device, "Device Id": 0}  # fmt: skip
        return {"ph": "i", "name": "[memory]", "ts": time, "args": arguments}

    events = [step(1, 0, 10), step(2, 10, 10), step(3, 20, 10), memory(1, 5, 1), memory(2, 9, 1)]
    events += [memory(11, 4, 1), memory(3, 10**9, 0)]
    signals = open_source(trace(events))
    assert values(signals, "memory_allocated") == {1: 9, 2: 4}
    assert values(signals, "memory_reserved") == {1: 18, 2: 8}


def test_ranks_of_a_folder_are_replicas(tmp_path: Path) -> None:
    for rank in range(3):
        for cycle in range(2):
            events = [step(10 * cycle + n, n * 1e6, 1e6 * (1 + rank)) for n in range(3)]
            name = f"host_{rank}.{17 * 10**8 + cycle}.pt.trace.json"
            (tmp_path / name).write_bytes(trace(events, distributedInfo={"rank": rank}))
    assert find_runs(tmp_path) == [tmp_path]
    signals = open_source(tmp_path)
    assert signals.unread == ()
    for rank in range(3):
        expected = dict.fromkeys([0, 1, 2, 10, 11, 12], 1.0 + rank)
        assert values(signals, "step_time", replica_id=rank) == pytest.approx(expected)


def test_ranks_in_names_and_workers_without_ranks(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for n in range(2):
        (tmp_path / "a" / f"trace_rank{n}.json").write_bytes(trace([step(1, 0, 1)]))
        (tmp_path / "b" / f"host{n}_4{n}.1700000000.pt.trace.json").write_bytes(
            trace([step(1, 0, 1)])
        )
    for folder, expected in (("a", [0, 1]), ("b", ["host0_40", "host1_41"])):
        found = open_source(tmp_path / folder).select("step_time")
        assert [one.key.replica_id for one in found] == expected


def test_traces_of_different_jobs_are_runs_of_their_own(tmp_path: Path) -> None:
    for name in ("before.trace.json", "after.trace.json"):
        (tmp_path / name).write_bytes(trace([step(1, 0, 1)], distributedInfo={"rank": 0}))
    assert find_runs(tmp_path) == [tmp_path / "after.trace.json", tmp_path / "before.trace.json"]
    with pytest.raises(IngestionError, match="no traces of the ranks of one job"):
        TraceIngestor().ingest(tmp_path)


def test_a_step_in_two_traces_is_said(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"w.170000000{n}.pt.trace.json").write_bytes(trace([step(4, 0, 1e6 * (n + 1))]))
    signals = open_source(tmp_path)
    assert values(signals, "step_time") == {4: 1.0}
    assert "stand in several traces: 4" in signals.unread[0]


def test_without_marked_steps_the_whole_is_summed() -> None:
    signals = open_source(trace([span("gloo:barrier", 0, 1e6), span("aten::add", 4e6, 1e6)]))
    assert values(signals, "comm_time") == {0: 1.0}
    assert signals.select("step_time") == ()
    assert "no steps are marked" in signals.metadata["steps"]


def test_steps_of_jax_and_a_bare_list() -> None:
    events = [span("train", n * 10.0, 5.0, args={"step_num": str(n)}) for n in range(3)]
    signals = open_source(json.dumps(events)[:-1].encode())  # its end may be left out
    assert values(signals, "step_time") == pytest.approx(dict.fromkeys(range(3), 5e-6))
    assert "cut off" in signals.unread[0]


def many(n: int) -> list[dict[str, Any]]:
    odd = {"args": {"nested": [{"a": 1}, {"b": '}, {"'}], "text": '\\"},{'}}
    return [step(i, i * 10.0, 7.0, **odd) for i in range(n)]


@pytest.mark.parametrize("indent", [None, 2])
def test_batches_end_between_events_wherever_they_are_cut(
    indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = json.dumps({"traceEvents": many(500), "traceName": "x"}, indent=indent).encode()
    expected = dict.fromkeys(range(500), 7e-06)
    for size in (64, 301, 4096, 1 << 21):
        monkeypatch.setattr(stream, "_BATCH", size)
        signals = TraceIngestor().ingest(data)
        assert signals.unread == ()
        assert values(signals, "step_time") == pytest.approx(expected)


def test_damage_in_the_middle_costs_its_event_and_is_named() -> None:
    text = json.dumps({"traceEvents": [step(i, i * 10.0, 7.0) for i in range(20)]})
    broken = text.replace('"ProfilerStep#7"', '"ProfilerStep#7', 1)
    signals = TraceIngestor().ingest(broken.encode())
    kept = set(values(signals, "step_time"))
    assert set(range(20)) - kept <= {7, 8}
    place = broken.rindex("{", 0, broken.index("#7"))
    assert signals.unread == (f"<bytes>: 1 event no valid JSON, not read: at character {place}",)


def test_a_trace_that_is_cut_off_gives_what_is_there() -> None:
    data = trace([step(i, i * 10.0, 7.0) for i in range(20)])
    signals = TraceIngestor().ingest(data[:-150])
    assert 15 < len(values(signals, "step_time")) < 20
    assert "cut off" in signals.unread[0]
    packed = gzip.compress(data * 1)[:-20]
    assert any("gzip" in text for text in TraceIngestor().ingest(packed).unread)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'[{"a":"' + b"x" * 3_000_000,
        b'[{"ph":"X","pid":1,"ts":' + b"1" * 100_000 + b',"name":"x"}]',
        b'{"traceEvents": [' + b'{"a":"},' * 100_000,
        b'{"traceEvents": [' + b"},{" * 10_000,
    ],
)
def test_what_is_made_to_be_slow_is_given_up(data: bytes) -> None:
    signals = TraceIngestor().ingest(data)
    assert len(signals) == 0
    assert "cut off or damaged" in signals.unread[0]


def test_times_that_are_none_are_counted() -> None:
    events = [step(1, 0, 1e6), span("x", "soon", 1.0), span("x", 1.0, -1.0)]  # type: ignore[arg-type]
    signals = open_source(trace(events))
    assert "2 events without proper times" in signals.unread[0]


def test_what_is_no_trace() -> None:
    with pytest.raises(SchemaError, match="neither an object nor a list"):
        TraceIngestor().ingest(b"loss 1")
    assert TraceIngestor().sniff(b'[{"loss": 1}]', "x.json") == 0.0


def test_mutated_traces_raise_nothing_but_our_errors() -> None:
    rng = random.Random(0)
    whole = trace(many(6), distributedInfo={"rank": 1}, baseTimeNanoseconds=17 * 10**17)
    read = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read += isinstance(TraceIngestor().ingest(bytes(data)), SignalSet)
        except IngestionError:
            continue
    assert read > 1000
