"""Simulated healthy runs of 10,000 steps: how often all detectors together raise an alarm.

python benchmarks/healthy_runs.py [--runs 1000]

Losses fall to a floor at any pace, with noise that is normal, of Student's t with
three degrees, or slow (AR(0.9)); drifts, steps down, gradient norms that follow,
constant, warmed-up and stepped rates, evaluations and step times.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from ml_systems_debugger import MLSystemsDebugger, Series, SeriesKey, SignalSet

STEPS = 10_000


def noise(g: np.random.Generator, kind: str) -> np.ndarray:
    if kind == "t3":
        return g.standard_t(3, STEPS) / np.sqrt(3)
    fresh = g.normal(size=STEPS)
    if kind == "normal":
        return fresh
    slow = np.empty(STEPS)
    slow[0] = fresh[0]
    for at in range(1, STEPS):
        slow[at] = 0.9 * slow[at - 1] + np.sqrt(1 - 0.81) * fresh[at]
    return slow


def run(seed: int) -> SignalSet:
    """Make one healthy run."""
    g, at = np.random.default_rng(seed), np.arange(STEPS)
    kind = str(g.choice(["normal", "t3", "ar"]))
    floor = g.uniform(0.05, 2)
    level = floor + g.uniform(0.5, 8) * np.exp(-at / g.uniform(200, 4000))
    if g.random() < 0.3:
        level *= np.where(at > g.integers(3000, 8000), g.uniform(0.6, 0.95), 1)
    level *= 1 + g.uniform(-0.03, 0.03) * at / STEPS
    loss = level * np.exp(g.uniform(0.01, 0.2) * noise(g, kind))
    norm = np.exp(g.uniform(0.1, 0.4) * noise(g, kind)) * (level / floor) ** g.uniform(-0.3, 0.7)
    base, schedule = 10 ** g.uniform(-5, -2), int(g.integers(3))
    shapes = (
        np.ones(STEPS),
        np.minimum(1, (at + 1) / 500) * (0.1 + 0.45 * (1 + np.cos(np.pi * at / STEPS))),
        0.3 ** (at // (STEPS // 3)),
    )
    held = at[199::200]
    return SignalSet(
        [
            Series(SeriesKey("loss"), at, loss),
            Series(SeriesKey("grad_norm"), at, norm),
            Series(SeriesKey("lr"), at, base * shapes[schedule]),
            Series(SeriesKey("loss", "val"), held, level[held] * g.lognormal(0, 0.02, len(held))),
            Series(SeriesKey("step_time"), at, 0.1 * g.lognormal(0, 0.1, STEPS)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    given = parser.parse_args()
    debugger = MLSystemsDebugger()
    worst: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    for seed in range(given.runs):
        report = debugger.debug(run(seed))
        worst[str(report.worst_severity or "nothing")] += 1
        alarms.update(f"{d.detector_name} {d.severity}" for d in report.failures)
    for name, count in sorted(worst.items()):
        print(f"{name}: {count} of {given.runs} runs")
    print(", ".join(f"{name}: {count}" for name, count in alarms.most_common()))


if __name__ == "__main__":
    main()
