"""Missing zero_grad, told apart from the ways of clearing and adding up that are well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ml_systems_debugger import Monitor  # noqa: E402 - needs torch
from ml_systems_debugger.core import Outcome  # noqa: E402 - likewise

Loop = Callable[[Any, Any, Callable[[], Any], int], None]


def clear_to_none(model: Any, optimizer: Any, loss: Callable[[], Any], step: int) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def clear_to_zeros(model: Any, optimizer: Any, loss: Callable[[], Any], step: int) -> None:
    optimizer.zero_grad(set_to_none=False)
    loss().backward()
    optimizer.step()


def clear_by_data(model: Any, optimizer: Any, loss: Callable[[], Any], step: int) -> None:
    loss().backward()
    optimizer.step()
    for parameter in model.parameters():
        parameter.grad.data.zero_()  # moves no version counter


def add_up_four(model: Any, optimizer: Any, loss: Callable[[], Any], step: int) -> None:
    for _ in range(4):
        (loss() / 4).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def another_loss_between(model: Any, optimizer: Any, loss: Callable[[], Any], step: int) -> None:
    loss().backward()  # as a critic's pass leaves gradients in its generator
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def keep_grad(model: Any, optimizer: Any, loss: Callable[[], Any], step: int) -> None:
    optimizer.zero_grad()
    value = loss()
    value.retain_grad()
    value.backward(retain_graph=True)
    value.backward()
    optimizer.step()


def step_with_a_closure(model: Any, optimizer: Any, loss: Callable[[], Any], step: int) -> None:
    def closure() -> Any:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def forgotten(model: Any, optimizer: Any, loss: Callable[[], Any], step: int) -> None:
    loss().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def forgotten_while_adding_up(
    model: Any, optimizer: Any, loss: Callable[[], Any], step: int
) -> None:
    for _ in range(4):
        (loss() / 4).backward()
    optimizer.step()


def steps_that_tell(loop: Loop, **options: Any) -> tuple[list[int], Monitor]:
    """Train with a healthy loop for ten steps, then with `loop`; when was it told?"""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    monitor = Monitor(model, optimizer, action="none", **options)

    def loss() -> Any:
        return (model(torch.randn(16, 4)) - 1).square().mean()

    told = []
    for step in range(40):
        (clear_to_none if step < 10 else loop)(model, optimizer, loss, step)
        found = monitor.step(loss=1.0)
        told += [step for one in found if str(one.failure_mode) == "stale_gradients"]
    return told, monitor


WELL = [clear_to_none, clear_to_zeros, clear_by_data, add_up_four, another_loss_between, keep_grad,
        step_with_a_closure]  # fmt: skip


@pytest.mark.parametrize("loop", WELL, ids=lambda one: one.__name__)
def test_loops_that_clear_are_well(loop: Loop) -> None:
    told, monitor = steps_that_tell(loop)
    assert told == []
    monitor.close()


@pytest.mark.parametrize("loop", [forgotten, forgotten_while_adding_up], ids=lambda o: o.__name__)
def test_what_is_never_cleared_is_told_at_the_third_step(loop: Loop) -> None:
    told, monitor = steps_that_tell(loop)
    # Of the first such step the last good one left its gradients.
    assert told == [12]
    hypotheses = monitor.report().attributions
    assert "gradients_not_zeroed" in {str(one.cause) for one in hypotheses}
    assert monitor.report().to_dict()


def test_what_was_asked_and_found_is_judged() -> None:
    _, monitor = steps_that_tell(clear_to_none)
    (result,) = [r for r in monitor.report().detections if r.detector_name == "stale_gradients"]
    assert result.judged == ("carried_gradient",)


def test_a_closed_monitor_leaves_no_hook_behind() -> None:
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    with Monitor(model, optimizer, action="none") as monitor:
        for step in range(3):
            clear_to_none(model, optimizer, lambda: model(torch.ones(4)).sum(), step)
            monitor.step(loss=1.0)
        assert any(p._backward_hooks for p in model.parameters())
    assert not any(p._backward_hooks for p in model.parameters())
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_an_error_in_it_ends_no_training() -> None:
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    monitor = Monitor(model, optimizer, action="none")
    (probe,) = (one for one in monitor._probes if "carried over" in one.what)
    probe._follow = lambda: 1 / 0
    with pytest.warns(UserWarning, match="carried over failed.*ZeroDivisionError"):
        clear_to_none(model, optimizer, lambda: model(torch.ones(4)).sum(), 0)
    clear_to_none(model, optimizer, lambda: model(torch.ones(4)).sum(), 1)
    monitor.step(loss=1.0)
    assert "looking for gradients that are carried over" in {
        r.detector_name for r in monitor.report().detections if r.outcome is Outcome.FAILED
    }
