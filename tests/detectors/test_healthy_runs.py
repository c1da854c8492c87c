"""Simulated healthy runs: how often the detectors on loss and gradients cry wolf."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger.core import Series, SeriesKey, Severity, SignalSet
from ml_systems_debugger.detectors import (
    DivergentTrainingDetector,
    GradientExplosionDetector,
    GradientVanishingDetector,
    LossPlateauDetector,
)

DETECTORS = (
    DivergentTrainingDetector(),
    GradientExplosionDetector(),
    GradientVanishingDetector(),
    LossPlateauDetector(),
)
RUNS = 400


def autoregressive(innovations: np.ndarray, memory: float = 0.9) -> np.ndarray:
    """Return AR(1) noise with the spread of the innovations."""
    scale = np.sqrt(1 - memory**2)
    found = np.empty_like(innovations)
    last = innovations[0]
    for at, value in enumerate(innovations.tolist()):
        last = memory * last + scale * value
        found[at] = last
    return found


def healthy_run(seed: int) -> SignalSet:
    """Make a run with a shape, a noise, a scale and a way of logging drawn by chance."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice([60, 200, 1000, 3000]))
    time = np.linspace(0, 1, size)
    start = 10 ** rng.uniform(-2, 3)
    floor = start * rng.uniform(0.02, 0.9)
    pace = 10 ** rng.uniform(-2, 0)
    fall = floor + (start - floor) * np.exp(-time / pace)
    shape = rng.integers(7)
    if shape == 1:  # step decays of the learning rate
        fall = floor + (start - floor) * sum(0.25 * (time < t) for t in (0.1, 0.3, 0.6, 0.8))
    elif shape == 2:  # a cyclic schedule
        fall = fall + 0.2 * (start - floor) * np.sin(2 * np.pi * 6 * time) ** 2 * np.exp(-2 * time)
    elif shape == 3:  # a warm-up in which nothing moves
        fall = floor + (start - floor) * np.exp(-np.clip(time - 0.2, 0, None) / pace)
    elif shape == 4:  # saw-toothed epochs
        fall = fall - 0.08 * fall * ((12 * time) % 1)
    elif shape == 5:  # below zero
        fall = fall - start
    elif shape == 6:  # a slow drift up again
        fall = fall + 0.05 * (start - floor) * np.clip(time - 0.5, 0, None)
    noise = rng.standard_t(3, size) if rng.random() < 0.5 else rng.normal(size=size)
    if rng.random() < 0.5:
        noise = autoregressive(noise)
    loss = fall + 10 ** rng.uniform(-3, -1) * start * noise
    norm = np.exp(rng.uniform(0.1, 0.6) * noise) * (0.2 + np.exp(-time / pace)) * start
    if rng.random() < 0.3:  # a few outliers
        loss[rng.integers(size, size=2)] += 30 * start
        norm[rng.integers(size, size=2)] *= 100
    steps = np.arange(size) * int(rng.choice([1, 10, 100]))
    return SignalSet(
        [Series(SeriesKey("loss"), steps, loss), Series(SeriesKey("grad_norm"), steps, norm)]
    )


@pytest.mark.parametrize("first", range(0, RUNS, 100))
def test_at_most_one_run_in_a_hundred_ends_high(first):
    alarms = [
        (seed, result.detector_name, result.message)
        for seed in range(first, first + 100)
        for result in (detector.detect(healthy_run(seed)) for detector in DETECTORS)
        if result.severity is not None and result.severity >= Severity.HIGH
    ]
    assert len(alarms) <= 1, alarms
