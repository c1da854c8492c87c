"""Tensors on a device: the same series and findings as on the CPU, one step later, unwaited for."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import FailureMode
from ml_systems_debugger.core import SeriesKey
from ml_systems_debugger.monitoring import Monitor

torch = pytest.importorskip("torch", reason="torch is not installed")

from devices_at_hand import CpuAsDevice, on_device  # noqa: E402 - needs torch
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402 - likewise

READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique"}


class NoReads(TorchDispatchMode):
    """Fails at every operation that makes the host wait for a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        assert name not in READS, f"{func} waits for the device"
        kwargs = kwargs or {}
        if name == "_to_copy" and kwargs.get("device") is not None:
            assert kwargs.get("non_blocking"), "a copy that is waited for"
        return func(*args, **kwargs)


def network(width: int = 16) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, width), torch.nn.ReLU(),
        torch.nn.Linear(width, 1),
    )  # fmt: skip


def train(
    steps: int, devices: CpuAsDevice | None, bad: int | None = None, frozen: int | None = None,
    fused: bool = False, **more: Any,
) -> tuple[Monitor, list[tuple[int, Any]], Any]:  # fmt: skip
    """Train a small network; return its monitor, what was found at which step, and the model."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, fused=fused)
    monitor = Monitor(model, optimizer, action="none", **more)
    if devices is not None:
        on_device(monitor, devices)
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
        if frozen is not None and step >= frozen:
            optimizer.param_groups[0]["lr"] = 0.0
        optimizer.step()
        found += [(step, one) for one in monitor.step(loss=loss)]
    return monitor, found, model


def series(monitor: Monitor) -> dict[Any, Any]:
    return {
        one.key: (np.asarray(one.steps), np.asarray(one.values)) for one in monitor.signals().series
    }


def told(findings: Any) -> list[Any]:
    return [(f.failure_mode, f.severity, f.onset_step, f.layer) for f in findings]


def same(first: Monitor, second: Monitor, but: tuple[str, ...] = ()) -> None:
    a, b = (
        {key: one for key, one in series(monitor).items() if key.name not in but}
        for monitor in (first, second)
    )
    assert a.keys() == b.keys()
    for key, (steps, values) in a.items():
        np.testing.assert_array_equal(steps, b[key][0], err_msg=str(key))
        np.testing.assert_allclose(values, b[key][1], rtol=1e-6, err_msg=str(key))


@pytest.mark.parametrize("lag", [0, 1, 5])
@pytest.mark.parametrize("bad", [None, 25])
def test_series_and_findings_are_those_of_the_cpu(tmp_path: Any, bad: Any, lag: int) -> None:
    by_cpu, on_cpu, _ = train(60, None, bad, recorder=str(tmp_path / "cpu"))
    devices = CpuAsDevice(lag)
    late, found, _ = train(60, devices, bad, recorder=str(tmp_path / "device"))
    assert not any(copy.waited for copy in devices.copies)
    statuses = late.report().status, by_cpu.report().status
    same(by_cpu, late)
    assert statuses[0] == statuses[1]
    assert told(late.findings) == told(by_cpu.findings)
    if bad is not None:
        assert on_cpu[0][0] == bad
        step, first = found[0]
        assert (step, first.onset_step) == (bad + lag, bad)  # told later, of its own step
        assert first.failure_mode is FailureMode.NAN_DETECTED
    by_cpu.close()
    late.close()


def test_nothing_is_waited_for() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), torch.tensor(1e-2))  # its own step reads none
    monitor = on_device(Monitor(model, optimizer, action="none", update_every=2))
    g = torch.Generator().manual_seed(1)
    for _ in range(40):
        x = torch.randn(32, 8, generator=g)
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        with NoReads():
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            monitor._model.measure()
            monitor.step(loss=loss, grad_norm=norm, lr=optimizer.param_groups[0]["lr"])
        with torch.no_grad():
            for one in model.parameters():
                one -= 1e-2 * one.grad
    assert len(monitor._intake.late) == 1
    assert not any(copy.waited for copy in monitor._intake.devices.copies)
    monitor.report()
    assert len(monitor._intake.late) == 0
    assert monitor._troubles.told == {}
    monitor.close()


def test_the_guard_sees_a_read() -> None:
    with NoReads(), pytest.raises(AssertionError, match="waits"):
        float(torch.ones(1))


def test_what_is_under_way_is_bounded_and_kept_in_order(tmp_path: Any) -> None:
    by_cpu, _, _ = train(100, None, 40, recorder=str(tmp_path / "cpu"))
    devices = CpuAsDevice(lag=10**6)
    late, found, _ = train(100, devices, 40, recorder=str(tmp_path / "device"))
    assert late._intake.late.waited == 36  # 64 may be under way
    assert len(late._intake.late) == 64
    assert found == []
    closed = late.close()
    assert closed[0].onset_step == 40
    assert all(copy.waited for copy in devices.copies)
    by_cpu.close()


def test_a_model_on_several_devices(tmp_path: Any) -> None:
    by_cpu, _, _ = train(40, None, recorder=str(tmp_path / "cpu"))
    some = CpuAsDevice(which=lambda one: one.ndim != 2)  # biases and losses are on the device
    late, _, _ = train(40, some, recorder=str(tmp_path / "device"))
    late.report()
    same(by_cpu, late)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_with_a_bad_gradient_is_left_out(fused: bool) -> None:
    *_, by_cpu = train(60, None, 30, skip_nonfinite=True, fused=fused)
    monitor, found, model = train(60, CpuAsDevice(), 30, skip_nonfinite=True, fused=fused)
    assert found[0][1].onset_step == 30
    for one, other in zip(model.parameters(), by_cpu.parameters(), strict=True):
        assert torch.equal(one, other)
        assert bool(one.isfinite().all())
    assert not hasattr(monitor._model._optimizer, "found_inf")
    monitor.close()


def test_a_fused_optimizer_is_told_without_waiting() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, fused=True)
    monitor = on_device(Monitor(model, optimizer, action="none", skip_nonfinite=True))
    model(torch.ones(3, 8)).sum().backward()
    with NoReads():
        optimizer.step()
        monitor.step()
    before = [one.detach().clone() for one in model.parameters()]
    model[0].weight.grad[0, 0] = float("inf")
    with NoReads():
        optimizer.step()
    assert all(map(torch.equal, before, model.parameters()))
    monitor.close()


def test_gradients_that_are_not_cleared() -> None:
    found = []
    for devices in (None, CpuAsDevice()):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 1e-4)
        monitor = Monitor(model, optimizer, action="none")
        if devices is not None:
            on_device(monitor, devices)
        g = torch.Generator().manual_seed(1)
        for _ in range(12):
            for _ in range(2):  # adding up over two passes is no fault
                loss = (model(torch.randn(32, 8, generator=g)) - 1).square().mean()
                with contextlib.nullcontext() if devices is None else NoReads():
                    loss.backward()
            optimizer.step()
            monitor.step(loss=loss)
        monitor.close()
        assert monitor._troubles.told == {}
        found.append(told(monitor.findings))
    assert found[0] == found[1]
    assert FailureMode.STALE_GRADIENTS in {one[0] for one in found[0]}


class Scaler:
    """What a gradient scaler leaves with a fused optimizer, on the device."""

    def __init__(self, optimizer: Any, scale: float) -> None:
        self.optimizer, self.scale = optimizer, torch.tensor(scale)

    def step(self) -> None:
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
        bad = torch.stack([~one.isfinite().all() for one in gradients]).any()
        self.optimizer.found_inf, self.optimizer.grad_scale = bad.float(), self.scale
        self.optimizer.step()
        del self.optimizer.found_inf, self.optimizer.grad_scale


@pytest.mark.parametrize("skip", [False, True])
def test_a_scale_is_taken_off_and_steps_of_the_scaler_are_its_own(
    tmp_path: Any, skip: bool
) -> None:
    monitors = []
    for devices in (None, CpuAsDevice()):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        path = str(tmp_path / str(devices is None))
        monitor = Monitor(model, optimizer, action="none", recorder=path, skip_nonfinite=skip)
        if devices is not None:
            on_device(monitor, devices)
        scaler = Scaler(optimizer, 1024.0)
        g = torch.Generator().manual_seed(1)
        for step in range(24):
            x = torch.randn(32, 8, generator=g)
            optimizer.zero_grad()
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            (loss * scaler.scale).backward()
            if step == 10:
                model[0].weight.grad[0, 0] = float("inf")
            scaler.step()
            monitor.step(loss=loss)
        monitor.report()
        assert monitor._troubles.told == {}
        assert not hasattr(optimizer, "found_inf")
        monitors.append(monitor)
    # Where a look falls on a step that is left out, the next one is known a step later.
    same(*monitors, but=("param_norm", "update_ratio"))
    looks = [series(one)[SeriesKey("update_ratio", None, "0.weight")][0] for one in monitors]
    assert looks[0].tolist() == [11, 21]
    assert looks[1].tolist() == [12, 22]
    by_cpu, late = (told(one.findings) for one in monitors)
    assert by_cpu == late


def test_observe_takes_what_is_on_a_device() -> None:
    rng = np.random.default_rng(0)
    monitor = on_device(Monitor(action="none"))
    plain = Monitor(action="none")
    found = []
    for step in range(50):
        arrays = {"a": rng.normal(size=(4, 5)), "b": rng.normal(size=7)}
        if step == 30:
            arrays["b"][2] = np.inf
        tensors = {name: torch.from_numpy(one) for name, one in arrays.items()}
        weights = {name: one + step * 1e-3 for name, one in tensors.items()}
        found += monitor.observe(
            step, loss=torch.tensor(1.0 / (step + 1)), gradients=tensors, parameters=weights
        )
        plain.observe(step, loss=1.0 / (step + 1), gradients=arrays, parameters=weights)
    assert found[0].onset_step == 30
    monitor.close()
    plain.close()
    assert told(monitor.findings) == told(plain.findings) != []


def test_a_restart_closes_what_came_before() -> None:
    monitor = on_device(Monitor(action="none"), CpuAsDevice(lag=3))
    for step in (*range(20), *range(10, 30)):
        monitor.observe(step, loss=torch.tensor(1.0 + 0.01 * step))
    assert monitor._intake.segment == 1
    monitor.close()
    assert len(monitor._intake.late) == 0


def test_a_state_holds_what_was_under_way() -> None:
    monitor = on_device(Monitor(action="none"), CpuAsDevice(lag=3))
    for step in range(20):
        monitor.observe(step, loss=torch.tensor(float("nan") if step == 19 else 1.0))
    saved = monitor.state_dict()
    assert saved["step"] == 19
    assert [f.onset_step for f in monitor.findings] == [19]


def test_a_trace_waits_for_its_step() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    monitor = on_device(Monitor(model, optimizer, action="none", trace=True), CpuAsDevice(lag=9))
    x = torch.randn(16, 8)
    for step in range(6):
        if step == 4:
            x[2, 2] = float("nan")
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        found = monitor.step(loss=loss)
        assert bool(found) == (step == 4) or step > 4
        if step == 4:
            assert monitor._tracer is not None
            assert len(monitor._tracer.results) == 1
    monitor.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu() -> None:
    model = network().cuda()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    monitor = Monitor(model, optimizer, action="none")
    for step in range(40):
        x = torch.randn(32, 8, device="cuda")
        if step == 30:
            x[3, 3] = float("nan")
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimizer.step()
            monitor.step(loss=loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    monitor.close()
    assert monitor.findings[0].onset_step == 30
