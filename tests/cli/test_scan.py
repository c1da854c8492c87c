from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ml_systems_debugger.cli import main
from ml_systems_debugger.cli import scan as commands


def run(command: str, *args: object) -> Result:
    return CliRunner().invoke(getattr(commands, command), [str(a) for a in args])


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "sound.npz", **{f"layers.{i}.w": rng.normal(size=(40, 50)) for i in range(5)}
    )
    return tmp_path / "sound.npz"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(40, 50))
    values[3, 4] = np.nan
    np.savez(tmp_path / "broken.npz", w=values)
    return tmp_path / "broken.npz"


def test_exit_codes(sound: Path, broken: Path, tmp_path: Path) -> None:
    assert run("scan", sound).exit_code == 0
    assert run("scan", broken).exit_code == 1
    assert run("scan", broken, "--fail-on", "never").exit_code == 0
    assert run("scan", tmp_path / "missing").exit_code == 2
    assert run("scan").exit_code == 2
    (tmp_path / "odd").write_bytes(b"no checkpoint at all")
    assert run("scan", tmp_path / "odd").exit_code == 3
    assert run("scan", sound, tmp_path / "odd").exit_code == 3
    assert run("scan", broken, tmp_path / "odd").exit_code == 1
    compressed = tmp_path / "compressed.npz"
    np.savez_compressed(compressed, w=np.random.default_rng(0).normal(size=(40, 50)))
    assert run("scan", compressed).exit_code == 3
    assert run("scan", compressed, "--inflate").exit_code == 0


def test_json_has_the_documented_shape(broken: Path) -> None:
    report = json.loads(run("scan", broken, "--format", "json").output)
    assert set(report) == {"schema_version", "status", "files", "tensors", "findings", "metadata"}
    assert report["status"] == "findings"
    assert set(report["files"][0]) == {"path", "format", "bytes", "scanned_bytes"}
    (tensor,) = report["tensors"]
    assert list(tensor) == ["name", "dtype", "shape", "file", "stats", "first_nonfinite", "digest"]
    assert list(tensor["stats"]) == ["size", "nan", "posinf", "neginf", "zero", "subnormal", "min",
                                     "max", "absmax", "mean", "std", "l1", "l2"]  # fmt: skip
    assert tensor["first_nonfinite"] == [3, 4]
    (finding,) = report["findings"]
    assert set(finding) == {"code", "severity", "tensor", "message", "evidence"}
    assert (finding["code"], finding["tensor"]) == ("nan", "w")


def test_ranges_are_counted_where_they_are_asked_for(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    values[1, 2] = 1e6
    np.savez(tmp_path / "m.npz", w=values)
    done = run("scan", tmp_path / "m.npz", "--ranges", "--format", "json")
    report = json.loads(done.output)
    ranges = report["tensors"][0]["ranges"]
    assert ranges["float16"]["overflow"] == 1
    assert sum(ranges["exponents"]) == ranges["alive"] == 2000
    assert [f["evidence"]["target"] for f in report["findings"] if f["code"] == "range"] == [
        "float16", "float8_e4m3fn",
    ]  # fmt: skip


def test_several_checkpoints(sound: Path, broken: Path) -> None:
    both = json.loads(run("scan", sound, broken, "--format", "json").output)
    assert both["status"] == "findings"
    assert [c["path"] for c in both["checkpoints"]] == [str(sound), str(broken)]


def test_text_and_markdown(sound: Path, broken: Path) -> None:
    assert "Nothing was found." in run("scan", sound).output
    text = run("scan", broken).output
    assert "critical nan  w: 1 of 2000 values are NaN" in text
    markdown = run("scan", broken, "--format", "markdown").output
    assert markdown.startswith("# ")
    assert "| w | float64 | 40x50 |" in markdown


def test_shards_and_merge(sound: Path, broken: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        result = run("scan", broken, "--shard", f"{number}/2", "--output", tmp_path / f"s{number}")
        assert result.exit_code == 0, result.output
    assert run("merge", tmp_path / "s1", tmp_path / "s2").exit_code == 1
    assert run("merge", tmp_path / "s1").exit_code == 3
    assert run("merge", sound).exit_code == 3
    for wrong in ("0/2", "3/2", "x", "1/0"):
        assert run("scan", broken, "--shard", wrong).exit_code == 2


def test_inspect(broken: Path) -> None:
    result = run("inspect", broken)
    assert result.exit_code == 0
    assert "w     float64  40x50" in result.output
    assert (
        json.loads(run("inspect", broken, "--format", "json").output)["tensors"][0]["stats"] is None
    )


def test_diff(sound: Path, tmp_path: Path) -> None:
    with np.load(sound) as found:
        arrays = dict(found)
    arrays["layers.1.w"] = arrays["layers.1.w"] + 0.1
    np.savez(tmp_path / "b.npz", **arrays)
    result = run("diff", sound, tmp_path / "b.npz")
    assert result.exit_code == 0, result.output
    assert "4 equal, 1 changed" in result.output
    assert json.loads(run("diff", sound, sound, "--format", "json").output)["status"] == "equal"
    assert run("diff", sound, tmp_path / "missing").exit_code == 2


def mlsd(*args: object, **more: Any) -> subprocess.Popen[bytes]:
    # A shell that starts CI in the background has it ignore SIGINT; children inherit that.
    command = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from ml_systems_debugger.cli import main; main(sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", command, *map(str, args)],
        stderr=subprocess.PIPE, **{"stdout": subprocess.PIPE, **more},
    )  # fmt: skip


def test_a_full_disk_keeps_the_old_output(sound: Path, tmp_path: Path) -> None:
    def small_files() -> None:  # as a full disk: writing past 16 bytes fails
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    target = tmp_path / "out" / "report"
    target.parent.mkdir()
    target.write_text("old")
    process = mlsd("scan", sound, "--output", target, preexec_fn=small_files)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.decode() == f"Error: {target}: cannot be written: File too large\n"
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["report"]
    missing = tmp_path / "no" / "report"
    result = run("scan", sound, "--output", missing)
    assert result.exit_code == 2
    assert f"{missing}: cannot be written" in result.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_an_error_that_names_it(sound: Path) -> None:
    result = run("scan", sound, "--output", "/dev/full")
    assert result.exit_code == 2
    assert "/dev/full: cannot be written: No space left" in result.output
    # With a buffer Python tries once more at its end, and says so with a code of its own.
    for buffered in ({"PYTHONUNBUFFERED": "1"}, {}):
        plain = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        with Path("/dev/full").open("wb") as full:
            process = mlsd("scan", sound, stdout=full, env={**plain, **buffered})
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 2, errors
        assert errors == b"Error: standard output: cannot be written: No space left on device\n"


def test_a_reader_that_leaves_changes_no_verdict(broken: Path, sound: Path) -> None:
    for path, code in ((broken, 1), (sound, 0)):
        reading, writing = os.pipe()
        os.close(reading)
        process = mlsd("scan", path, "--format", "json", stdout=writing)
        os.close(writing)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert errors == b""


def half_read(path: Path) -> Path:
    """Write a safetensors file: a tensor with NaN, then one of 16 GB; sparse, no disk is used."""
    sizes = {"first": 1000, "rest": 4_000_000_000}
    header, at = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "F32", "shape": [size], "data_offsets": [at, at + 4 * size]}
        at += 4 * size
    text = json.dumps(header).encode()
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.write(np.full(1000, np.nan, "<f4").tobytes())
        out.truncate(8 + len(text) + at)
    return path


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs the counters in /proc")
def test_an_interrupt_ends_with_what_was_found_so_far(tmp_path: Path) -> None:
    path = half_read(tmp_path / "m.safetensors")
    process = mlsd("scan", path, "--format", "json", "--workers", "1", "--fail-on", "never")
    counters = Path(f"/proc/{process.pid}/io")
    while int(counters.read_text().split()[1]) < 300_000_000:  # until it is well under way
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)  # a second, and as much as CI may be late
    assert process.returncode == 3, errors
    report = json.loads(output)
    assert report["status"] == "incomplete"
    assert report["metadata"]["interrupted"]
    assert [(f["code"], f["tensor"]) for f in report["findings"]] == [("nan", "first")]
    first, rest = report["tensors"]
    assert first["stats"]["nan"] == 1000
    assert rest["stats"] is None


def test_an_interrupt_outside_the_reading_is_no_verdict(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "rendered", interrupted)
    result = CliRunner().invoke(main, ["scan", str(sound)])
    assert result.exit_code == 3
    assert "interrupted" in result.output


def test_formats_of_code_hosts_and_ci(sound: Path, broken: Path) -> None:
    (log,) = json.loads(run("scan", sound, broken, "--format", "sarif").output)["runs"]
    (result,) = log["results"]
    assert (result["ruleId"], result["level"]) == ("nan", "error")
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == broken.as_uri()
    for fail_on, failures in (("high", "1"), ("never", "0")):
        done = run("scan", sound, broken, "--format", "junit", "--fail-on", fail_on)
        root = ElementTree.fromstring(done.output)  # noqa: S314 - our own output
        assert root.get("failures") == failures
        assert [s.get("name") for s in root] == [str(sound), str(broken)]
    lines = run("scan", broken, "--format", "github").output.splitlines()
    assert lines[1].startswith(f"::error file={broken},title=critical nan::tensor w: 1 of 2000")
    changed = run("diff", sound, broken, "--format", "github").output
    assert "::" in changed
    listed = json.loads(run("inspect", broken, "--format", "sarif").output)
    assert listed["runs"][0]["results"] == []


def test_a_broken_file_is_told_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"no checkpoint at all")
    for output_format, sign in (
        ("sarif", '"executionSuccessful": false'), ("junit", "<error"), ("github", "::error"),
    ):  # fmt: skip
        done = run("scan", tmp_path / "odd", "--format", output_format)
        assert done.exit_code == 3
        assert sign in done.stdout
