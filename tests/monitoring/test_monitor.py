"""The monitor without a framework: findings in time, restarts, states, errors, actions."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    BaseDetector,
    ConfigurationError,
    FailureMode,
    Finding,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
    Status,
)
from ml_systems_debugger.core import DetectionResult
from ml_systems_debugger.kernels import l2_norm
from ml_systems_debugger.monitoring import FaultFound, Monitor, MonitorWarning
from ml_systems_debugger.monitoring._measures import MakeKey
from ml_systems_debugger.monitoring._probe import Probe
from ml_systems_debugger.monitoring._steps import StepBuffer


def losses(seed: int, n: int = 400) -> Any:
    rng = np.random.default_rng(seed)
    return 2 * np.exp(-np.arange(n) / 60) + 0.4 + rng.normal(0, 0.02, n)


def gradients(rng: Any, scale: float = 1.0) -> dict[str, Any]:
    return {
        f"layer.{k}": (scale * rng.normal(0, 0.01, (8, 8))).astype(np.float32) for k in range(5)
    }


def watched(monitor: Monitor, n: int = 200, bad: int | None = None) -> list[tuple[int, Finding]]:
    rng = np.random.default_rng(0)
    found = []
    for step, loss in enumerate(losses(1, n)):
        held = gradients(rng)
        if bad is not None and step >= bad:
            held["layer.2"][3, 3] = np.inf
        new = monitor.observe(step, loss=loss, gradients=held, lr=1e-3)
        found += [(step, one) for one in new]
    found += [(n, one) for one in monitor.close()]
    return found


def test_a_bad_gradient_is_told_in_its_own_step_with_its_layer() -> None:
    found = watched(Monitor(action="none"), bad=120)
    first = [one for step, one in found if step == 120]
    assert {one.failure_mode for one in first} == {FailureMode.INF_DETECTED}
    assert "layer.2" in {one.layer for one in first}
    assert all(one.onset_step == 120 for one in first)


def test_a_healthy_run_is_silent() -> None:
    assert watched(Monitor(action="none")) == []


def test_a_jump_is_told_within_twenty_steps() -> None:
    monitor, rng = Monitor(action="none"), np.random.default_rng(2)
    told = None
    for step, loss in enumerate(losses(3)):
        blown = step >= 250
        found = monitor.observe(
            step, loss=loss * (50 if blown else 1), gradients=gradients(rng, 100 if blown else 1)
        )
        if found and told is None:
            told = step
    assert told is not None
    assert 250 <= told <= 270


def test_the_report_tells_causes() -> None:
    monitor = Monitor(action="none")
    watched(monitor, bad=120)
    report = monitor.report()
    assert report.status is Status.FAILURES
    assert report.attributions
    json.loads(report.to_json())


def test_a_state_saved_in_the_middle_goes_on_without_an_alarm() -> None:
    first, whole = Monitor(action="none"), Monitor(action="none")
    values = losses(4)
    for step in range(200):
        first.observe(step, loss=values[step])
    saved = json.loads(json.dumps(first.state_dict()))
    second = Monitor(action="none")
    second.load_state_dict(saved)
    values[300:] = np.nan
    for step in range(200, 400):
        second.observe(step, loss=values[step])
    for step in range(400):
        whole.observe(step, loss=values[step])
    assert [f.to_dict() for f in first.findings + second.findings] == [
        f.to_dict() for f in whole.findings
    ]
    with pytest.raises(ValueError, match="version 7"):
        second.load_state_dict({"version": 7})


def test_going_back_is_a_restart_and_no_fault() -> None:
    monitor, values = Monitor(action="none"), losses(5)
    for step in [*range(150), *range(100, 300)]:
        monitor.observe(step, loss=values[step])
    assert monitor.close() == []
    assert monitor.findings == []


def steady(monitor: Monitor, start: int, stop: int, bad: int | None = None) -> None:
    for step in range(start, stop):
        monitor.observe(step, loss=1.0 if bad is None or step < bad else float("nan"))


@dataclass(frozen=True)
class Broken(BaseDetector):
    """Raises at its second look."""

    failure_mode = FailureMode.LOSS_SPIKE
    required_signals = ("loss",)

    def detect(self, signals: Any, context: Any = None) -> DetectionResult:
        return DetectionResult(self.failure_mode, False, 0.0, detector_name=self.name)

    def update(self, state: Any, chunk: Any) -> Any:
        raise RuntimeError("no such luck")

    def conclude(self, state: Any) -> DetectionResult:
        return self.detect([])


def test_a_check_that_fails_is_said_once_and_ends_nothing() -> None:
    monitor = Monitor(detectors=[Broken()], every=16, action="none")
    with pytest.warns(MonitorWarning, match="broken failed.*no such luck"):
        steady(monitor, 0, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steady(monitor, 40, 80)
    report = monitor.report()
    assert [d.outcome for d in report.failed_checks] == [Outcome.FAILED]
    assert report.status is Status.INCOMPLETE
    strict = Monitor(detectors=[Broken()], every=16, action="none", strict=True)
    with pytest.raises(RuntimeError, match="no such luck"):
        steady(strict, 0, 40)


def test_what_cannot_be_measured_is_said_once_and_ends_nothing() -> None:
    monitor = Monitor(action="none")
    with pytest.warns(MonitorWarning, match="observing a step failed"):
        monitor.observe(0, loss="much")
    assert monitor.observe(1, loss=0.5) == []
    with pytest.raises(ValueError, match="much"):
        Monitor(action="none", strict=True).observe(0, loss="much")


def test_actions() -> None:
    called: list[Finding] = []
    saved: list[int] = []
    monitor = Monitor(action="raise", on_finding=called.append, save=lambda: saved.append(1))
    with pytest.raises(FaultFound, match="loss is NaN") as raised:
        steady(monitor, 0, 60, bad=50)
    assert raised.value.findings[0].onset_step == 50
    assert len(saved) == 1
    assert called
    monitor = Monitor(action="stop", at_least="low")
    monitor.observe(0, loss=float("nan"))
    assert monitor.should_stop
    monitor = Monitor(action="warn", at_least=Severity.LOW)
    with pytest.warns(RuntimeWarning, match=r"\[\w+\] loss is NaN"):
        monitor.observe(0, loss=float("nan"))
    with pytest.raises(ConfigurationError, match="action is one of"):
        Monitor(action="shout")


def test_parameters_that_stand_still_are_measured() -> None:
    monitor, rng = Monitor(action="none", every=400, update_every=5), np.random.default_rng(0)
    held = {"a": rng.normal(size=(100, 100)), "b": rng.normal(size=50)}
    for step in range(30):
        held["a"] = held["a"] * 1.001
        monitor.observe(step, loss=1.0, parameters=held)
    run = monitor._intake.buffer.drain()
    moved = {s.key.layer: s.values for s in run.select("update_ratio")}
    assert moved["a"] == pytest.approx(1.001**5 - 1, rel=1e-6)
    assert (moved["b"] == 0).all()


@pytest.mark.parametrize("fault", ["none", "explodes", "vanishes", "breaks", "freezes"])
def test_what_is_watched_is_judged_as_what_was_recorded(fault: str) -> None:
    """The same detectors see the same run, in tables of some steps or as whole series."""
    rng, monitor = np.random.default_rng(7), Monitor(action="none", every=16, update_every=3)
    values = losses(6, 330)
    held = {f"layer.{k}": rng.normal(0, 1, (8, 8)) for k in range(5)}
    told: dict[SeriesKey, list[tuple[int, float]]] = {}
    before: dict[str, Any] = {}
    for step, loss in enumerate(values):
        grads = gradients(rng)
        if step >= 200:
            late = step - 200
            for name in list(grads) if fault == "vanishes" else ["layer.3"]:
                grads[name] *= {"explodes": 1e4, "vanishes": 1e-9}.get(fault, 1.0)
            if fault == "breaks" and (late < 3 or late > 40):
                grads["layer.1"][0, 0] = np.nan
        if step == 100:
            del grads["layer.4"]  # one that is missing once
        for name in held:
            if not (fault == "freezes" and name == "layer.2" and step > 120):
                held[name] = held[name] * (1 + 1e-3 * rng.normal())
        monitor.observe(step, loss=loss, lr=1e-3, gradients=grads, parameters=held)
        norms = {name: l2_norm(g) for name, g in grads.items()}
        put = [("loss", None, loss), ("lr", None, 1e-3)]
        put += [("grad_norm", name, norm) for name, norm in norms.items()]
        put.append(("grad_norm", None, float(np.sqrt(np.square(list(norms.values())).sum()))))
        if step % 3 == 0:
            put += [("param_norm", name, l2_norm(x)) for name, x in held.items()]
            put += [
                ("update_ratio", name, float(np.linalg.norm(held[name] - x) / np.linalg.norm(x)))
                for name, x in before.items()
            ]
            before = dict(held)
        for quantity, layer, value in put:
            told.setdefault(SeriesKey(quantity, layer=layer), []).append((step, value))
    run = SignalSet(
        Series(key, np.array([s for s, _ in pairs]), np.array([v for _, v in pairs]))
        for key, pairs in told.items()
    )
    monitor.close()
    live = {d.detector_name: d for d in monitor.report().detections}
    assert len(live) >= 10
    for detector in monitor._debugger.detectors:
        whole = detector.detect(run)
        if detector.name not in live:
            assert whole.outcome is Outcome.NOT_APPLICABLE
            continue
        seen = live[detector.name]
        assert [f.finding_id for f in seen.findings] == [f.finding_id for f in whole.findings]
        assert [f.severity for f in seen.findings] == [f.severity for f in whole.findings]
        assert [f.onset_step for f in seen.findings] == [f.onset_step for f in whole.findings]
        assert (seen.outcome, seen.judged) == (whole.outcome, whole.judged)
    modes = {f.failure_mode for d in live.values() for f in d.findings}
    expected = {
        "explodes": FailureMode.EXPLODING_GRADIENTS, "breaks": FailureMode.NAN_DETECTED,
        "freezes": FailureMode.FROZEN_PARAMETERS,
    }  # fmt: skip
    assert expected.get(fault) in {*modes, None}


class Counts(Probe):
    what = "counting"

    def __init__(self, fails_at: int = 10**9) -> None:
        self.step, self.fails_at, self.detached = -1, fails_at, 0

    def metrics(self) -> dict[str, float]:
        return {"lr": 0.5}

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:
        self.step += 1
        if self.step >= self.fails_at:
            raise RuntimeError("no more")
        buffer.put(key("grad_norm", "a"), float("nan") if self.step == 3 else 1.0)
        return self.step == 3

    def detach(self) -> None:
        self.detached += 1


def test_a_probe_measures_beside_the_loop() -> None:
    monitor, probe = Monitor(action="none"), Counts()
    monitor._probes.add(probe)
    found = [monitor.step(1.0) for _ in range(4)]
    assert not any(found[:3])
    assert (found[3][0].layer, found[3][0].onset_step) == ("a", 3)
    monitor.close()
    assert probe.detached


def test_a_probe_that_fails_is_left_out_and_told_once() -> None:
    monitor, probe = Monitor(action="none"), Counts(fails_at=1)
    monitor._probes.add(probe)
    monitor.step(1.0)
    with pytest.warns(MonitorWarning, match="counting failed and is left out: RuntimeError"):
        monitor.step(1.0)
    monitor.step(1.0)  # a second warning would be an error
    assert probe.step == 1
    assert len(monitor._intake.buffer.drain().named("loss")[0].values) == 3
    failed = [r for r in monitor.report().detections if r.outcome is Outcome.FAILED]
    assert [(r.detector_name, r.reason) for r in failed] == [("counting", "RuntimeError: no more")]
    strict = Monitor(action="none", strict=True)
    strict._probes.add(Counts(fails_at=0))
    with pytest.raises(RuntimeError, match="no more"):
        strict.step(1.0)


def test_activations_that_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monitor = Monitor(action="none", every=1)
    chunks: list[Any] = []
    monkeypatch.setattr(monitor._judges, "update", lambda chunk, **_: chunks.append(chunk) or [])
    given = {"act": np.maximum(rng.normal(size=(16, 8)), 0), "none": np.zeros(0)}
    monitor.observe(0, loss=1.0, activations=given)
    monitor.observe(1, loss=1.0)
    monitor.observe(2, loss=1.0, activations=[given["act"].astype(np.float32)])
    found = {(one.key.name, one.key.layer): one.values.tolist() for one in chunks[0].series}
    assert found["activation_zero_fraction", "act"] == [float(np.mean(given["act"] == 0))]
    assert found["activation_std", "act"] == pytest.approx([given["act"].std()])
    assert ("activation_std", "none") not in found
    assert "activation_std" not in chunks[1].names
    assert [one.key.layer for one in chunks[2].named("activation_std")] == ["0"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_activation_that_is_not_finite_is_told_in_its_step(bad: float) -> None:
    rng = np.random.default_rng(0)
    monitor = Monitor(action="none")
    for step in range(41):
        given = {"first": rng.normal(size=(4, 4)), "last": rng.normal(size=(4, 2))}
        if step == 40:
            given["last"][1, 1] = bad
        found = monitor.observe(step, loss=1.0, activations=given)
        assert bool(found) == (step == 40)
    assert {(one.layer, one.onset_step) for one in found} == {("last", 40)}
