"""``mlsd watch``: findings as they come, a report at the end, exit codes."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ml_systems_debugger.cli import main

HEALTHY = "".join(f"step {s}: loss {2 / s:.5f}\n" for s in range(1, 300))
BROKEN = HEALTHY + "".join(f"step {s}: loss nan\n" for s in range(300, 320))


def watched(*words: object, stdin: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["watch", *map(str, words)], input=stdin)
    return done.exit_code, done.stdout


@pytest.mark.parametrize(("text", "code"), [(HEALTHY, 0), (BROKEN, 1)])
def test_a_file_that_is_quiet(text: str, code: int, tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text(text)
    got, out = watched(path, "--interval", 0.01, "--idle", 0.05)
    assert got == code
    assert ("nan_detected" in out.splitlines()[0]) == (code == 1)
    assert out.count("Likely causes") == code


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text(BROKEN)
    code, out = watched(path, "--interval", 0.01, "--idle", 0.05, "--format", "json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [line["event"] for line in lines] == ["finding", "report"]
    assert lines[0]["onset_step"] == 300
    assert lines[1]["status"] == "failures"


def test_the_report_goes_where_it_is_told(tmp_path: Path) -> None:
    path, out = tmp_path / "train.log", tmp_path / "report.json"
    path.write_text(BROKEN)
    code, told = watched(path, "--idle", 0.01, "--interval", 0.01, "--format", "json",
                         "--output", out, "--fail-on", "never")  # fmt: skip
    assert code == 0
    assert [json.loads(line)["event"] for line in told.splitlines()] == ["finding"]
    assert json.loads(out.read_text())["event"] == "report"


def test_content_that_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing but words\n" * 10)
    assert watched(path, "--idle", 0.01, "--interval", 0.01)[0] == 3
    path.write_text('{"loss": [1.0, 2.0]}\n')
    assert watched(path, "--idle", 0.01, "--interval", 0.01)[0] == 3


def test_what_was_judged_is_told_where_the_rest_breaks(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    rows = "".join(f"{s},{2 / (s + 1)!r}\n" for s in range(300))
    path.write_text("step,loss\n" + rows + "x,y\n" * 400)
    code, out = watched(path, "--idle", 0.01, "--interval", 0.01)
    assert code == 3
    assert "HEALTHY" not in out


def test_a_mapping_and_a_selection(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    rows = "".join(f"{s},{math.nan if s > 250 else 2 / (s + 1)},1\n" for s in range(300))
    path.write_text("t,error,other\n" + rows)
    words = (path, "--idle", 0.01, "--interval", 0.01, "--map", "t=step,error=loss")
    assert watched(*words)[0] == 1
    assert watched(*words, "--metrics", "other")[0] == 3


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ml_systems_debugger", "watch", *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def test_a_pipe_is_judged_as_it_comes() -> None:
    with start("-", "--format", "json") as job:
        assert job.stdin is not None
        assert job.stdout is not None
        job.stdin.write(BROKEN)
        job.stdin.flush()
        assert json.loads(job.stdout.readline())["event"] == "finding", "the job goes on"
        job.stdin.close()
        assert json.loads(job.stdout.readline())["event"] == "report"
        assert job.wait() == 1


def test_stop_ends_at_the_finding(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    with start(path, "--stop", "--interval", 0.02) as job:
        time.sleep(0.1)
        path.write_text(BROKEN)
        out, err = job.communicate(timeout=30)
        assert job.returncode == 1, err
        assert "nan_detected" in out


def test_an_interrupt_ends_with_the_report(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text(HEALTHY)
    with start(path, "--interval", 0.02, "--fail-on", "low", "--format", "json") as job:
        with path.open("a") as log:
            log.write("step 300: loss nan\nstep 301: loss nan\n")
        assert job.stdout is not None
        assert json.loads(job.stdout.readline())["event"] == "finding"  # it is running now
        job.send_signal(signal.SIGINT)
        out, _ = job.communicate(timeout=30)
        assert job.returncode == 1
        assert json.loads(out)["event"] == "report"
