"""Gradients of sharded parameters: the part that is on a rank, under the name of the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("torch has no distributed package here", allow_module_level=True)

from jobs import run_job  # noqa: E402


def test_a_nan_in_the_part_of_one_rank_is_found_there_at_once(tmp_path: Path) -> None:
    program = Path(__file__).parent / "sharded_program.py"
    told = [
        [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        for output in run_job(program, tmp_path / "store", seconds=120)
    ]
    # Clipping spreads it over all ranks; what the backward pass gave was measured before.
    gradients = [[one for one in of if one["series"].startswith("grad_norm")] for of in told]
    assert gradients[0] == []
    assert {(one["step"], one["mode"], one["onset"], one["layer"]) for one in gradients[1]} == {
        (40, "nan_detected", 40, "2.weight"), (40, "nan_detected", 40, None)
    }  # fmt: skip
