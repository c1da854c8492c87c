"""Planted spikes in noisy losses, and slow noise of replicas: what is found, what alarms.

python benchmarks/recall_in_noise.py
"""

from __future__ import annotations

import numpy as np

from ml_systems_debugger import Series, SeriesKey, SignalSet
from ml_systems_debugger.core import BaseDetector
from ml_systems_debugger.detectors import StragglerEffectDetector
from ml_systems_debugger.detectors.loss_spike import LossSpikeDetector

SPIKES, JOBS, STEPS = 40, 60, 2000


def alarms(detector: BaseDetector, signals: SignalSet) -> bool:
    severity = detector.detect(signals).severity
    return severity is not None and severity >= "medium"


def spiky(seed: int, steps: int, factor: float) -> SignalSet:
    loss = 2 * np.exp(0.08 * np.random.default_rng(seed).normal(size=steps))
    loss[int(0.7 * steps)] *= factor
    return SignalSet([Series(SeriesKey("loss"), np.arange(steps), loss)])


def slow(g: np.random.Generator, steps: int) -> np.ndarray:
    """Return AR(0.9) noise of unit deviation."""
    fresh, held = g.normal(size=steps + 200), np.zeros(steps + 200)
    for at in range(1, len(held)):
        held[at] = 0.9 * held[at - 1] + np.sqrt(0.19) * fresh[at]
    return held[200:]


def job(seed: int, replicas: int, kind: str, later: float) -> SignalSet:
    g = np.random.default_rng(seed)
    size = np.where(np.arange(STEPS) < STEPS // 2, 0.1, 0.1 * later)
    return SignalSet(
        [
            Series(
                SeriesKey("step_time", replica_id=replica),
                np.arange(STEPS),
                0.4 * np.exp(size * (slow(g, STEPS) if kind == "slow" else g.normal(size=STEPS))),
            )
            for replica in range(replicas)
        ]
    )


def main() -> None:
    for steps in (500, 2000, 10_000):
        found = [
            sum(alarms(LossSpikeDetector(), spiky(seed, steps, f)) for seed in range(SPIKES))
            for f in (1.0, 2.0, 3.0, 5.0, 10.0)
        ]
        print(f"loss_spike, {steps} steps, 1, 2, 3, 5, 10 times the level: {found} of {SPIKES}")
    for kind, later in (("slow", 1.0), ("slow", 3.0), ("normal", 3.0)):
        found = [
            sum(alarms(StragglerEffectDetector(), job(s, n, kind, later)) for s in range(JOBS))
            for n in (2, 3, 4, 8)
        ]
        print(f"straggler_effect, {kind} noise, then times {later:g}: {found} of {JOBS}")


if __name__ == "__main__":
    main()
