"""Which parameters are measured out of turn, since they seem to stand still."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ml_systems_debugger import Monitor  # noqa: E402 - needs torch
from ml_systems_debugger.monitoring._standing import Standing, Starved  # noqa: E402 - likewise


class Run:
    """Three parameters that move by a hundredth a step, measured every ten steps."""

    def __init__(self, **rests: Any) -> None:
        self.parameters = [torch.ones(64), torch.ones(64), torch.ones(256)]
        self.standing = Standing()
        self.rests, self.extra, self.told = rests, [], []
        self.fed = np.ones(3)
        self.swapped = np.zeros(3, np.bool_)

    def go(self, steps: int) -> None:
        before = [p.clone() for p in self.parameters]
        last = 0
        for step in range(1, steps + 1):
            for at, p in enumerate(self.parameters):
                if not self.rests.get(f"p{at}", lambda _: False)(step):
                    p += 0.01
                elif at == 2:
                    p[:64] += 0.01  # an embedding: only some rows
            asked = self.standing.seems(self.parameters, self.fed, step, lambda: self.swapped)
            if asked or step >= last + 10:
                self.extra += [step] if asked else []
                moved = [float((p - b).norm() / b.norm())
                         for p, b in zip(self.parameters, before, strict=True)]  # fmt: skip
                before, last = [p.clone() for p in self.parameters], step
                if self.standing.measured(np.array(moved), step):
                    self.told.append(step)


def test_nothing_is_measured_out_of_turn_while_all_move() -> None:
    run = Run()
    run.go(500)
    assert run.extra == []


def test_one_that_stops_is_told_within_twenty_steps_and_once() -> None:
    for begin in range(61, 71):
        run = Run(p1=lambda step, begin=begin: step >= begin)
        run.go(300)
        (told,) = run.told
        assert told - begin <= 16
        assert len(run.extra) == 9


def test_windows_that_rest_while_the_tensor_moves_cost_less_and_less() -> None:
    run = Run(p2=lambda step: step >= 60)
    run.go(2000)
    assert run.told == []
    assert 2 <= len(run.extra) <= 14


def test_one_that_no_gradient_reaches_is_left_to_the_usual_measurements() -> None:
    run = Run(p1=lambda step: step >= 60)
    run.fed[1] = 0.0
    run.go(300)
    assert run.extra == []
    run = Run(p1=lambda step: step >= 60)
    run.fed[1], run.swapped[1] = 0.0, True
    run.go(300)
    assert len(run.told) == 1


def test_a_skipped_step_stops_all_and_is_none() -> None:
    rests = {f"p{at}": lambda step: 60 <= step < 90 for at in range(2)}
    run = Run(**rests)
    run.parameters.pop()
    run.fed, run.swapped = np.ones(2), np.zeros(2, np.bool_)
    run.go(100)
    assert run.extra == []


def test_the_monitor_names_a_parameter_that_was_replaced() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none")
    for step in range(70):
        if step == 50:
            model[0].weight = torch.nn.Parameter(model[0].weight.detach().clone())
        optimizer.zero_grad()
        (model(torch.randn(16, 8)) - 1).square().mean().backward()
        optimizer.step()
        found = monitor.step(loss=1.0)
        if found:
            break
    assert [(str(f.failure_mode), f.layer) for f in found] == [("frozen_parameters", "0.weight")]
    assert found[0].evidence["gradient"] is True
    assert step - 50 <= 20


def looks(gradients: list[list[float]], there: list[bool] | None = None) -> list[int]:
    starved = Starved()
    present = np.array([True] * len(gradients[0]) if there is None else there)
    return [
        step for step, norms in enumerate(gradients, 1)
        if starved.now(np.array(norms), present, step)
    ]  # fmt: skip


@pytest.mark.parametrize("begin", range(30, 35))
def test_a_gradient_that_became_zero_is_judged_once_and_soon(begin: int) -> None:
    (told,) = looks([[1.0, float(step < begin)] for step in range(1, 200)])
    assert 15 <= told - begin <= 19


def test_gradients_that_never_were_or_are_not_there_are_not_judged_for_that() -> None:
    assert looks([[1.0, 0.0]] * 100) == []
    assert looks([[1.0, float(step < 30)] for step in range(100)], [True, False]) == []
    assert looks([[1.0, float(step % 3)] for step in range(100)]) == []
