"""The command as CI and people call it: exit codes, places named, nothing half written."""

from __future__ import annotations

import csv
import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def run(*args: str, stdin: bytes | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ml_systems_debugger", *args],
        input=stdin, capture_output=True, check=False, env={**os.environ, **env},
    )  # fmt: skip


def write_run(path: Path, loss: np.ndarray) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows(enumerate(loss.tolist()))
    return path


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    return write_run(
        tmp_path / "healthy.csv", 0.3 + 2 * np.exp(-np.arange(400) / 80) + rng.normal(0, 0.02, 400)
    )


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    loss = np.linspace(2, 1, 400)
    loss[321:] = np.nan
    return write_run(tmp_path / "broken.csv", loss)


def test_healthy_is_0(healthy: Path) -> None:
    done = run("diagnose", str(healthy))
    assert done.returncode == 0, done.stderr
    assert b"\x1b[" not in done.stdout, "no colours into a pipe"


def test_a_finding_is_1_and_says_where(broken: Path) -> None:
    done = run("diagnose", str(broken))
    assert done.returncode == 1
    assert b"321" in done.stdout


def test_never_is_for_looking_only(broken: Path) -> None:
    assert run("diagnose", "--fail-on", "never", str(broken)).returncode == 0


def test_json_of_one_run(broken: Path) -> None:
    done = run("diagnose", str(broken), "--format", "json")
    report = json.loads(done.stdout, parse_constant=pytest.fail)
    assert report["status"] == "failures"
    assert report["detections"][0]["failure_mode"] == "nan_detected"
    assert report["detections"][0]["onset_step"] == 321


def test_json_of_a_folder_of_runs(broken: Path, healthy: Path) -> None:
    done = run("diagnose", str(broken.parent), "--format", "json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["status"] == "failures"
    assert {Path(r["path"]).name: r["report"]["status"] for r in found["runs"]} == {
        "broken.csv": "failures",
        "healthy.csv": "healthy",
    }


def test_standard_input(broken: Path) -> None:
    assert run("diagnose", "-", stdin=broken.read_bytes()).returncode == 1
    assert run("diagnose", "-", stdin=gzip.compress(broken.read_bytes())).returncode == 1


@pytest.mark.parametrize("text", [b"", b"\n", b"step,loss\n", b"step,loss\n1,0.5\n"])
def test_too_little_is_3(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "little.csv"
    path.write_bytes(text)
    done = run("diagnose", str(path))
    assert done.returncode == 3, done.stdout
    assert b"little.csv" in done.stdout + done.stderr


def test_unknown_content_is_3_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    done = run("diagnose", str(path), "--format", "json")
    assert done.returncode == 3
    assert b"picture.png" in done.stderr
    assert json.loads(done.stdout)["status"] == "incomplete"


def test_missing_file_is_2_before_any_work(healthy: Path) -> None:
    done = run("diagnose", str(healthy), "no/such/file.csv")
    assert done.returncode == 2
    assert b"no/such/file.csv" in done.stderr
    assert done.stdout == b""


def test_empty_folder_is_2(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = run("diagnose", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert b"nothing" in done.stderr


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_permission_is_2(healthy: Path) -> None:
    healthy.chmod(0)
    done = run("diagnose", str(healthy))
    assert done.returncode == 2
    assert b"ermission" in done.stderr


@pytest.mark.parametrize("args", [("diagnose",), ("diagnose", "--format", "xml", "x"), ("what",)])
def test_wrong_usage_is_2(args: tuple[str, ...]) -> None:
    assert run(*args).returncode == 2


def test_wrong_configuration_is_2(tmp_path: Path, healthy: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[detectors.nobody]\nx = 1\n")
    done = run("diagnose", "--config", str(path), str(healthy))
    assert done.returncode == 2
    assert b"nobody" in done.stderr


def test_the_configuration_sets_fail_on(tmp_path: Path, broken: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('fail_on = "critical"\n')
    with_option = run("diagnose", "--config", str(path), "--fail-on", "low", str(broken))
    assert with_option.returncode == 1


def test_output_goes_to_the_file_whole(tmp_path: Path, broken: Path) -> None:
    out = tmp_path / "report.json"
    done = run("diagnose", str(broken), "--format", "json", "--output", str(out))
    assert done.returncode == 1
    assert done.stdout == b""
    assert json.loads(out.read_text())["status"] == "failures"
    assert [p.name for p in tmp_path.glob(".report*")] == []


def test_a_full_disk_keeps_the_old_output(tmp_path: Path, broken: Path) -> None:
    out = tmp_path / "report.json"
    out.write_text("old")

    def small_files() -> None:  # as a full disk: writing past 16 bytes fails
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    done = subprocess.run(
        [sys.executable, "-B", "-m", "ml_systems_debugger", "diagnose", str(broken),
         "--output", str(out)],
        capture_output=True, check=False, preexec_fn=small_files,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert b"report.json" in done.stderr
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.glob(".report*")] == []


def test_detectors_and_explain() -> None:
    listed = run("detectors").stdout.decode()
    assert "nan_detected" in listed
    for name in ("loss_plateau", "LossPlateauDetector"):
        text = run("explain", name).stdout.decode()
        assert "loss_plateau" in text
        assert len(text) > 400
    assert run("explain", "no_such_thing").returncode == 2


@pytest.mark.parametrize("output_format", ["sarif", "junit", "github"])
def test_formats_of_code_hosts_and_ci(tmp_path: Path, output_format: str) -> None:
    rows = [f"{n},{1.0 if n < 60 else 'nan'}" for n in range(100)]
    (tmp_path / "m.csv").write_text("\n".join(["step,loss", *rows]))
    done = run("diagnose", str(tmp_path / "m.csv"), "--format", output_format)
    assert done.returncode == 1
    assert b"nan_detect" in done.stdout
    line = {"sarif": b'"startLine": 62', "junit": b"step 60", "github": b"m.csv,line=62,"}
    assert line[output_format] in done.stdout
    assert b"m.csv" in done.stdout
