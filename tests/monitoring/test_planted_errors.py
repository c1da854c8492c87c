"""Wherever the monitor raises: the training goes on as without it, and it is told once."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from planted_errors import Place, Run, places, shown, train, wrong


@pytest.fixture(scope="module")
def alone() -> Run:
    return train()


@pytest.mark.parametrize("call", [1, 7])
@pytest.mark.parametrize("place", places(), ids=shown)
def test_an_error_anywhere_is_told_and_changes_nothing(alone: Run, place: Place, call: int) -> None:
    assert wrong(train(place, call), alone) == []


def test_what_is_measured_kept_and_judged_is_among_the_places() -> None:
    names = {shown(place) for place in places()}
    assert names >= {"Gradients.read", "StepBuffer.drain", "Recorder.write", "Budget.step"}
    assert len(names) > 150
