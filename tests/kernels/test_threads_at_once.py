"""Many threads in the kernels at once, from the first call on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_each_thread_finds_what_one_alone_finds() -> None:
    program = Path(__file__).with_name("threads_at_once.py")
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", program, "--rounds", "3"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 threads" in done.stdout
