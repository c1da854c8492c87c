"""The monitor in a plain loop that Accelerate prepares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

from ml_systems_debugger import Monitor  # noqa: E402
from ml_systems_debugger.ingestion import open_source  # noqa: E402
from ml_systems_debugger.monitoring import FaultFound  # noqa: E402

MICRO = 40


def train(
    folder: Path, accumulate: int = 1, scaler: Any = None, bad: int | None = None,
    clip: float | None = None, **options: Any,
) -> tuple[Monitor, dict[str, Any], list[float]]:  # fmt: skip
    """The documented loop; micro-batch `bad` has gradients that are not finite."""
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model, optimizer = accelerator.prepare(model, optimizer)
    if scaler is not None:  # what mixed_precision="fp16" makes on an accelerator
        accelerator.scaler = scaler
        optimizer = accelerate.optimizer.AcceleratedOptimizer(optimizer.optimizer, scaler=scaler)
        accelerator._optimizers = [optimizer]
        bare = optimizer.optimizer
        accelerator.unscale_gradients = lambda *_: scaler.unscale_(bare)  # as fp16 has it do
    path = folder / "run.ring"
    monitor = Monitor(model, optimizer, recorder=str(path), **{"action": "none", **options})
    norms, losses = [], []
    for micro in range(MICRO):
        x = torch.randn(16, 4)
        with accelerator.accumulate(model):
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            if scaler is not None:
                loss = loss * 16  # the first scales are too large for it
            if micro == bad:
                loss = loss * float("inf")
            losses.append(loss.detach())
            accelerator.backward(loss)
            if accelerator.sync_gradients and clip is not None:
                norms.append(float(accelerator.clip_grad_norm_(model.parameters(), clip)))
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            monitor.step(loss=torch.stack(losses).mean())
            losses.clear()
        if monitor.should_stop:
            break
    monitor.close()
    return monitor, {str(one.key): one for one in open_source(path).series}, norms


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_healthy_training_is_silent(accumulate: int, tmp_path: Path) -> None:
    monitor, series, norms = train(tmp_path, accumulate, clip=0.5, strict=True)
    assert monitor.findings == []
    steps = MICRO // accumulate
    assert series["loss"].steps.tolist() == list(range(steps))
    assert series["grad_norm"].values.tolist() == pytest.approx(norms, rel=1e-5)
    assert "clipped_grad_norm" in series
    assert set(series["lr"].values) == {1e-2}


def test_it_stops_at_the_step(tmp_path: Path) -> None:
    monitor, series, _ = train(tmp_path, 2, bad=21, action="stop")
    assert {f.onset_step for f in monitor.findings} == {10}
    assert series["loss"].steps.tolist() == list(range(11))


def test_raise_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(FaultFound):
        train(tmp_path, bad=12, action="raise")


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_scaler_that_leaves_a_step_out(clip: float | None, tmp_path: Path) -> None:
    """The first steps overflow until the scale fits; that is no fault, and shifts nothing."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    monitor, series, _ = train(tmp_path, scaler=scaler, clip=clip)
    scales = series["loss_scale"].values
    assert scales[0] < 2.0**127, "the first step was left out"
    assert series["loss"].steps.tolist() == list(range(MICRO))
    left_out = series["skipped_step"].values.tolist()
    assert left_out[0] == 1.0
    assert sum(left_out) < 10
    assert series["grad_norm"].steps.tolist() == [k for k in range(MICRO) if not left_out[k]]
    assert series["grad_norm"].values.max() < 1e4, "not the scaled ones"
    assert [f for f in monitor.findings if f.severity >= "medium"] == []


def test_accelerates_wrapper_need_not_be_taken_off() -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    model = torch.nn.Linear(4, 1)
    bare = torch.optim.SGD(model.parameters(), 1e-2)
    model, wrapped = accelerator.prepare(model, bare)
    with Monitor(model, wrapped, action="none", strict=True, trace=True) as monitor:
        model(torch.ones(2, 4)).sum().backward()
        wrapped.step()
        monitor.step(loss=1.0)
        assert monitor.gradients_finite
