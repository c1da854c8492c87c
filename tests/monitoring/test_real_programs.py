"""Real training programs with one planted fault: told in time, its producer named; twins silent."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from live_programs import PROGRAMS, Program, named_rightly, run  # noqa: E402 - needs torch

# A monitor for small, short runs: movements are measured at every step. With its defaults (every
# tenth) a frozen layer takes 80 steps; benchmarks/README.md has both.
CLOSE: dict[str, Any] = {"every": 8, "update_every": 1}
NON_FINITE = [kind for kind in PROGRAMS if kind.producer]
# Gradients that are never cleared are told after 31 steps: the rules wait for 32 values.
LATE = pytest.mark.xfail(reason="told after 31 steps, not within 20", strict=True)
LASTING = [
    pytest.param(kind, marks=LATE if kind.__name__ == "NotZeroed" else ())
    for kind in PROGRAMS
    if not kind.producer
]


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


@pytest.mark.parametrize("kind", LASTING, ids=label)
def test_what_lasts_is_told_within_twenty_steps(kind: type[Program]) -> None:
    seen = run(kind, 0, True, **CLOSE)
    when = seen.first(kind.modes, kind.onset)
    assert when is not None
    assert when - kind.onset <= kind.within
    assert [step for step, _ in seen.alarms() if step < kind.onset] == []


@pytest.mark.parametrize("kind", PROGRAMS, ids=label)
def test_the_healthy_twin_is_silent(kind: type[Program]) -> None:
    seen = run(kind, 0, False, **CLOSE)
    assert seen.alarms() == []
    assert seen.traced == ()


def test_a_wrong_producer_is_seen() -> None:
    kind = NON_FINITE[0]
    other = next(one for one in NON_FINITE if one.__name__ == "BadBatch")
    assert named_rightly(other, run(kind, 0, True).traced[0]) != []
