"""Causes of real runs: those of learning-rate grids that failed had too high a rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml_systems_debugger import diagnose
from ml_systems_debugger.core import RootCause

OUTCOMES = Path(__file__).parents[2].parent / "shared" / "real-runs" / "outcomes"


@pytest.mark.skipif(not OUTCOMES.is_dir(), reason="the real runs are not here")
def test_failed_runs_of_a_learning_rate_grid_are_put_down_to_the_rate() -> None:
    # Other points of the same grids trained well, so the rate is what broke these.
    assert json.loads((OUTCOMES / "labels.json").read_text())
    names = [p for p in sorted(OUTCOMES.glob("deepobs-*")) if "-healthy-" not in p.name]
    first, among_three, told_once = 0, 0, 0
    for path in names:
        causes = diagnose(path).attributions
        ranked = [h.cause for h in causes]
        first += ranked[:1] == [RootCause.LEARNING_RATE_TOO_HIGH]
        among_three += RootCause.LEARNING_RATE_TOO_HIGH in ranked[:3]
        told_once += len({h.story for h in causes}) == 1
    assert len(names) > 20
    assert first >= 0.8 * len(names)
    assert among_three >= 0.95 * len(names)
    assert told_once >= 0.9 * len(names), "one failure, one story"
