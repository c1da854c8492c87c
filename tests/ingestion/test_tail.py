"""Sources read in pieces, and files followed while they grow."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_systems_debugger import SchemaError, UnsupportedFormatError
from ml_systems_debugger.core import SeriesKind, SignalSet
from ml_systems_debugger.ingestion import (
    LogIngestor,
    MetricIngestor,
    Tail,
    open_source,
    read_pieces,
)
from ml_systems_debugger.kernels.formats import crc32c

REAL_RUNS = Path(__file__).parents[3] / "shared" / "real-runs"


def same(a: SignalSet, b: SignalSet) -> None:
    assert set(a.keys) == set(b.keys)
    for one in a.series:
        other = b.get(one.key)
        assert other is not None
        np.testing.assert_array_equal(one.steps, other.steps, err_msg=str(one.key))
        if one.kind is SeriesKind.TEXT:
            assert list(one.values) == list(other.values)
        else:
            np.testing.assert_array_equal(one.values, other.values, err_msg=str(one.key))
        assert (one.timestamps is None) == (other.timestamps is None)
        if one.timestamps is not None:
            np.testing.assert_array_equal(one.timestamps, other.timestamps)
    places = [set(re.findall(r"(?:line|byte) \d+", " ".join(x.unread))) for x in (a, b)]
    assert places[0] == places[1]
    assert bool(a.unread) == bool(b.unread)


def wide() -> bytes:
    rng = np.random.default_rng(0)
    rows = [f"{s},{v:.6g},{'' if s % 7 else s / 3}" for s, v in enumerate(rng.normal(size=200))]
    return ("step,loss,val_loss\n" + "\n".join(rows) + "\n").encode()


def replicas() -> bytes:
    rows = [f"{s},{r},{s + r / 8},{40 + r}" for s in range(60) for r in range(4)]
    return ("step,rank,loss,step_time\n" + "\n".join(rows) + "\n").encode()


def long_form() -> bytes:
    rows = [f"{m},{s},{s * 2.5}" for s in range(80) for m in ("train/loss", "lr", "grad_norm/a.w")]
    return ("metric,step,value\n" + "\n".join(rows) + "\n").encode()


def quoted() -> bytes:
    rows = [f'{s},"a, ""b"" {s}\nnext",{s / 7!r}' for s in range(60)]
    return ("step,note,loss\n" + "\n".join(rows) + "\n").encode()


def restarted() -> bytes:
    steps = [*range(50), *range(30, 90), *range(80, 120)]
    return b"".join(json.dumps({"step": s, "loss": i / 9}).encode() + b"\n"
                    for i, s in enumerate(steps))  # fmt: skip


def per_epoch() -> bytes:
    rows = [{"epoch": e, "step": s, "loss": e + s / 40} for e in range(5) for s in range(0, 40, 2)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def no_steps() -> bytes:
    return b"loss,accuracy\n" + b"".join(b"%f,%f\n" % (1 / (i + 1), i / 99) for i in range(99))


def bad_lines() -> bytes:
    good = [json.dumps({"step": i, "loss": float("nan") if i == 70 else i / 3}) for i in range(90)]
    good[40:40] = ['{"step": 4', "plain text"]
    return "\n".join(good).encode()  # the last one without its line end


def log() -> bytes:
    lines = ["loading took 3.5 s", "compile time: 12 s"]
    for step in range(1, 90):
        lines.append(f"iteration {step}: loss {8 / step:.4f} | lr {1e-3:.2e} | grad norm: 1.{step}")
        if step == 50:
            lines += [
                "Traceback (most recent call last):",
                '  File "train.py", line 3, in main',
                "    step()",
                "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            ]
    return ("\n".join(lines) + "\n").encode()  # fmt: skip


def events() -> bytes:
    out = []
    for step in range(60):
        value = b"\x0a\x04loss\x15" + struct.pack("<f", step / 7)
        summary = b"\x0a" + bytes([len(value)]) + value
        body = b"\x09" + struct.pack("<d", 1.7e9 + step) + b"\x10" + bytes([step])
        body += b"\x2a" + bytes([len(summary)]) + summary
        head = struct.pack("<Q", len(body))
        out.append(head + _masked(head) + body + _masked(body))
    return b"".join(out)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


SOURCES = {
    f.__name__: f()
    for f in (wide, replicas, long_form, quoted, restarted, per_epoch, no_steps, bad_lines, log,
              events)
}  # fmt: skip


def pieces_of(data: bytes, size: int) -> SignalSet:
    return SignalSet.concatenate(list(read_pieces(data, piece_bytes=size)))


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("size", [64, 257, 1000])
def test_pieces_are_the_whole(name: str, size: int) -> None:
    same(open_source(SOURCES[name]), pieces_of(SOURCES[name], size))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SOURCES)), st.integers(40, 3000))
def test_wherever_it_is_cut(name: str, size: int) -> None:
    same(open_source(SOURCES[name]), pieces_of(SOURCES[name], size))


ROWS = st.lists(
    st.fixed_dictionaries(
        {"loss": st.floats(allow_nan=True, width=32)},
        optional={
            "step": st.integers(0, 12),
            "epoch": st.integers(0, 3),
            "rank": st.integers(0, 2),
            "val_loss": st.floats(0, 1),
        },
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(10, 800))
def test_whatever_the_order_no_value_is_lost(rows: list[dict[str, Any]], size: int) -> None:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    parts = list(read_pieces(data, piece_bytes=size))
    joined = SignalSet.concatenate(parts)  # raises where a step goes back within a series
    assert sum(map(len, parts)) == len(joined) == len(open_source(data))


def test_a_name_that_means_what_an_earlier_one_took() -> None:
    rows = [{"step": s, "gnorm": 1.0} for s in range(30)]
    rows += [{"step": s, "gnorm": 1.0, "grad_norm": 2.0} for s in range(30, 60)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    found = pieces_of(data, 100)
    assert {(one.name, one.values[0], len(one)) for one in found.series} == {
        ("grad_norm", 1.0, 60),
        ("grad_norm (as written)", 2.0, 30),
    }


def test_gzip_is_read_in_pieces_too() -> None:
    same(open_source(wide()), pieces_of(gzip.compress(wide()), 100))


def test_every_piece_ends_with_a_closed_step() -> None:
    seen: dict[Any, int] = {}
    for piece in read_pieces(replicas(), piece_bytes=300):
        ends = {one.key.replica_id: int(one.steps[-1]) for one in piece.select("loss")}
        assert len(set(ends.values())) <= 1, "all replicas of a step come together"
        for one in piece.series:
            assert one.steps[0] > seen.get(one.key, -1)
            seen[one.key] = int(one.steps[-1])


def test_a_replica_that_stops_holds_nobody_back() -> None:
    rows = [f"{s},{r},{s}" for s in range(500) for r in range(3) if r != 1 or s < 100]
    data = ("step,rank,loss\n" + "\n".join(rows) + "\n").encode()
    given_steps = [p.step_range for p in read_pieces(data, piece_bytes=500) if len(p)]
    lag = max(b[1] - a[1] for a, b in pairwise(given_steps) if a and b)
    assert lag < 150
    same(open_source(data), pieces_of(data, 500))


def test_replicas_one_behind_the_other_are_not_silently_uncompared() -> None:
    rows = [f"{s},{r},{s}" for r in range(2) for s in range(500)]
    data = ("step,rank,loss\n" + "\n".join(rows) + "\n").encode()
    found = pieces_of(data, 500)
    assert len(found) == 1000
    assert any("sort the rows by step" in note for note in found.unread)


def test_metadata_is_that_of_the_whole() -> None:
    whole, parts = LogIngestor().ingest(log()), pieces_of(log(), 200)
    for key in ("rows", "log_events", "log_event_kinds", "dialects", "format"):
        assert parts.metadata[key] == whole.metadata[key], key


def test_a_mapping_must_name_a_column_that_comes() -> None:
    found = SignalSet.concatenate(list(read_pieces(wide(), mapping={"val_loss": "accuracy"})))
    assert set(found.names) == {"loss", "accuracy"}
    with pytest.raises(SchemaError, match="no such column"):
        list(read_pieces(wide(), mapping={"missing": "loss"}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"loss": [1, 2, 3]}', "whole"),
        (b"\x89PNG\r\n\0", "PNG"),
        (b"only words", "without"),
        (b"", "empty"),
    ],
)
def test_what_is_read_whole_or_not_at_all_is_refused(data: bytes, message: str) -> None:
    with pytest.raises((UnsupportedFormatError, SchemaError), match=message):
        list(read_pieces(data))


def grown(path: Path, data: bytes, sizes: Iterator[int]) -> SignalSet:
    tail = Tail(path)
    parts = [tail.read()]  # before the file is there
    at = 0
    for size in sizes:
        with path.open("ab") as job:
            job.write(data[at : at + size])
        at += size
        parts.append(tail.read())
        if at >= len(data):
            break
    assert tail.caught_up()
    assert tail.position == len(data)
    return SignalSet.concatenate([*parts, tail.finish()])


@pytest.mark.parametrize("name", SOURCES)
def test_a_growing_file_gives_what_the_whole_gives(name: str, tmp_path: Path) -> None:
    data = SOURCES[name]
    rng = np.random.default_rng(7)
    sizes = iter(rng.integers(1, 300, 10_000).tolist())
    same(open_source(data), grown(tmp_path / "run", data, sizes))


def test_a_step_is_given_when_the_next_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("step,loss\n1,2.5\n2,2")
    tail = Tail(path)
    assert len(tail.read()) == 0, "step 1 may go on, step 2 is half a line"
    with path.open("a") as job:
        job.write(".25\n")
    assert [s.value for s in tail.read()] == [2.5]
    assert len(tail.read()) == 0
    assert [s.value for s in tail.finish()] == [2.25]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_begins_anew_is_a_restart(replaced: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("step,loss\n1,2.5\n2,2.25\n3,2.0\n")
    tail = Tail(path)
    parts = [tail.read()]
    if replaced:
        other = tmp_path / "other"
        other.write_text("step,loss\n2,2.125\n3,1.5\n4,1.25\n5,1.0\n6,0.75\n")
        other.replace(path)
    else:
        path.write_text("step,loss\n2,2.125\n")
    parts += [tail.read(), tail.read(), tail.finish()]
    found = SignalSet.concatenate(parts)
    assert [one.key.segment for one in found.series] == [0, 1]
    assert found.series[0].values.tolist() == [2.5, 2.25, 2.0]
    assert found.series[1].steps[0] == 2


def test_event_files_that_a_restarted_job_adds(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.a").write_bytes(events()[: len(events()) // 2])
    tail = Tail(tmp_path)
    parts = [tail.read()]
    (tmp_path / "events.out.tfevents.2.a").write_bytes(events())
    parts += [tail.read(), tail.read(), tail.finish()]
    assert [len(one) for one in SignalSet.concatenate(parts).series] == [30, 60]


def test_standard_input_is_followed_as_it_comes() -> None:
    program = (
        "from ml_systems_debugger.ingestion import Tail\n"
        "tail = Tail('-')\n"
        "while not tail.ended:\n"
        "    for s in tail.read(): print(s.step, s.value, flush=True)\n"
        "for s in tail.finish(): print(s.step, s.value)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdin is not None
        assert job.stdout is not None
        job.stdin.write("step 1: loss 2.5\nstep 2: loss 2.0\n")
        job.stdin.flush()
        assert job.stdout.readline() == "1 2.5\n", "before the pipe is closed"
        job.stdin.write("step 3: loss nan\n")
        job.stdin.close()
        assert job.stdout.read() == "2 2.0\n3 nan\n"
        assert job.wait() == 0


def test_nothing_there_at_the_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run"):
        Tail(tmp_path / "run").finish()
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(SchemaError, match="empty"):
        Tail(tmp_path / "run").finish()
    (tmp_path / "run").write_bytes(b"only words\n")
    with pytest.raises(UnsupportedFormatError):
        Tail(tmp_path / "run").finish()


def test_a_document_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text('{"loss": [3.0, 2.0, 1.0]}\n')
    with Tail(path) as tail, pytest.raises(UnsupportedFormatError, match="whole"):
        tail.read()


def test_a_third_partys_reader_may_have_no_pieces() -> None:
    assert MetricIngestor().stream(b'{"loss": [1, 2]}', "x.json") is None
    assert MetricIngestor().stream(b"\xff\xfes\0t\0", "x.csv") is None


@pytest.mark.skipif(not REAL_RUNS.is_dir(), reason=f"no real runs at {REAL_RUNS}")
def test_real_runs_in_pieces() -> None:
    compared = 0
    for path in sorted((REAL_RUNS / "formats").rglob("*")):
        if not path.is_file() or os.path.getsize(path) > 2_000_000:  # noqa: PTH202
            continue
        try:
            pieces = list(read_pieces(path.read_bytes(), piece_bytes=5003))
        except (UnsupportedFormatError, SchemaError):
            continue
        same(open_source(path.read_bytes()), SignalSet.concatenate(pieces))
        compared += 1
    assert compared >= 8
