"""The diagnose door: a run of 100,000 steps against plain loops and against NumPy.

The baselines do much less than the detectors: NaN, Inf, a jump over a running
mean and a flat end. They stand here for what a user would write by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ml_systems_debugger as mlsd

STEPS = 100_000


@pytest.fixture(scope="module")
def run() -> dict[str, np.ndarray[Any, Any]]:
    """A healthy run: a noisy falling loss and a log-normal gradient norm."""
    rng = np.random.default_rng(0)
    loss = 0.3 + 2.0 * np.exp(-np.arange(STEPS) / (STEPS / 5)) + rng.normal(0, 0.05, STEPS)
    return {"loss": loss, "grad_norm": np.exp(rng.normal(0, 0.3, STEPS))}


def plain_loops(run: dict[str, list[float]]) -> list[str]:
    """What a script without NumPy would look for."""
    found = []
    for name, values in run.items():
        mean = values[0]
        for step, value in enumerate(values):
            if value != value or value in (float("inf"), float("-inf")):
                found.append(f"{name} is not finite at {step}")
                break
            if step > 100 and value > 10 * mean:
                found.append(f"{name} jumps at {step}")
                break
            mean += 0.01 * (value - mean)
    tail = run["loss"][-1000:]
    if max(tail) - min(tail) < 1e-3:
        found.append("flat")
    return found


def with_numpy(run: dict[str, np.ndarray[Any, Any]]) -> list[str]:
    """The same in NumPy, with a moving mean."""
    found = []
    for name, values in run.items():
        if not np.isfinite(values).all():
            found.append(f"{name} is not finite at {np.argmax(~np.isfinite(values))}")
        means = np.convolve(values, np.full(100, 0.01), "valid")[:-1]
        if (values[100:] > 10 * means).any():
            found.append(f"{name} jumps")
    if np.ptp(run["loss"][-1000:]) < 1e-3:
        found.append("flat")
    return found


@pytest.mark.benchmark(group="diagnose 100,000 steps x 2 metrics")
def test_diagnose(benchmark: Any, run: dict[str, np.ndarray[Any, Any]]) -> None:
    report = benchmark(mlsd.MLSystemsDebugger().debug, run)
    assert report.status.value == "healthy"


@pytest.mark.benchmark(group="diagnose 100,000 steps x 2 metrics")
def test_pure_python(benchmark: Any, run: dict[str, np.ndarray[Any, Any]]) -> None:
    assert benchmark(plain_loops, {name: values.tolist() for name, values in run.items()}) == []


@pytest.mark.benchmark(group="diagnose 100,000 steps x 2 metrics")
def test_numpy(benchmark: Any, run: dict[str, np.ndarray[Any, Any]]) -> None:
    assert benchmark(with_numpy, run) == []
