"""Jobs of two real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["run_job"]


def run_job(script: Path, store: Path, *arguments: str, seconds: float) -> list[str]:
    """Run ``script RANK 2 STORE ARGUMENTS...`` in two processes that meet in the file `store`.

    Returns what each printed.
    """
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "2", str(store), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [rank.communicate(timeout=seconds)[0] for rank in ranks]
    for rank, output in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, output
    return outputs
