"""What the monitor itself raises: told once, counted as a check that did not run, or strict."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import Monitor, Status
from ml_systems_debugger.attribution import AttributionEngine
from ml_systems_debugger.core import Outcome
from ml_systems_debugger.detectors import NaNDetectionDetector
from ml_systems_debugger.monitoring import MonitorWarning
from ml_systems_debugger.monitoring._probe import Probe

Broken = Callable[[Monitor, pytest.MonkeyPatch], str]


class PlantedError(RuntimeError):
    """Raised on purpose."""


def boom(*_: Any, **__: Any) -> Any:
    raise PlantedError("planted")


def _detector(method: str) -> Broken:
    def broken(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
        patch.setattr(NaNDetectionDetector, method, boom)
        return "nan_detection"

    return broken


def _probe(method: str) -> Broken:
    def broken(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
        one = Probe()
        patch.setattr(one, method, boom, raising=False)
        monitor._probes.add(one)
        return Probe.what

    return broken


def _intake(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(monitor._intake, "_put", boom)
    return "observing a step"


def _recorder_write(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(monitor._recorder, "write", boom)
    return "the flight recorder"


def _recorder_close(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(monitor._recorder, "close", boom)
    return "closing the flight recorder"


def _callback(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(monitor._actions, "_on_finding", boom)
    return "calling on_finding"


def _save(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(monitor._actions, "_save", boom)
    return "calling save"


def _drain(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(monitor._judges, "update", boom)
    return "judging what was measured"


def _state(monitor: Monitor, patch: pytest.MonkeyPatch) -> str:
    state = next(s for d, s in monitor._judges._folds if d.name == "nan_detection")
    patch.setattr(type(state), "to_bytes", boom)
    return "nan_detection"


STAGES: dict[str, Broken] = {
    "fold": _detector("update"), "conclusion of a fold": _detector("conclude"),
    "probe's metrics": _probe("metrics"), "probe": _probe("put"),
    "probe's conclusions": _probe("conclusions"), "intake": _intake,
    "recorder": _recorder_write, "recorder's end": _recorder_close, "callback": _callback,
    "save": _save, "judging": _drain, "state": _state,
}  # fmt: skip


def train(monitor: Monitor) -> None:
    """Take steps, one of them not finite; report, save the state, go on, close."""
    rng = np.random.default_rng(0)
    for step in range(60):
        loss = float("nan") if step == 40 else 1.0 + 0.01 * rng.normal()
        monitor.step(loss)
        if step == 50:
            monitor.report()
            monitor.state_dict()
    monitor.close()


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_ends_the_training(
    stage: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = Monitor(action="none", recorder=str(tmp_path / "run.ring"))
    what = STAGES[stage](monitor, monkeypatch)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(monitor)
        report = monitor.report()
    own = [str(one.message) for one in told if issubclass(one.category, MonitorWarning)]
    assert len([text for text in own if what in text]) == 1, own
    assert "PlantedError: planted" in " ".join(own)
    failed = {r.detector_name: r for r in report.detections if r.outcome is Outcome.FAILED}
    assert what in failed
    assert "planted" in failed[what].reason
    assert report.status is not Status.HEALTHY


@pytest.mark.parametrize("stage", STAGES)
def test_strict_lets_each_stage_raise(
    stage: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = Monitor(action="none", recorder=str(tmp_path / "run.ring"), strict=True)
    STAGES[stage](monitor, monkeypatch)
    with pytest.raises(PlantedError, match="planted"):
        train(monitor)


@pytest.mark.parametrize("strict", [False, True])
def test_attribution(strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttributionEngine, "attribute", boom)
    monitor = Monitor(action="none", strict=strict)
    if strict:
        with pytest.raises(PlantedError, match="planted"):
            train(monitor)
        return
    train(monitor)
    report = monitor.report()
    assert any("attribution failed" in text for text in report.unread)
    assert report.status is not Status.HEALTHY


@pytest.mark.parametrize("broken", ["on_finding", "save"])
def test_what_a_callback_raises_leaves_the_action_as_it_was(broken: str) -> None:
    options: dict[str, Any] = {broken: boom}
    monitor = Monitor(action="stop", **options)
    with pytest.warns(MonitorWarning, match=f"calling {broken} failed"):
        found = monitor.observe(0, loss=float("nan"))
    assert monitor.should_stop
    assert found == monitor.findings


def test_the_other_checks_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _detector("update")(Monitor(), monkeypatch)
    monitor = Monitor(action="none")
    with pytest.warns(MonitorWarning, match="nan_detection failed"):
        found = monitor.observe(0, loss=float("inf"))
    assert [str(one.failure_mode) for one in found] == ["inf_detected"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("where", ["_entered", "_left_forward", "replay", "conclusions", "hook"])
def test_a_trace(where: str, strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from ml_systems_debugger.monitoring import _trace_monitor
    from ml_systems_debugger.monitoring._measures import Gradients

    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    monitor = Monitor(model, optimizer, action="none", trace=True, strict=strict)
    if where == "_entered":
        monkeypatch.setattr(_trace_monitor, "RandomState", boom)
    elif where == "_left_forward":
        monkeypatch.setattr(_trace_monitor, "_outputs", boom)
    elif where == "hook":
        monkeypatch.setattr(Gradients, "read", boom)
    else:
        monkeypatch.setattr(_trace_monitor.Tracer, where, boom)

    def go() -> None:
        for step in range(4):
            x = torch.full((3, 4), float("nan") if step == 2 else 1.0)
            optimizer.zero_grad()
            loss = model(x).sum()
            loss.backward()
            optimizer.step()
            monitor.step(loss=loss)
        monitor.report()

    if strict:
        with pytest.raises(PlantedError, match="planted"):
            go()
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", MonitorWarning)
        go()
    own = [str(one.message) for one in told]
    assert any("planted" in text for text in own)
    assert len(own) == len(set(own))
    # What a hook did not keep, the replay cannot use: that is told as well.
    failed = [r for r in monitor.report().detections if r.outcome is Outcome.FAILED]
    assert len(failed) == len(own) <= 2


def test_a_damaged_state_is_refused_whatever_is_asked() -> None:
    monitor = Monitor(action="none")
    saved = monitor.state_dict()
    saved["folds"] = dict.fromkeys(saved["folds"], "!!")
    with pytest.raises(ValueError, match="state"):
        Monitor(action="none").load_state_dict(saved)
