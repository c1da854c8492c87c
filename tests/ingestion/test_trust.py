"""What a logger hides: losses in the place of others, and values left out."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ml_systems_debugger.core import SignalSet
from ml_systems_debugger.ingestion import open_source


def run(losses: dict[int, float], steps: int = 100) -> SignalSet:
    rows: list[dict[str, Any]] = [{"step": step, "lr": 0.1} for step in range(steps)]
    for step, loss in losses.items():
        rows[step]["loss"] = loss
    return open_source(rows)


def gaps(signals: SignalSet) -> list[tuple[int, float, int | None]]:
    (loss,) = signals.select("loss")
    return [(g["step"], g["value"], g["until"]) for g in loss.metadata.get("absent_after", ())]


@pytest.mark.parametrize("last", [math.inf, 1e30, -1e9])
def test_silence_behind_a_bad_value_is_kept(last: float) -> None:
    signals = run({**dict.fromkeys(range(40), 2.0), 40: last})
    assert gaps(signals) == [(40, last, None)]
    (told,) = signals.metadata["absences"]
    assert "is not logged to the end after" in told
    assert "at step 40" in told


def test_silence_behind_nan() -> None:
    signals = run({**dict.fromkeys(range(40), 2.0), 40: math.nan, 41: math.nan})
    ((step, value, until),) = gaps(signals)
    assert (step, until) == (41, None)
    assert math.isnan(value)


def test_a_gap_that_ends() -> None:
    signals = run({step: 1e8 if step == 30 else 2.0 for step in (*range(31), *range(50, 100))})
    assert gaps(signals) == [(30, 1e8, 50)]
    assert "until step 50" in signals.metadata["absences"][0]


def test_silence_behind_a_usual_value_says_nothing() -> None:
    signals = run({step: 2.0 - step / 100 for step in range(40)})
    assert gaps(signals) == []
    assert "absences" not in signals.metadata


def test_a_quantity_that_is_logged_seldom_is_not_absent() -> None:
    seldom = dict.fromkeys(range(0, 100, 10), 2.0)
    assert gaps(run({**seldom, 90: math.nan})) == []
    assert gaps(run({**seldom, 90: math.nan}, steps=110)) == []


def test_a_run_that_ends_with_a_bad_value_is_whole() -> None:
    assert gaps(run({**dict.fromkeys(range(100), 2.0), 99: math.nan})) == []


def test_each_replica_is_measured_by_itself() -> None:
    rows = [
        {"step": step, "replica_id": rank, "lr": 0.1, "loss": math.inf if step == 20 else 1.0}
        for step in range(60)
        for rank in (0, 1)
    ]
    for row in rows:
        if row["replica_id"] == 1 and row["step"] > 20:
            del row["loss"]
    losses = open_source(rows).select("loss")
    assert ["absent_after" in one.metadata for one in losses] == [False, True]
