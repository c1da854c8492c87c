from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

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


def test_a_full_disk_keeps_the_old_output(sound: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    target = tmp_path / "report"
    target.write_text("old")
    target.chmod(0o400)
    (tmp_path / "sub").mkdir()
    result = run("scan", sound, "--output", tmp_path / "sub" / "no" / "report")
    assert result.exit_code == 2
    assert "cannot be written" in result.output


def test_an_interrupt_ends_within_a_second_with_what_was_found(tmp_path: Path) -> None:
    if not Path("/proc/self/io").exists():
        pytest.skip("needs the counters in /proc")
    path = tmp_path / "m.npy"
    with path.open("wb") as out:
        np.lib.format.write_array_header_1_0(
            out, {"descr": "<f4", "fortran_order": False, "shape": (4_000_000_000,)}
        )
        out.truncate(out.tell() + 16_000_000_000)  # sparse: no disk is used
    # A shell that starts CI in the background has it ignore SIGINT; children inherit that.
    command = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from ml_systems_debugger.cli.scan import scan; scan(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(path), "--format", "json", "--workers", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ},
    )  # fmt: skip
    counters = Path(f"/proc/{process.pid}/io")
    while int(counters.read_text().split()[1]) < 300_000_000:  # until it is well under way
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 3, errors
    report = json.loads(output)
    assert report["status"] == "incomplete"
    assert report["metadata"]["interrupted"]


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
