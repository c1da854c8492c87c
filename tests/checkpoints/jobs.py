"""Jobs of two real processes that write a checkpoint together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["run_job"]

HERE = Path(__file__).parent


def run_job(script: str, store: Path, *arguments: str, seconds: float) -> None:
    """Run ``script RANK 2 STORE ARGUMENTS...`` in two processes that meet in the file `store`."""
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), str(rank), "2", str(store), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for rank in ranks:
        output, _ = rank.communicate(timeout=seconds)
        assert rank.returncode == 0, output
