"""Wherever the monitor raises: the training goes on as without it, and it is told once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")

from planted_errors import Place, Run, places, shown, train, wrong


@pytest.fixture(scope="module")
def alone() -> Run:
    return train()


@given(place=st.sampled_from(places()), call=st.integers(1, 24))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_error_anywhere_is_told_and_changes_nothing(alone: Run, place: Place, call: int) -> None:
    run = train(place, call)
    assert wrong(run, alone) == [], shown(place)


def test_what_is_measured_kept_and_judged_is_among_the_places() -> None:
    names = {shown(place) for place in places()}
    assert names >= {"Gradients.read", "StepBuffer.drain", "Recorder.write", "Budget.step"}
    assert len(names) > 150
