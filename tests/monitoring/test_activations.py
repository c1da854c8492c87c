"""Activations of a torch model: what is measured, dead units, values that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ml_systems_debugger.core import SignalSet  # noqa: E402 - torch first
from ml_systems_debugger.monitoring import Monitor  # noqa: E402


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 32)
        self.act = torch.nn.ReLU()
        self.last = torch.nn.Linear(32, 1)

    def forward(self, x: Any) -> Any:
        return self.last(self.act(self.first(x)))


def test_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Two()
    chunks: list[SignalSet] = []
    monitor = Monitor(model, activations=True, action="none", every=1)
    monkeypatch.setattr(monitor._judges, "update", lambda chunk, **_: chunks.append(chunk) or [])
    x = torch.randn(16, 8)
    expected = model.act(model.first(x)).detach().numpy()
    model(x)
    monitor.step(loss=1.0)
    model.eval()
    model(x)
    monitor.step(loss=1.0)
    monitor.close()
    model.train()
    model(x)
    (zeros,) = [
        one for one in chunks[0].named("activation_zero_fraction") if one.key.layer == "act"
    ]
    (spread,) = [one for one in chunks[0].named("activation_std") if one.key.layer == "act"]
    assert zeros.values[0] == np.mean(expected == 0)
    assert spread.values[0] == pytest.approx(expected.std(), rel=1e-5)
    assert {one.key.layer for one in chunks[0].named("activation_std")} == {"first", "act", "last"}
    assert "activation_std" not in chunks[1].names  # in evaluation nothing is
    assert not monitor._probes.metrics()


def test_dead_units_and_what_is_not_finite() -> None:
    torch.manual_seed(0)
    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    found: list[Any] = []
    with Monitor(model, optimizer, activations=True, action="none", on_finding=found.append) as m:
        for step in range(120):
            optimizer.zero_grad()
            x = torch.randn(32, 8)
            if step == 60:
                with torch.no_grad():
                    model.first.bias.fill_(-1e4)
            if step == 110:
                x[3, 2] = float("nan")
            loss = model(x).square().mean()
            loss.backward()
            if step < 110:
                optimizer.step()
            told = m.step(loss=loss)
            if step == 109:
                assert any(f.failure_mode.value == "dead_units" and f.layer == "act" for f in found)
            if step == 110:
                assert "first" in {f.layer for f in told if f.failure_mode.value == "nan_detected"}
                break
