"""Gradients of sharded parameters: the part that is on a rank, under the name of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("torch has no distributed package here", allow_module_level=True)

from jobs import run_job  # noqa: E402


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What each of two ranks found."""
    program = Path(__file__).parent / "sharded_program.py"
    return [
        [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        for output in run_job(program, tmp_path_factory.mktemp("job") / "store", seconds=120)
    ]


def test_a_nan_in_the_part_of_one_rank_is_found_there_at_once(
    told: list[list[dict[str, Any]]],
) -> None:
    # Clipping spreads it over all ranks; what the backward pass gave was measured before.
    gradients = [[one for one in of if one["series"].startswith("grad_norm")] for of in told]
    assert gradients[0] == []
    assert {(one["step"], one["mode"], one["onset"], one["layer"]) for one in gradients[1]} == {
        (40, "nan_detected", 40, "2.weight"), (40, "nan_detected", 40, None)
    }  # fmt: skip


def test_a_state_in_the_part_of_one_rank_is_found_there_within_its_turn(
    told: list[list[dict[str, Any]]],
) -> None:
    states = [[one for one in of if one["state"]] for of in told]
    assert states[0] == []
    assert [(one["mode"], one["layer"], one["state"]) for one in states[1]] == [
        ("inf_detected", "2.weight", "exp_avg_sq")
    ]
    assert 20 <= states[1][0]["onset"] <= 39
