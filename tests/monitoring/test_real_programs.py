"""Real training programs with one planted fault: told in time, its producer named; twins silent."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from live_programs import PROGRAMS, Program, named_rightly, run  # noqa: E402 - needs torch

NON_FINITE = [kind for kind in PROGRAMS if kind.producer]
LASTING = [kind for kind in PROGRAMS if not kind.producer]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Small matrices in two threads take longer than in one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def label(kind: type[Program]) -> str:
    return kind.__name__


@pytest.mark.parametrize("kind", NON_FINITE, ids=label)
def test_what_is_not_finite_is_told_at_once_and_its_producer_named(kind: type[Program]) -> None:
    seen = run(kind, 0, True)
    when = seen.first(kind.modes, kind.onset)
    assert when is not None
    assert when - kind.onset <= kind.within
    assert [step for step, _ in seen.alarms() if step < kind.onset] == []
    assert named_rightly(kind, seen.traced[0]) == []
    assert str(seen.causes[0].cause) == kind.cause
    assert seen.causes[0].confidence >= 0.9


@pytest.mark.parametrize("kind", LASTING, ids=label)
def test_what_lasts_is_told_within_twenty_steps(kind: type[Program]) -> None:
    seen = run(kind, 0, True)
    when = seen.first(kind.modes, kind.onset)
    assert when is not None
    assert when - kind.onset <= kind.within
    assert [step for step, _ in seen.alarms() if step < kind.onset] == []
    assert kind.cause in ("", str(seen.causes[0].cause))


@pytest.mark.parametrize("kind", PROGRAMS, ids=label)
def test_the_healthy_twin_is_silent(kind: type[Program]) -> None:
    seen = run(kind, 0, False)
    assert seen.alarms() == []
    assert seen.traced == ()


def test_a_wrong_producer_is_seen() -> None:
    kind = NON_FINITE[0]
    other = next(one for one in NON_FINITE if one.__name__ == "BadBatch")
    assert named_rightly(other, run(kind, 0, True).traced[0]) != []
