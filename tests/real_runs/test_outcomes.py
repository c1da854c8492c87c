"""The real runs of known outcome beside this repository: found, and left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_systems_debugger.evaluation import Evaluation, evaluate, read_labels

RUNS = Path(__file__).resolve().parents[3] / "shared" / "real-runs" / "outcomes"
pytestmark = pytest.mark.skipif(
    not (RUNS / "labels.json").exists(), reason=f"the real runs are not here: {RUNS}"
)


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(RUNS, read_labels(RUNS / "labels.json"))


def test_every_run_is_there(found):
    assert not found.missing
    assert {name: found.summary(name)["runs"] for name in found.outcomes} == {
        "diverged": 11,
        "healthy": 64,
        "nonfinite": 20,
        "stuck": 3,
    }


@pytest.mark.parametrize("outcome", ["diverged", "nonfinite", "stuck"])
def test_every_faulty_run_is_found(found, outcome):
    assert not [j for j in found.missed if j.label.outcome == outcome]


def test_a_non_finite_value_is_found_at_its_very_step(found):
    assert found.summary("nonfinite")["onsets"] == 20
    assert found.summary("nonfinite")["onset_error_max"] == 0


def test_at_most_one_healthy_run_alarms(found):
    assert len(found.false_alarms) <= 1, found.false_alarms
