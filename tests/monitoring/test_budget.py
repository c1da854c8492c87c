"""The overhead budget: what is given up for it, in what order, and that it comes back."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import ConfigurationError, FailureMode
from ml_systems_debugger.monitoring import Monitor
from ml_systems_debugger.monitoring._budget import Budget


class Clock:
    """Steps whose training takes a second, and whose watching takes what it is told to."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.cost, self.now = budget, 0.0, 0.0

    def run(self, steps: int, dear: float, cheap: float = 0.0) -> int:
        """Take steps at which measuring gradients costs `dear`; return how often it changed."""
        changed = 0
        for _ in range(steps):
            own = cheap + (dear if self.budget.due(self.budget._steps) else 0.0)
            self.cost += own
            self.now += 1.0 + own
            changed += self.budget.step(self.cost, self.now)
        return changed


def test_without_a_budget_nothing_changes() -> None:
    clock = Clock(Budget(None, 16, 10, False))
    assert clock.run(500, dear=5.0) == 0
    assert "at every step" in str(clock.budget)
    assert clock.budget.to_dict()["share"] is None


def test_it_settles_below_the_budget_and_measures_no_less_than_needed() -> None:
    clock = Clock(Budget(0.01, 16, 10, False))
    clock.run(3000, dear=0.05)
    budget = clock.budget
    assert budget.share is not None
    assert budget.share <= 0.01
    assert budget.gradients_every in (8, 16)
    assert budget.every == 16
    assert budget.update_every > 10
    assert f"every {budget.gradients_every} steps" in str(budget)
    assert budget.since < 1500


def test_movements_go_before_gradients() -> None:
    budget = Budget(0.01, 16, 10, False)
    clock = Clock(budget)
    clock.run(80, dear=0.0, cheap=0.012)
    assert (budget.gradients_every, budget.update_every) == (1, 20)


def test_what_was_given_up_comes_back() -> None:
    clock = Clock(Budget(0.01, 16, 10, False))
    clock.run(1000, dear=0.1)
    assert clock.budget.gradients_every > 1
    clock.run(20_000, dear=0.0001)
    assert clock.budget.gradients_every == 1
    assert clock.budget.update_every == 10


def test_the_first_window_sets_up_and_does_not_count() -> None:
    clock = Clock(Budget(0.01, 16, 10, False))
    clock.run(33, dear=10.0)
    assert clock.run(500, dear=0.001) == 0


def test_gradients_that_are_needed_are_always_measured() -> None:
    clock = Clock(Budget(0.001, 16, 10, True))
    clock.run(2000, dear=1.0)
    assert clock.budget.gradients_every == 1
    assert "more than the 0.10% allowed" in str(clock.budget)
    assert "less cannot be done" in str(clock.budget)


def test_a_level_that_cannot_be_held_does_not_swing(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "ml_systems_debugger.monitoring")
    clock = Clock(Budget(0.01, 16, 10, False))
    clock.run(20_000, dear=0.03)
    assert len(caplog.records) <= 6
    assert "gradients are measured" in caplog.records[0].getMessage()


class Ticking:
    """A clock under the monitor: reading gradients takes a second, a step of training one."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    clock = Ticking()
    from ml_systems_debugger.monitoring import _measures, monitor

    def dear(owners: Any, norms: Any, there: Any, **more: Any) -> float:
        clock.now += 1.0
        return live_norms(owners, norms, there, **more)

    live_norms = _measures.live_norms
    monkeypatch.setattr(monitor.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(_measures, "live_norms", dear)
    return clock


def run(monitor: Monitor, clock: Ticking, start: int, stop: int, bad: int | None = None) -> Any:
    rng = np.random.default_rng(start)
    found = []
    for step in range(start, stop):
        gradients = {f"l{k}": rng.normal(0, 0.1, 8).astype(np.float32) for k in range(3)}
        loss = 1 / (1 + step / 50) + 0.01 * rng.random()
        if bad is not None and step >= bad:
            gradients["l1"][2] = np.nan
            loss = np.nan if step > bad else loss
        clock.now += 1.0
        found += [(step, f) for f in monitor.observe(step, loss=loss, gradients=gradients)]
    return found


def test_a_monitor_keeps_to_its_budget_and_says_so(ticking: Ticking) -> None:
    monitor = Monitor(action="none", overhead=0.02)
    assert run(monitor, ticking, 0, 2500) == []
    assert monitor.budget.gradients_every == 64
    assert monitor.budget.every == 128
    share = monitor.budget.share
    assert share is not None
    assert share <= 0.02
    before = monitor.cost
    run(monitor, ticking, 2500, 3012)
    assert monitor.cost - before <= 0.02 * 512
    told = monitor.report().metadata["monitoring"]
    assert told["gradients_every"] == 64
    assert told["budget"] == 0.02
    assert "every 64 steps" in told["text"]


def test_a_fault_is_found_between_two_measurements(ticking: Ticking) -> None:
    monitor = Monitor(action="none", overhead=0.02)
    run(monitor, ticking, 0, 2500)
    found = run(monitor, ticking, 2500, 2520, bad=2510)
    # The gradient of that step was not looked at; the loss tells one step later, and from
    # then on every gradient is.
    assert found[0][0] == 2511
    assert {f.failure_mode for _, f in found} == {FailureMode.NAN_DETECTED}
    assert min(step for step, f in found if f.layer == "l1") == 2512


def test_bad_budgets_are_refused() -> None:
    for bad in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(ConfigurationError, match="overhead"):
            Monitor(overhead=bad)
