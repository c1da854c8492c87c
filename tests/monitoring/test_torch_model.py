"""The monitor on a real torch loop."""

from __future__ import annotations

from typing import Any

import pytest

from ml_systems_debugger import FailureMode
from ml_systems_debugger.monitoring import Monitor

torch = pytest.importorskip("torch", reason="torch is not installed")


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU(),
        torch.nn.Linear(16, 1),
    )  # fmt: skip


def train(monitor: Monitor, model: Any, optimizer: Any, steps: int, bad: int | None = None) -> Any:
    g = torch.Generator().manual_seed(1)
    found = []
    for step in range(steps):
        x = torch.randn(32, 8, generator=g)
        y = x.sum(1, keepdim=True) + 0.1 * torch.randn(32, 1, generator=g)
        if step == bad:
            x[3, 3] = float("nan")
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        found += [(step, one) for one in monitor.step(loss=loss)]
    return found


def test_one_line_watches_a_loop() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none")
    assert train(monitor, model, optimizer, 150) == []
    found = train(monitor, model, optimizer, 30, bad=10)
    assert found[0][0] == 10
    assert found[0][1].failure_mode is FailureMode.NAN_DETECTED
    assert found[0][1].onset_step == 160
    assert {one.layer for _, one in found if one.layer} == {
        name for name, _ in model.named_parameters()
    }
    monitor.close()
    assert not optimizer._optimizer_step_pre_hooks


def test_a_step_with_a_bad_gradient_is_left_out() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none", skip_nonfinite=True)
    found = train(monitor, model, optimizer, 60, bad=30)
    assert found[0][0] == 30
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_norms_are_those_of_torch() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    monitor = Monitor(model, optimizer, action="none", every=100)
    x = torch.ones(4, 8)
    model(x).sum().backward()
    expected = {n: float(p.grad.norm()) for n, p in model.named_parameters()}
    total = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]))
    optimizer.step()
    monitor.step(loss=1.0)
    run = monitor._intake.buffer.drain()
    told = {s.key.layer: float(s.values[0]) for s in run.select("grad_norm")}
    assert told.pop(None) == pytest.approx(total, rel=1e-6)
    assert told == pytest.approx(expected, rel=1e-6)
    assert float(next(iter(run.select("lr"))).values[0]) == 1e-2
