"""The ring file: the last steps survive whatever ends the process."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ml_systems_debugger import SchemaError, SeriesKey, diagnose
from ml_systems_debugger.core.ring_file import RingFile, read_ring
from ml_systems_debugger.ingestion import open_source
from ml_systems_debugger.monitoring import Monitor, MonitorWarning


def test_the_last_steps_come_back(tmp_path: Path) -> None:
    path = tmp_path / "run.ring"
    monitor = Monitor(action="none", recorder=str(path), slots=32)
    for step in range(100):
        extra = {"val_loss": step / 7} if step % 10 == 0 else {}
        monitor.observe(step, loss=1 / (step + 1), **extra)
    run = open_source(path)
    loss = next(s for s in run.select("loss") if s.key.split is None)
    assert loss.steps.tolist() == list(range(68, 100))
    assert loss.values.tolist() == [1 / (s + 1) for s in range(68, 100)]
    held_out = next(s for s in run.select("loss") if s.key.split is not None)
    assert held_out.steps.tolist() == [70, 80, 90]
    assert diagnose(path).metadata["format"] == "ring"


def test_nan_is_a_value_and_absence_is_none(tmp_path: Path) -> None:
    path = tmp_path / "run.ring"
    ring = RingFile(path, 4, 2)
    ring.names([SeriesKey("a"), SeriesKey("b")])
    ring.write(5, np.array([0]), np.array([np.nan]))
    ring.write(6, np.array([0, 1]), np.array([-np.inf, 2.0]))
    run = read_ring(path.read_bytes(), "x")
    a, b = run.series
    assert a.steps.tolist() == [5, 6]
    assert np.isnan(a.values[0])
    assert a.values[1] == -np.inf
    assert b.steps.tolist() == [6]


def test_a_restart_within_the_ring_is_a_segment(tmp_path: Path) -> None:
    ring = RingFile(tmp_path / "r", 8, 1)
    ring.names([SeriesKey("loss")])
    for step in (4, 5, 6, 3, 4):
        ring.write(step, np.array([0]), np.array([float(step)]))
    found = read_ring((tmp_path / "r").read_bytes(), "r").series
    assert [(s.key.segment, s.steps.tolist()) for s in found] == [(0, [4, 5, 6]), (1, [3, 4])]


PROGRAM = """
import sys
from ml_systems_debugger.monitoring import Monitor
monitor = Monitor(action="none", recorder=sys.argv[1], slots=64)
step = 0
print("ready", flush=True)
while True:
    monitor.observe(step, loss=float(step), lr=1.0 / (step + 1), grad_norm=2.0 * step)
    with open(sys.argv[2], "w") as file:
        file.write(str(step))
    step += 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_leaves_whole_steps(tmp_path: Path, seed: int) -> None:
    """A slice of the campaign in benchmarks/kill_recorder.py."""
    path, seen = tmp_path / "run.ring", tmp_path / "step"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(seen)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + random.Random(seed).random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = int(seen.read_text() or 0)
    run = open_source(path)
    assert run.unread == ()
    assert set(run.names) == {"loss", "lr", "grad_norm"}
    loss = next(iter(run.select("loss")))
    assert loss.steps[-1] >= last
    assert loss.values.tolist() == loss.steps.tolist()
    assert np.diff(loss.steps).max(initial=1) == 1


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "run.ring"
    ring = RingFile(path, 4, 2)
    ring.names([SeriesKey("a")])
    ring.write(1, np.array([0]), np.array([1.0]))
    whole = path.read_bytes()
    with pytest.raises(SchemaError, match="announced"):
        read_ring(whole[:-1], "r")
    with pytest.raises(SchemaError, match="no whole list of names"):
        read_ring(whole[:64] + bytes(len(whole) - 64), "r")
    with pytest.raises(SchemaError, match="version 9"):
        read_ring(whole[:8] + b"\x09\0\0\0" + whole[12:], "r")
    with pytest.raises(SchemaError, match="not a ring file"):
        read_ring(b"other", "r")


def test_mutated_rings_never_lie(tmp_path: Path) -> None:
    path = tmp_path / "run.ring"
    ring = RingFile(path, 8, 3)
    ring.names([SeriesKey("a"), SeriesKey("b"), SeriesKey("c")])
    for step in range(12):
        ring.write(step, np.arange(3), np.full(3, float(step)))
    whole, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    for _ in range(2000):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 6)):
            changed[at] ^= 1 << int(rng.integers(8))
        try:
            found = read_ring(bytes(changed), "r")
        except SchemaError:
            continue
        for one in found.series:
            assert one.values.tolist() == one.steps.tolist()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate here")
def test_a_full_disk_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monitor = Monitor(action="none", recorder=str(tmp_path / "run.ring"))
    with pytest.warns(MonitorWarning, match="No space left"):
        monitor.observe(0, loss=1.0)
    assert monitor.observe(1, loss=1.0) == []
    assert list(tmp_path.iterdir()) == []


def test_series_that_have_no_room_are_said_once(tmp_path: Path) -> None:
    monitor = Monitor(action="none", recorder=str(tmp_path / "run.ring"))
    monitor.observe(0, loss=1.0)
    many = {f"m{k}": 1.0 for k in range(100)}
    with pytest.warns(MonitorWarning, match="the flight recorder is full: 37 series have no room"):
        monitor.observe(1, loss=1.0, **many)
    monitor.observe(2, loss=1.0, **many)
    run = open_source(tmp_path / "run.ring")
    assert next(iter(run.select("loss"))).steps.tolist() == [0, 1, 2]
    assert next(iter(run.select("m62"))).steps.tolist() == [1, 2]
    assert len(run.series) == 64


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("left", [0, 8192, 64 << 10])
def test_a_file_system_that_is_full(tmp_path: Path, left: int) -> None:
    """A real one. Where the ring has room, what fills the rest later cannot hurt it: no SIGBUS."""
    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    place = tmp_path / "small"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    done = subprocess.run(mounted, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        fits = left == 64 << 10
        (place / "others").write_bytes(bytes((256 << 10) - left - (192 << 10) * fits))
        done = subprocess.run(
            [sys.executable, "-c", ON_A_FULL_DISK, str(place)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.returncode, done.stderr)
        told = json.loads(done.stdout)
        assert told["steps"] == 500
        assert told["warned"] == ([] if fits else [told["warned"][0]])
        if fits:
            assert told["free"] == 0, "the disk was filled while the run went on"
            loss = next(iter(open_source(place / "run.ring").select("loss")))
            assert loss.steps.tolist() == list(range(500 - 64, 500))
        else:
            assert "No space left" in told["warned"][0]
            assert not (place / "run.ring").exists()
    finally:
        subprocess.run(["umount", str(place)], check=True)


ON_A_FULL_DISK = """
import json, os, sys, warnings
from pathlib import Path
from ml_systems_debugger import Monitor

place = Path(sys.argv[1])
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    monitor = Monitor(action="none", recorder=str(place / "run.ring"), slots=64)
    for step in range(500):
        monitor.observe(step, loss=1.0 + 0.01 * (step % 7), lr=1e-3)
        if step == 20:  # somebody else takes all that is left
            try:
                with open(place / "more", "wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
            except OSError:
                pass
    monitor.close()
free = os.statvfs(place).f_bfree
print(json.dumps({"steps": step + 1, "free": free, "warned": [str(w.message) for w in told]}))
"""
