"""What an older prototype of this architecture got wrong, each as a test.

Its eighth failure, time and memory, is a benchmark: `benchmarks/million_steps.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import ml_systems_debugger as mlsd
from ml_systems_debugger import BaseDetector, Severity, Signal, Status


def falling(n: int, sigma: float, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    rng = np.random.default_rng(seed)
    return 0.3 + 2.0 * np.exp(-np.arange(n) / (n / 5)) + rng.normal(0, sigma, n)


def high(report: mlsd.DebugReport) -> bool:
    return report.worst_severity is not None and report.worst_severity >= Severity.HIGH


def test_a_nan_loss_is_found_though_nobody_flagged_it() -> None:
    signals = [Signal("loss", float("nan") if step == 30 else 1.0, step=step) for step in range(60)]
    report = mlsd.diagnose(signals)
    assert [d.onset_step for d in report.failures] == [30]


def test_a_jump_is_measured_against_what_came_before_it_not_with_it() -> None:
    rng = np.random.default_rng(0)
    norms = np.exp(rng.normal(0, 0.2, 400))
    norms[300:] *= 200
    report = mlsd.diagnose({"grad_norm": norms})
    found = [d for d in report.failures if d.failure_mode == "exploding_gradients"]
    assert found
    assert found[0].onset_step == 300


def test_the_whole_history_is_looked_at_not_the_last_step() -> None:
    loss = falling(500, 0.02, 0)
    loss[100:140] = np.nan
    report = mlsd.diagnose({"loss": loss})
    assert report.failures[0].onset_step == 100
    assert report.failures[0].end_step == 139


def test_noisy_healthy_losses_raise_no_alarm() -> None:
    alarms = sum(high(mlsd.diagnose({"loss": falling(300, 0.05, seed)})) for seed in range(200))
    assert alarms <= 2


def test_equal_distributions_are_not_skewed() -> None:
    rng = np.random.default_rng(0)
    detector = mlsd.TrainingServingSkewDetector()
    alarms = 0
    for _ in range(200):
        sides = {"reference": {"x": rng.normal(size=500)}, "serving": {"x": rng.normal(size=500)}}
        alarms += detector.detect([], sides).detected
    assert alarms <= 2


def test_thirty_times_the_deviation_at_the_same_mean_is_skewed() -> None:
    rng = np.random.default_rng(0)
    sides = {"reference": {"x": rng.normal(size=500)}, "serving": {"x": 30 * rng.normal(size=500)}}
    found = mlsd.TrainingServingSkewDetector().detect([], sides)
    assert found.detected
    assert found.evidence["kind"] == "scale"


def test_float32_values_are_not_dropped() -> None:
    values = [np.float32(1.0)] * 40 + [np.float32("nan")] * 5
    report = mlsd.diagnose([Signal("loss", value, step=i) for i, value in enumerate(values)])
    assert report.failures[0].onset_step == 40


def test_a_crash_of_its_own_is_not_healthy() -> None:
    class Crashes(BaseDetector):
        failure_mode = "overfitting"

        def get_required_signals(self) -> list[str]:
            return ["loss"]

        def detect(self, signals: Any, context: Any = None) -> mlsd.DetectionResult:
            raise RuntimeError("the planted fault")

    report = mlsd.MLSystemsDebugger().add_detector(Crashes()).debug({"loss": falling(300, 0.02, 0)})
    assert report.status is Status.INCOMPLETE
    assert "the planted fault" in str(report)
