"""What the monitor hangs on torch: an error of its own ends neither a step nor a backward pass."""

from __future__ import annotations

from typing import Any

import pytest

from ml_systems_debugger.monitoring import _replica_times
from ml_systems_debugger.monitoring._hooks import Hooks
from ml_systems_debugger.monitoring._probe import Probe, Probes

torch = pytest.importorskip("torch", reason="torch is not installed")


class PlantedError(RuntimeError):
    """Raised on purpose."""


def boom(*_: Any) -> None:
    raise PlantedError("planted")


class Held:
    """A probe with hooks on a small model, and what was told of it."""

    def __init__(self, strict: bool = False) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-2)
        self.strict, self.told = strict, []
        self.probe, self.probes = Probe(), Probes(self.failed)
        self.probes.add(self.probe)
        self.hooks = Hooks(self.probe, self.probes)
        self.probe.detach = self.hooks.detach  # type: ignore[method-assign]

    def failed(self, what: str, error: Exception) -> None:
        if self.strict:
            raise error
        self.told.append((what, str(error)))

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.ones(4, 3)).sum().backward()
        self.optimizer.step()


@pytest.mark.parametrize("place", ["forward", "backward", "before the step", "after the step"])
def test_the_first_error_is_told_and_the_hooks_rest(place: str) -> None:
    held, calls = Held(), []
    register = {
        "forward": held.model.register_forward_hook,
        "backward": held.model.weight.register_hook,
        "before the step": held.optimizer.register_step_pre_hook,
        "after the step": held.optimizer.register_step_post_hook,
    }[place]
    held.hooks.add(register, boom)
    held.hooks.add(register, lambda *_: calls.append(1))  # torch has hooks left to call
    for _ in range(3):
        held.step()
    assert held.told == [("a probe", "planted")]
    assert held.probe.failed
    assert not calls
    held.probes.detach()
    assert not held.optimizer._optimizer_step_pre_hooks
    assert not held.model._forward_hooks


def test_strict_lets_it_through() -> None:
    held = Held(strict=True)
    held.hooks.add(held.optimizer.register_step_pre_hook, boom)
    with pytest.raises(PlantedError):
        held.step()


def test_what_a_hook_returns_changes_nothing() -> None:
    held = Held()
    held.hooks.add(held.model.register_forward_hook, lambda *_: torch.zeros(4, 2))
    assert held.model(torch.ones(4, 3)).abs().sum() > 0


def test_timing_the_work_of_a_rank_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    work = _replica_times.OwnWork(held.model, held.optimizer, held.hooks)
    work.look = True
    monkeypatch.setattr(_replica_times, "_norm", boom)
    for _ in range(3):
        held.step()
    assert held.told == [("a probe", "planted")]
