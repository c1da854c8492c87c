"""Fail a CI job on what a training run shows, by exit code.

In a shell the command alone does it::

    mlsd diagnose --fail-on high runs/nightly/metrics.csv

    0  nothing at or above --fail-on      1  a finding at or above it
    2  wrong usage, missing file          3  unreadable, or too little to judge

This script is the same from Python, for a job that wants to do more with the
report, such as keep it as a file.

    python examples/in_ci.py RUN [REPORT.json]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def check(run: str, report: str | None = None) -> int:
    """Return the exit code of ``mlsd diagnose`` for one run; keep the JSON report if asked."""
    command = [sys.executable, "-m", "ml_systems_debugger", "diagnose", "--fail-on", "high", run]
    if report is not None:
        command += ["--format", "json", "--output", report]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - no shell


def main() -> int:
    """Check the run named on the command line, else the recorded one with the fault."""
    given = sys.argv[1:] or [str(Path(__file__).parent / "runs" / "lr_jump" / "metrics.csv")]
    code = check(*given[:2])
    meaning = {0: "go on", 1: "stop: a failure", 2: "stop: usage or I/O", 3: "stop: not judged"}
    print(f"exit code {code}: {meaning.get(code, 'unknown')}")
    return code


if __name__ == "__main__":
    sys.exit(main())
