"""States of real torch optimizers that stop being finite while the gradients are well."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from ml_systems_debugger import FailureMode, Finding, RootCause
from ml_systems_debugger.monitoring import Monitor

torch = pytest.importorskip("torch", reason="torch is not installed")

TURNS = 32  # every state is looked at within so many steps


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Linear(16, 1)
    )


def train(
    monitor: Monitor, model: Any, optimizer: Any, steps: int,
    disturb: Callable[[int], None] = lambda step: None,
) -> list[tuple[int, Finding]]:  # fmt: skip
    g = torch.Generator().manual_seed(1)
    found = []
    for step in range(steps):
        x = torch.randn(32, 8, generator=g)
        optimizer.zero_grad()
        loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        disturb(step)
        optimizer.step()
        found += [(step, one) for one in monitor.step(loss=loss)]
    return found


def states(found: list[tuple[int, Finding]]) -> list[tuple[int, Finding]]:
    return [(step, one) for step, one in found if "state" in one.evidence]


def test_a_square_that_overflows_is_found_while_the_run_looks_well() -> None:
    """An infinite second moment stops its weight for good; loss and gradients stay finite."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none")

    def disturb(step: int) -> None:
        if step == 40:  # finite, and its square is beyond float32
            model[2].weight.grad[3, 5] = 1e25

    told = states(train(monitor, model, optimizer, 70, disturb))
    assert [one.layer for _, one in told] == ["2.weight"]
    step, one = told[0]
    assert 40 <= step <= 40 + TURNS
    assert one.failure_mode is FailureMode.INF_DETECTED
    assert (one.evidence["state"], one.evidence["index"]) == ("exp_avg_sq", (3, 5))
    assert one.evidence["onset_low"] <= 40 <= one.evidence["onset_high"] == one.onset_step
    assert monitor.report().attributions[0].cause is RootCause.NUMERICAL_OVERFLOW


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9), "momentum_buffer"),
        (lambda p: torch.optim.AdamW(p, 1e-3), "exp_avg"),
        (lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True), "max_exp_avg_sq"),
        (lambda p: torch.optim.RMSprop(p, 1e-3), "square_avg"),
        (lambda p: torch.optim.Adagrad(p, 1e-3), "sum"),
    ],
)
def test_a_state_that_is_damaged_is_named(make: Callable[[Any], Any], key: str) -> None:
    """The weights are bad after it, the gradients at the next step: states are looked at first."""
    model = network()
    optimizer = make(model.parameters())
    monitor = Monitor(model, optimizer, action="none")

    def disturb(step: int) -> None:
        if step == 30:
            optimizer.state[model[2].weight][key][3, 5] = float("nan")

    told = states(train(monitor, model, optimizer, 50, disturb))
    assert key in [one.evidence["state"] for _, one in told]
    assert {one.layer for _, one in told} == {"2.weight"}
    for step, one in told:
        assert step in (30, 31)
        assert one.onset_step == 30
        assert one.failure_mode is FailureMode.NAN_DETECTED


@pytest.mark.parametrize("skip", [False, True])
def test_what_a_bad_gradient_leaves_is_the_finding_of_the_gradient(skip: bool) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none", skip_nonfinite=skip)

    def disturb(step: int) -> None:
        if step == 30:
            model[2].weight.grad[0, 0] = float("nan")

    found = train(monitor, model, optimizer, 60, disturb)
    assert found
    assert states(found) == []


def test_a_loss_scale_that_is_sought_leaves_the_states_well() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=20)
    monitor = Monitor(model, optimizer, action="none")
    g = torch.Generator().manual_seed(1)
    skipped = 0
    for _ in range(120):
        x = torch.randn(32, 8, generator=g)
        optimizer.zero_grad()
        loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        skipped += scaler.get_scale() < before
        assert not [one for one in monitor.step(loss=loss) if "state" in one.evidence]
    assert 1 <= skipped < 120
    assert all("state" not in one.evidence for one in monitor.close())


def told_of_damage(
    monitor: Monitor, model: Any, optimizer: Any, key: str
) -> list[tuple[str | None, str]]:
    """Return layer and state of what is found within its turn where one value becomes infinite."""

    def disturb(step: int) -> None:
        if step == 3:
            optimizer.state[model[2].weight][key][3, 5] = float("inf")

    told = states(train(monitor, model, optimizer, 3 + TURNS + 1, disturb))
    return [(one.layer, one.evidence["state"]) for _, one in told]


class MadeAnew(torch.optim.SGD):
    """Keeps an average that is another tensor after every step."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for one in group["params"]:
                held = self.state[one].get("average", torch.zeros_like(one))
                self.state[one]["average"] = 0.9 * held + 0.1 * one.grad
        return loss


def test_states_that_are_made_anew_are_seen_and_not_kept() -> None:
    model = network()
    optimizer = MadeAnew(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none")
    train(monitor, model, optimizer, 40)
    olds = [weakref.ref(of["average"]) for of in optimizer.state.values()]
    train(monitor, model, optimizer, 1)
    gc.collect()
    assert [old() for old in olds] == [None] * len(olds)

    assert told_of_damage(monitor, model, optimizer, "average") == [("2.weight", "average")]


def test_states_that_were_replaced_are_let_go() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none")
    train(monitor, model, optimizer, 40)
    olds = [weakref.ref(of["exp_avg"]) for of in optimizer.state.values()]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    gc.collect()
    assert [old() for old in olds] == [None] * len(olds)

    assert told_of_damage(monitor, model, optimizer, "exp_avg_sq") == [("2.weight", "exp_avg_sq")]
